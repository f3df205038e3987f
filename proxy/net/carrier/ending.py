"""Who of the two ended first, and what that makes of a session's outcome.

A reset that comes after an end of either side, its FIN received or waiting to be read, is a way of closing: Postfix,
msmtp and many others close with our last bytes unread, and the kernel says a reset for them.  So when one side is gone
by a reset, the other is read to its end before anything is said.  Postfix also says QUIT and is gone with the 221 on
its way: a client's reset is judged `JUDGED_AFTER` seconds later.

The time-out of a relay is here as well: nothing either way for too long, or nothing since one side has ended.
"""

from __future__ import annotations

from typing import Final, Protocol

RESETS: Final = ("client-reset", "server-reset")
CLOSED: Final = ("client-closed", "server-closed")
PEERS_ENDS: Final = ("completed", *CLOSED, *RESETS)  # `by` is who ended first
JUDGED_AFTER: Final = 0.3  # seconds in which a server that was told QUIT may end, before a client's reset is one


class EndSeen(Protocol):
    """What is asked of a connection: whether its peer's FIN has come."""

    end_seen: bool


class Ends:
    """The ends of one session's two sides."""

    __slots__ = ("_half_closed", "_idle", "_one_has_ended", "first", "leaving")

    def __init__(self, idle: float, half_closed: float) -> None:
        """The time-outs of a relay in seconds: no byte either way, and the same after one side has ended."""
        self.first = ""  # client, server: who ended first
        self.leaving = False  # the client is gone by a reset, and the server is given a moment to end
        self._idle = idle
        self._half_closed = half_closed
        self._one_has_ended = False

    def came(self, side: str, connection: EndSeen, other: EndSeen | None, reset: bool) -> None:
        """Nothing more comes from this `side` (client, server); the other's end may have been there before."""
        if not self.first:
            late = reset and not connection.end_seen and other is not None and other.end_seen
            self.first = side if not late else "server" if side == "client" else "client"

    def may_leave(self, side: str, other: EndSeen | None) -> bool:
        """Whether this side's reset is to be judged a moment later; True once."""
        if side != "client" or self.leaving or other is None or other.end_seen:
            return False
        self.leaving = True
        return True

    def judged(self, outcome: str, by: str, *, ended: bool, let_go: bool) -> tuple[str, str]:
        """Outcome and `by`, when an end of either side was seen (`ended`) and the session had let go of both."""
        if ended and outcome in RESETS:
            outcome = "completed" if let_go else f"{self.first}-closed"
        if self.first and outcome in CLOSED:
            outcome = f"{self.first}-closed"  # the other one followed
        if self.first and outcome in PEERS_ENDS:
            by = self.first
        return outcome, by

    # -- the time-out of a relay -------------------------------------------------------------------------------------

    def half_closed(self) -> None:
        """One side has said its last, and the other was told."""
        self._one_has_ended = True

    @property
    def patience(self) -> float:
        """For how long nothing may come."""
        return self._half_closed if self._one_has_ended else self._idle

    @property
    def too_late(self) -> str:
        """What is said when it did not."""
        return "the other side did not end in time" if self._one_has_ended else "no byte either way in time"
