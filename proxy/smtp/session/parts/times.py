"""When something is due of whom: the deadlines of the dialogue, each a span of the policy from a point in time.

The banner, from the connection; a whole reply, from its command; the client's next command, from the last reply; the
server's end, from its last word after the client has ended.  RFC 5321 4.5.3.2 has the spans.
"""

from __future__ import annotations

from proxy.smtp.session.parts.owed import Owed
from proxy.smtp.session.policy import SessionPolicy
from proxy.smtp.session.terms import BANNER_OR_NEXT, Reply


class Times:
    """When whoever is waited for is late."""

    __slots__ = ("_client_late_at", "_policy", "_server_late_at")

    def __init__(self, policy: SessionPolicy, now: float) -> None:
        self._policy = policy
        self._client_late_at = now + policy.command_timeout  # with its next command
        self._server_late_at = now  # with its end, once the client has ended

    def client_may_speak(self, now: float) -> None:
        """A reply is through, or something else has made it the client's turn."""
        self._client_late_at = now + self._policy.command_timeout

    def server_may_end(self, now: float) -> None:
        """It was told that the client has ended, or has said something since."""
        self._server_late_at = now + self._policy.half_closed_timeout

    def late_at(self, owed: Owed | None, another_left: bool, finished: bool) -> float | None:
        """When whoever is to say something is late; `owed` is what the server owes first, `another_left`: a silent one
        can be given up for another, `finished`: the client has ended and the server knows it."""
        if owed is None:
            return self._server_late_at if finished else self._client_late_at
        if owed.kind == Reply.UNREAD:
            return None  # the relay's idle time-out rules
        if owed.kind == Reply.BANNER:
            span = self._policy.banner_timeout
            return owed.at + (min(span, BANNER_OR_NEXT) if another_left else span)
        return owed.at + self._policy.command_timeout
