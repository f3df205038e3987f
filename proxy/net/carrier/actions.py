"""What each action of the session does at the edge, but for bytes (the carrier's) and what is only told (`telling`).

One function an action, in one table; `Acts` is what they ask of the carrier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from proxy.net.relay.reading import SESSION_FULL
from proxy.smtp.session.events import (
    ClientTls,
    DeadlineNearer,
    DropServer,
    End,
    FinishServer,
    FreshConnection,
    NextDestination,
    ReadOn,
    ReleaseClient,
    ReleaseServer,
    ServerTls,
)

if TYPE_CHECKING:
    from proxy.net.carrier.looking import Onlooker
    from proxy.net.carrier.securing import Securing
    from proxy.net.going_out.dial import Dial
    from proxy.net.observer import Story
    from proxy.net.relay.connection import Connection


class Acts(Protocol):
    """The carrier, as far as the session may act on it."""

    client: Connection
    server: Connection | None
    dial: Dial | None
    story: Story
    onlooker: Onlooker

    def client_relays(self) -> None:
        """What the client sends is relayed from now on."""

    def server_relays(self) -> None:
        """What the server sends is, too: the session reads no more."""

    def read_on_later(self) -> None:
        """The session goes on with what the client has said when others have had their turn."""

    def look_at_deadline(self) -> None:
        """The session's may be nearer."""

    def half_closed(self) -> None:
        """One side was told that the other has ended."""

    def connect(self) -> None:
        """Dial, in place of what was dialled before."""

    def drop_server(self) -> None:
        """Close the connection to the server without a word."""

    def secure(self) -> Securing:
        """This session's handshakes."""

    def end(
        self, outcome: str, by: str, reason: str, *, reset_client: bool = False, reset_server: bool = False
    ) -> None:
        """The session is over."""


def release_client(carrier: Acts, action: ReleaseClient) -> None:
    carrier.client.let_go()
    carrier.client.resume(SESSION_FULL)  # the session has given out all that it held
    carrier.onlooker.client_let_go()
    carrier.client_relays()


def release_server(carrier: Acts, action: ReleaseServer) -> None:
    assert carrier.server is not None
    carrier.server.let_go()
    if action.tls and carrier.story.tls == "none":
        carrier.story.passes_through()
    carrier.onlooker.server_let_go(action.tls)
    carrier.server_relays()


def read_on(carrier: Acts, action: ReadOn) -> None:
    carrier.read_on_later()


def deadline_nearer(carrier: Acts, action: DeadlineNearer) -> None:
    carrier.look_at_deadline()


def finish_server(carrier: Acts, action: FinishServer) -> None:
    if carrier.server is not None:
        carrier.server.sender.finish(clean=carrier.client.end_was_clean)
    carrier.half_closed()


def next_destination(carrier: Acts, action: NextDestination) -> None:
    carrier.drop_server()
    assert carrier.dial is not None
    carrier.dial.next(action.reason)


def fresh_connection(carrier: Acts, action: FreshConnection) -> None:
    carrier.drop_server()
    carrier.connect()


def drop_server(carrier: Acts, action: DropServer) -> None:
    carrier.drop_server()


def server_tls(carrier: Acts, action: ServerTls) -> None:
    carrier.secure().server()


def client_tls(carrier: Acts, action: ClientTls) -> None:
    carrier.secure().client()


def end(carrier: Acts, action: End) -> None:
    carrier.end(
        action.outcome, action.by, action.reason, reset_client=action.reset_client, reset_server=action.reset_server
    )


DO: Final[dict[type[Any], Callable[[Acts, Any], None]]] = {
    ReleaseClient: release_client,
    ReleaseServer: release_server,
    ReadOn: read_on,
    DeadlineNearer: deadline_nearer,
    FinishServer: finish_server,
    NextDestination: next_destination,
    FreshConnection: fresh_connection,
    DropServer: drop_server,
    ServerTls: server_tls,
    ClientTls: client_tls,
    End: end,
}
