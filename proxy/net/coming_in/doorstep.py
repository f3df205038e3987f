"""Clients that have no session: those who have still to say who they are, and those who were refused.

Both hold a descriptor and a deadline and nothing else, and are not counted in the limits of a route.  A PROXY header is
only peeked at until it is whole, so that what stands behind it stays in the kernel for the session.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Final

from proxy.net.coming_in.proxy_header import MAX_HEADER, Bad, Header, parse
from proxy.net.going_out.destination import parsed

if TYPE_CHECKING:
    from proxy.net.carrier.route import RouteRuntime
    from proxy.net.coming_in.listeners import Listener

FAREWELL: Final = 5.0  # seconds that a refused client has to read its reply
HEADER_TIMEOUT: Final = 5.0  # seconds for a PROXY header; HAProxy sends it with the connection
_ENDINGS: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


def plain(host: str) -> str:
    """An IPv4-mapped address as IPv4, so that it is what networks and limits mean."""
    return str(parsed(host)) if host.startswith("::ffff:") else host


class HeaderReader:
    """Awaits the PROXY header of a trusted proxy; one that is bad or late is closed without a word."""

    __slots__ = ("host", "listener", "port", "sock")

    def __init__(self, listener: Listener, sock: socket.socket, host: str, port: int) -> None:
        self.listener = listener
        self.sock = sock
        self.host = host
        self.port = port
        route = listener.route
        route.poller.add(sock.fileno(), self)
        route.deadlines.at(route.deadlines.now() + HEADER_TIMEOUT, self)

    def ready(self, mask: int) -> None:
        """Peek, so that what stands behind the header stays in the kernel for the session."""
        try:
            data = self.sock.recv(MAX_HEADER, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        found = parse(data) if data else None
        if isinstance(found, Header):
            self.sock.recv(found.consumed)
            self._admit(found)
        elif found is None or isinstance(found, Bad) or len(data) >= MAX_HEADER or mask & _ENDINGS:
            self._close()

    def _admit(self, header: Header) -> None:
        route = self.listener.route
        route.deadlines.cancel(self)
        client = (plain(self.host), self.port)
        original: tuple[str, int] | None = None
        if not header.local and header.source is not None:
            client = (plain(header.source[0]), header.source[1])
        if route.original:
            original = header.destination
            if original is None:
                self._close()
                return
        refusal = route.admit(self.sock, client, original, registered=True)
        if refusal is not None:
            self.listener.refuse(self.sock, client, *refusal, registered=True)

    def deadline_passed(self, now: float) -> None:
        """Late."""
        self._close()

    def failed(self, error: BaseException) -> None:
        """A bug of ours; the poller has logged it."""
        self._close()

    def _close(self) -> None:
        route = self.listener.route
        route.deadlines.cancel(self)
        route.refused((plain(self.host), self.port), "no PROXY header, or a bad one")
        route.poller.remove(self.sock.fileno())
        self.sock.close()


class Farewell:
    """A refused client: its side of the connection is read to its end, so that our last line reaches it."""

    __slots__ = ("route", "sock")
    count = 0

    def __init__(self, route: RouteRuntime, sock: socket.socket) -> None:
        self.route = route
        self.sock = sock
        Farewell.count += 1
        route.poller.add(sock.fileno(), self)
        route.deadlines.at(route.deadlines.now() + FAREWELL, self)

    def ready(self, mask: int) -> None:
        """Throw away what it says."""
        try:
            for _ in range(16):
                if not self.sock.recv(65536):
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
        if self.sock.fileno() >= 0:
            Farewell.count -= 1
            self.route.deadlines.cancel(self)
            self.route.poller.remove(self.sock.fileno())
            self.sock.close()
