"""Which servers a session may be taken to, and in what order.

A `Destination` is what the operator wrote.  A `Server` is one host to connect to, with one port: the destination
itself, one exchange of an `mx:` domain, or the address that an intercepted client wanted.  One that is known by its
name alone has no address yet; each of its addresses is a `Server`, too, and that is what is connected.  Connecting them
is `proxy.net.going_out.dialer`'s, finding addresses `proxy.net.going_out.names.resolver`'s.

Rules:

* An address that comes from a name is not connected when it is loopback, unspecified, link-local, multicast, broadcast
  or this host's own: a name must not lead into the local mail system's trust.  An address that the operator wrote is.
* What leads back to a listener of this proxy is never connected, however it was written.
* Exchanges come by preference, equals in random order (RFC 5321 5.1).
* Addresses of both families alternate, IPv6 first (RFC 8305 4).
* What failed is tried last for `DOWN_FOR` seconds.

Limits: `MAX_EXCHANGES` of a domain, `MAX_ADDRESSES` of a name (Postfix's smtp_mx_address_limit is 5 for both).
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Container, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from proxy.settings.rules import leads_to
from proxy.settings.values import host_port, unmapped

if TYPE_CHECKING:
    from proxy.net.going_out.names.wanted import Exchange
    from proxy.settings import Address, Destination, Network

T = TypeVar("T")

DOWN_FOR = 60.0  # seconds
MAX_EXCHANGES = 20
MAX_ADDRESSES = 16
MAX_REMEMBERED = 1000

# Statuses of RFC 3463 that a client is told when its session can't go anywhere.
NO_ANSWER_FROM_HOST = "4.4.1"
NAME_NOT_RESOLVED = "4.4.3"
ROUTING_LOOP = "4.4.6"


class Server:
    """One host to connect to, or one address of it.  Made seldom, with what is told of it often, and never changed."""

    __slots__ = ("address", "destination", "host_name", "key", "name", "port", "where")

    def __init__(self, name: str, address: str, port: int, destination: Destination) -> None:
        """`name` is its host name, or the address where none is known; `address` is empty while a name has none."""
        self.name = name
        self.address = address
        self.port = port
        self.destination = destination
        self.host_name = name if name != address else ""
        self.key = host_port(name, port)  # what the memory of failures knows the host by
        self.where = host_port(address or name, port)  # ... and the address

    def __str__(self) -> str:
        """`mx.example.com[192.0.2.1]:25`, `192.0.2.1:25`, `[2001:db8::1]:25` or `mx.example.com:25`."""
        if self.address and self.host_name:
            return f"{self.name}[{self.address}]:{self.port}"
        return self.where

    def at(self, address: str) -> Server:
        """This address of it."""
        return Server(self.name, address, self.port, self.destination)


def key_of(way: Server | Destination, original: tuple[str, int] | None) -> str:
    """What the memory of failures knows a destination by, or that of a server."""
    destination = way.destination if isinstance(way, Server) else way
    if destination.kind == "original":
        return host_port(*original) if original else ""
    return str(destination)


class FailureMemory:
    """What failed in the last minute, on a monotonic clock; one for each route, and it outlives a reload."""

    __slots__ = ("_failed_at",)

    def __init__(self) -> None:
        self._failed_at: dict[str, float] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._failed_at)

    def failed(self, key: str, now: float) -> None:
        """Remember a failure.  The oldest is forgotten when there are too many."""
        self._failed_at.pop(key, None)
        self._failed_at[key] = now
        if len(self._failed_at) > MAX_REMEMBERED:
            del self._failed_at[next(iter(self._failed_at))]

    def succeeded(self, key: str) -> None:
        """It works again."""
        self._failed_at.pop(key, None)

    def is_down(self, key: str, now: float) -> bool:
        """Did it fail within the last `DOWN_FOR` seconds?"""
        at = self._failed_at.get(key)
        if at is None:
            return False
        if now - at < DOWN_FOR:
            return True
        del self._failed_at[key]
        return False

    def down_last(self, things: Iterable[T], key: Callable[[T], str], now: float) -> list[T]:
        """The same things, those that are down behind the others."""
        things = list(things)
        if not self._failed_at:
            return things
        return sorted(things, key=lambda thing: self.is_down(key(thing), now))


def by_preference(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """The order in which to try them: "the client MUST sort them by preference and randomize equals" in essence
    (RFC 5321 5.1).  At most `MAX_EXCHANGES`, each name once."""
    shuffled = list({exchange.name: exchange for exchange in sorted(exchanges, key=lambda e: -e.preference)}.values())
    random.shuffle(shuffled)
    shuffled.sort(key=lambda exchange: exchange.preference)
    return shuffled[:MAX_EXCHANGES]


def interleave(addresses: Sequence[str]) -> list[str]:
    """IPv6 and IPv4 by turns, in their own order otherwise, IPv6 first (RFC 8305 4).  At most `MAX_ADDRESSES`."""
    sixes = [address for address in addresses if ":" in address]
    fours = [address for address in addresses if ":" not in address]
    mixed: list[str] = []
    for at in range(max(len(sixes), len(fours))):
        mixed += sixes[at : at + 1]
        mixed += fours[at : at + 1]
    return mixed[:MAX_ADDRESSES]


@lru_cache(maxsize=4096)
def parsed(address: str) -> Address:
    """The address, an IPv4-mapped one as IPv4.  Raises ValueError for what is none."""
    return unmapped(ipaddress.ip_address(address))


@lru_cache(maxsize=4096)
def special(address: str) -> str:
    """What makes an address one that no name may lead to, in a word; empty for an ordinary one.

    The host's own addresses are known to `Surroundings`."""
    found = parsed(address)
    if found.is_loopback:
        return "loopback"
    if found.is_unspecified or (found.version == 4 and found in ipaddress.ip_network("0.0.0.0/8")):
        return "unspecified"  # RFC 1122 3.2.1.3: "This host on this network"; Linux connects 0.0.0.0 to itself
    if found.is_link_local:
        return "link-local"
    if found.is_multicast:
        return "multicast"
    if found == ipaddress.ip_address("255.255.255.255"):
        return "broadcast"
    return ""


class Surroundings:
    """What this host and this proxy are called: needed to know what leads back.

    `own` are the addresses of the host's interfaces, asked each time; `listening` gives the addresses and ports of all
    listeners of this proxy, of all routes, unspecified ones (`0.0.0.0`, `::`) included: the same object while nothing
    changes.
    """

    def __init__(self, own: Container[Address], listening: Callable[[], frozenset[tuple[str, int]]]) -> None:
        self._own = own
        self.listening = listening
        self._known: frozenset[tuple[str, int]] = frozenset()
        self._ours: dict[tuple[Address, int], bool] = {}  # what is known, parsed

    def is_own(self, address: str) -> bool:
        """Does the address belong to this host?  All of loopback does."""
        found = parsed(address)
        return found.is_loopback or found.is_unspecified or found in self._own

    def leads_back(self, address: str, port: int) -> bool:
        """Would a connection end at a listener of this proxy?"""
        listening = self.listening()
        if listening is not self._known:
            self._known = listening
            self._ours = {(parsed(host), of_host): True for host, of_host in listening if host}
        return leads_to(self._ours, address, port, self._own) is not None

    def refusal(self, address: str, port: int) -> tuple[str, str] | None:
        """Why an address that came from a name is not connected: status and reason, or None."""
        if self.leads_back(address, port):
            return ROUTING_LOOP, f"{address} is this proxy itself"
        return self._off_limits(address, NO_ANSWER_FROM_HOST)

    def original_refusal(
        self, address: str, port: int, ports: Sequence[int], networks: Sequence[Network]
    ) -> tuple[str, str] | None:
        """Why an intercepted connection is not carried on: status and reason, or None.

        With no networks given, what no name may lead to is excluded; this host's own address is then a loop: the
        rules that intercept have brought us a connection that was meant for this host."""
        if self.leads_back(address, port):
            return ROUTING_LOOP, "the client connected to this proxy itself"
        if ports and port not in ports:
            return NO_ANSWER_FROM_HOST, f"port {port} is not in original_ports"
        found = parsed(address)
        if networks:
            if any(found in network for network in networks):
                return None
            return NO_ANSWER_FROM_HOST, f"{address} is not in original_networks"
        return self._off_limits(address, ROUTING_LOOP)

    def _off_limits(self, address: str, if_own: str) -> tuple[str, str] | None:
        word = special(address)
        if word:
            return NO_ANSWER_FROM_HOST, f"{address} is a {word} address"
        return (if_own, f"{address} is this host's own address") if self.is_own(address) else None
