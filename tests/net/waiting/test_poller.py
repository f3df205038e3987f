"""The poller under an epoll reactor of its own: events, fairness, stale events, one bad owner among good ones."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.logger import globalLogPublisher

from proxy.net.waiting.poller import EVENTS_A_TURN, LATER_AT_LEAST, Poller


class Owner:
    """Remembers what it was told; `then` is done at each event."""

    def __init__(self) -> None:
        self.masks: list[int] = []
        self.errors: list[BaseException] = []

    def ready(self, mask: int) -> None:
        self.masks.append(mask)
        self.then()

    def then(self) -> None:
        pass

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)


@pytest.fixture
def reactor() -> Iterator[EPollReactor]:
    reactor = EPollReactor()
    yield reactor
    reactor.removeAll()
    for reader in list(reactor._internalReaders):
        reactor.removeReader(reader)
        reader.connectionLost(None)
    reactor._poller.close()


@pytest.fixture
def poller(reactor: EPollReactor) -> Iterator[Poller]:
    poller = Poller(reactor)
    poller.start()
    yield poller
    poller.stop()
    assert reactor.doIteration == reactor.doPoll  # the reactor waits by itself again


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def turn(reactor: EPollReactor, times: int = 1) -> None:
    for _ in range(times):
        reactor.doIteration(0.05)


def test_an_event_comes_once_a_change(reactor: EPollReactor, poller: Poller, pair: tuple[socket.socket, ...]) -> None:
    ours, theirs = pair
    owner = Owner()
    poller.add(ours.fileno(), owner)
    turn(reactor)
    assert owner.masks == [select.EPOLLOUT]
    theirs.send(b"1")
    turn(reactor, 3)
    assert owner.masks == [select.EPOLLOUT, select.EPOLLOUT | select.EPOLLIN]
    theirs.send(b"2")
    turn(reactor)
    assert len(owner.masks) == 3
    theirs.close()
    turn(reactor)
    assert owner.masks[-1] & select.EPOLLRDHUP


def test_after_replace_the_new_owner_hears(
    reactor: EPollReactor, poller: Poller, pair: tuple[socket.socket, ...]
) -> None:
    ours, theirs = pair
    old, new = Owner(), Owner()
    poller.add(ours.fileno(), old)
    turn(reactor)
    poller.replace(ours.fileno(), new)
    theirs.send(b"1")
    turn(reactor)
    assert len(old.masks) == 1
    assert len(new.masks) == 1
    with pytest.raises(KeyError):
        poller.replace(theirs.fileno(), new)


def test_after_remove_nobody_hears(reactor: EPollReactor, poller: Poller, pair: tuple[socket.socket, ...]) -> None:
    ours, theirs = pair
    owner = Owner()
    poller.add(ours.fileno(), owner)
    poller.remove(ours.fileno())
    poller.remove(ours.fileno())
    theirs.send(b"1")
    turn(reactor)
    assert owner.masks == []
    assert len(poller) == 0


def test_a_stale_event_of_the_same_batch_does_not_reach_the_next_user_of_the_number(
    reactor: EPollReactor, poller: Poller
) -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    fresh = Owner()
    kept: list[socket.socket] = []

    class Closes(Owner):
        def then(self) -> None:
            for ours, _ in pairs:
                if ours.fileno() >= 0:
                    number = ours.fileno()
                    poller.remove(number)
                    ours.close()
                    again = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                    assert again.fileno() == number
                    poller.add(number, fresh)
                    kept.append(again)

    first = Closes()
    for ours, theirs in pairs:
        poller.add(ours.fileno(), first)
        theirs.send(b"x")
    poller.turn(0)
    assert len(first.masks) == 1
    poller.turn(0)
    # The second event of the batch (EPOLLIN) was for a socket that is gone; these are the new ones' own.
    assert fresh.masks == [select.EPOLLOUT | select.EPOLLHUP] * 2
    for sock in [*kept, *(theirs for _, theirs in pairs)]:
        poller.remove(sock.fileno())
        sock.close()


def test_soon_comes_in_the_next_turn_once_and_in_order(reactor: EPollReactor, poller: Poller) -> None:
    order: list[str] = []

    class Named(Owner):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def then(self) -> None:
            order.append(self.name)
            if len(order) == 2:
                poller.soon(self)

    first, second = Named("first"), Named("second")
    poller.soon(first)
    poller.soon(second)
    poller.soon(first)
    assert order == []
    turn(reactor)
    assert order == ["first", "second"]
    turn(reactor)
    assert order == ["first", "second", "second"]
    assert first.masks == [0]
    assert second.masks == [0, 0]


def test_soon_from_an_event_comes_once_and_after_it(
    reactor: EPollReactor, poller: Poller, pair: tuple[socket.socket, ...]
) -> None:
    later = Owner()

    class Asks(Owner):
        def then(self) -> None:
            poller.soon(later)
            assert later.masks == []

    poller.add(pair[0].fileno(), Asks())
    turn(reactor, 3)
    assert later.masks == [0]


def test_one_who_always_wants_another_turn_does_not_starve_the_reactor_or_others(
    reactor: EPollReactor, poller: Poller, pair: tuple[socket.socket, ...]
) -> None:
    class Greedy(Owner):
        def then(self) -> None:
            poller.soon(self)

    greedy, other = Greedy(), Owner()
    poller.soon(greedy)
    timer: list[int] = []
    reactor.callLater(0, timer.append, 1)
    poller.add(pair[0].fileno(), other)
    for _ in range(3):
        reactor.iterate(0)
    assert timer == [1]
    assert other.masks
    assert 3 <= len(greedy.masks) <= 3 * EVENTS_A_TURN


def test_an_exception_ends_that_owner_alone_and_is_logged(reactor: EPollReactor, poller: Poller) -> None:
    class Bad(Owner):
        def then(self) -> None:
            raise ValueError("ours")

    class Worse(Bad):
        def failed(self, error: BaseException) -> None:
            super().failed(error)
            raise ValueError("again")

    pairs = [socket.socketpair() for _ in range(3)]
    owners = [Bad(), Worse(), Owner()]
    events: list[object] = []
    globalLogPublisher.addObserver(events.append)
    try:
        for (ours, _), owner in zip(pairs, owners, strict=True):
            poller.add(ours.fileno(), owner)
        turn(reactor)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert [len(owner.errors) for owner in owners] == [1, 1, 0]
    assert len(owners[2].masks) == 1
    assert len(events) == 3
    assert len(poller) == 2  # one whose end failed is forgotten
    for ours, theirs in pairs:
        poller.remove(ours.fileno())
        ours.close()
        theirs.close()


def test_soon_of_an_owner_that_raises_ends_that_owner_alone(reactor: EPollReactor, poller: Poller) -> None:
    class Bad(Owner):
        def then(self) -> None:
            raise ValueError("ours")

    bad, good = Bad(), Owner()
    events: list[object] = []
    globalLogPublisher.addObserver(events.append)
    try:
        poller.soon(bad)
        poller.soon(good)
        turn(reactor)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert len(bad.errors) == 1
    assert good.masks == [0]


def test_more_ready_sockets_than_a_turn_gives_out_come_in_the_next(reactor: EPollReactor, poller: Poller) -> None:
    pairs = [socket.socketpair() for _ in range(EVENTS_A_TURN + 50)]
    owners = [Owner() for _ in pairs]
    for (ours, _), owner in zip(pairs, owners, strict=True):
        poller.add(ours.fileno(), owner)
    turn(reactor)
    assert sum(len(owner.masks) for owner in owners) == EVENTS_A_TURN
    turn(reactor)
    assert all(len(owner.masks) == 1 for owner in owners)
    for ours, theirs in pairs:
        poller.remove(ours.fileno())
        ours.close()
        theirs.close()


GIVES_UP = 6.0


def run(reactor: EPollReactor, seconds: float = 5.0) -> None:
    """The reactor's own main loop, until it is stopped; fails when that takes more than `seconds`."""
    emergency = reactor.callLater(seconds, reactor.crash)
    reactor.run(installSignalHandlers=False)
    assert emergency.active(), "the reactor was not stopped in time"
    emergency.cancel()


class Busy(Owner):
    """Always has something to do; for `GIVES_UP` seconds, so that a reactor that is never gone back to is a failure."""

    def __init__(self, poller: Poller) -> None:
        super().__init__()
        self.poller = poller
        self.until = time.monotonic() + GIVES_UP
        self.do: list[Callable[[], object]] = []  # at the tenth event, the eleventh, ...

    def then(self) -> None:
        if time.monotonic() < self.until:
            self.poller.soon(self)
        if len(self.masks) >= 10 and self.do:
            self.do.pop(0)()


def test_this_twisted_tells_when_it_has_work(poller: Poller) -> None:
    assert poller._may_stay


@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_a_timer_is_called_in_time_while_a_session_is_always_busy(
    reactor: EPollReactor, poller: Poller, delay: float
) -> None:
    late: list[float] = []

    def set_a_timer() -> None:
        at = reactor.seconds() + delay
        reactor.callLater(delay, lambda: (late.append(reactor.seconds() - at), reactor.stop()))

    busy = Busy(poller)
    busy.do.append(set_a_timer)
    poller.soon(busy)
    run(reactor)
    assert len(late) == 1
    assert 0 <= late[0] < 1


def test_a_timer_that_is_set_to_an_earlier_time_is_called_then(reactor: EPollReactor, poller: Poller) -> None:
    called: list[float] = []
    timer = reactor.callLater(4, lambda: (called.append(reactor.seconds()), reactor.stop()))
    asked: list[float] = []
    busy = Busy(poller)
    busy.do.append(lambda: (asked.append(reactor.seconds()), timer.reset(0.01)))
    poller.soon(busy)
    run(reactor, 3)
    assert 0.01 <= called[0] - asked[0] < 1


def test_other_threads_and_stop_are_heard_while_a_session_is_always_busy(reactor: EPollReactor, poller: Poller) -> None:
    heard: list[int] = []
    busy = Busy(poller)
    busy.do += [lambda: reactor.callFromThread(heard.append, 1), lambda: None, reactor.stop]
    poller.soon(busy)
    run(reactor)
    assert heard == [1]


@pytest.mark.parametrize("told", [True, False], ids=["as-it-is", "a-reactor-that-does-not-tell-its-work"])
def test_the_reactor_is_not_gone_back_to_for_sessions_alone(
    reactor: EPollReactor, poller: Poller, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    monkeypatch.setattr(poller, "_may_stay", told)
    turns: list[None] = []
    whole = reactor.runUntilCurrent
    monkeypatch.setattr(reactor, "runUntilCurrent", lambda: (turns.append(None), whole()))
    busy = Busy(poller)
    busy.do += [lambda: None] * 100 + [reactor.stop]
    poller.soon(busy)
    run(reactor)
    assert len(busy.masks) > 100
    assert (len(turns) < 10) is told


def test_what_is_to_be_done_at_a_turns_end_is_done_once_behind_its_events(
    reactor: EPollReactor, poller: Poller
) -> None:
    order: list[str] = []

    class Asks(Owner):
        def then(self) -> None:
            order.append("event")
            assert poller.at_turns_end(lambda: order.append("end"))

    one, two = Asks(), Asks()
    poller.soon(one)
    poller.soon(two)
    turn(reactor)
    assert order == ["event", "event", "end", "end"]
    assert not poller.at_turns_end(lambda: order.append("outside"))
    poller.soon(one)
    turn(reactor)
    assert order[4:] == ["event", "end"]


def test_who_asked_for_later_does_not_hold_those_who_want_little(
    reactor: EPollReactor, poller: Poller, pair: tuple[socket.socket, ...]
) -> None:
    """Fifty owners with work for 2 ms each, for ever; one socket that has something to say once in a while."""
    ours, theirs = pair
    turns_taken = [0] * 50

    class Busy(Owner):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def then(self) -> None:
            turns_taken[self.number] += 1
            until = time.perf_counter() + 0.002
            while time.perf_counter() < until:
                pass
            poller.later(self)

    owner = Owner()
    poller.add(ours.fileno(), owner)
    turn(reactor)
    for number in range(50):
        poller.later(Busy(number))
    for told in range(2, 60):
        theirs.send(b"1")
        turn(reactor)
        assert len(owner.masks) == told
    assert min(turns_taken) >= 1
    assert max(turns_taken) - min(turns_taken) <= 1


def test_who_asked_for_later_waits_while_many_others_have_something_to_do(
    reactor: EPollReactor, poller: Poller
) -> None:
    """Else a listener takes clients faster than the sessions can be served that there are already."""
    pairs = [socket.socketpair() for _ in range(EVENTS_A_TURN)]

    class Chatty(Owner):
        def __init__(self, near: socket.socket, far: socket.socket) -> None:
            super().__init__()
            self.near, self.far = near, far

        def then(self) -> None:
            self.far.send(b"1")  # so that it has another event in the next turn
            self.near.recv(1)

    class Patient(Owner):
        def then(self) -> None:
            poller.later(self)

    patient = Patient()
    for ours, theirs in pairs:
        poller.add(ours.fileno(), Chatty(ours, theirs))
    poller.later(patient)
    begun = time.perf_counter()
    turns = 0
    while time.perf_counter() - begun < 0.5:
        turn(reactor)
        turns += 1
    seconds = time.perf_counter() - begun
    assert 1 <= len(patient.masks) <= seconds / LATER_AT_LEAST + 2 < turns
    for ours, theirs in pairs:
        poller.remove(ours.fileno())
        ours.close()
        theirs.close()
    patient.masks.clear()
    for _ in range(50):
        reactor.iterate(0)
    assert len(patient.masks) >= 20  # and is called again and again when nobody else has


def test_the_events_of_one_who_has_had_its_turn_wait_for_the_next(
    reactor: EPollReactor, poller: Poller, pair: tuple[socket.socket, ...]
) -> None:
    ours, theirs = pair
    owner = Owner()
    poller.add(ours.fileno(), owner)
    turn(reactor)
    owner.masks.clear()
    poller.later(owner)
    theirs.send(b"1")
    turn(reactor)
    assert len(owner.masks) == 1
    assert owner.masks[0] & select.EPOLLIN
    assert owner.masks[0] & select.EPOLLRDHUP  # an end may have been told before: only the socket knows


def test_a_slow_callback_is_told_with_its_owner(reactor: EPollReactor, pair: tuple[socket.socket, ...]) -> None:
    ours, _theirs = pair
    told: list[tuple[str, float]] = []
    poller = Poller(reactor, lambda owner, seconds: told.append((owner, seconds)))
    poller.start()

    class Slow(Owner):
        def __str__(self) -> str:
            return "session 1"

        def then(self) -> None:
            time.sleep(0.12)

    poller.add(ours.fileno(), Slow())
    turn(reactor)
    reactor.callLater(0, time.sleep, 0.12)
    reactor.runUntilCurrent()
    turn(reactor)
    poller.stop()
    assert [owner for owner, _ in told] == ["session 1", "reactor: timers, admin page, signals"]
    assert all(0.12 <= seconds < 1 for _, seconds in told)
    assert sum(poller.turns.counts) >= 2


def test_what_is_wanted_because_a_turn_was_slow_is_done_at_its_end(
    reactor: EPollReactor, pair: tuple[socket.socket, ...]
) -> None:
    done: list[str] = []

    def tell(owner: str, _seconds: float) -> None:
        assert poller.at_turns_end(lambda: done.append(owner))  # as the log does with the line about it

    poller = Poller(reactor, tell)
    poller.start()

    class Short(Owner):
        def then(self) -> None:
            time.sleep(0.06)

    poller.add(pair[0].fileno(), Short())
    poller.soon(Short())
    turn(reactor)
    poller.stop()
    assert done == ["many short callbacks at once"]


def test_a_poller_that_one_of_the_owners_stops_gives_out_the_batch_and_no_more(
    reactor: EPollReactor, pair: tuple[socket.socket, ...]
) -> None:
    poller = Poller(reactor)
    poller.start()

    class Stops(Owner):
        def then(self) -> None:
            poller.stop()

    one, other = Stops(), Owner()
    poller.add(pair[0].fileno(), one)
    poller.soon(other)
    stopped = reactor.callLater(0.05, reactor.stop)
    run(reactor)
    assert not stopped.active()
    assert len(one.masks) == 1
    assert len(other.masks) == 1
