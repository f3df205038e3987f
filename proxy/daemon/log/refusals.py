"""How many refusals of one address are told: twenty a minute, the rest as one line a minute.

A client that is not allowed and tries a thousand times a second would otherwise write the log full.  The minutes are
this table's own, the same for all addresses: at the end of each, the addresses with untold refusals are named with
their number, and the table starts anew, which also bounds its memory.

At most `max_addresses` addresses are counted apart in one minute.  An attacker with a whole IPv6 network has more;
those beyond share one allowance, and their line names them as `others`.
"""

from __future__ import annotations

from collections.abc import Iterator

TOLD_PER_MINUTE = 20
MAX_ADDRESSES = 4096
OTHERS = "others"
_MINUTE = 60.0


class Refusals:
    """Counts refusals by client address; `now` is in seconds of any clock that does not go back."""

    __slots__ = ("_counts", "_max_addresses", "_over_at")

    def __init__(self, now: float, max_addresses: int = MAX_ADDRESSES) -> None:
        self._counts: dict[str, int] = {}
        self._max_addresses = max_addresses
        self._over_at = now + _MINUTE

    def tell(self, client: str) -> bool:
        """Count one refusal; true when it is to be told by itself."""
        counts = self._counts
        if client not in counts and len(counts) >= self._max_addresses:
            client = OTHERS
        count = counts.get(client, 0) + 1
        counts[client] = count
        return count <= TOLD_PER_MINUTE

    def due(self, now: float) -> bool:
        """Whether the minute is over and `untold` should be asked."""
        return now >= self._over_at

    def untold(self, now: float) -> Iterator[tuple[str, int]]:
        """End the minute: each address with refusals that were not told, and how many."""
        counts, self._counts = self._counts, {}
        self._over_at = now + _MINUTE
        for client, count in counts.items():
            if count > TOLD_PER_MINUTE:
                yield client, count - TOLD_PER_MINUTE
