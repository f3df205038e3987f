"""A reply that is held until it is whole: an EHLO reply, that to STARTTLS, and those that only the proxy asked for.

An EHLO reply may need repair, a 220 to STARTTLS changes what every byte behind it means, and nobody else asked for the
proxy's own.  Where an EHLO reply ends is a judgement when the server does not say it properly.  RFC 5321 4.2.1 ends a
reply at the first line with a space behind the code; servers were seen that put it on every line, on the wrong line, or
on none.  So the end is

* a final line, and nothing behind it in the same turn: what stands there in one turn is one reply;
* for a reply of one line, or one without a greeting so far, `EHLO_WAIT` of silence after that; so, too, for a server
  that was once seen to go on after a final line, and when half a line stands behind the final one;
* without any final line, `unterminated_after` of silence, or `GOES_ON_AFTER` where that was not enough before;
* at once a final 4xx or 5xx line, or a lone line with any other code than 250 (`220 …`): it is complete in itself.

Limits: an EHLO reply's are `proxy.smtp.reply.ehlo`'s; every other has at most `MAX_HELD` octets.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from proxy.smtp.lines import LineBuffer, split_lines
from proxy.smtp.reply.ehlo import ReplyProgress
from proxy.smtp.reply.replies import ends_reply
from proxy.smtp.session.policy import DestinationMemory, SessionPolicy
from proxy.smtp.session.terms import EHLO_WAIT, GOES_ON_AFTER, MAX_HELD

# What a look at an EHLO reply may say.
MORE: Final = 0
OVER: Final = 1
OVER_BY_SILENCE: Final = 2
TOO_LONG: Final = 3

MAX_RECALLED: Final = 4096  # octets of a reply whose end is remembered; real ones have some hundred


def ends_in_no_doubt(lines: list[bytes], banner: bytes) -> bool:
    """Whether these lines are one EHLO reply of 250 lines that is over with the last of them, whatever follows."""
    progress = ReplyProgress(banner)
    for line in lines:
        if progress.final_seen or line[:3] != b"250":
            return False
        progress.add(line)
    return progress.final_seen and progress.settled and not progress.too_long


@lru_cache(maxsize=256)  # 1 MiB of octets at the most: 3.4 us a reply less, 1.5 us compiled
def _recalled(raw: bytes, banner: bytes) -> bool:
    return raw.endswith(b"\n") and ends_in_no_doubt(split_lines(raw), banner)


class Held:
    """The reply that is being collected, if one is."""

    __slots__ = ("_progress", "_raw", "silent_until")

    def __init__(self) -> None:
        self._raw = b""
        self._progress: ReplyProgress | None = None  # of an EHLO reply
        self.silent_until: float | None = None  # when an EHLO reply is over, if nothing comes

    def __len__(self) -> int:
        """How many octets are held."""
        return len(self._raw)

    @property
    def is_ehlo(self) -> bool:
        """Whether an EHLO reply is being collected."""
        return self._progress is not None

    def keep(self, line: bytes) -> bool:
        """Take in a line of any other reply; False when that is too much."""
        self._raw += line
        return len(self._raw) <= MAX_HELD

    # -- an EHLO reply -----------------------------------------------------------------------------------------------

    def keep_whole(self, lines: LineBuffer, banner: bytes) -> bool:
        """Take in all that is there, if it is a reply whose end leaves no doubt: what `add` finds line by line, kept
        from the last time that the same was read."""
        raw = lines.held
        if self._raw or len(raw) > MAX_RECALLED or not _recalled(raw, banner):
            return False
        self._raw = lines.take_pending()
        return True

    def add(self, line: bytes, banner: bytes) -> int:
        """Take in the next line."""
        progress = self._progress
        if progress is None:
            progress = self._progress = ReplyProgress(banner)
        progress.add(line)
        self._raw += line
        if progress.too_long:
            return TOO_LONG
        if (progress.refused and ends_reply(line)) or (progress.lines == 1 and progress.settled):
            return OVER  # complete in itself: no refusal, and no lone 220, is ever joined with what follows
        return MORE

    def add_endless(self, piece: bytes) -> None:
        """What came so far of a line that passes every limit."""
        self._raw += piece

    def turn_over(self, now: float, half_a_line: bool, policy: SessionPolicy, memory: DestinationMemory) -> int:
        """Nothing more is there at the moment: is the reply over, or how long may it be silent?"""
        progress = self._progress
        assert progress is not None
        if not progress.final_seen:
            wait = policy.unterminated_after
            self.silent_until = now + (max(wait, GOES_ON_AFTER) if memory.goes_on_slowly(now) else wait)
            return MORE
        if policy.repair.mode != "off" and (half_a_line or memory.goes_on(now) or not progress.settled):
            self.silent_until = now + EHLO_WAIT
            return MORE
        return OVER

    def silence(self, half_a_line: bool) -> int:
        """The server has been silent for as long as it is given."""
        progress = self._progress
        assert progress is not None
        self.silent_until = None
        if progress.final_seen:
            return OVER
        if progress.ok_seen and not progress.refused and not half_a_line:
            return OVER_BY_SILENCE
        return MORE  # half a line, and a refusal without a last line, end nothing; the command time-out will

    @property
    def is_whole(self) -> bool:
        """Whether what is held is a whole EHLO reply that only waits."""
        return self._progress is not None and self._progress.final_seen

    # -- its end -----------------------------------------------------------------------------------------------------

    def take(self) -> bytes:
        """All that is held, as it came; nothing is held any more."""
        raw, self._raw = self._raw, b""
        self._progress = None
        self.silent_until = None
        return raw
