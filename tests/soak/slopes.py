"""How fast something grows, and how sure that is.

Samples of memory hang together over minutes, so that the textbook's error of a straight line through all of them is
far too small.  The line is therefore put through the means of a few blocks of samples, and its error is that of
these: two standard errors by Student's t, which is what "error" means here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

BLOCKS = 10
# Student's t, two-sided, 95 %, for 1, 2, 3 ... degrees of freedom.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


@dataclass(frozen=True, slots=True)
class Slope:
    """Per second, with its error at 95 %."""

    value: float
    error: float

    def per_hour(self) -> Slope:
        return Slope(self.value * 3600, self.error * 3600)


def slope(times: Sequence[float], values: Sequence[float], blocks: int = BLOCKS) -> Slope:
    """Through the means of `blocks` blocks; infinite error when there are too few samples.  ValueError without any."""
    if not times or len(times) != len(values):
        raise ValueError("as many times as values, and some of them")
    blocks = min(blocks, len(times))
    edges = [round(len(times) * number / blocks) for number in range(blocks + 1)]
    means = [
        (sum(times[start:end]) / (end - start), sum(values[start:end]) / (end - start))
        for start, end in pairwise(edges)
    ]
    middle = sum(x for x, _ in means) / blocks
    level = sum(y for _, y in means) / blocks
    spread = sum((x - middle) ** 2 for x, _ in means)
    if blocks < 3 or not spread:
        return Slope(0.0, math.inf)
    value = sum((x - middle) * (y - level) for x, y in means) / spread
    rest = sum((y - level - value * (x - middle)) ** 2 for x, y in means)
    return Slope(value, _T95[min(blocks - 2, len(_T95)) - 1] * math.sqrt(rest / (blocks - 2) / spread))
