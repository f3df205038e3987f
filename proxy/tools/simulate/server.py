"""A destination server for a lab and for tests: speaks SMTP, says broken things when told to, takes every mail.

`SimulatedServer` is a Twisted factory; give it to `reactor.listenTCP` and see in `on_mail` and `on_command` what came.
What it understands and how, and its limits, is told in `proxy.tools.simulate.session`; what it says wrongly, in
`proxy.tools.simulate.replies` and `proxy.tools.simulate.faults`.  An offer of other ALPN protocols than `smtp` is
ignored, as mail servers do.  It is no server for strangers: at most 1000 sessions at a time, each with those limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IOpenSSLServerConnectionCreator, IReactorTime
from twisted.internet.protocol import Factory
from zope.interface import implementer

from proxy.net.tls.contexts import parse_credential
from proxy.tools.simulate.faults import NO_FAULT, Fault
from proxy.tools.simulate.incoming import Mail
from proxy.tools.simulate.replies import GOOD_REPLIES, SimulatedReplies
from proxy.tools.simulate.session import SimulatedSession
from proxy.tools.simulate.weak import weaken

MAX_SESSIONS = 1000  # at a time; more get 421


@implementer(IOpenSSLServerConnectionCreator)
class ServerSideTls:
    """One certificate for every client; TLS 1.2 and newer but for a `weakness`, no client certificates."""

    def __init__(self, certificate: bytes, key: bytes, weakness: str = "") -> None:
        """`certificate` and `key` are PEM.  Raises `TlsProblem` when they can't be used."""
        self.context = SSL.Context(SSL.TLS_METHOD)
        self.context.set_min_proto_version(SSL.TLS1_2_VERSION)
        weaken(self.context, weakness)
        parse_credential(certificate, key).use_in(self.context)
        self.context.set_alpn_select_callback(
            lambda connection, offered: b"smtp" if b"smtp" in offered else SSL.NO_OVERLAPPING_PROTOCOLS
        )

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return SSL.Connection(self.context, None)


class SimulatedServer(Factory):
    """Makes a `SimulatedSession` for every client.

    `tls` None: STARTTLS is refused.  `answers` puts raw replies in place of the usual ones, by verb in capitals.
    `behind_starttls` is sent in one segment with the 220 to STARTTLS: response injection.  `implicit_tls`: TLS from the
    first byte.  `fault` is what it does wrong beside `replies`.  `on_command` gets every command line with its end,
    `on_mail` every accepted message.
    """

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        replies: SimulatedReplies = GOOD_REPLIES,
        tls: ServerSideTls | None = None,
        *,
        on_mail: Callable[[Mail], None] | None = None,
        on_command: Callable[[bytes], None] | None = None,
        answers: Mapping[bytes, bytes] | None = None,
        behind_starttls: bytes = b"",
        implicit_tls: bool = False,
        fault: Fault = NO_FAULT,
    ) -> None:
        self.clock = clock
        self.replies = replies
        self.tls = tls
        self.on_mail = on_mail or (lambda mail: None)
        self.on_command = on_command or (lambda line: None)
        self.answers = {**fault.answers, **(answers or {})}
        self.fault = fault
        self.behind_starttls = behind_starttls
        self.implicit_tls = implicit_tls
        self._connections = 0
        self._open = 0

    def buildProtocol(self, addr: IAddress | None) -> SimulatedSession:
        self._connections += 1
        self._open += 1
        hides_tls = self.fault.every_other and self._connections % 2 == 0
        client = f"{getattr(addr, 'host', '')}:{getattr(addr, 'port', '')}"
        return SimulatedSession(self, client, hides_tls, self._open > MAX_SESSIONS)

    def ended(self) -> None:
        """A session's connection is no more."""
        self._open -= 1
