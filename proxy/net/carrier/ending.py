"""Who of the two ended first, and what that makes of a session's outcome.

A reset that comes after an end of either side is a way of closing: Postfix, msmtp and many others close with our last
bytes unread, and the kernel says a reset for them.  Which came first is known and not guessed:

* An end is a FIN that was received, read or not.  When one side is gone by a reset, the other is read to its end before
  anything is said.  Of one socket it is known whether a FIN came before the reset (`proxy.net.relay.reading`).
* A side has also ended when it has said so: with 221, or inside TLS that passes through with its close_notify.  Postfix
  as a client sends QUIT and close_notify and closes without a look at the 221; as a server it closes with that
  close_notify unread.  Both are resets, and the FIN of either may never be seen.  A client that has completed the
  handshake and says QUIT at once has refused the certificate, and has ended as well.

The time-out of a relay is here as well: nothing either way for too long, or nothing since one side has ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from proxy.net.relay.relay import Flow
from proxy.net.tls.records import ends_with_alert, ends_with_refusal

if TYPE_CHECKING:
    from proxy.settings.tables import Timeouts

RESETS: Final = ("client-reset", "server-reset")
CLOSED: Final = ("client-closed", "server-closed")
PEERS_ENDS: Final = ("completed", *CLOSED, *RESETS)  # `by` is who ended first


class Side(Protocol):
    """What is asked of a connection: whether its peer's FIN has come, and what was relayed from it."""

    end_seen: bool
    flow: Flow


class Ends:
    """The ends of one session's two sides."""

    __slots__ = ("_active_at", "_one_has_ended", "_timeouts", "first")

    def __init__(self, now: float, timeouts: Timeouts) -> None:
        """Of the time-outs `idle` and `half_closed` are used."""
        self._active_at = now  # when something happened that is no byte relayed
        self.first = ""  # client, server: who ended first
        self._timeouts = timeouts
        self._one_has_ended = False

    def came(self, side: str, connection: Side, other: Side | None, reset: bool) -> None:
        """Nothing more comes from this `side` (client, server); the other's end may have been there before."""
        if not self.first:
            late = reset and not connection.end_seen and other is not None and other.end_seen
            self.first = side if not late else "server" if side == "client" else "client"

    def judged(
        self, outcome: str, by: str, client: Side, server: Side | None, *, let_go: bool, inside_tls: bool
    ) -> tuple[str, str]:
        """Outcome and `by`.  `let_go`: of both sides; `inside_tls`: what was relayed is TLS that passes through."""
        if outcome in RESETS:
            if client.end_seen or (server is not None and server.end_seen):
                outcome = "completed" if let_go else f"{self.first}-closed"
            elif (
                let_go
                and server is not None
                and (side := who_said_last(client.flow.last_words, server.flow.last_words, inside_tls))
            ):
                return "completed", side
        if self.first and outcome in CLOSED:
            outcome = f"{self.first}-closed"  # the other one followed
        if self.first and outcome in PEERS_ENDS:
            by = self.first
        return outcome, by

    # -- the time-out of a relay -------------------------------------------------------------------------------------

    def active(self, now: float) -> None:
        """Something happened that is no byte relayed."""
        self._active_at = now

    def half_closed(self, now: float) -> None:
        """One side has said its last, and the other was told."""
        self._one_has_ended = True
        self._active_at = now

    def quiet_since(self, client: Side, server: Side | None) -> float:
        """When something happened last."""
        return max(self._active_at, client.flow.active_at, server.flow.active_at if server is not None else 0.0)

    def due(self, client: Side, server: Side | None) -> float:
        """When it is too late, if nothing happens."""
        timeouts = self._timeouts
        return self.quiet_since(client, server) + (timeouts.half_closed if self._one_has_ended else timeouts.idle)

    @property
    def too_late(self) -> str:
        """What is said when it did not."""
        return "the other side did not end in time" if self._one_has_ended else "no byte either way in time"


def who_said_last(client: bytes, server: bytes, inside_tls: bool) -> str:
    """Which side has ended by a word of its own (client, server, or ""), from the last words of both."""
    if inside_tls:
        if ends_with_alert(client) or ends_with_refusal(client):
            return "client"
        return "server" if ends_with_alert(server) else ""
    last_line = server[server.rfind(b"\n", 0, -1) + 1 :]
    return "server" if last_line.startswith(b"221") and last_line.endswith(b"\n") else ""
