"""What the session only tells: the story, the observer and the transcript hear of it, and nothing follows from it.

One function an action, in one table; `Tells` is what they ask of the carrier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from proxy.smtp.reply.replies import code_of
from proxy.smtp.session.events import (
    EhloReplied,
    Found,
    Injected,
    SaidPrivately,
    StarttlsAnswered,
    XclientOffered,
)

if TYPE_CHECKING:
    from proxy.net.carrier.looking import Onlooker
    from proxy.net.carrier.shared import Shared
    from proxy.net.observer import Story


class Tells(Protocol):
    """The carrier, as far as something is told of it."""

    route: Shared
    story: Story
    onlooker: Onlooker

    def server_greeted(self) -> None:
        """The server works."""


def ehlo_replied(carrier: Tells, action: EhloReplied) -> None:
    carrier.server_greeted()
    route, story, result = carrier.route, carrier.story, action.result
    story.ehlo_judged(result, route.policy.repair.mode)
    route.observer.ehlo_replied(story, result, action.seconds, "tls" if action.inside_tls else "clear")
    carrier.onlooker.repaired(result)


def starttls_answered(carrier: Tells, action: StarttlsAnswered) -> None:
    carrier.route.observer.starttls_answered(carrier.story, action.result)
    if action.reply:
        line = action.reply.split(b"\n", 1)[0].rstrip(b"\r")
        finding = "starttls-refused" if code_of(line) >= 400 else "starttls-reply-code"
        found(carrier, Found(finding, (line,), False, (line,), "starttls"))


def injected(carrier: Tells, action: Injected) -> None:
    carrier.route.observer.injected(carrier.story, action.event, action.detail)


def found(carrier: Tells, action: Found) -> None:
    if action.repaired:
        carrier.story.also_repaired(action.finding)
    if not carrier.onlooker.finds():
        return
    fields: dict[str, object] = {
        "findings": [action.finding],
        "repaired": action.repaired,
        "before": list(action.lines),
        "after": list(action.after),
        "phase": action.phase,
    }
    carrier.route.observer.noticed(carrier.story, "ehlo-findings", "info", fields)


def xclient_offered(carrier: Tells, action: XclientOffered) -> None:
    carrier.route.say_xclient_remedy(carrier.story)


def said_privately(carrier: Tells, action: SaidPrivately) -> None:
    carrier.route.observer.noticed(carrier.story, "xclient-asked", "debug", {"command": action.line})


TELL: Final[dict[type[Any], Callable[[Tells, Any], None]]] = {
    EhloReplied: ehlo_replied,
    StarttlsAnswered: starttls_answered,
    Injected: injected,
    Found: found,
    XclientOffered: xclient_offered,
    SaidPrivately: said_privately,
}
