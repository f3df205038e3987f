"""Connecting a session to its server: destinations in turn, the addresses of one raced.

A `Dialer` is one route's, and has what its sessions share; each has a `Dial` of its own, which tries the route's
destinations until one is connected and hands the socket over, registered in the poller.  The session may ask for the
next one when the server turns out to be of no use (a 4xx banner, none at all).

* Destinations in the order of the configuration, those that failed within the last minute behind the others.
* The addresses of one name are raced as RFC 8305 says: families by turns, the next attempt 250 ms after the last or at
  once when one fails; the first that is connected wins.  10 s for each, `connect` for all of one destination.
* Nothing is called back from within `Dial()` or `next`: the owner hears in a later turn of the poller, once.
* `cancel` may be called at any time; no socket, timer or look-up outlives it.

For a route with one address, the ordinary case, a dial is one socket and one entry in `Deadlines`, with no Deferred.

Why not Twisted's HostnameEndpoint: behind an address that refuses, the next one still waits for its 300 ms; of several
addresses it tells one's failure; and it connects a transport of the reactor, where sessions have sockets of the poller.

What is told to the owner when nothing can be reached: 4.4.1 when a host did not answer or may not be connected, 4.4.6
when the way leads back to this proxy, 4.4.3 when no name could be resolved; of several the first of these.  Faults of
our own host (no descriptors, no local ports, no source address) are not held against a destination.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.net.going_out.destination import FailureMemory, Server, Surroundings, key_of

if TYPE_CHECKING:
    from proxy.net.going_out.names.wanted import Names
    from proxy.net.observer import Observer
    from proxy.net.waiting.deadlines import Deadlines
    from proxy.net.waiting.poller import Poller
    from proxy.settings import Destination, Route


class Dialer:
    """Where the sessions of one route go."""

    def __init__(
        self,
        route: Route,
        poller: Poller,
        deadlines: Deadlines,
        resolver_factory: Callable[[], Names],
        observer: Observer,
        memory: FailureMemory,
        surroundings: Surroundings,
    ) -> None:
        """`resolver_factory` is called whenever a name has to be resolved, never before; it may give the same one."""
        self.route = route
        self.poller = poller
        self.deadlines = deadlines
        self.names = resolver_factory
        self.observer = observer
        self.memory = memory
        self.surroundings = surroundings
        self.transparent = route.source == "client"
        self.source = "" if self.transparent else route.source  # the address to connect from; empty for any
        self.connect_timeout = route.timeouts.connect
        self._listening: frozenset[tuple[str, int]] | None = None
        self._ways: tuple[Server | Destination, ...] = ()

    def in_order(self, now: float, original: tuple[str, int] | None) -> tuple[Server | Destination, ...]:
        """What a session tries, in turn: servers, and destinations of which only their own session can tell more."""
        listening = self.surroundings.listening()
        if listening is not self._listening:
            self._listening = listening
            self._ways = tuple(self._way_to(destination) for destination in self.route.destination)
        if len(self._ways) > 1 and len(self.memory):
            return tuple(self.memory.down_last(self._ways, lambda way: key_of(way, original), now))
        return self._ways

    def _way_to(self, destination: Destination) -> Server | Destination:
        """The server of an address or a name; an address that leads back to this proxy is told when its turn comes."""
        host, port = destination.host, destination.port
        if destination.kind == "name":
            return Server(host, "", port, destination)
        if destination.kind == "address" and not self.surroundings.leads_back(host, port):
            return Server(host, host, port, destination)
        return destination
