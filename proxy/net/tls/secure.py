"""A route's TLS in bridge mode: its contexts, the handshake on either side, and the verdict on a server.

Who asks for a handshake is told its end; what the session makes of it is `proxy.net.carrier.securing`'s.

While a handshake is under way it owns the socket's events; the connection gets them back with a channel to read and
write through.  What was to be sent before goes first, in clear.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxy.net.tls.channel import TlsChannel
from proxy.net.tls.contexts import TlsContexts, offers_dhe
from proxy.net.tls.flight import ServerFlight
from proxy.net.tls.identity import Verdict, judge
from proxy.net.tls.names import Meant
from proxy.net.tls.problem import TlsProblem

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from proxy.net.waiting.deadlines import Deadlines
    from proxy.net.waiting.poller import Watched
    from proxy.settings import Destination, Tls


class Goal(Protocol):
    """The server that is connected: the name or address that it was found by, and what the operator wrote."""

    @property
    def name(self) -> str: ...
    @property
    def destination(self) -> Destination: ...


class Secured(Protocol):
    """The connection that gets a channel: the socket's owner before the handshake and after it."""

    @property
    def sock(self) -> socket.SocketType: ...
    @property
    def closed(self) -> bool: ...
    @property
    def closing(self) -> bool: ...

    def handshake_begins(self) -> None:
        """Nothing is read any more, and what is not being sent yet waits for the channel."""

    def clear_text_is_out(self) -> bool:
        """Whether all that was to go in clear has left; it is tried again."""

    def handshake_over(self, channel: TlsChannel | None) -> None:
        """Go on inside TLS; or in clear, and what waited for TLS is dropped."""

    def ready(self, mask: int) -> None: ...
    def failed(self, error: BaseException) -> None: ...
    def abort(self) -> None: ...


class Sockets(Protocol):
    """Who gives out the sockets' events (`proxy.net.waiting.poller`)."""

    def replace(self, fd: int, watched: Watched) -> None: ...
    def later(self, watched: Watched) -> None: ...


if TYPE_CHECKING:
    Told = Callable[[TlsChannel | None, str], None]


class SecureRoute:
    """A route's contexts, made at start and at each reload."""

    __slots__ = ("contexts", "tls")

    def __init__(self, tls: Tls, contexts: TlsContexts) -> None:
        self.tls = tls
        self.contexts = contexts

    def client(
        self, connection: Secured, poller: Sockets, deadlines: Deadlines, timeout: float, then: Told
    ) -> Handshake:
        """The proxy is the TLS server towards the client."""
        assert self.contexts.client_side is not None
        channel = TlsChannel.towards_client(self.contexts.client_side, connection.sock)
        return Handshake(connection, channel, poller, deadlines, timeout, then)

    def server(
        self, connection: Secured, server: Goal, poller: Sockets, deadlines: Deadlines, timeout: float, then: Told
    ) -> Handshake:
        """The proxy is the TLS client towards the server."""
        channel = self.towards_server(connection.sock, server)
        return Handshake(connection, channel, poller, deadlines, timeout, then)

    def towards_server(self, sock: socket.SocketType, server: Goal) -> TlsChannel:
        """A channel to a server; `judge` it after the handshake."""
        assert self.contexts.server_side is not None
        name = meant(server).server_name(self.tls.verify_name)
        flight = ServerFlight() if offers_dhe(self.tls) else None
        return TlsChannel.towards_server(self.contexts.server_side, sock, name, flight)

    def judge(self, channel: TlsChannel, server: Goal) -> Verdict:
        """Whether this server's identity meets the route's policy."""
        return judge(channel.connection, self.tls, meant(server), channel.received)


def meant(server: Goal) -> Meant:
    """Who a server has to prove that it is."""
    return Meant(server.name, server.destination.host if server.destination.kind == "mx" else "")


class Handshake:
    """One handshake; tells `then` the channel, or the reason why there is none.

    Whoever made it keeps it, and then calls `ready` once: what the peer has sent by then makes no event any more.

    A step of it costs OpenSSL up to some milliseconds (a signature of RSA), and the peer nothing where it sends one
    hello again and again.  So each step is taken when all who want less have had their turn.
    """

    __slots__ = ("_channel", "_connection", "_deadlines", "_has_waited", "_over", "_poller", "_then")

    def __init__(
        self,
        connection: Secured,
        channel: TlsChannel,
        poller: Sockets,
        deadlines: Deadlines,
        timeout: float,
        then: Told,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._then = then
        self._poller = poller
        self._deadlines = deadlines
        self._over = False
        self._has_waited = False  # for its turn
        connection.handshake_begins()
        poller.replace(connection.sock.fileno(), self)
        deadlines.at(deadlines.now() + timeout, self)

    def ready(self, mask: int) -> None:
        """The socket may let the handshake go on."""
        if self._over:
            return
        connection = self._connection
        if connection.closed:
            self.cancel()
            return
        if not connection.clear_text_is_out():
            return
        self._has_waited = not self._has_waited
        if self._has_waited:
            self._poller.later(self)
            return
        try:
            done = self._channel.handshake()
        except TlsProblem as problem:
            self._finish(None, problem.reason)
            return
        if done:
            self._finish(self._channel, "")
        elif self._channel.more:
            self._has_waited = True
            self._poller.later(self)

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
            self._give_back()
            self._connection.handshake_over(None)

    def _give_back(self) -> None:
        connection = self._connection
        if not connection.closed:
            self._poller.replace(connection.sock.fileno(), connection)

    def _finish(self, channel: TlsChannel | None, reason: str) -> None:
        if self._over:
            return
        self._over = True
        self._deadlines.cancel(self)
        self._give_back()
        connection = self._connection
        connection.handshake_over(channel)
        if channel is None and connection.closing:
            connection.abort()
        self._then(channel, reason)
        if channel is not None:
            connection.ready(0)  # what came behind the handshake is in OpenSSL, or in the kernel without an event
