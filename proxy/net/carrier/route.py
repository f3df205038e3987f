"""What the sessions of one route share: its settings ready for use, and what outlives a reload.

`RouteState` is kept by the route's name for as long as the service runs: the open sessions, what is known of its
destinations.  `RouteRuntime` is made anew from each configuration; a session goes on with the one it began with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.net.carrier.carrier import Carrier
from proxy.net.carrier.record import Recorders
from proxy.net.coming_in import proxy_header
from proxy.net.coming_in.admission import Admission, Places, Refusal
from proxy.net.going_out.destination import FailureMemory, Server, Surroundings
from proxy.net.going_out.dialer import Dialer
from proxy.net.going_out.names.wanted import Names
from proxy.net.observer import Observer, Story, session_id
from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.policy import BridgePolicy, DestinationMemory, SessionPolicy

if TYPE_CHECKING:
    import socket

    from proxy.net.carrier.shared import OpenSession
    from proxy.net.tls.secure import SecureRoute
    from proxy.net.waiting.deadlines import Deadlines
    from proxy.net.waiting.poller import Poller
    from proxy.settings import Route

MAX_REMEMBERED: Final = 4096  # destinations
REMEDY_EVERY: Final = 60.0  # seconds between two lines about the same thing


class RouteState:
    """What outlives a reload of one route."""

    __slots__ = ("draining", "failures", "memories", "places", "remedy_at", "sessions")

    def __init__(self, places: Places) -> None:
        self.sessions: set[OpenSession] = set()
        self.places = places
        self.failures = FailureMemory()
        self.memories: dict[tuple[str, int, str], DestinationMemory] = {}
        self.remedy_at = -REMEDY_EVERY
        self.draining = False


class RouteRuntime:
    """One route as it is configured now."""

    __slots__ = (
        "admission", "deadlines", "dialer", "is_trusted", "observer", "original", "policy", "poller", "recorders",
        "secure", "settings", "shortest", "state",
    )  # fmt: skip

    def __init__(
        self,
        settings: Route,
        *,
        state: RouteState,
        poller: Poller,
        deadlines: Deadlines,
        observer: Observer,
        names: Callable[[], Names],
        surroundings: Surroundings,
        host_name: str,
        secure: SecureRoute | None,
    ) -> None:
        self.settings = settings
        self.state = state
        self.poller = poller
        self.deadlines = deadlines
        self.observer = observer
        self.secure = secure
        self.policy = session_policy(settings, host_name)
        self.dialer = Dialer(settings, poller, deadlines, names, observer, state.failures, surroundings)
        self.recorders: Recorders | None = None
        if settings.record.directory:
            self.recorders = Recorders(
                settings.record.directory, settings.record.bytes, settings.record.sessions, self._complain
            )
        timeouts = settings.timeouts
        self.shortest = min(timeouts.banner, timeouts.command, timeouts.half_closed)
        self.original = any(d.kind == "original" for d in settings.destination)
        self.admission = Admission(
            settings.allow_clients,
            settings.trusted_proxies,
            settings.max_sessions,
            settings.max_sessions_per_client,
            state.places,
        )
        self.is_trusted = self.admission.is_trusted

    # -- admission ---------------------------------------------------------------------------------------------------

    @property
    def implicit(self) -> bool:
        """Whether clients speak TLS from their first byte, so that nothing can be said in clear."""
        bridge = self.policy.bridge
        return bridge is not None and bridge.client == "implicit"

    def admit(
        self,
        sock: socket.SocketType,
        client: tuple[str, int],
        original: tuple[str, int] | None,
        *,
        registered: bool = False,
    ) -> Refusal | None:
        """Begin a session, or return why not.  `client` is the address that counts."""
        state = self.state
        address, port = client
        refusal = self.admission.enter(address, state.draining)
        if refusal is not None:
            return refusal
        story = Story(session_id(), self.settings.name, address, port, self.deadlines.now())
        carrier = Carrier(self, sock, story, trusted=self.dialer.transparent or self.is_trusted(address))
        state.sessions.add(carrier)
        self.observer.session_started(story)
        carrier.begin(original, registered=registered)
        return None

    def refused(self, client: tuple[str, int], refusal: Refusal) -> str:
        """Tell of a client that got no session; its id, for the text that it gets."""
        story = Story(session_id(), self.settings.name, client[0], client[1], self.deadlines.now())
        story.ended("refused", "proxy", refusal.text)
        self.observer.refused(story, refusal.kind)
        return story.id

    def session_over(self, session: OpenSession) -> None:
        """The counterpart of `admit`."""
        self.state.sessions.discard(session)
        self.state.places.give_back(session.story.client)

    # -- what carriers ask -------------------------------------------------------------------------------------------

    def memory_of(self, server: Server, own_address: str) -> DestinationMemory:
        """What is known of this server's habits, towards the address that the proxy has there.

        Where that is the client's own, all of them count as one: such a client is trusted, and what is left to be known
        is how the server writes its replies.
        """
        key = (server.address, server.port, "client" if self.dialer.transparent else own_address)
        memories = self.state.memories
        memory = memories.get(key)
        if memory is None:
            if len(memories) >= MAX_REMEMBERED:
                del memories[next(iter(memories))]
            memory = memories[key] = DestinationMemory()
        return memory

    def proxy_header(self, client: socket.SocketType, story: Story) -> bytes:
        """The PROXY header towards the server: the client's address, and the one it connected to."""
        local = client.getsockname()
        return proxy_header.write(
            self.settings.send_proxy_protocol, (story.client, story.client_port), (local[0], local[1])
        )

    def say_xclient_remedy(self, story: Story) -> None:
        """Count it, and once a minute tell why sessions end, and what the operator can do."""
        self.observer.refused_in_session(story, "xclient")
        now = self.deadlines.now()
        if now - self.state.remedy_at >= REMEDY_EVERY:
            self.state.remedy_at = now
            remedy = (
                "the server offers XCLIENT or XFORWARD to this proxy, so its clients could speak in any name: take the "
                "proxy's address off the server's list (smtpd_authorized_xclient_hosts), or set xclient = true"
            )
            self.observer.noticed(story, "xclient-offered", "warning", {"remedy": remedy})

    def _complain(self, text: str) -> None:
        self.observer.noticed(None, "record-failed", "error", {"route": self.settings.name, "reason": text})


def session_policy(settings: Route, host_name: str) -> SessionPolicy:
    """The route's settings as the core wants them."""
    repair = settings.repair
    tls = settings.tls
    bridge = BridgePolicy(tls.client, tls.server, tls.required) if tls.mode == "bridge" else None
    return SessionPolicy(
        route=settings.name,
        repair=RepairPolicy(
            mode=repair.mode,
            strict=repair.strict,
            greeting=repair.greeting.encode("ascii"),
            remove=tuple(word.encode("ascii") for word in repair.remove),
            add=tuple(line.encode("ascii") for line in repair.add),
        ),
        unterminated_after=repair.unterminated_after,
        banner_timeout=settings.timeouts.banner,
        command_timeout=settings.timeouts.command,
        half_closed_timeout=settings.timeouts.half_closed,
        xclient=settings.xclient,
        ehlo_name=(settings.ehlo_name or host_name).encode("ascii", "replace"),
        bridge=bridge,
        client_name=repair.client_name.encode("ascii"),
    )
