"""How long the event loop was held, and by whom: the one measure that shows when somebody holds all the others.

A *turn* is what is done between two waits.  The poller measures each one into a histogram (`Turns`, shown as the metric
`ehlo_proxy_turn_seconds`), and inside it each callback; a callback of more than `SLOW` seconds is told at once, with
its owner in a few words, and so is a turn that was made long by many short ones.  What the reactor does by itself
(timers, the admin page, signals) counts as a turn of its own.

The price is one reading of the clock for each callback: some 80 ns, 0.5 % of a short session.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from typing import Final

SLOW: Final = 0.1  # seconds of one callback that are worth a line in the log
BOUNDS: Final[tuple[float, ...]] = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the histogram in seconds; what is beyond is counted in one more."""
SHORT: Final = 0.0005  # the first of them

Tell = Callable[[str, float], None]
"""What is called with an owner and seconds; it may not raise."""


class Turns:
    """A histogram of turns, and who is told of the slow ones."""

    __slots__ = ("_tell", "_told", "counts", "total")

    def __init__(self, tell: Tell | None = None) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0
        self._tell = tell
        self._told = 0.0  # seconds told since the last turn ended, so that nothing is told twice

    def ended(self, seconds: float, owner: object) -> None:
        """A turn is over; `owner` is whose it was, should it have been slow."""
        self.total += seconds
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        if seconds > SLOW:
            if seconds - self._told > SLOW:
                self.slow(owner, seconds - self._told)
            self._told = 0.0

    def were_short(self, number: int, seconds: float) -> None:
        """So many turns of at most `SHORT` are over, the usual ones; `seconds` is what they took together."""
        self.counts[0] += number
        self.total += seconds

    def slow(self, owner: object, seconds: float) -> None:
        """One callback took longer than `SLOW`."""
        self._told += seconds
        if self._tell is not None:
            self._tell(named(owner), seconds)


def named(owner: object) -> str:
    """Whose callback it was, in a few words: what the owner says of itself, else the name of its class in words."""
    if isinstance(owner, str):
        return owner
    kind = type(owner)
    if kind.__str__ is not object.__str__:
        with suppress(Exception):  # a bug there must not hide the slow turn
            return str(owner)
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__).lower()
