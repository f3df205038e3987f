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
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.net.relay.connection import Connection

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
    """A pipe of the pool, and how many bytes are in it."""

    __slots__ = ("holds", "read_end", "size", "source_ended", "source_reset", "write_end")

    def __init__(self) -> None:
        """Raises OSError when the process has no descriptors left."""
        self.read_end, self.write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self.size = fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            self.size = fcntl.fcntl(self.write_end, fcntl.F_GETPIPE_SZ)
        self.holds = 0
        self.source_ended = False
        self.source_reset = False

    def give_back(self) -> None:
        """Not needed any more; one that still holds bytes is not used again."""
        global _in_use
        _in_use -= 1
        if self.holds or len(_spare) >= MAX_SPARE:
            os.close(self.read_end)
            os.close(self.write_end)
        else:
            self.source_ended = self.source_reset = False
            _spare.append(self)


def begin(source: Connection) -> bool:
    """Let the kernel relay from `source` from now on.  False where that is not possible now."""
    global _in_use
    peer = source.peer
    if not AVAILABLE or _in_use >= MAX_PIPES or peer is None or peer.channel is not None or peer.pending is not None:
        return False
    try:
        pipe = _spare.pop() if _spare else Pipe()
    except OSError:
        return False
    if pipe.size < PIPE_SIZE // 4:  # the user's share of pipe memory is used up
        os.close(pipe.read_end)
        os.close(pipe.write_end)
        return False
    _in_use += 1
    source.pipe = pipe
    return True


def pump(source: Connection) -> None:
    """Move what can be moved, without waiting."""
    peer = source.peer
    carrier = source.carrier
    pipe = source.pipe
    if peer is None or carrier is None or pipe is None:
        return
    get = source.sock.fileno()
    put = peer.sock.fileno()
    for _ in range(SPLICES_A_TURN):
        moved = False
        if not pipe.source_ended and pipe.holds < pipe.size:
            try:
                count = os.splice(get, pipe.write_end, pipe.size - pipe.holds, flags=_FLAGS)
            except BlockingIOError:
                pass
            except OSError:
                pipe.source_ended = pipe.source_reset = True
            else:
                if count:
                    pipe.holds += count
                    source.moved += count
                    moved = True
                else:
                    pipe.source_ended = True
        if pipe.holds:
            if peer.broken or peer.fin_sent:
                return  # nobody is left to take it; what the peer said last is being read
            try:
                count = os.splice(pipe.read_end, put, pipe.holds, flags=_FLAGS)
            except BlockingIOError:
                count = 0
            except OSError as error:
                peer.unsendable(error)
                count = 0
            if count:
                pipe.holds -= count
                moved = True
                carrier.active_at = monotonic()
        if not moved:
            break
    else:
        source.turn_over()
        return
    source.may_read = False
    if pipe.source_ended and not pipe.holds:
        reset = pipe.source_reset or source.broken
        source.pipe = None
        pipe.give_back()
        source.finished(reset)
