"""How a TCP socket ends, below what Python's `socket` says: a close that is a reset, and what a reset would destroy.

A reset makes the sender's kernel throw away what the peer's has not confirmed yet, and no retransmission follows.  So a
last reply and a reset behind it need a look at `unacknowledged` in between.  Linux; elsewhere nothing counts as
unconfirmed.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import termios
from typing import Final

_PEER_IS_THERE: Final = (1, 4, 5)  # TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2: <net/tcp_states.h>
_LINGER_NOTHING: Final = struct.pack("ii", 1, 0)


def unacknowledged(sock: socket.socket) -> int:
    """Bytes that were sent and that the peer's kernel has not confirmed (SIOCOUTQ, tcp(7))."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def has_left(sock: socket.socket) -> bool:
    """Whether a FIN or a reset has come, be it that it waits behind bytes that were not read (TCP_INFO, tcp(7))."""
    try:
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return True
    return state not in _PEER_IS_THERE


def close_by_reset(sock: socket.socket) -> None:
    """Have the close that follows be a reset (SO_LINGER of no time, socket(7))."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
    except OSError:
        pass
