"""Pass-through: what comes in on one side goes out on the other, unread.

`pump` is the plain way: receive into one buffer that all sessions share, send at once.  Nothing is copied in user space
unless the receiver is full; then the rest waits there and this side is not read.  A direction that proves to be long
goes on in the kernel (`splice`).

Half-close and resets are the carrier's: here they are only noticed.
"""

from __future__ import annotations

import select
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy.net.relay import splice

if TYPE_CHECKING:
    from proxy.net.relay.connection import Connection

PUMPS_A_TURN: Final = 8
WORTH_ANOTHER: Final = 16384  # bytes in one receive, from which on more are likely to be there
_ENDINGS: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR

# One for all sessions: what is in it has left it when `pump` returns.  A peer that takes nothing has it all waiting,
# on top of the MAX_PENDING up to which this side is read: 224 KiB, and 252 with what a growing bytearray keeps in hand.
_BUFFER = bytearray(163840)
_VIEW = memoryview(_BUFFER)


def passed(source: Connection) -> bool:
    """The usual case in one go: a few bytes have come, nothing waits on either side, and the peer takes them.

    False, with nothing done, when it is any other case.
    """
    peer = source.peer
    carrier = source.carrier
    if (
        peer is None
        or carrier is None
        or source.pending is not None
        or peer.pending is not None
        or source.paused
        or source.ended
        or source.channel is not None
        or peer.channel is not None
        or source.pipe is not None
        or peer.pipe is not None
        or peer.broken
        or carrier.onlooker.wants
    ):
        return False
    try:
        count = source.sock.recv_into(_BUFFER)
    except BlockingIOError:
        return True
    except OSError:
        source.finished(True)
        return True
    if not count:
        source.finished(source.broken)
        return True
    source.moved += count
    carrier.active_at = monotonic()
    peer.write(_VIEW[:count])
    if count >= WORTH_ANOTHER or source.paused:
        source.may_read = True
        if not source.paused:
            pump(source, 0)
    else:
        source.may_read = False
    return True


def pump(source: Connection, mask: int) -> None:
    """Relay from `source` to its peer until nothing comes, the peer is full, or others should have their turn."""
    peer = source.peer
    carrier = source.carrier
    if peer is None or carrier is None:
        return
    if peer.broken:  # for nobody; the end comes when what the peer said last has been taken, or never, and then in time
        source.may_read = True
        return
    if source.pipe is not None:
        splice.pump(source)
        return
    receive = source.sock.recv_into
    for _ in range(PUMPS_A_TURN):
        try:
            count = receive(_BUFFER)
        except BlockingIOError:
            source.may_read = False
            return
        except OSError:
            source.finished(True)
            return
        if not count:
            source.finished(source.broken)
            return
        source.moved += count
        peer.write(_VIEW[:count])
        if carrier.onlooker.wants:
            carrier.look(source, bytes(_VIEW[:count]))
        carrier.active_at = monotonic()
        if source.paused:
            source.may_read = True
            return
        if count < WORTH_ANOTHER:
            # An end that came with the bytes is told with them; a later one is an event of its own.  Without a mask
            # (`soon`) an end may have been told while nothing was read, so only EAGAIN says that all is in.
            if mask and not mask & _ENDINGS:
                source.may_read = False
                return
        elif source.moved > splice.BEGIN_AFTER and not carrier.onlooker.wants and splice.begin(source):
            splice.pump(source)
            return
    source.turn_over()
