"""Deadlines of many sessions under one timer of the reactor.

A session moves its deadline with every command and every chunk, and nearly all are moved or cancelled before they
pass.  A `callLater` each would cost more than the relay itself.  Here a deadline that moves to a later time costs one
dict write: its owner stays in the slot where it lies, and is put further back only when that slot comes up.

Slots are `granularity` wide near by; what is more than `_COARSE` slots away shares a wider one, which comes up early,
so that a thousand different half-hours cost no more than some hundred slots.

Limits: a deadline passes at, or up to one granularity after, the time that was asked for; never before.  At most
`CALLS_A_TURN` owners are called before the reactor gets its turn again.  An exception out of `deadline_passed` is a
bug of ours: it is logged and stops no other.
"""

from __future__ import annotations

from heapq import heappop, heappush
from time import perf_counter
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from proxy.net.waiting.turns import SLOW, Turns

CALLS_A_TURN = 500

_COARSE = 64  # slots


class Timed(Protocol):
    """Who has a deadline.  Hashed by identity."""

    def deadline_passed(self, now: float) -> None:
        """The deadline is over and gone; `now` is the reactor's time in seconds, not before what was asked for."""


class Deadlines:
    """At most one deadline for each owner."""

    def __init__(self, reactor: IReactorTime, granularity: float = 0.05, turns: Turns | None = None) -> None:
        """`granularity` in seconds: how late a deadline may pass.  `turns` is told of a callback that was slow."""
        self._reactor = reactor
        self._granularity = granularity
        self._far = _COARSE * granularity  # seconds
        self._slots: dict[float, dict[Timed, float]] = {}  # by number: when each that lies there has its deadline
        self._slot_of: dict[Timed, dict[Timed, float]] = {}  # in which an owner lies: its own or an earlier one
        self._numbers: list[float] = []  # heap of the keys of _slots, whole numbers
        self._past = -1.0  # the last slot that came up
        self._timer: IDelayedCall | None = None
        self._timer_slot = 0.0
        self._turns = turns
        self._calling = False
        self._log = Logger(namespace="proxy.net.waiting.deadlines")
        self.now = reactor.seconds  # a method, in effect: the reactor's time in seconds

    def __len__(self) -> int:
        """How many owners have a deadline."""
        return len(self._slot_of)

    def at(self, when: float, owner: Timed) -> None:
        """Call `owner.deadline_passed` once, at `when` (reactor's seconds).  Replaces what the owner had."""
        slot = self._slot_of.get(owner)
        if slot is not None:
            if slot[owner] <= when:
                slot[owner] = when
                return
            del slot[owner]
        number = when // self._granularity + 1.0
        if when - self.now() > self._far:
            number -= number % _COARSE
        elif number <= self._past:  # a deadline that is over already passes in the next slot
            number = self._past + 1.0
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            heappush(self._numbers, number)
            if not self._calling and (self._timer is None or number < self._timer_slot):
                self._arm(number)
        slot[owner] = when
        self._slot_of[owner] = slot

    def cancel(self, owner: Timed) -> None:
        """Forget the owner's deadline, if it has one.  Nothing here refers to the owner any longer."""
        slot = self._slot_of.pop(owner, None)
        if slot is not None:
            del slot[owner]

    def stop(self) -> None:
        """Forget every deadline and give the reactor's timer back."""
        self._slot_of.clear()
        for slot in self._slots.values():
            slot.clear()
        self._slots.clear()
        self._numbers.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _arm(self, number: float) -> None:
        delay = max(0.0, number * self._granularity - self.now())
        self._timer_slot = number
        if self._timer is not None and self._timer.active():
            self._timer.reset(delay)
        else:
            self._timer = self._reactor.callLater(delay, self._come_up)

    def _come_up(self) -> None:
        self._timer = None
        self._calling = True  # the timer is set once, at the end
        now = self.now()
        left = CALLS_A_TURN
        numbers = self._numbers
        while numbers and left and numbers[0] * self._granularity <= now + 1e-6:
            number = numbers[0]
            self._past = max(self._past, number)
            slot = self._slots[number]
            while slot and left:
                left -= 1
                owner, when = slot.popitem()
                del self._slot_of[owner]
                if when > now:
                    self.at(when, owner)
                    continue
                began = perf_counter()
                try:
                    owner.deadline_passed(now)
                except Exception:
                    self._log.failure("A deadline's callback failed: {owner!r}", owner=owner)
                seconds = perf_counter() - began
                if seconds > SLOW and self._turns is not None:
                    self._turns.slow(owner, seconds)
            if not slot and numbers and numbers[0] == number:
                heappop(numbers)
                del self._slots[number]
        self._calling = False
        if numbers:
            self._arm(numbers[0])
