"""A session's handshakes in bridge mode: begun when the session says so, and what follows from how they end.

The handshakes themselves and the verdict on the server are `proxy.net.tls.secure`'s; here the session, the observer and
the recorder are told.  Made when the first handshake begins, so that a session without TLS of ours has none.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from proxy.net.carrier.looking import Onlooker
    from proxy.net.carrier.shared import Shared
    from proxy.net.going_out.destination import Server
    from proxy.net.observer import Story
    from proxy.net.relay.connection import Connection
    from proxy.net.tls.channel import TlsChannel
    from proxy.net.tls.secure import Handshake
    from proxy.smtp.session.events import Action
    from proxy.smtp.session.session import Session


class Secures(Protocol):
    """The carrier, as far as its handshakes ask and tell it."""

    client: Connection
    server: Connection | None
    connected_to: Server | None
    route: Shared
    session: Session | None
    story: Story
    onlooker: Onlooker

    def drop_server(self) -> None:
        """Close the connection to the server without a word."""

    def obey(self, actions: list[Action]) -> None:
        """Carry out what the session says."""


class Securing:
    """The handshakes that are under way, of one session."""

    __slots__ = ("_carrier", "_client", "_server")

    def __init__(self, carrier: Secures) -> None:
        self._carrier = carrier
        self._client: Handshake | None = None
        self._server: Handshake | None = None

    def client(self) -> None:
        """The proxy is the TLS server towards the client."""
        carrier = self._carrier
        route = carrier.route
        assert route.secure is not None
        self._client = route.secure.client(
            carrier.client, route.poller, route.deadlines, route.settings.timeouts.handshake, self._client_over
        )
        self._client.ready(0)

    def server(self) -> None:
        """The proxy is the TLS client towards the server."""
        carrier = self._carrier
        route = carrier.route
        assert route.secure is not None
        assert carrier.server is not None
        assert carrier.connected_to is not None
        self._server = route.secure.server(
            carrier.server,
            carrier.connected_to,
            route.poller,
            route.deadlines,
            route.settings.timeouts.handshake,
            self._server_over,
        )
        self._server.ready(0)

    def cancel(self, *, clients_too: bool) -> None:
        """The session is over.  A handshake with a client is let through where something is to be said to it."""
        if self._server is not None:
            self._server.cancel()
        if self._client is not None and clients_too:
            self._client.cancel()
        self._client = self._server = None

    def _server_over(self, channel: TlsChannel | None, reason: str) -> None:
        """The handshake with the server is over: judge it before anybody is told."""
        self._server = None
        carrier = self._carrier
        session = carrier.session
        if session is None:
            return
        route = carrier.route
        if channel is not None:
            assert route.secure is not None
            assert carrier.connected_to is not None
            verdict = route.secure.judge(channel, carrier.connected_to)
            verified = route.secure.tls.verify if verdict.accepted else "no"
            ends_at = verdict.not_after or 0.0
            route.observer.tls_started(
                carrier.story, "server", channel.version, "", channel.cipher, verified, ends_at, channel.group
            )
            if verdict.accepted:
                carrier.onlooker.keep_nothing()
                if route.policy.bridge is not None and route.policy.bridge.client == "none":
                    carrier.story.inside_bridge(channel.version)
                carrier.obey(session.server_tls_ready(monotonic()))
                return
            reason = verdict.reason
        carrier.drop_server()
        carrier.obey(session.server_tls_failed(reason, monotonic()))

    def _client_over(self, channel: TlsChannel | None, reason: str) -> None:
        """The handshake with the client is over."""
        self._client = None
        carrier = self._carrier
        session = carrier.session
        if session is None:
            return
        if channel is None:
            carrier.obey(session.client_tls_failed(reason, monotonic()))
            return
        story = carrier.story
        carrier.onlooker.inside_tls()
        story.inside_bridge(channel.version, channel.sni)
        carrier.route.observer.tls_started(
            story, "client", channel.version, channel.sni, channel.cipher, "", 0.0, channel.group
        )
        if not carrier.route.implicit:
            carrier.obey(session.client_tls_ready(monotonic()))
