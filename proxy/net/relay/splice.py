"""The relay in the kernel: splice(2) from a socket into a pipe and from the pipe into the other socket.

For directions that prove to be long: setting it up costs what some 300 kB cost to relay plainly, and pays from there
on.  A pipe is two descriptors and up to 1 MiB of the kernel's, and the unprivileged share of pipe memory is bounded
for each user
(/proc/sys/fs/pipe-user-pages-soft), so pipes are pooled, few, and a direction that gets none goes on plainly.

Bytes in a pipe count as sent by the source and not yet taken by the peer: an end of the source is passed on when the
pipe is empty.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final

BEGIN_AFTER: Final = 393216  # bytes relayed plainly before it begins
PIPE_SIZE: Final = 1048576
MAX_PIPES: Final = 32  # in use at once in one process: what the kernel gives an unprivileged user at this size
MAX_SPARE: Final = 4
SPLICES_A_TURN: Final = 16

_FLAGS: Final = getattr(os, "SPLICE_F_NONBLOCK", 2) | getattr(os, "SPLICE_F_MOVE", 1)
AVAILABLE: Final = hasattr(os, "splice")

_spare: list[Pipe] = []
_in_use = 0


class Pipe:
    """A pipe of the pool: one direction's bytes between two sockets."""

    __slots__ = ("_read_end", "_write_end", "holds", "size", "source_ended", "source_reset")

    def __init__(self) -> None:
        """Raises OSError when the process has no descriptors left."""
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self.size = fcntl.fcntl(self._write_end, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            self.size = fcntl.fcntl(self._write_end, fcntl.F_GETPIPE_SZ)
        self.holds = 0  # bytes
        self.source_ended = False
        self.source_reset = False

    def give_back(self) -> None:
        """Not needed any more; one that still holds bytes is not used again."""
        global _in_use
        _in_use -= 1
        if self.holds or len(_spare) >= MAX_SPARE:
            self.close()
        else:
            self.source_ended = self.source_reset = False
            _spare.append(self)

    def close(self) -> None:
        """For good."""
        os.close(self._read_end)
        os.close(self._write_end)

    @property
    def over(self) -> bool:
        """The source has ended, and all that it said has left."""
        return self.source_ended and not self.holds

    def take(self, source: int) -> int:
        """Take in what the source has, without waiting: how many bytes."""
        if self.source_ended or self.holds >= self.size:
            return 0
        try:
            count = os.splice(source, self._write_end, self.size - self.holds, flags=_FLAGS)
        except BlockingIOError:
            return 0
        except OSError:
            self.source_ended = self.source_reset = True
            return 0
        if not count:
            self.source_ended = True
        self.holds += count
        return count

    def give(self, sink: int) -> int:
        """Give what the sink takes, without waiting: how many bytes.  Raises OSError for one that takes no more."""
        if not self.holds:
            return 0
        try:
            count = os.splice(self._read_end, sink, self.holds, flags=_FLAGS)
        except BlockingIOError:
            return 0
        self.holds -= count
        return count


def pipe() -> Pipe | None:
    """A pipe for one direction; None where there is none to be had now."""
    global _in_use
    if not AVAILABLE or _in_use >= MAX_PIPES:
        return None
    try:
        made = _spare.pop() if _spare else Pipe()
    except OSError:
        return None
    if made.size < PIPE_SIZE // 4:  # the user's share of pipe memory is used up
        made.close()
        return None
    _in_use += 1
    return made
