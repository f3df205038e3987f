"""Pass-through in one direction: what comes in on one side goes out on the other, unread.

A `Flow` receives and sends at once.  Nothing is copied in user space unless the receiver is full; then the rest waits
there (`Sender`) and this side is not read.  A direction that proves to be long goes on in the kernel (`splice`).

Nothing is looked at while bytes flow.  The last `LAST_WORDS` of them are kept, since a reset is judged by what was said
before it (`proxy.net.carrier.ending`).  Half-close and resets are the carrier's: here they are only returned.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from time import monotonic
from typing import Final

from proxy.net.relay import splice
from proxy.net.relay.sender import MAX_PENDING, Sender
from proxy.net.relay.socket_ends import unread

TURNS: Final = 8  # pieces one after the other, then others have their turn
PIECE: Final = 16384  # bytes in one receive; when it is full, more is likely to be there
SHORT: Final = 65536  # bytes up to which a direction is received in pieces, and nobody asks whether it is a long one
LAST_WORDS: Final = 192  # bytes: the last two records of a TLS session that says QUIT (133 octets), or a line of 221

# What a direction that is no longer short is received into, one for all sessions: what is in it has left it when
# `carry` returns.  A peer that takes nothing has it all waiting, on top of the MAX_PENDING up to which this side is
# read: 224 KiB, and 252 with what a growing bytearray keeps in hand.
_BUFFER = bytearray(163840)
_VIEW = memoryview(_BUFFER)

# What became of an attempt to relay; numbers, since an Enum's members cost 0.1 us each time they are named.
ALL: Final = 0  # all that was there
MORE: Final = 1  # there may be more
TOO_MUCH: Final = 2  # more than the other side takes
END: Final = 3
RESET: Final = 4


class Flow:
    """What is relayed from one socket to another."""

    __slots__ = ("_look", "active_at", "last_words", "moved", "pipe")

    def __init__(self) -> None:
        self.moved = 0  # bytes
        self.active_at = 0.0  # when the last of them came
        self.last_words = b""  # the last of them, as far as they are known
        self.pipe: splice.Pipe | None = None  # the kernel's buffer of a long direction
        self._look: Callable[[bytes], bool] | None = None

    def show_to(self, look: Callable[[bytes], bool]) -> None:
        """Have `look` called with what is relayed, until it returns False."""
        self._look = look

    def decrypted(self, data: bytes) -> None:
        """This came out of TLS, and is relayed by the caller."""
        self.came(data)
        if self._look is not None and not self._look(data):
            self._look = None

    def came(self, data: bytes) -> None:
        """This came; it is relayed by the caller, or for nobody any more."""
        self.moved += len(data)
        self.active_at = monotonic()
        self.last_words = (self.last_words + data[-LAST_WORDS:])[-LAST_WORDS:]

    def carry(self, sock: socket.SocketType, to: Sender, only_bytes: bool, kernel: bool) -> int:
        """Relay from `sock` until nothing comes, the other side is full, or others should have their turn.

        `only_bytes`: the event told of bytes and of no end, so a small piece is all.  Without that only EAGAIN says so:
        an end that came with the bytes is told with them, and may have been told while nothing was read.  `kernel`: the
        direction may go on there when it is a long one.
        """
        pipe = self.pipe
        # A little goes plainly, that its last words are known: in TLS the close_notify comes alone.
        if pipe is not None and (pipe.holds or (to.pending is None and unread(sock) > PIECE)):
            return self._splice(pipe, sock, to)
        for _ in range(TURNS):
            data: bytes | memoryview
            try:
                if self.moved <= SHORT:
                    data = sock.recv(PIECE)
                else:
                    received = sock.recv_into(_BUFFER)  # by itself: mypyc works out a slice's bound twice
                    data = _VIEW[:received]
            except BlockingIOError:
                return ALL
            except OSError:
                return RESET
            count = len(data)
            if not count:
                return END
            to.write(data)
            self.moved += count
            self.active_at = monotonic()
            self.last_words = (
                bytes(data[-LAST_WORDS:]) if count >= LAST_WORDS else (self.last_words + data)[-LAST_WORDS:]
            )
            if self._look is not None and not self._look(bytes(data)):
                self._look = None
            if to.pending is not None and len(to.pending) > MAX_PENDING:
                return TOO_MUCH
            if to.broken:
                return MORE
            if count < PIECE:
                if only_bytes:
                    return ALL
            elif kernel and self.moved > splice.BEGIN_AFTER and to.pending is None and not pipe and not self._look:
                self.pipe = pipe = splice.pipe()
                if pipe is not None:
                    return self._splice(pipe, sock, to)
                kernel = False
        return MORE

    def _splice(self, pipe: splice.Pipe, sock: socket.SocketType, to: Sender) -> int:
        """The same in the kernel."""
        source = sock.fileno()
        self.last_words = b""
        for _ in range(splice.SPLICES_A_TURN):
            came = pipe.take(source)
            self.moved += came
            if pipe.holds and (to.broken or to.fin_sent):
                return TOO_MUCH  # nobody is left to take it; what the peer said last is being read
            if to.take(pipe):
                self.active_at = monotonic()
            elif not came:
                break
        else:
            return MORE
        if not pipe.over:
            return ALL
        self.pipe = None
        pipe.give_back()
        return RESET if pipe.source_reset else END

    def give_pipe_back(self) -> None:
        """Nothing more is relayed."""
        pipe, self.pipe = self.pipe, None
        if pipe is not None:
            pipe.give_back()
