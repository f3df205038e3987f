"""How many warnings of one kind are told: twenty a minute of a route, the rest as one line a minute with their number.

A client that is not allowed and tries a thousand times a second would otherwise write the log full, and so would a
server that resets every session.  A *kind* is a session's outcome (`refused`, `timeout`, ...) or an event's name.  The
minutes are this table's own, the same for all: at the end of each, what was not told is told with its number, and the
table starts anew.  Routes are configured and kinds are ours, so the table is small; MAX_KINDS holds whatever comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

TOLD_PER_MINUTE = 20
MAX_KINDS = 4096
OTHERS = "others"
_MINUTE = 60.0


class Untold(NamedTuple):
    """What was held back in a minute; `client` is its only client, or empty when there were several."""

    route: str
    kind: str
    level: str
    number: int
    client: str


class _Kind:
    __slots__ = ("client", "count", "level")

    def __init__(self, level: str) -> None:
        self.level = level
        self.count = 0
        self.client: str | None = None  # of those that were not told

    def tell(self, client: str) -> bool:
        self.count += 1
        if self.count <= TOLD_PER_MINUTE:
            return True
        if self.client is None:
            self.client = client
        elif self.client != client:
            self.client = ""
        return False


class Rates:
    """Counts by route and kind; `now` is in seconds of any clock that does not go back."""

    __slots__ = ("_kinds", "_over_at")

    def __init__(self, now: float) -> None:
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._over_at = now + _MINUTE

    def tell(self, route: str, kind: str, level: str, client: str = "") -> bool:
        """Count one; true when it is to be told by itself."""
        key = (route, kind)
        one = self._kinds.get(key)
        if one is None:
            if len(self._kinds) >= MAX_KINDS:
                key = ("", OTHERS)
            one = self._kinds.setdefault(key, _Kind(level))
        return one.tell(client)

    def due(self, now: float) -> bool:
        """Whether the minute is over and `untold` should be asked."""
        return now >= self._over_at

    def untold(self, now: float) -> Iterator[Untold]:
        """End the minute: what was not told of it."""
        kinds, self._kinds = self._kinds, {}
        self._over_at = now + _MINUTE
        for (route, kind), one in kinds.items():
            if one.count > TOLD_PER_MINUTE:
                yield Untold(route, kind, one.level, one.count - TOLD_PER_MINUTE, one.client or "")
