"""A vendor's server again, from a transcript that `[route.record]` wrote of one of its sessions.

What the server said is said again, octet for octet, in the places where it was said: its banner, and its reply to each
command by verb; the first EHLO gets the first reply, the second the second, and the last one serves for all that come
after it.  The pauses are kept, up to a minute.  What the transcript does not have (a message, all that was inside TLS
in pass-through) a good server says in its place.

STARTTLS is real: where the server answered 220 there, TLS begins, with a certificate of our own.  A refusal of MAIL,
RCPT or DATA is kept; a consent is our own, so that what follows is read as it has to be.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from proxy.smtp.reply.replies import code_of, ends_reply
from proxy.tools.dialogue import Spoken
from proxy.tools.replay import read_transcript
from proxy.tools.simulate.faults import READY, Fault
from proxy.tools.simulate.replies import GOOD_REPLIES, Piece

MAX_PAUSE = 60.0  # seconds
SHORTEST_PAUSE = 0.02  # what is closer together was one segment, or could have been
_OURS = frozenset((b"MAIL", b"RCPT", b"DATA", b"BDAT", b"AUTH", b"XCLIENT", b"QUIT"))  # what follows depends on them


class Turn:
    """One command of the client, and what the server said to it."""

    def __init__(self, verb: bytes, at: float) -> None:
        self.verb = verb
        self.at = at
        self.pieces: list[Piece] = []
        self._last_at = at

    def hear(self, line: bytes, at: float) -> None:
        pause = min(at - self._last_at, MAX_PAUSE)
        self._last_at = at
        if self.pieces and pause < SHORTEST_PAUSE:
            self.pieces[-1] = replace(self.pieces[-1], data=self.pieces[-1].data + line)
        else:
            self.pieces.append(Piece(line, pause if pause >= SHORTEST_PAUSE else 0.0))

    @property
    def code(self) -> int:
        return code_of(self.pieces[0].data) if self.pieces else 0

    def gives_way_to(self, following: Turn) -> bool:
        """What the server says next is for the following command: this one's reply has ended, or was taken for over."""
        if not self.pieces:
            return False
        last = self.pieces[-1].data.rstrip(b"\r\n").rpartition(b"\n")[2]
        return ends_reply(last) or following.at > self._last_at


def fault_of(data: bytes) -> Fault:
    """The server of this transcript.  Raises `NotATranscript`, and ValueError when no server speaks in it."""
    _, spoken = read_transcript(data)
    banner, turns = _turns(spoken)
    if not banner.pieces:
        raise ValueError("the server says nothing in this transcript")
    script: dict[bytes, tuple[tuple[Piece, ...], ...]] = {}
    ready = READY
    for turn in turns:
        if turn.verb == b"STARTTLS" and turn.code == 220:
            ready = turn.pieces[0].data
        elif turn.pieces and (turn.verb.removeprefix(b"TLS ") not in _OURS or turn.code >= 400):
            script[turn.verb] = (*script.get(turn.verb, ()), tuple(turn.pieces))
    return Fault(replace(GOOD_REPLIES, banner=tuple(banner.pieces)), script=script, ready=ready)


def _turns(spoken: Iterable[Spoken]) -> tuple[Turn, list[Turn]]:
    """The banner, and the commands in their order."""
    banner = current = Turn(b"", 0.0)
    waiting: list[Turn] = []
    turns: list[Turn] = []
    prefix = b""
    for line in spoken:
        raw = line.line.encode("latin-1", "replace")
        if line.side == "proxy":
            if "inside it" in line.note:
                prefix = b"TLS "
        elif line.side == "client" and raw.strip():
            turn = Turn(prefix + raw.split()[0].upper(), line.at)
            turns.append(turn)
            waiting.append(turn)
        elif line.side == "server" and raw:
            if waiting and current.gives_way_to(waiting[0]):
                current = waiting.pop(0)
            current.hear(raw, line.at)
    return banner, turns
