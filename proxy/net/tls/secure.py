"""TLS on either side of a session, for bridge mode: the handshake, the verdict, and the channel put in place.

While a handshake is under way it owns the socket's events; the connection gets them back with a channel to read and
write through.  What was to be sent before goes first, in clear.
"""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from proxy.net.relay.connection import Connection
from proxy.net.tls.channel import TlsChannel, TlsContexts, Verdict, judge
from proxy.net.tls.contexts import offers_dhe
from proxy.net.tls.flight import ServerFlight
from proxy.net.tls.names import Meant
from proxy.net.tls.problem import TlsProblem

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from proxy.net.carrier.carrier import Carrier
    from proxy.settings import Destination, Tls


class Goal(Protocol):
    """The server that is connected: the name or address that it was found by, and what the operator wrote."""

    @property
    def name(self) -> str: ...
    @property
    def destination(self) -> Destination: ...


class SecureRoute:
    """A route's contexts, made at start and at each reload."""

    __slots__ = ("contexts", "tls")

    def __init__(self, tls: Tls, contexts: TlsContexts) -> None:
        self.tls = tls
        self.contexts = contexts

    def client(self, carrier: Carrier) -> Handshake:
        """The proxy is the TLS server towards the client."""
        assert self.contexts.client_side is not None
        channel = TlsChannel.towards_client(self.contexts.client_side, carrier.client.sock)
        return Handshake(carrier, carrier.client, channel, partial(self.client_secured, carrier))

    def server(self, carrier: Carrier) -> Handshake:
        """The proxy is the TLS client towards the server."""
        connection = carrier.server
        assert connection is not None
        assert carrier.connected_to is not None
        channel = self.towards_server(connection.sock, carrier.connected_to)
        return Handshake(carrier, connection, channel, partial(self.server_secured, carrier))

    def towards_server(self, sock: socket.socket, server: Goal) -> TlsChannel:
        """A channel to a server; `judge` it after the handshake."""
        assert self.contexts.server_side is not None
        name = meant(server).server_name(self.tls.verify_name)
        flight = ServerFlight() if offers_dhe(self.tls) else None
        return TlsChannel.towards_server(self.contexts.server_side, sock, name, flight)

    def judge(self, channel: TlsChannel, server: Goal) -> Verdict:
        """Whether this server's identity meets the route's policy."""
        return judge(channel.connection, self.tls, meant(server), channel.received)

    def server_secured(self, carrier: Carrier, channel: TlsChannel | None, reason: str) -> None:
        """The handshake with the server is over: judge it before anybody is told."""
        carrier.securing_server = None
        session = carrier.session
        if session is None:
            return
        accepted = False
        if channel is not None:
            assert carrier.connected_to is not None
            verdict = self.judge(channel, carrier.connected_to)
            accepted, reason = verdict.accepted, verdict.reason
            carrier.route.observer.tls_started(
                carrier.story, "server", channel.version, "", channel.cipher, self.tls.verify if accepted else "no",
                verdict.not_after or 0.0, channel.group,
            )  # fmt: skip
        if accepted:
            assert channel is not None
            carrier.onlooker.keep_nothing()
            bridge = carrier.route.policy.bridge
            if bridge is not None and bridge.client == "none":
                carrier.story.tls = "bridge"
                carrier.story.tls_version = channel.version
            carrier.obey(session.server_tls_ready(monotonic()))
        else:
            carrier.drop_server()
            carrier.obey(session.server_tls_failed(reason, monotonic()))

    def client_secured(self, carrier: Carrier, channel: TlsChannel | None, reason: str) -> None:
        """The handshake with the client is over."""
        carrier.securing_client = None
        session = carrier.session
        if session is None:
            return
        if channel is None:
            carrier.obey(session.client_tls_failed(reason, monotonic()))
            return
        story = carrier.story
        carrier.onlooker.inside_tls()
        story.tls = "bridge"
        story.tls_version = channel.version
        story.sni = channel.sni
        carrier.route.observer.tls_started(
            story, "client", channel.version, channel.sni, channel.cipher, "", 0.0, channel.group
        )
        if not carrier.implicit:
            carrier.obey(session.client_tls_ready(monotonic()))


def meant(server: Goal) -> Meant:
    """Who a server has to prove that it is."""
    return Meant(server.name, server.destination.host if server.destination.kind == "mx" else "")


class Handshake:
    """One handshake; tells `then` the channel, or the reason why there is none.

    Whoever made it keeps it, and then calls `ready` once: what the peer has sent by then makes no event any more.
    """

    __slots__ = ("_channel", "_connection", "_deadlines", "_over", "_poller", "_then")

    def __init__(
        self,
        carrier: Carrier,
        connection: Connection,
        channel: TlsChannel,
        then: Callable[[TlsChannel | None, str], None],
    ) -> None:
        route = carrier.route
        self._connection = connection
        self._channel = channel
        self._then = then
        self._poller = route.poller
        self._deadlines = route.deadlines
        self._over = False
        connection.securing = True
        # In a session that begins with TLS nothing may leave in clear.
        connection.holds_back = connection.pending is None
        self._poller.replace(connection.sock.fileno(), self)
        self._deadlines.at(self._deadlines.now() + route.settings.timeouts.handshake, self)

    def ready(self, mask: int) -> None:
        """The socket may let the handshake go on."""
        if self._over:
            return
        connection = self._connection
        if connection.closed:
            self.cancel()
            return
        if not connection.holds_back:
            connection.flush()
            if connection.pending is not None:
                return
            connection.holds_back = True
        try:
            done = self._channel.handshake()
        except TlsProblem as problem:
            self._finish(None, problem.reason)
            return
        if done:
            self._finish(self._channel, "")
        elif self._channel.more:
            self._poller.soon(self)

    def deadline_passed(self, now: float) -> None:
        """It took too long."""
        channel = self._channel
        if channel.received:
            self._finish(None, f"the {channel.peer} did not finish the TLS handshake in time")
        elif channel.peer == "server":
            self._finish(None, f"the server never answered the ClientHello of {channel.hello_size} octets")
        else:
            self._finish(None, "the client did not begin the TLS handshake in time")

    def failed(self, error: BaseException) -> None:
        """A bug of ours; the poller has logged it."""
        if self._over:
            self._connection.failed(error)
        else:
            self._finish(None, "internal error")

    def cancel(self) -> None:
        """The session is over."""
        if not self._over:
            self._over = True
            self._deadlines.cancel(self)
            self._connection.pending = None
            self._give_back()

    def _give_back(self) -> None:
        connection = self._connection
        connection.securing = connection.holds_back = False
        if not connection.closed:
            self._poller.replace(connection.sock.fileno(), connection)

    def _finish(self, channel: TlsChannel | None, reason: str) -> None:
        if self._over:
            return
        self._over = True
        self._deadlines.cancel(self)
        self._give_back()
        connection = self._connection
        if channel is None:
            connection.pending = None  # it was meant for inside TLS
            if connection.closing:
                connection.abort()
        else:
            connection.channel = channel
            connection.may_read = True
            connection.flush()
        self._then(channel, reason)
        if channel is not None:
            connection.ready(0)  # what came behind the handshake is in OpenSSL, or in the kernel without an event
