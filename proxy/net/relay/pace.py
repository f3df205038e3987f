"""How fast one peer is read while the session reads it: nobody holds the others.

What the session reads comes in pieces of at most `PIECE` bytes, and a turn ends after `TURN` seconds.  A peer that has
said `MANY_LINES` lines gets small pieces, each in a turn that comes when all who want less have had theirs
(`Poller.later`).  A line costs the session some 1.5 us, so a piece of 512 bytes at most 1 ms.  Of a client's commands
`FREE_COMMANDS` are free (Postfix: smtpd_junk_command_limit); what is beyond is read at 500 a second.
"""

from __future__ import annotations

from typing import Final

PIECE: Final = 4096  # bytes that the session is given at once: more than nearly every EHLO reply
SMALL_PIECE: Final = 512
MANY_LINES: Final = 200
TURN: Final = 0.002  # seconds
FREE_COMMANDS: Final = 100
A_COMMAND: Final = 0.002  # seconds that each one beyond costs
WORTH_A_PAUSE: Final = 0.05  # seconds; less is added up


class Pace:
    """How one peer goes on that has said more than FREE_COMMANDS lines."""

    __slots__ = ("_free_at", "_queued", "piece")

    def __init__(self) -> None:
        self.piece = PIECE  # how many bytes the session is given at once
        self._free_at = 0.0  # when the commands beyond FREE_COMMANDS are paid for
        self._queued = False  # waits for a turn behind all who want less

    def said(self, lines: int, of_all: int, now: float) -> float:
        """So many lines came, `of_all` that have come: when a client that says them may say more, 0.0 for at once."""
        if of_all >= MANY_LINES:
            self.piece = SMALL_PIECE
        self._free_at = max(self._free_at, now) + min(lines, of_all - FREE_COMMANDS) * A_COMMAND
        return self._free_at if self._free_at - now > WORTH_A_PAUSE else 0.0

    def has_to_queue(self) -> bool:
        """Whether this peer has said so much that it waits for its turn; it has it when it is asked again."""
        if self.piece == PIECE:
            return False
        self._queued = not self._queued
        return self._queued

    def queued(self) -> None:
        """A turn was asked for."""
        self._queued = True
