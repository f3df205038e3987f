"""Clients that have no session: those who have still to say who they are, and those who were refused.

Both hold a descriptor and a deadline and nothing else, and are not counted in the limits of a route.  A PROXY header is
only peeked at until it is whole, so that what stands behind it stays in the kernel for the session.

Whoever is refused is waited for, so that our line reaches it, but only so many of them at a time: strangers, who are in
no `allow_clients`, have a small share of the descriptors, and can't use up those of the others.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Final, Protocol

from proxy.net.coming_in.proxy_header import MAX_HEADER, Bad, Header, parse

if TYPE_CHECKING:
    from proxy.net.waiting.deadlines import Deadlines
    from proxy.net.waiting.poller import Poller

FAREWELL: Final = 5.0  # seconds that a refused client has to read its reply
MAX_FAREWELLS: Final = 1024  # refused clients waited for at a time, at most an eighth of the descriptors ...
MAX_STRANGERS: Final = 64  # ... and of those outside `allow_clients` at most a thirty-second part
HEADER_TIMEOUT: Final = 5.0  # seconds for a PROXY header; HAProxy sends it with the connection
_ENDINGS: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Introduced(Protocol):
    """Who hears of a client that a trusted proxy speaks for; the socket is his from then on, and is in the poller."""

    def introduced(self, sock: socket.SocketType, header: Header, peer: tuple[str, int]) -> None:
        """The header is whole, and read."""

    def not_introduced(self, sock: socket.SocketType, peer: tuple[str, int]) -> None:
        """There is none, a bad one, or it is late."""


class HeaderReader:
    """Awaits the PROXY header of a trusted proxy."""

    __slots__ = ("_deadlines", "_peer", "_sock", "_teller")

    def __init__(
        self, sock: socket.SocketType, peer: tuple[str, int], poller: Poller, deadlines: Deadlines, teller: Introduced
    ) -> None:
        """`peer`: the proxy's address and port."""
        self._sock = sock
        self._peer = peer
        self._deadlines = deadlines
        self._teller = teller
        poller.add(sock.fileno(), self)
        deadlines.at(deadlines.now() + HEADER_TIMEOUT, self)

    def ready(self, mask: int) -> None:
        """Peek, so that what stands behind the header stays in the kernel for the session."""
        try:
            data = self._sock.recv(MAX_HEADER, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        found = parse(data) if data else None
        if isinstance(found, Header):
            self._sock.recv(found.consumed)
            self._deadlines.cancel(self)
            self._teller.introduced(self._sock, found, self._peer)
        elif found is None or isinstance(found, Bad) or len(data) >= MAX_HEADER or mask & _ENDINGS:
            self._give_up()

    def deadline_passed(self, now: float) -> None:
        """Late."""
        self._give_up()

    def failed(self, error: BaseException) -> None:
        """A bug of ours; the poller has logged it."""
        self._give_up()

    def _give_up(self) -> None:
        self._deadlines.cancel(self)
        self._teller.not_introduced(self._sock, self._peer)


class Farewells:
    """The refused clients of one process that are waited for."""

    __slots__ = ("_deadlines", "_most", "_most_strangers", "_poller", "_strangers", "_waiting")

    def __init__(self, poller: Poller, deadlines: Deadlines, descriptors: int) -> None:
        """`descriptors`: how many the process may have (RLIMIT_NOFILE)."""
        self._poller = poller
        self._deadlines = deadlines
        self._most = min(MAX_FAREWELLS, descriptors // 8)
        self._most_strangers = min(MAX_STRANGERS, descriptors // 32)
        self._waiting = 0
        self._strangers = 0

    def see_off(self, sock: socket.SocketType, *, stranger: bool) -> None:
        """Close the socket, whose last line was sent, once the client has read it; at once when there are too many."""
        if self._waiting >= self._most or (stranger and self._strangers >= self._most_strangers):
            sock.close()
            return
        self._waiting += 1
        self._strangers += stranger
        farewell = _Farewell(self, sock, stranger)
        self._poller.add(sock.fileno(), farewell)
        self._deadlines.at(self._deadlines.now() + FAREWELL, farewell)

    def gone(self, farewell: _Farewell, sock: socket.SocketType, stranger: bool) -> None:
        """One has left, or has had its time."""
        self._waiting -= 1
        self._strangers -= stranger
        self._deadlines.cancel(farewell)
        self._poller.remove(sock.fileno())
        sock.close()


class _Farewell:
    """A refused client: its side of the connection is read to its end, so that our last line reaches it."""

    __slots__ = ("_all", "_sock", "_stranger")

    def __init__(self, farewells: Farewells, sock: socket.SocketType, stranger: bool) -> None:
        self._all = farewells
        self._sock = sock
        self._stranger = stranger

    def ready(self, mask: int) -> None:
        """Throw away what it says."""
        try:
            for _ in range(16):
                if not self._sock.recv(65536):
                    break
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close()

    def deadline_passed(self, now: float) -> None:
        """It has had its time."""
        self._close()

    def failed(self, error: BaseException) -> None:
        """A bug of ours; the poller has logged it."""
        self._close()

    def _close(self) -> None:
        if self._sock.fileno() >= 0:
            self._all.gone(self, self._sock, self._stranger)
