"""What each action of the session means at the edge, but for the bytes, which the carrier sends by itself.

One function an action, in one table; the carrier knows nothing of what they are.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from proxy.net.going_out.dial import Dial
from proxy.net.relay.reading import SESSION_FULL
from proxy.smtp.session.events import (
    ClientTls,
    DropServer,
    EhloReplied,
    End,
    FinishServer,
    Found,
    FreshConnection,
    Injected,
    NextDestination,
    ReleaseClient,
    ReleaseServer,
    SaidPrivately,
    ServerTls,
    StarttlsAnswered,
    XclientOffered,
)

if TYPE_CHECKING:
    from proxy.net.carrier.carrier import Carrier


def ehlo_replied(carrier: Carrier, action: EhloReplied) -> None:
    story = carrier.story
    result = action.result
    story.ehlo_judged(result, carrier.route.policy.repair.mode)
    if carrier.dial is not None:
        carrier.dial.succeeded()
    carrier.route.observer.ehlo_replied(story, result, action.seconds, "tls" if action.inside_tls else "clear")
    carrier.onlooker.repaired(result)


def starttls_answered(carrier: Carrier, action: StarttlsAnswered) -> None:
    carrier.route.observer.starttls_answered(carrier.story, action.result)


def injected(carrier: Carrier, action: Injected) -> None:
    carrier.route.observer.injected(carrier.story, action.event, action.detail)


def found(carrier: Carrier, action: Found) -> None:
    if action.repaired:
        carrier.story.also_repaired(action.finding)
    carrier.found += 1
    if carrier.found > MAX_FOUND:
        return
    carrier.route.observer.noticed(
        carrier.story,
        "ehlo-findings",
        "info",
        {
            "findings": [action.finding],
            "repaired": action.repaired,
            "before": list(action.lines),
            "after": list(action.after),
            "phase": action.phase,
        },
    )


def xclient_offered(carrier: Carrier, action: XclientOffered) -> None:
    carrier.route.say_xclient_remedy(carrier.story)


def said_privately(carrier: Carrier, action: SaidPrivately) -> None:
    carrier.route.observer.noticed(carrier.story, "xclient-asked", "debug", {"command": action.line})


def release_client(carrier: Carrier, action: ReleaseClient) -> None:
    carrier.client.let_go()
    carrier.client.resume(SESSION_FULL)  # the session has given out all that it held
    assert carrier.session is not None
    carrier.active_at = carrier.session.now
    carrier.onlooker.client_let_go()


def release_server(carrier: Carrier, action: ReleaseServer) -> None:
    server = carrier.server
    assert server is not None
    server.let_go()
    if action.tls and carrier.story.tls == "none":
        carrier.story.passes_through()
    carrier.onlooker.server_let_go(action.tls)
    carrier.forget_session()
    carrier.active_at = monotonic()
    carrier.set_deadline()


def finish_server(carrier: Carrier, action: FinishServer) -> None:
    if carrier.server is not None:
        carrier.server.sender.finish(clean=carrier.client.end_was_clean)
    carrier.half_closed()
    if carrier.client.relaying:
        carrier.set_deadline()


def next_destination(carrier: Carrier, action: NextDestination) -> None:
    carrier.drop_server()
    assert carrier.dial is not None
    carrier.dial.next(action.reason)


def fresh_connection(carrier: Carrier, action: FreshConnection) -> None:
    carrier.drop_server()
    if carrier.dial is not None:
        carrier.dial.cancel()
    story = carrier.story
    carrier.dial = Dial(carrier.route.dialer, carrier, (story.client, story.client_port), carrier.original, story)


def drop_server(carrier: Carrier, action: DropServer) -> None:
    carrier.drop_server()


def server_tls(carrier: Carrier, action: ServerTls) -> None:
    carrier.secure().server()


def client_tls(carrier: Carrier, action: ClientTls) -> None:
    carrier.secure().client()


def end(carrier: Carrier, action: End) -> None:
    carrier.end(
        action.outcome, action.by, action.reason, reset_client=action.reset_client, reset_server=action.reset_server
    )


MAX_FOUND: Final = 20  # findings outside of an EHLO reply that are told of one session; a server may send them for ever

# What only tells the observer: the peer need not wait for it.
TELLS: Final = frozenset({EhloReplied, StarttlsAnswered})

DO: Final[dict[type[Any], Callable[[Carrier, Any], None]]] = {
    EhloReplied: ehlo_replied,
    StarttlsAnswered: starttls_answered,
    Injected: injected,
    Found: found,
    XclientOffered: xclient_offered,
    SaidPrivately: said_privately,
    ReleaseClient: release_client,
    ReleaseServer: release_server,
    FinishServer: finish_server,
    NextDestination: next_destination,
    FreshConnection: fresh_connection,
    DropServer: drop_server,
    ServerTls: server_tls,
    ClientTls: client_tls,
    End: end,
}
