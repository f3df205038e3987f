"""Does this server offer XCLIENT or XFORWARD to us?  Asked on a connection of our own, when no session has shown it.

A client that never says EHLO (HELO, or an unknown command at once) would otherwise be let go before anybody knew
whether its next words could be an XCLIENT that the server takes from the proxy's address.  Banner, EHLO, QUIT; the
answer is remembered with the destination for some minutes, so this is rare.

No answer within `ASK_TIMEOUT` is no answer, and neither is a refusal, unless EHLO is not known there at all: the
session that waits is ended, since letting it go on a guess could lend the server's trust to a stranger.  A reply is
over when nothing has come behind a final line for a moment: servers were seen that make every line a final one.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING, Final

from proxy.net.coming_in import proxy_header
from proxy.net.going_out import transparent
from proxy.net.tls.problem import TlsProblem
from proxy.smtp.lines import LineBuffer
from proxy.smtp.reply.repair import EhloContext, RepairPolicy, repair_reply
from proxy.smtp.reply.replies import code_of, ends_reply
from proxy.smtp.session.state import EHLO_WAIT

if TYPE_CHECKING:
    from proxy.net.carrier.carrier import Carrier
    from proxy.net.carrier.route import RouteRuntime
    from proxy.net.going_out.destination import Server
    from proxy.net.tls.channel import TlsChannel

ASK_TIMEOUT: Final = 10.0  # seconds
MAX_ANSWER: Final = 65536  # bytes

NO_EHLO: Final = (500, 502)  # a server that knows no EHLO knows no extension (RFC 5321 4.1.1.1, 4.2.4)

_OBSERVE: Final = RepairPolicy(mode="observe")


class OffersQuestion:
    """One question under way, for all the sessions that wait for it."""

    __slots__ = (
        "_asking", "_banner_over", "_channel", "_ends_at", "_header", "_key", "_lines", "_over", "_reply", "_route",
        "_secured", "_server", "_sock", "_taken",
    )  # fmt: skip

    def __init__(self, route: RouteRuntime, server: Server, key: str) -> None:
        self._route = route
        self._server = server
        self._key = key
        self._asking: dict[Carrier, None] = {}
        self._lines = LineBuffer(MAX_ANSWER)
        self._reply: list[bytes] = []  # the lines so far of the one that is awaited
        self._ends_at = 0.0
        self._over = False
        self._taken = 0
        self._banner_over = False
        self._sock: socket.socket | None = None
        self._channel: TlsChannel | None = None  # to a server that speaks TLS from its first byte
        self._secured = False
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
        now = route.deadlines.now()
        self._ends_at = now + ASK_TIMEOUT
        route.deadlines.at(self._ends_at, self)
        family = socket.AF_INET6 if ":" in self._server.address else socket.AF_INET
        try:
            sock = self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            source = route.settings.source
            if source and source != "client" and (":" in source) == (family == socket.AF_INET6):
                transparent.bind_source(sock, source, False)
            sock.connect_ex((self._server.address, self._server.port))
            if route.secure is not None and route.settings.tls.server == "implicit":
                self._channel = route.secure.towards_server(sock, self._server.name)
            route.poller.add(sock.fileno(), self)
        except OSError:
            route.deadlines.at(now, self)  # it answers, as for one that is late

    def ready(self, mask: int) -> None:
        """Read what is there."""
        sock = self._sock
        if sock is None:
            return
        try:
            if self._header and mask & select.EPOLLOUT:
                header, self._header = self._header, b""
                sock.send(header)
            if not self._secure():
                return
            while True:
                data = sock.recv(16384) if self._channel is None else self._channel.recv(16384)
                if data is None:
                    if self._channel is not None and self._channel.more:
                        self._route.poller.soon(self)
                    return
                self._taken += len(data)
                if not data:
                    self._judge()
                    return
                if self._taken > MAX_ANSWER:
                    self._answer(None)
                    return
                self._lines.feed(data)
                self._read()
        except BlockingIOError:
            return
        except (OSError, TlsProblem):
            self._answer(None)

    def _secure(self) -> bool:
        """Whether the server may be talked to.  Raises TlsProblem."""
        channel = self._channel
        if channel is None or self._secured:
            return True
        if self._header:
            return False
        if not channel.handshake():
            if channel.more:
                self._route.poller.soon(self)
            return False
        assert self._route.secure is not None
        if not self._route.secure.accepts(channel, self._server.name):
            raise TlsProblem("this is not the server that was meant")
        self._secured = True
        return True

    def _say(self, line: bytes) -> None:
        if self._channel is not None:
            self._channel.send(line)
        elif self._sock is not None:
            self._sock.send(line)

    def _read(self) -> None:
        """Take the whole lines; a reply is judged when nothing has come behind its last line for a moment."""
        reply = self._reply
        while (line := self._lines.next()) is not None:
            reply.append(line)
            if not self._banner_over and ends_reply(line):
                self._banner_over = True
                reply.clear()
                self._say(b"EHLO " + self._route.policy.ehlo_name + b"\r\n")
        deadlines = self._route.deadlines
        over = reply and ends_reply(reply[-1]) and not self._lines.pending
        deadlines.at(min(deadlines.now() + EHLO_WAIT, self._ends_at) if over else self._ends_at, self)

    def deadline_passed(self, now: float) -> None:
        """The reply is over, or there was none in time."""
        self._judge()

    def _judge(self) -> None:
        reply = self._reply
        if not (reply and self._banner_over and ends_reply(reply[-1])):
            self._answer(None)
            return
        result = repair_reply(b"".join(reply), _OBSERVE, EhloContext(client_trusted=False))
        try:
            self._say(b"QUIT\r\n")
        except (OSError, TlsProblem):
            pass
        if not result.refused:
            self._answer(result.offers_xclient)
        else:
            self._answer(False if code_of(reply[0]) in NO_EHLO else None)

    def failed(self, error: BaseException) -> None:
        """A bug of ours; the poller has logged it."""
        self._answer(None)

    def _answer(self, offered: bool | None) -> None:
        if self._over:
            return
        self._over = True
        route = self._route
        route.deadlines.cancel(self)
        sock, self._sock = self._sock, None
        if sock is not None:
            route.poller.remove(sock.fileno())
            sock.close()
        route.state.questions.pop(self._key, None)
        asking, self._asking = self._asking, {}
        for carrier in asking:
            carrier.offers_known(offered)
