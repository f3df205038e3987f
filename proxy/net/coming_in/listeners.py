"""A listening socket at work (`sockets` makes it): who gets a session, and what the others are told.

A client that gets no session is told why in one line, and its connection is closed gently: closed at once with its
words unread, the kernel would send a reset, and the reset would overtake the reply.

A session takes more descriptors than the one it comes with.  So when the process has nearly used up what it may have
(the kernel gives the lowest free number, which tells), clients get 421 and no session.  When even that is not possible,
one that is kept in reserve is given up for as long as it takes to accept a client and tell it; and when that does not
help either, the listener pauses for a moment, instead of spinning.

Limits: a turn takes as many clients as begin within `TURN` seconds, and at most `ACCEPTS_A_TURN`; the next ones come
when all who want less have had their turn, so that a storm of connections is no wait for a session that there is.
Those of `doorstep` for refused clients that are waited for.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from proxy.net.coming_in.admission import DRAINING, NO_DESCRIPTORS, NO_HEADER, Refusal
from proxy.net.coming_in.doorstep import Farewells, HeaderReader
from proxy.net.coming_in.sockets import BACKLOG, accept, plain
from proxy.net.going_out.transparent import original_destination
from proxy.settings.values import host_port
from proxy.smtp.session.notices import closing

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.net.coming_in.proxy_header import Header
    from proxy.net.waiting.deadlines import Deadlines
    from proxy.net.waiting.poller import Poller
    from proxy.settings import Listen, Route

ACCEPTS_A_TURN: Final = 64
TURN: Final = 0.002  # seconds; a session's beginning takes some 0.3 ms, and as much again when it dials
HEADROOM: Final = 64  # descriptors that are kept for the sessions there are; a quarter of few
PAUSE: Final = 0.25  # seconds without accepting when there are no descriptors
NOTHING_LEFT: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Entrance(Protocol):
    """What a listener asks of the route behind it."""

    @property
    def settings(self) -> Route: ...
    @property
    def poller(self) -> Poller: ...
    @property
    def deadlines(self) -> Deadlines: ...
    @property
    def original(self) -> bool:
        """Whether clients are taken to where they wanted to go."""

    @property
    def implicit(self) -> bool:
        """Whether clients speak TLS from their first byte, so that nothing can be said in clear."""

    @property
    def is_trusted(self) -> Callable[[str], bool]:
        """Whether an address is in `trusted_proxies`."""

    def admit(
        self,
        sock: socket.SocketType,
        client: tuple[str, int],
        original: tuple[str, int] | None,
        *,
        registered: bool = False,
    ) -> Refusal | None:
        """Begin a session, or return why not.  `client` is the address that counts."""

    def refused(self, client: tuple[str, int], refusal: Refusal) -> str:
        """Tell of a client that got no session; its id, for the text that it gets."""


class Listener:
    """One listening socket of a route."""

    def __init__(self, sock: socket.socket, route: Entrance, listen: Listen, farewells: Farewells) -> None:
        self.sock = sock
        self.route = route
        self.listen = listen
        self._farewells = farewells
        self.closed = False
        self._family = int(sock.family)
        # Asked before each accept(2): one that finds nobody has made a socket first, which takes 4 us, and this 0.3.
        self._queue = select.poll()
        self._queue.register(sock, select.POLLIN)
        name = sock.getsockname()
        self.address: tuple[str, int] = (name[0], name[1])
        self.reserve = _reserve()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = limit - min(HEADROOM, limit // 4)  # a client whose descriptor is this one is told to come back

    def __str__(self) -> str:
        return host_port(*self.address)

    def start(self) -> None:
        """Begin to accept."""
        self.route.poller.add(self.sock.fileno(), self)

    def lead_to(self, route: Entrance) -> None:
        """Clients that come from now on get this route: the same one, after a reload."""
        self.route = route

    def close(self, *, leave_queue: bool = False) -> None:
        """Accept no more.  Clients in the kernel's queue are told; with `leave_queue`, and always with systemd's
        socket, they are kept for whoever is next."""
        if not self.closed:
            if not self.listen.systemd and not leave_queue:
                self._send_away()
            self.closed = True
            self.route.deadlines.cancel(self)
            self.route.poller.remove(self.sock.fileno())
            self.sock.close()
            if self.reserve >= 0:
                os.close(self.reserve)

    def ready(self, mask: int) -> None:
        """Clients wait."""
        listening, family, waiting = self.sock, self._family, self._queue.poll
        ends_at = perf_counter() + TURN
        for _ in range(ACCEPTS_A_TURN):
            if self.closed or not waiting(0):
                return
            try:
                sock, client = accept(listening, family)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    outcome = self._turn_away()
                    if outcome == "told":
                        continue
                    if outcome == "none left":
                        self._pause()
                    return
                if error.errno in (errno.ENOBUFS, errno.ENOMEM):
                    self._pause()
                    return
                continue  # ECONNABORTED and the network errors of accept(2): that client is gone
            if sock.fileno() >= self.most:
                self._refuse(sock, client, NO_DESCRIPTORS)
            else:
                self.accepted(sock, client)
            if perf_counter() >= ends_at:
                break
        self.route.poller.later(self)

    def accepted(self, sock: socket.SocketType, client: tuple[str, int]) -> None:
        """One client, or a proxy that speaks for one."""
        route = self.route
        if route.settings.proxy_protocol and route.is_trusted(client[0]):
            HeaderReader(sock, client, route.poller, route.deadlines, self)
            return
        original: tuple[str, int] | None = None
        if route.original:
            try:
                original = original_destination(sock)
            except OSError:
                sock.close()
                return
        refusal = route.admit(sock, client, original)
        if refusal is not None:
            self._refuse(sock, client, refusal)

    def introduced(self, sock: socket.SocketType, header: Header, peer: tuple[str, int]) -> None:
        """The PROXY header of a trusted proxy: the client that it speaks for."""
        route = self.route
        source = peer if header.local or header.source is None else header.source
        client = (plain(source[0]), source[1])
        if route.original and header.destination is None:
            self.not_introduced(sock, peer)
            return
        refusal = route.admit(sock, client, header.destination if route.original else None, registered=True)
        if refusal is not None:
            route.poller.remove(sock.fileno())
            self._refuse(sock, client, refusal)

    def not_introduced(self, sock: socket.SocketType, peer: tuple[str, int]) -> None:
        """A trusted proxy with no header, or a bad one, is closed without a word."""
        self.route.refused(peer, NO_HEADER)
        self.route.poller.remove(sock.fileno())
        sock.close()

    def _refuse(self, sock: socket.SocketType, client: tuple[str, int], refusal: Refusal) -> None:
        """Tell it why, and close."""
        session = self.route.refused(client, refusal)
        if self.route.implicit:
            sock.close()
            return
        try:
            sock.send(self._farewell(refusal, session))
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            sock.close()
            return
        self._farewells.see_off(sock, stranger=refusal.kind == "not_allowed")

    def _farewell(self, refusal: Refusal, session: str) -> bytes:
        return closing(refusal.status, self.route.settings.name, refusal.text, session_id=session)

    def _send_away(self) -> None:
        """Tell those whom the kernel has connected already; closing would reset them."""
        for _ in range(BACKLOG):
            try:
                sock, client = accept(self.sock, self._family)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in NOTHING_LEFT:
                    return
                continue
            self._refuse(sock, client, DRAINING)

    def failed(self, error: BaseException) -> None:
        """A bug of ours, with one client; the poller has logged it.  The others are served."""
        self.route.poller.soon(self)

    # -- no descriptors ----------------------------------------------------------------------------------------------

    def _turn_away(self) -> str:
        """Accept a client with the descriptor in reserve and tell it: `told`, `nobody` waits, or there is `none left`.

        Linux looks for a descriptor first, so accept(2) fails also when nobody waits.
        """
        if self.reserve < 0:
            self.reserve = _reserve()
            if self.reserve < 0:
                return "none left"
        os.close(self.reserve)
        self.reserve = -1
        try:
            sock, client = accept(self.sock, self._family)
        except OSError as error:
            self.reserve = _reserve()
            if isinstance(error, BlockingIOError):
                return "nobody"
            return "none left" if error.errno in NOTHING_LEFT else "told"
        session = self.route.refused(client, NO_DESCRIPTORS)
        try:
            if not self.route.implicit:
                sock.send(self._farewell(NO_DESCRIPTORS, session))
            sock.shutdown(socket.SHUT_WR)
            sock.recv(4096)  # what it said already would turn the close into a reset
        except OSError:
            pass
        sock.close()
        self.reserve = _reserve()
        return "told"

    def _pause(self) -> None:
        self.route.deadlines.at(self.route.deadlines.now() + PAUSE, self)

    def deadline_passed(self, now: float) -> None:
        """Try again."""
        if not self.closed:
            self.ready(0)


def _reserve() -> int:
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
