"""Does this server offer XCLIENT or XFORWARD to us?  Asked on a connection of our own, when no session has shown it.

A client that never says EHLO (HELO, or an unknown command at once) would otherwise be let go before anybody knew
whether its next words could be an XCLIENT that the server takes from the proxy's address.  Banner, EHLO, QUIT; the
answer is remembered with the destination for some minutes, so this is rare.

No answer within `ASK_TIMEOUT` is no answer: the session that waits is ended, since letting it go on a guess could lend
the server's trust to a stranger.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Final

from proxy.net import proxy_header, transparent
from proxy.smtp.lines import LineBuffer
from proxy.smtp.repair import EhloContext, RepairPolicy, repair_reply
from proxy.smtp.replies import ends_reply

if TYPE_CHECKING:
    from proxy.net.carrier import Carrier
    from proxy.net.destination import Server
    from proxy.net.route import RouteRuntime

ASK_TIMEOUT: Final = 10.0  # seconds
MAX_ANSWER: Final = 65536  # bytes

_OBSERVE: Final = RepairPolicy(mode="observe")


class OffersQuestion:
    """One question under way, for all the sessions that wait for it."""

    __slots__ = ("_asking", "_banner_over", "_header", "_key", "_lines", "_raw", "_route", "_server", "_sock", "_taken")

    def __init__(self, route: RouteRuntime, server: Server, key: str) -> None:
        self._route = route
        self._server = server
        self._key = key
        self._asking: dict[Carrier, None] = {}
        self._lines = LineBuffer(MAX_ANSWER)
        self._raw = b""
        self._taken = 0
        self._banner_over = False
        self._sock: socket.socket | None = None
        version = route.settings.send_proxy_protocol
        self._header = b"" if not version else proxy_header.write_local() if version == 2 else b"PROXY UNKNOWN\r\n"

    def ask(self, carrier: Carrier) -> None:
        """This session waits for the answer, too; its `offers_known` is called once."""
        self._asking[carrier] = None

    def forget(self, carrier: Carrier) -> None:
        """This session does not wait any more."""
        self._asking.pop(carrier, None)

    def begin(self) -> None:
        """Connect.  Nothing is answered from within."""
        route = self._route
        family = socket.AF_INET6 if ":" in self._server.address else socket.AF_INET
        sock = self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        route.deadlines.at(route.deadlines.now() + ASK_TIMEOUT, self)
        try:
            source = route.settings.source
            if source and source != "client" and (":" in source) == (family == socket.AF_INET6):
                transparent.bind_source(sock, source, False)
            sock.connect_ex((self._server.address, self._server.port))
            route.poller.add(sock.fileno(), self)
        except OSError:
            pass  # the deadline answers

    def ready(self, mask: int) -> None:
        """Read what is there."""
        sock = self._sock
        if sock is None:
            return
        try:
            if self._header and mask & select.EPOLLOUT:
                header, self._header = self._header, b""
                sock.send(header)
            while True:
                data = sock.recv(16384)
                self._taken += len(data)
                if not data or self._taken > MAX_ANSWER:
                    self._answer(None)
                    return
                self._lines.feed(data)
                self._read(sock)
                if self._sock is None:
                    return
        except BlockingIOError:
            return
        except OSError:
            self._answer(None)

    def _read(self, sock: socket.socket) -> None:
        while (line := self._lines.next()) is not None:
            self._raw += line
            if not ends_reply(line):
                continue
            raw, self._raw = self._raw, b""
            if not self._banner_over:
                self._banner_over = True
                sock.send(b"EHLO " + self._route.policy.ehlo_name + b"\r\n")
            else:
                result = repair_reply(raw, _OBSERVE, EhloContext(client_trusted=False))
                try:
                    sock.send(b"QUIT\r\n")
                except OSError:
                    pass
                self._answer(result.offers_xclient)
                return

    def deadline_passed(self, now: float) -> None:
        """No answer in time."""
        self._answer(None)

    def failed(self, error: BaseException) -> None:
        """A bug of ours; the poller has logged it."""
        self._answer(None)

    def _answer(self, offered: bool | None) -> None:
        route = self._route
        sock, self._sock = self._sock, None
        if sock is None:
            return
        route.deadlines.cancel(self)
        route.poller.remove(sock.fileno())
        sock.close()
        route.state.questions.pop(self._key, None)
        asking, self._asking = self._asking, {}
        for carrier in asking:
            carrier.offers_known(offered)
