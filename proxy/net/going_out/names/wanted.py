"""What names are asked for, and what comes of it: the words between those who dial and those who look names up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


@dataclass(frozen=True, slots=True)
class Exchange:
    """One MX record."""

    preference: int
    name: str


class NotResolved(Exception):
    """A name has no addresses, or they can't be found.  The text says which, in a few words."""


class Names(Protocol):
    """What the dialer needs of a resolver."""

    def addresses(self, name: str, timeout: float) -> Deferred[tuple[str, ...]]:
        """Every address of a host, in any order.  Fails with NotResolved, within `timeout` seconds."""

    def exchanges(self, domain: str, timeout: float) -> Deferred[tuple[Exchange, ...]]:
        """The MX records, or the domain itself where it has none (RFC 5321 5.1).  Fails with NotResolved."""
