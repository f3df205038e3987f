"""What the session only tells: the story, the observer and the transcript hear of it, and nothing follows from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

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

MAX_FOUND: Final = 20  # findings outside of an EHLO reply that are told of one session; a server may send them for ever


class Telling:
    """Tells of one session."""

    __slots__ = ("_found", "_onlooker", "_route", "_story")

    def __init__(self, route: Shared, story: Story, onlooker: Onlooker) -> None:
        self._route = route
        self._story = story
        self._onlooker = onlooker
        self._found = 0  # findings outside of an EHLO reply

    def tell(self, action: object) -> None:
        """One of the actions of `TELL`."""
        TELL[type(action)](self, action)

    def _ehlo_replied(self, action: EhloReplied) -> None:
        story = self._story
        result = action.result
        story.ehlo_judged(result, self._route.policy.repair.mode)
        self._route.observer.ehlo_replied(story, result, action.seconds, "tls" if action.inside_tls else "clear")
        self._onlooker.repaired(result)

    def _starttls_answered(self, action: StarttlsAnswered) -> None:
        self._route.observer.starttls_answered(self._story, action.result)
        if action.reply:
            line = action.reply.split(b"\n", 1)[0].rstrip(b"\r")
            finding = "starttls-refused" if code_of(line) >= 400 else "starttls-reply-code"
            self._found_something(Found(finding, (line,), False, (line,), "starttls"))

    def _injected(self, action: Injected) -> None:
        self._route.observer.injected(self._story, action.event, action.detail)

    def _found_something(self, action: Found) -> None:
        if action.repaired:
            self._story.also_repaired(action.finding)
        self._found += 1
        if self._found > MAX_FOUND:
            return
        fields: dict[str, object] = {
            "findings": [action.finding],
            "repaired": action.repaired,
            "before": list(action.lines),
            "after": list(action.after),
            "phase": action.phase,
        }
        self._route.observer.noticed(self._story, "ehlo-findings", "info", fields)

    def _xclient_offered(self, action: XclientOffered) -> None:
        self._route.say_xclient_remedy(self._story)

    def _said_privately(self, action: SaidPrivately) -> None:
        self._route.observer.noticed(self._story, "xclient-asked", "debug", {"command": action.line})


TELL: Final[dict[type[Any], Callable[[Telling, Any], None]]] = {
    EhloReplied: Telling._ehlo_replied,
    StarttlsAnswered: Telling._starttls_answered,
    Injected: Telling._injected,
    Found: Telling._found_something,
    XclientOffered: Telling._xclient_offered,
    SaidPrivately: Telling._said_privately,
}
