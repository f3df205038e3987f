"""When something is due of whom: the deadlines of the dialogue, each a span of the policy from a point in time.

The banner, from the connection; a whole reply, from its command; the client's next command, from the last reply; the
server's end, from its last word after the client has ended.  RFC 5321 4.5.3.2 has the spans.
"""

from __future__ import annotations

from proxy.smtp.session.parts.owed import Owed
from proxy.smtp.session.policy import SessionPolicy
from proxy.smtp.session.terms import BANNER_OR_NEXT, Reply


class Times:
    """Since when something is waited for."""

    __slots__ = ("_client_since", "_policy", "_server_at")

    def __init__(self, policy: SessionPolicy, now: float) -> None:
        self._policy = policy
        self._client_since = now  # since when the client is expected to speak
        self._server_at = now  # when the server last spoke

    def client_may_speak(self, now: float) -> None:
        """A reply is through, or something else has made it the client's turn."""
        self._client_since = now

    def server_spoke(self, now: float) -> None:
        """The server gave a sign of life, or was told that the client has ended."""
        self._server_at = now

    def late_at(self, owed: Owed | None, another_left: bool, finished: bool) -> float | None:
        """When whoever is to say something is late; `owed` is what the server owes first, `another_left`: a silent one
        can be given up for another, `finished`: the client has ended and the server knows it."""
        policy = self._policy
        if owed is None:
            if finished:
                return self._server_at + policy.half_closed_timeout
            return self._client_since + policy.command_timeout
        kind = owed.kind
        if kind == Reply.UNREAD:
            return None  # the relay's idle time-out rules
        if kind == Reply.BANNER:
            span = policy.banner_timeout
            return owed.at + (min(span, BANNER_OR_NEXT) if another_left else span)
        return owed.at + policy.command_timeout
