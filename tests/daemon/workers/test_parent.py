"""What the parent does with workers that say nothing; no process is started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from proxy.daemon.workers.child import Child
from proxy.daemon.workers.crew import HANG_AT_MOST, SILENT_AT_MOST, START_AT_MOST
from proxy.daemon.workers.parent import Parent
from proxy.settings import from_arguments


class Clock:
    """A reactor that calls when it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, Callable[..., object], tuple[object, ...]]] = []

    def callLater(self, seconds: float, call: Callable[..., object], *arguments: object) -> None:
        self.calls.append((seconds, call, arguments))

    def after(self, seconds: float) -> None:
        """What was to be called after just so many seconds."""
        due = [one for one in self.calls if one[0] == seconds]
        self.calls = [one for one in self.calls if one[0] != seconds]
        for _seconds, call, arguments in due:
            call(*arguments)


class Silent(Child):
    """A worker without a process."""

    def __init__(self, number: int, *, is_ready: bool) -> None:
        super().__init__(number, number, lambda *_: None, lambda *_: None)
        self.is_ready = is_ready
        self.is_killed = False

    def kill(self) -> None:
        self.is_killed = True


@pytest.fixture
def parent() -> Iterator[Parent]:
    settings = from_arguments("127.0.0.1:0", "127.0.0.1:25")
    made = Parent(settings, Clock(), None)
    yield made
    os.close(made.crew._places.descriptor)


def test_one_that_never_gets_ready_is_killed_for_it_has_no_sessions(parent: Parent) -> None:
    child = Silent(0, is_ready=False)
    parent.crew.children.append(child)
    for _ in range(int(START_AT_MOST)):
        parent.tick()
    assert not child.is_killed
    parent.tick()
    assert child.is_killed


def test_one_that_hangs_is_kept_and_of_too_many_the_oldest_goes(parent: Parent) -> None:
    children = [Silent(0, is_ready=True) for _ in range(HANG_AT_MOST)]
    for number, child in enumerate(children, 1):
        parent.crew.children.append(child)
        while not child.hangs:
            parent.tick()
        assert [one.is_killed for one in children] == [number == HANG_AT_MOST] + [False] * (HANG_AT_MOST - 1)


def test_words_are_a_sign_of_life(parent: Parent) -> None:
    child = Silent(0, is_ready=True)
    parent.crew.children.append(child)
    for _ in range(5):
        for _ in range(int(SILENT_AT_MOST) - 1):
            parent.tick()
        child._heard("alive", None)
    assert not child.hangs


def hanging(parent: Parent) -> Silent:
    child = Silent(0, is_ready=True)
    parent.crew.children.append(child)
    while not child.hangs:
        parent.tick()
    return child


def test_one_that_hangs_still_when_its_sessions_have_had_their_time_is_killed(parent: Parent) -> None:
    child = hanging(parent)
    parent.reactor.after(parent.settings.service.drain_timeout)
    assert child.is_killed


def test_one_that_has_come_to_itself_is_not_killed_by_then(parent: Parent) -> None:
    child = hanging(parent)
    child._heard("alive", None)
    parent.reactor.after(parent.settings.service.drain_timeout)
    assert not child.is_killed
    while child.silent <= parent.crew.silent_at_most:
        parent.tick()
    parent.reactor.after(parent.crew.silent_at_most)
    assert child.is_killed, "it hangs again"
