"""Whole lines to standard error that never wait: a blocked reader loses log lines, not mail.

What is behind descriptor 2 differs, and so does the way to write to it without waiting:

* a socket (systemd's journal): `send` with MSG_DONTWAIT, which leaves the shared description alone;
* a pipe or a terminal: the same object opened once more with O_NONBLOCK.  Setting the flag on descriptor 2 itself
  would set it for the shell, or for the other programs of the pipeline, that share the description;
* one of these that may not be opened again (it belongs to another user): poll, then at most PIPE_BUF bytes, which a
  pipe that polls writable takes at once (pipe(7));
* a file: written as it is.  No portable call writes to a file without waiting for the disk.

What can't be written waits in a backlog of at most `max_backlog` bytes and is tried again with the next line, and
each half second if the caller gave a clock.  Lines beyond the backlog are counted in `lost`; the first line that
gets through afterwards is one that says how many.

At the end it is waited for the reader, for `LAST_WORDS` seconds: nobody is kept from anything then, and a line would be
cut in the middle.

A line that was begun is always finished before the next one.  Several processes on one pipe (workers) keep their
lines apart only up to PIPE_BUF bytes: `max_line` says so, and the log cuts its events to it.

Why not a library: the handlers of logging and Twisted's file observers write to the descriptor as it is, and wait; a
thread that waits in their stead (logging's QueueListener) can't be given up at the end while nobody reads.

Nothing here raises for what the other end does; a closed reader (EPIPE) counts as lost.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import time
from collections import deque
from collections.abc import Callable

PIPE_BUF = select.PIPE_BUF
MAX_LINE = 8192  # no event is longer, its line end included
MAX_BACKLOG = 256 * 1024
LAST_WORDS = 0.5  # seconds
_RETRY_AFTER = 0.5

_WOULD_BLOCK = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM)


class LineWriter:
    """Writes lines to `fd` and never waits.

    `later(seconds, call)` schedules the retry of what is held back (the reactor's callLater); without it the next
    line or an explicit `flush` does.  `shared` says that other processes write to the same descriptor.
    """

    def __init__(
        self,
        fd: int = 2,
        *,
        later: Callable[[float, Callable[[], object]], object] | None = None,
        shared: bool = False,
        max_backlog: int = MAX_BACKLOG,
    ) -> None:
        self.lost = 0  # lines lost and not yet told
        self.lost_total = 0
        self.held = 0  # bytes waiting
        self._at_turns_end: Callable[[Callable[[], object]], bool] | None = None
        self._gathered = bytearray()
        self.later = later
        self._lost_line: Callable[[int], bytes] = lambda count: b"log-lost lines=%d\n" % count
        self._max_backlog = max_backlog
        self._backlog: deque[bytes] = deque()
        self._retry_call: object = None
        self._own: int | socket.socket | None = None  # what we opened, and close
        self._fd = fd
        self._write, kind = self._way_to_write(fd)
        self.max_line = PIPE_BUF if shared and kind == "pipe" else MAX_LINE

    def gather(self, at_turns_end: Callable[[Callable[[], object]], bool]) -> None:
        """Write in one piece what comes in one turn.  `at_turns_end(call)` calls `call` soon and is true, or false."""
        self._at_turns_end = at_turns_end

    def tell_lost_as(self, line: Callable[[int], bytes]) -> None:
        """`line(count)` makes the line that says how many were lost."""
        self._lost_line = line

    def _way_to_write(self, fd: int) -> tuple[Callable[[int, bytes], int], str]:
        try:
            mode = os.fstat(fd).st_mode
        except OSError:
            return os.write, "closed"
        if stat.S_ISSOCK(mode):
            # `socket.socket(fileno=)` looks at the default time-out only: the description stays as it is.
            own = socket.socket(fileno=os.dup(fd))
            self._own = own
            dont_wait = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
            return lambda _fd, data: own.send(data, dont_wait), "socket"
        if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            return os.write, "file"
        kind = "pipe" if stat.S_ISFIFO(mode) else "terminal"
        try:
            own_fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return _write_after_poll, kind
        self._own = self._fd = own_fd
        return os.write, kind

    def write_gathered(self) -> None:
        """Write what was gathered, each line whole in one write."""
        if self._gathered:
            lines = bytes(self._gathered)
            self._gathered.clear()
            self._now(lines)

    def __call__(self, line: bytes) -> None:
        """Write `line`, which ends in LF, or hold it back, or count it as lost."""
        gathered = self._gathered
        if not gathered:
            if self._at_turns_end is None or not self._at_turns_end(self.write_gathered):
                self._now(line)
                return
        elif len(gathered) + len(line) > self.max_line:
            self.write_gathered()
        gathered += line

    def _now(self, line: bytes) -> None:
        if self._backlog:
            if self.held + len(line) > self._max_backlog:
                self.flush()
            if self._backlog:
                self._hold(line)
                return
        if self.lost:
            self._tell_lost()
            if self._backlog:
                self._hold(line)
                return
        try:
            written = self._write(self._fd, line)
        except OSError as error:
            if error.errno in _WOULD_BLOCK:
                self._hold(line)
            else:
                self._lose(line)
            return
        if written < len(line):
            self._hold(line[written:])

    def flush(self) -> bool:
        """Try to write what is held back; true when nothing is left."""
        backlog = self._backlog
        while backlog:
            line = backlog[0]
            try:
                written = self._write(self._fd, line)
            except OSError as error:
                if error.errno in _WOULD_BLOCK:
                    return False
                self._lose(b"".join(backlog))
                backlog.clear()
                self.held = 0
                return True
            self.held -= written
            if written < len(line):
                backlog[0] = line[written:]
            else:
                backlog.popleft()
        if self.lost:
            self._tell_lost()
        return not backlog

    def close(self) -> None:
        """Write what is still taken and let go of what was opened here; `fd` itself stays open."""
        self.later = None
        cancel = getattr(self._retry_call, "cancel", None)
        if cancel is not None:
            cancel()
        self._retry_call = None
        self.write_gathered()
        ends_at = time.monotonic() + LAST_WORDS
        while not self.flush() and (left := ends_at - time.monotonic()) > 0:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            poll.poll(left * 1000)
            time.sleep(0.001)  # writable means that something fits, not that the next line does
        own, self._own = self._own, None
        if isinstance(own, int):
            os.close(own)
        elif own is not None:
            own.close()

    def _hold(self, line: bytes) -> None:
        if self.held + len(line) > self._max_backlog:
            self._lose(line)
            return
        self._backlog.append(line)
        self.held += len(line)
        if self.later is not None and self._retry_call is None:
            self._retry_call = self.later(_RETRY_AFTER, self._retry) or True

    def _retry(self) -> None:
        self._retry_call = None
        if not self.flush() and self.later is not None:
            self._retry_call = self.later(_RETRY_AFTER, self._retry) or True

    def _lose(self, gone: bytes) -> None:
        lines = gone.count(b"\n")  # several that were gathered, or the end of one
        self.lost += lines
        self.lost_total += lines

    def _tell_lost(self) -> None:
        line = self._lost_line(self.lost)
        try:
            written = self._write(self._fd, line)
        except OSError:
            return
        self.lost = 0
        if written < len(line):
            self._hold(line[written:])


def _write_after_poll(fd: int, data: bytes) -> int:
    """One write of at most PIPE_BUF bytes, if the descriptor takes it at once.

    Between the poll and the write another process could fill the pipe; that process would have to be ours or the
    operator's, and only a pipe of another user, shared and full, gets here at all.
    """
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    ready = poll.poll(0)
    if not ready or not ready[0][1] & (select.POLLOUT | select.POLLERR):
        raise BlockingIOError(errno.EAGAIN, "would block")
    return os.write(fd, data[:PIPE_BUF])
