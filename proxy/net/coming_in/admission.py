"""Who gets a session: `allow_clients`, the limits of a route, and why somebody gets none.  Nothing here has a socket.

A refusal is a value: a word for the metrics, the status of RFC 3463 and a text for the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from proxy.net.going_out.destination import parsed
from proxy.settings.values import Network

MAX_REMEMBERED: Final = 4096  # client addresses whose admission is remembered


@dataclass(frozen=True, slots=True)
class Refusal:
    """`kind`: not_allowed, route_full, client_full, draining, no_descriptors or proxy_header."""

    kind: str
    status: str
    text: str


DRAINING: Final = Refusal("draining", "4.3.2", "the proxy is being stopped, try again")
NO_DESCRIPTORS: Final = Refusal("no_descriptors", "4.3.2", "too many connections, try again")
NO_HEADER: Final = Refusal("proxy_header", "", "no PROXY header, or a bad one")  # it is told nothing
ROUTE_FULL: Final = Refusal("route_full", "4.3.2", "too many sessions, try again")


class Places(Protocol):
    """The sessions that a route may have, counted over all who serve it."""

    def take(self, client: str, most: int, most_of_client: int) -> str:
        """Take a place for a session of this client address; "" when it was had, else `route_full` or `client_full`.

        `most` sessions of the route, `most_of_client` of one address (0: no limit of its own)."""

    def give_back(self, client: str) -> None:
        """The session is over: the counterpart of a `take` that returned ""."""


class OwnPlaces:
    """The places of a route that one process serves alone."""

    __slots__ = ("_of_clients", "_taken")

    def __init__(self) -> None:
        self._taken = 0
        self._of_clients: dict[str, int] = {}

    def take(self, client: str, most: int, most_of_client: int) -> str:
        if self._taken >= most:
            return "route_full"
        of_client = self._of_clients.get(client, 0)
        if most_of_client and of_client >= most_of_client:
            return "client_full"
        self._taken += 1
        self._of_clients[client] = of_client + 1
        return ""

    def give_back(self, client: str) -> None:
        self._taken -= 1
        left = self._of_clients[client] - 1
        if left:
            self._of_clients[client] = left
        else:
            del self._of_clients[client]


class Admission:
    """The rules of one route as it is configured now; `places` outlives a reload."""

    __slots__ = ("_is_allowed", "_max_sessions", "_max_sessions_per_client", "_places", "is_trusted")

    def __init__(
        self,
        allow_clients: Sequence[Network],
        trusted_proxies: Sequence[Network],
        max_sessions: int,
        max_sessions_per_client: int,
        places: Places,
    ) -> None:
        self._is_allowed = Within(allow_clients).has
        self.is_trusted = Within(trusted_proxies).has  # whether an address is in `trusted_proxies`
        self._max_sessions = max_sessions
        self._max_sessions_per_client = max_sessions_per_client
        self._places = places

    def enter(self, address: str, draining: bool) -> Refusal | None:
        """Take a place for a session of this client, or say why it gets none.  `places` has it back at the end."""
        if not self._is_allowed(address):
            return Refusal("not_allowed", "4.7.1", f"{address} may not use this service")
        if draining:
            return DRAINING
        full = self._places.take(address, self._max_sessions, self._max_sessions_per_client)
        if full == "client_full":
            return Refusal(full, "4.7.0", f"too many sessions from {address}")
        return ROUTE_FULL if full else None


class Within:
    """Whether an address is in one of some networks; what was found is remembered, for `MAX_REMEMBERED` addresses."""

    __slots__ = ("_known", "_networks")

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks
        self._known: dict[str, bool] = {}

    def has(self, address: str) -> bool:
        found = self._known.get(address)
        if found is None:
            one = parsed(address)
            found = any(one in network for network in self._networks)
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            self._known[address] = found
        return found
