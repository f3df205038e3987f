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

_LINGER_NOTHING: Final = struct.pack("ii", 1, 0)


def unacknowledged(sock: socket.SocketType) -> int:
    """Bytes that were sent and that the peer's kernel has not confirmed (SIOCOUTQ, tcp(7))."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def unread(sock: socket.SocketType) -> int:
    """Bytes that have come and were not read (SIOCINQ, tcp(7))."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def error_of(sock: socket.SocketType) -> OSError:
    """What has become of the connection (SO_ERROR, socket(7)): EPIPE where a FIN came before the reset."""
    try:
        return OSError(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "the connection is gone")
    except OSError as error:
        return error


def close_by_reset(sock: socket.SocketType) -> None:
    """Have the close that follows be a reset (SO_LINGER of no time, socket(7))."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
    except OSError:
        pass
