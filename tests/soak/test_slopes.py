"""The soak's own arithmetic."""

from __future__ import annotations

import math
import random

import pytest

from tests.soak.slopes import slope


def test_a_straight_line_has_its_own_slope_and_no_error() -> None:
    times = [float(t) for t in range(100)]
    found = slope(times, [5 + 0.25 * t for t in times])
    assert found.value == pytest.approx(0.25)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.per_hour().value == pytest.approx(900)


def test_noise_alone_is_no_slope_within_the_error() -> None:
    dice = random.Random(1)
    outside = 0
    for _ in range(200):
        times = [float(t) for t in range(300)]
        found = slope(times, [dice.gauss(1000, 50) for _ in times])
        outside += abs(found.value) > found.error
    assert 0 <= outside < 25  # five in a hundred are expected


def test_steps_that_hang_together_make_the_error_large() -> None:
    times = [float(t) for t in range(300)]
    stepped = [1000.0 * (t // 100 % 2) for t in times]
    assert slope(times, stepped).error > abs(slope(times, stepped).value)


def test_too_few_samples_say_nothing() -> None:
    assert slope([1.0, 2.0], [1.0, 2.0]).error == math.inf
    with pytest.raises(ValueError, match="some of them"):
        slope([], [])
