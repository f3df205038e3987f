"""Reading a connection that is in TLS (bridge mode): the session's bytes to the carrier, the relay's to the other side.

The counterpart of the plain loop in `connection` and of `relay.pump`.  What differs: the channel
gives one record at a time and may hold bytes for which no event will come, so it is read until it has nothing, or its
portion of this turn is used up; and an end may be one without close_notify, which `TlsChannel.clean_end` tells and the
carrier passes on as such.

A fault inside TLS (a damaged record, an alert) is taken for a reset: nothing that comes behind it can be believed, and
the other side must not take what it has for the whole.
"""

from __future__ import annotations

import select
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy.net.tls.problem import TlsProblem

if TYPE_CHECKING:
    from proxy.net.relay.connection import Connection

_ENDINGS: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
MAX_RECORD: Final = 16384  # plaintext of one record, RFC 8446 5.1; OpenSSL never gives more at once
RECORDS_A_TURN: Final = 64  # then others have their turn: 1 MiB
TURN: Final = 0.002  # seconds
SMALL_PIECE: Final = 512  # of a peer that has said many lines (`connection`)


def read(source: Connection, mask: int) -> None:
    """Take what is there and give it to where it belongs; `mask` is the event that told of it, 0 for none."""
    channel = source.channel
    carrier = source.carrier
    if not source.relaying and source.has_to_queue():
        return
    assert channel is not None
    assert carrier is not None
    receive = channel.recv
    quiet = mask and not mask & _ENDINGS  # nothing but bytes came, so without bytes there is nothing
    ends_at = monotonic() + TURN
    for _ in range(RECORDS_A_TURN):
        size = MAX_RECORD if source.relaying else source.piece
        try:
            data = receive(size)
        except OSError:
            source.finished(True)
            return
        except TlsProblem:
            # One that we have ended without close_notify answers so (OpenSSL's own default): its end, not a fault.
            source.finished(source.clean or not source.fin_sent)
            return
        if data is None:
            if channel.more:
                break
            source.may_read = False
            return
        if not data:
            source.finished(source.broken)
            return
        if source.relaying:
            _relay(source, data)
        else:
            source.received(carrier, data, monotonic())
        if source.closed or source.closing:
            return
        if source.paused:
            source.may_read = True
            return
        if size == SMALL_PIECE or monotonic() >= ends_at:
            break
        if quiet and len(data) < size and not channel.has_more():
            source.may_read = False
            return
    source.turn_over()


def _relay(source: Connection, data: bytes) -> None:
    peer = source.peer
    carrier = source.carrier
    if peer is None or carrier is None:
        return
    source.moved += len(data)
    if carrier.onlooker.wants:
        carrier.look(source, data)
    peer.write(data)
    carrier.active_at = monotonic()
