"""The serving part of one process: poller, deadlines, routes, listeners and their sessions.

`apply` takes a configuration, the first one and every later one, and either puts all of it into effect or nothing:
sockets are opened and keys are read before anything is changed.  Sockets that stay are not closed, so that no client
is refused by a reload; sessions go on with the configuration that they began with.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from proxy.net.carrier.route import RouteRuntime, RouteState
from proxy.net.coming_in.admission import OwnPlaces, Places
from proxy.net.coming_in.doorstep import Farewells
from proxy.net.coming_in.listeners import Listener
from proxy.net.coming_in.sockets import open_sockets
from proxy.net.going_out.destination import Surroundings
from proxy.net.going_out.own_addresses import OwnAddresses
from proxy.net.going_out.transparent import lacking, try_transparent
from proxy.net.waiting.deadlines import Deadlines
from proxy.net.waiting.poller import Poller

if TYPE_CHECKING:
    from proxy.daemon.log.writer import LineWriter
    from proxy.net.carrier.shared import OpenSession
    from proxy.net.going_out.names.wanted import Names
    from proxy.net.observer import Observer
    from proxy.net.tls.contexts import SharedContexts
    from proxy.net.tls.secure import SecureRoute
    from proxy.settings import Listen, Route, Settings

QUIET: Final = 660.0  # seconds without a byte, then a draining relay is cut: RFC 5321 4.5.3.2.6 gives the dot 10 min

FLOW_EVERY: Final = 1.0  # seconds between two counts of the bytes of the sessions that run, and ...
FLOW_AT_ONCE: Final = 300  # ... of how many sessions in one turn, which takes some 0.4 ms

# The listening sockets for one entry of `listen`; `True` where they are to take connections to addresses that are not
# the host's.  Raises OSError with the address in its text.
Doors = Callable[["Listen", bool], list[socket.socket]]


def own_doors(inherited: Mapping[str, list[int]]) -> Doors:
    """Sockets that this process opens by itself; `inherited` are systemd's by name."""
    return lambda listen, is_transparent: open_sockets(listen, inherited, is_transparent=is_transparent)


class CannotStart(Exception):
    """The configuration is good, but cannot be put into effect here; the text says why, in words for a person."""


class Serving:
    """Made once a process; `reactor` is the running or soon running one."""

    def __init__(
        self,
        reactor: Any,
        observer: Observer,
        *,
        doors: Doors,
        places: Callable[[str], Places] = lambda _route: OwnPlaces(),
    ) -> None:
        """`doors` opens the sockets.  `places` gives a route's by its name, where other processes serve it, too."""
        self.reactor = reactor
        self.observer = observer
        self.poller = Poller(reactor, observer.slow_turn)
        self.deadlines = Deadlines(reactor, turns=self.poller.turns)
        self.doors = doors
        self.places = places
        self.routes: dict[str, RouteRuntime] = {}
        self.states: dict[str, RouteState] = {}
        self.listeners: list[Listener] = []
        self.draining = False
        self._tells_flow = False
        self._listening: frozenset[tuple[str, int]] = frozenset()
        self._names: Names | None = None
        self._farewells = Farewells(self.poller, self.deadlines, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._surroundings = Surroundings(OwnAddresses(), lambda: self._listening)

    def gather_log(self, writer: LineWriter) -> None:
        """Write what the sessions of one turn log in one go at its end."""
        writer.gather(self.poller.at_turns_end)

    # -- configuration -----------------------------------------------------------------------------------------------

    def apply(self, settings: Settings) -> None:
        """Put a configuration into effect.  Raises CannotStart, having changed nothing."""
        shared: SharedContexts = {}
        secure = {route.name: self._secure(route, shared) for route in settings.routes if route.tls.mode == "bridge"}
        for route in settings.routes:
            if lacks := lacking(route.source):
                raise CannotStart(f"route {route.name}: {lacks}")
        opened, kept = self._open(settings)
        host_name = _host_name(settings)
        routes: dict[str, RouteRuntime] = {}
        for route in settings.routes:
            state = self.states.get(route.name)
            if state is None:
                state = self.states[route.name] = RouteState(self.places(route.name))
            routes[route.name] = RouteRuntime(
                route,
                state=state,
                poller=self.poller,
                deadlines=self.deadlines,
                observer=self.observer,
                names=self._resolver,
                surroundings=self._surroundings,
                host_name=host_name,
                secure=secure.get(route.name),
            )
        gone = [listener for listener in self.listeners if listener not in kept]
        self.listeners = []
        for listener, name in kept.items():
            listener.lead_to(routes[name])
            self.listeners.append(listener)
        for sock, listen, name in opened:
            listener = Listener(sock, routes[name], listen, self._farewells)
            listener.start()
            self.listeners.append(listener)
        for listener in gone:
            listener.close()
        for name, old in self.routes.items():
            if name not in routes:
                self._remove(old, settings.service.drain_timeout)
        self.routes = routes
        for name, one in secure.items():
            if one.contexts.not_after is not None:
                self.observer.certificate_seen(name, "client", one.tls.certificate, one.contexts.not_after)
        self._listening = frozenset(listener.address for listener in self.listeners)
        self.poller.start()
        if not self._tells_flow:
            self._tells_flow = True
            self.reactor.callLater(FLOW_EVERY, self._tell_flow)

    def _tell_flow(self) -> None:
        """Have the observer told of the bytes of the sessions that run."""
        if self._tells_flow:
            self.reactor.callLater(FLOW_EVERY, self._tell_flow)
            self._tell_some([carrier for state in self.states.values() for carrier in state.sessions])

    def _tell_some(self, carriers: list[OpenSession]) -> None:
        for carrier in carriers[:FLOW_AT_ONCE]:
            if not carrier.over:
                carrier.tell_flow()
        if len(carriers) > FLOW_AT_ONCE:
            self.reactor.callLater(0, self._tell_some, carriers[FLOW_AT_ONCE:])

    def _open(self, settings: Settings) -> tuple[list[tuple[socket.socket, Listen, str]], dict[Listener, str]]:
        """Sockets that are new, and listeners that stay, each with its route's name."""
        there: dict[tuple[Listen, str], list[Listener]] = {}
        for listener in self.listeners:
            there.setdefault(_known_as(listener.listen, listener.route.settings.name), []).append(listener)
        opened: list[tuple[socket.socket, Listen, str]] = []
        kept: dict[Listener, str] = {}
        try:
            for route in settings.routes:
                is_transparent = any(d.kind == "original" for d in route.destination)
                for listen in route.listen:
                    found = there.get(_known_as(listen, route.name))
                    if found:
                        for _ in range(1 if listen.any_port else len(found)):
                            listener = found.pop(0)
                            kept[listener] = route.name
                            if is_transparent:
                                try_transparent(listener.sock)
                        continue
                    sockets = self.doors(listen, is_transparent)
                    opened.extend((sock, listen, route.name) for sock in sockets)
        except OSError as error:
            for sock, _listen, _name in opened:
                sock.close()
            raise CannotStart(error.strerror or str(error)) from None
        return opened, kept

    def _secure(self, route: Route, shared: SharedContexts) -> SecureRoute:
        from proxy.net.tls.contexts import TlsContexts, memory_deny_write_execute_active
        from proxy.net.tls.problem import TlsProblem
        from proxy.net.tls.secure import SecureRoute

        if sentence := memory_deny_write_execute_active():
            raise CannotStart(f"route {route.name}: {sentence}")
        try:
            contexts = TlsContexts(route.tls, shared)
        except TlsProblem as problem:
            raise CannotStart(f"route {route.name}: {problem.reason}") from None
        if route.tls.keylog:
            self.observer.noticed(
                None,
                "keylog",
                "warning",
                {
                    "route": route.name,
                    "file": route.tls.keylog,
                    "reason": "whoever reads this file can read the sessions",
                },
            )
        if route.tls.verify == "none" and route.tls.server != "none":
            reason = "the sessions with the server are encrypted, but to whoever answers: it is not authenticated"
            self.observer.noticed(None, "tls-unverified", "warning", {"route": route.name, "reason": reason})
        return SecureRoute(route.tls, contexts)

    def _remove(self, route: RouteRuntime, drain_timeout: float) -> None:
        """A route that is not configured any more: its sessions drain."""
        state = route.state
        state.draining = True
        self.states.pop(route.settings.name, None)
        for carrier in list(state.sessions):
            carrier.drain(QUIET)
        self.reactor.callLater(drain_timeout, _cut, state)

    # -- what sessions need ------------------------------------------------------------------------------------------

    def _resolver(self) -> Names:
        if self._names is None:
            from proxy.net.going_out.names.resolver import Resolver

            self._names = Resolver(self.poller, self.deadlines)
        return self._names

    def listening(self) -> list[tuple[str, str]]:
        """Route and address of every listener, with the ports that port 0 has become."""
        return [(listener.route.settings.name, str(listener)) for listener in self.listeners]

    # -- draining ----------------------------------------------------------------------------------------------------

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return sum(len(state.sessions) for state in self.states.values())

    def drain(self, timeout: float, done: Callable[[int], None], *, is_replaced: bool = False) -> None:
        """Accept no more, let sessions end, cut the rest after `timeout` seconds; then `done(how many were cut)`.

        `is_replaced`: another process serves the same sockets; the clients in their queues are its own.
        """
        self.draining = True
        for listener in self.listeners:
            listener.close(leave_queue=is_replaced)
        self.listeners = []
        for state in self.states.values():
            state.draining = True
        ends_at = self.deadlines.now() + timeout

        def look() -> None:
            for state in self.states.values():
                for carrier in list(state.sessions):
                    carrier.drain(QUIET)
            if not self.sessions and not len(self.poller):
                done(0)
            elif self.deadlines.now() >= ends_at:
                done(sum(_cut(state) for state in self.states.values()))
            else:
                self.reactor.callLater(min(0.2, max(0.01, ends_at - self.deadlines.now())), look)

        look()

    def stop(self) -> None:
        """Nothing is left to do; sockets that are still open are closed."""
        self._tells_flow = False
        for state in self.states.values():
            _cut(state)
        self.poller.stop()
        self.deadlines.stop()


def _known_as(listen: Listen, route: str) -> tuple[Listen, str]:
    """By what a listener is found again at a reload: a free port belongs to the route that got it."""
    return listen, route if listen.any_port else ""


def _cut(state: RouteState) -> int:
    """End what is left of a route's sessions; how many that were."""
    carriers = list(state.sessions)
    for carrier in carriers:
        carrier.end("aborted", "proxy", "the time to end was over", reset_client=True, reset_server=True)
    return len(carriers)


def _host_name(settings: Settings) -> str:
    """What the proxy calls itself in an EHLO of its own.  The look-up of the full name may take its time, so it is
    made only where that EHLO is a matter of course."""
    name = socket.gethostname()
    if "." not in name and any(route.tls.mode == "bridge" and not route.ehlo_name for route in settings.routes):
        name = socket.getfqdn()
    return name
