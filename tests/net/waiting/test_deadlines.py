"""The timing wheel: never early, at most one granularity late, and cheap however often a deadline moves."""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher

from proxy.net.waiting.deadlines import CALLS_A_TURN, Deadlines


class Owner:
    def __init__(self, deadlines: Deadlines | None = None) -> None:
        self.passed: list[float] = []
        self.deadlines = deadlines

    def deadline_passed(self, now: float) -> None:
        self.passed.append(now)


def run(clock: Clock, until: float, step: float = 0.01) -> None:
    while clock.seconds() < until:
        clock.advance(step)


@pytest.mark.parametrize("start", [0.0, 1.7e9, 12345.678])
@pytest.mark.parametrize("delay", [0.0, 0.001, 0.05, 0.2, 3.19, 3.2, 3.3, 10.0, 61.7, 300.0])
def test_passes_at_most_one_granularity_late_and_never_early(start: float, delay: float) -> None:
    clock = Clock()
    clock.advance(start)
    deadlines = Deadlines(clock)
    owner = Owner()
    deadlines.at(start + delay, owner)
    run(clock, start + delay + 0.2)
    [at] = owner.passed
    assert start + delay <= at <= start + delay + 0.05 + 0.011
    assert len(deadlines) == 0


def test_a_deadline_in_the_past_passes_at_once() -> None:
    clock = Clock()
    clock.advance(100)
    deadlines = Deadlines(clock)
    first, second = Owner(), Owner()
    deadlines.at(50, first)
    clock.advance(0.06)
    assert first.passed
    deadlines.at(50, second)
    assert second.passed == []  # not from within `at`
    clock.advance(0.06)
    assert second.passed


def test_a_later_call_replaces_the_deadline_in_both_directions() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    later, earlier = Owner(), Owner()
    deadlines.at(1, later)
    deadlines.at(5, later)
    deadlines.at(300, earlier)
    deadlines.at(2, earlier)
    run(clock, 3)
    assert later.passed == []
    assert len(earlier.passed) == 1
    run(clock, 400, 0.05)
    assert len(later.passed) == len(earlier.passed) == 1


def test_a_cancelled_deadline_does_not_pass_and_its_owner_is_not_kept() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    owner = Owner()
    gone = weakref.ref(owner)
    deadlines.at(1800, owner)
    deadlines.cancel(owner)
    deadlines.cancel(owner)
    del owner
    gc.collect()
    assert gone() is None
    run(clock, 1801, 0.5)


def test_an_owner_may_set_and_cancel_deadlines_from_its_own() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    other = Owner()

    class Again(Owner):
        def deadline_passed(self, now: float) -> None:
            super().deadline_passed(now)
            deadlines.cancel(other)
            if len(self.passed) < 3:
                deadlines.at(now, self)

    again = Again()
    deadlines.at(1, other)
    deadlines.at(1, again)
    run(clock, 2)
    assert len(again.passed) == 3
    assert len(other.passed) <= 1
    assert len(deadlines) == 0


def test_one_bad_callback_stops_no_other() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)

    class Bad(Owner):
        def deadline_passed(self, now: float) -> None:
            raise ValueError("ours")

    events: list[object] = []
    good = [Owner(), Owner()]
    deadlines.at(1, good[0])
    deadlines.at(1, Bad())
    deadlines.at(1, good[1])
    globalLogPublisher.addObserver(events.append)
    try:
        run(clock, 2)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert all(owner.passed for owner in good)
    assert len(events) == 1


def test_stop_from_a_callback_is_the_end() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)

    class Stops(Owner):
        def deadline_passed(self, now: float) -> None:
            super().deadline_passed(now)
            deadlines.stop()

    owners = [Stops() for _ in range(5)]
    for owner in owners:
        deadlines.at(1, owner)
    run(clock, 3)
    assert sum(len(owner.passed) for owner in owners) == 1
    assert clock.getDelayedCalls() == []


def test_many_at_once_leave_the_reactor_its_turns() -> None:
    class CountingClock(Clock):
        turns = 0

        def callLater(self, *args: Any, **named: Any) -> Any:  # type: ignore[override]  # only counted
            self.turns += 1
            return super().callLater(*args, **named)

    clock = CountingClock()
    deadlines = Deadlines(clock)
    owners = [Owner() for _ in range(3 * CALLS_A_TURN)]
    for owner in owners:
        deadlines.at(1, owner)
    clock.advance(1.06)
    assert all(owner.passed for owner in owners)
    assert clock.turns == 3


def test_one_timer_and_few_slots_for_many_far_deadlines() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    for _ in range(20000):
        deadlines.at(1800 * random.random(), Owner())
    assert len(clock.getDelayedCalls()) == 1
    assert len(deadlines._slots) < 700


def test_random_moves_agree_with_a_plain_table() -> None:
    clock = Clock()
    deadlines = Deadlines(clock)
    choose = random.Random(5)
    owners = [Owner() for _ in range(40)]
    expected: dict[Owner, float] = {}
    for _ in range(6000):
        owner = choose.choice(owners)
        if choose.random() < 0.2:
            deadlines.cancel(owner)
            expected.pop(owner, None)
        else:
            when = clock.seconds() + choose.choice([0.01, 0.1, 1, 5, 40]) * choose.random()
            deadlines.at(when, owner)
            expected[owner] = when
        clock.advance(0.01)
        now = clock.seconds()
        for other in owners:
            while other.passed:
                at = other.passed.pop()
                due = expected.pop(other)
                assert due <= at <= due + 0.05 + 0.011
        assert all(due > now - 0.061 for due in expected.values())
    assert len(deadlines) == len(expected)
