"""Pass-through: what comes in on one side goes out on the other, unread.

`pump` receives into one buffer that all sessions share and sends at once.  Nothing is copied in user space unless the
receiver is full; then the rest waits there and this side is not read.  A direction that proves to be long goes on in
the kernel (`splice`).

Half-close and resets are the carrier's: here they are only returned.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from proxy.net.relay.sender import MAX_PENDING, Sender

PUMPS_A_TURN: Final = 8
WORTH_ANOTHER: Final = 16384  # bytes in one receive, from which on more are likely to be there

# One for all sessions: what is in it has left it when `pump` returns.  A peer that takes nothing has it all waiting,
# on top of the MAX_PENDING up to which this side is read: 224 KiB, and 252 with what a growing bytearray keeps in hand.
_BUFFER = bytearray(163840)
_VIEW = memoryview(_BUFFER)


# What became of an attempt to relay; numbers, since an Enum's members cost 0.1 us each time they are named.
ALL: Final = 0  # all that was there
MORE: Final = 1  # there may be more
TOO_MUCH: Final = 2  # more than the other side takes
END: Final = 3
RESET: Final = 4


def pump(
    sock: socket.socket, to: Sender, only_bytes: bool, look: Callable[[bytes], object] | None, enough: int
) -> tuple[int, int]:
    """Relay from `sock` until nothing comes, the other side is full, or others should have their turn.

    `only_bytes`: the event told of bytes and of no end, so a small piece is all.  Without that only EAGAIN says so: an
    end that came with the bytes is told with them, and may have been told while nothing was read.  `enough`: so many
    bytes show that the direction is a long one, when more come and nothing waits; then it returns.
    """
    receive = sock.recv_into
    moved = 0
    for _ in range(PUMPS_A_TURN):
        try:
            count = receive(_BUFFER)
        except BlockingIOError:
            return moved, ALL
        except OSError:
            return moved, RESET
        if not count:
            return moved, END
        moved += count
        to.write(_VIEW[:count])
        if look is not None:
            look(bytes(_VIEW[:count]))
        if to.pending is not None and len(to.pending) > MAX_PENDING:
            return moved, TOO_MUCH
        if to.broken:
            return moved, MORE
        if count < WORTH_ANOTHER:
            if only_bytes:
                return moved, ALL
        elif moved > enough and to.pending is None:
            return moved, MORE
    return moved, MORE
