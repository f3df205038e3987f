"""What a session asks of its route: the settings ready for use, what all sessions share, and who is told of its end.

`proxy.net.carrier.route.RouteRuntime` is one; a session goes on with the one that it began with.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from proxy.net.carrier.record import Recorders
    from proxy.net.going_out.destination import Server
    from proxy.net.going_out.dialer import Dialer
    from proxy.net.observer import Observer, Story
    from proxy.net.tls.secure import SecureRoute
    from proxy.net.waiting.deadlines import Deadlines
    from proxy.net.waiting.poller import Poller
    from proxy.settings import Route
    from proxy.smtp.session.policy import DestinationMemory, SessionPolicy


class OpenSession(Protocol):
    """A session that is not over, as its route knows it."""

    story: Story
    over: bool  # it has become a matter of closing sockets

    def drain(self, quiet_for: float) -> None:
        """The service stops; see `Carrier.drain`."""

    def tell_flow(self) -> None:
        """Tell the observer how many bytes there were until now."""

    def end(
        self, outcome: str, by: str, reason: str, *, reset_client: bool = False, reset_server: bool = False
    ) -> None:
        """End it, and tell it so."""


class Shared(Protocol):
    """One route, as its sessions see it."""

    settings: Route
    policy: SessionPolicy
    poller: Poller
    deadlines: Deadlines
    observer: Observer
    dialer: Dialer
    recorders: Recorders | None
    secure: SecureRoute | None
    shortest: float  # seconds; no deadline of a session is sooner, but those that it tells of

    @property
    def implicit(self) -> bool:
        """Whether clients speak TLS from their first byte."""

    def memory_of(self, server: Server, own_address: str) -> DestinationMemory:
        """What is known of this server's habits."""

    def proxy_header(self, client: socket.SocketType, story: Story) -> bytes:
        """The PROXY header towards the server."""

    def say_xclient_remedy(self, story: Story) -> None:
        """Tell why sessions end, and what the operator can do."""

    def session_over(self, session: OpenSession) -> None:
        """Forget it; its place is free."""
