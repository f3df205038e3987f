"""The wait of the process: one edge-triggered epoll for every session socket, with Twisted's reactor inside it.

An epoll descriptor can itself be polled.  So the `Poller` waits in the reactor's place (its `doIteration`, where a
reactor waits), and the reactor's own epoll, with its listeners, waker and timers, is one of the descriptors waited for.
The sockets of all sessions cost neither a Twisted transport nor an `epoll_ctl` for each pause, resume or write, nor a
second wait for each turn: each is registered once for reading, writing and hang-up, and its owner tries `recv` and
`send` when it has a reason to.

While nothing but sessions has something to do, the reactor is not gone back to between two waits: its turn is some
eight Python calls, and with few sessions at a time (a cold cache, one event a wait) they were a tenth of the CPU.

What the owner of a socket must know:

* Edge-triggered: an event says that something changed, once.  An owner that stops reading before `recv` would block
  must ask for another turn with `soon`, or remember that it still has to read.
* The mask is a hint.  Only the system call tells the truth.
* `remove` before the descriptor is closed.  Events of the same batch for a number that was removed meanwhile are
  dropped, also when the number is in use again.
* An exception out of `ready` is a bug of ours: it is logged and ends that owner alone, through `failed`.
* `ready` does a bounded amount of work, some 2 ms.  Who has more to do asks for `later` and not for `soon`: its turn
  comes when all who want less have had theirs, not before the next look at the sockets, and its events wait for that
  turn, too.  How long each one took is measured (`proxy.net.waiting.turns`).

Limits: after `EVENTS_A_TURN` events the reactor gets its turn again if a timer is due, it was given a new one, or one
of its descriptors is ready (signals and other threads wake it by one).  The kernel keeps its ready list in turn
order, so nobody starves.  Of those who asked for `later` as many are called between two looks at the sockets as begin
within `LATER_A_TURN` seconds: with 150 of them, somebody who has a line to say waits for a few milliseconds, not for
150 turns.

Left to others: deadlines (`proxy.net.waiting.deadlines`), and closing the sockets, which belong to their owners.
"""

from __future__ import annotations

import errno
import select
from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

from proxy.net.waiting.turns import SHORT, SLOW, Tell, Turns

EVENTS_A_TURN = 64
LATER_A_TURN = 0.004  # seconds
LATER_AT_LEAST = 0.03  # an eighth of the time
REACTORS_WORK = ("_newTimedCalls", "_pendingTimedCalls", "_justStopped")  # without them it is gone back to each time

_THE_REACTOR = "reactor: timers, admin page, signals"
_MASK = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class Watched(Protocol):
    """The owner of one registered socket."""

    def ready(self, mask: int) -> None:
        """Something may be possible now: `mask` holds EPOLL bits, 0 after `soon`.  May come when nothing is."""

    def failed(self, error: BaseException) -> None:
        """`ready` raised: end this owner, close what it has.  Called once for each such exception."""


class Poller:
    """Gives the events of many descriptors to their owners."""

    def __init__(self, reactor: Any, tell_slow: Tell | None = None) -> None:
        """`reactor` is Twisted's epoll reactor.  Not public of it are its descriptor and `REACTORS_WORK`.

        `tell_slow` is called with the owner's name and the seconds of a callback that has held everybody else.
        """
        self.turns = Turns(tell_slow)
        self._reactor = reactor
        self._reactor_fd: int = reactor._poller.fileno()
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        self._removed: set[int] = set()  # since the batch that is being given out was fetched
        self._soon: dict[Watched, None] = {}  # in order, each once
        self._later: dict[Watched, int] = {}  # the same for those who have had their turn; with the mask of what came
        self._later_at = 0.0  # when they have their turn whoever waits else
        self._left_at = 0.0  # when the reactor was gone back to
        self._running = False
        self._clock: Callable[[], float] = reactor.seconds  # monotonic, see `proxy.cli`
        self._may_stay = all(hasattr(reactor, name) for name in REACTORS_WORK)
        self._giving_out = False
        self._at_end: list[Callable[[], object]] = []
        self._log = Logger(namespace="proxy.net.waiting.poller")

    def __len__(self) -> int:
        """How many descriptors are registered."""
        return len(self._watched)

    def start(self) -> None:
        """Begin to give out events.  Descriptors may be added before."""
        if not self._running:
            self._running = True
            self._epoll.register(self._reactor_fd, select.EPOLLIN)
            self._reactor.doIteration = self.turn

    def stop(self) -> None:
        """Let the reactor wait by itself again and close our descriptor; for good.  The sockets stay their owners'."""
        if self._running:
            self._running = False
            del self._reactor.doIteration
        self._watched.clear()
        self._soon.clear()
        self._later.clear()
        if not self.at_turns_end(self._epoll.close):
            self._epoll.close()

    def add(self, fd: int, watched: Watched) -> None:
        """Register a non-blocking descriptor.

        What is possible already is told in the next turn.  Raises OSError (EEXIST) for one that is registered.
        """
        self._epoll.register(fd, _MASK)
        self._watched[fd] = watched

    def replace(self, fd: int, watched: Watched) -> None:
        """Give a registered descriptor another owner.  Costs no system call, so nothing is told again."""
        if fd not in self._watched:
            raise KeyError(fd)
        self._watched[fd] = watched

    def owner_of(self, fd: int) -> Watched | None:
        """Who is told about a descriptor."""
        return self._watched.get(fd)

    def remove(self, fd: int) -> None:
        """Forget a descriptor, before it is closed.  One that is not registered is no error."""
        if self._watched.pop(fd, None) is None:
            return
        self._removed.add(fd)
        try:
            self._epoll.unregister(fd)
        except OSError as error:  # closed too early: the kernel has forgotten it by itself
            if error.errno not in (errno.EBADF, errno.ENOENT):
                raise

    def forget(self, fd: int) -> None:
        """The same for a descriptor that its owner closes now and has no copy of: the kernel forgets it by itself."""
        if self._watched.pop(fd, None) is not None:
            self._removed.add(fd)

    def soon(self, watched: Watched) -> None:
        """Call `watched.ready(0)` once, after the others had their turn.

        One that has ended by then is called all the same, and must take it for nothing.
        """
        self._soon[watched] = None

    def later(self, watched: Watched) -> None:
        """The same for one who has used its turn up: once those who have not have had theirs.

        What happens at its socket meanwhile is told then, with the mask of an end, since one may be among it.
        """
        self._later.setdefault(watched, 0)

    def at_turns_end(self, call: Callable[[], object]) -> bool:
        """Call `call` once when the events at hand have been given out: what many sessions want may be done at once.

        False, with nothing done, when no events are being given out.
        """
        if self._giving_out:
            self._at_end.append(call)
        return self._giving_out

    # What the reactor calls.

    def turn(self, delay: float | None) -> None:
        """Wait until something happens, at most `delay` seconds (None: for ever), and give out what did.

        Returns when the reactor has something to do.
        """
        reactor, clock = self._reactor, self._clock
        if self._left_at:
            self.turns.ended(clock() - self._left_at, _THE_REACTOR)
            self._left_at = 0.0
        try:
            if self._give_out(delay):
                began = clock()
                reactor.doPoll(0)
                self.turns.ended(clock() - began, _THE_REACTOR)
        finally:
            self._left_at = clock()

    def _give_out(self, delay: float | None) -> bool:
        """Tell the owners, turn after turn.  True when the reactor's own descriptor was among those that are ready."""
        reactor, clock, poll = self._reactor, self._clock, self._epoll.poll
        watched, removed, at_end = self._watched, self._removed, self._at_end
        later = self._later
        staying = self._may_stay and reactor.running
        new_timers, timers = (reactor._newTimedCalls, reactor._pendingTimedCalls) if staying else ([None], [])
        the_reactors = False
        short, in_short = 0, 0.0  # turns, and their seconds
        self._giving_out = True
        try:
            while True:
                nobody_asked = not self._soon and not later
                events = poll(delay if nobody_asked else 0, EVENTS_A_TURN)
                if not events and nobody_asked:
                    return False
                began = at = clock()
                if removed:
                    removed.clear()
                if not nobody_asked:
                    soon, self._soon = self._soon, {}
                    if later:
                        events = self._of_others(events)
                for fd, mask in events:
                    if removed and fd in removed:
                        continue
                    try:
                        owner = watched[fd]
                    except KeyError:
                        the_reactors = the_reactors or fd == self._reactor_fd
                        continue
                    try:
                        owner.ready(mask)
                    except Exception as error:
                        self._failed(owner, error)
                    now = clock()
                    if now - at > SLOW:
                        self.turns.slow(owner, now - at)
                    at = now
                if not nobody_asked:
                    at = self._give_turns(soon, len(events), at)
                seconds = at - began
                if seconds <= SHORT:
                    short += 1
                    in_short += seconds
                else:
                    self.turns.ended(seconds, "many short callbacks at once")
                if at_end:
                    calls = at_end[:]
                    at_end.clear()
                    for call in calls:
                        call()
                    if not self._running:
                        return False
                if the_reactors or new_timers or reactor._justStopped:
                    return the_reactors
                if timers:
                    delay = timers[0].time - at
                    if delay <= 0:
                        return False
        finally:
            self._giving_out = False
            self.turns.were_short(short, in_short)

    def _of_others(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The events without those of owners whose turn comes later: these are told then."""
        later = self._later
        others = []
        for event in events:
            owner = self._watched.get(event[0])
            if owner is not None and owner in later:
                later[owner] |= event[1] | select.EPOLLRDHUP
            else:
                others.append(event)
        return others

    def _give_turns(self, soon: dict[Watched, None], others: int, at: float) -> float:
        """Call those who asked for a turn, behind so many others; when that was over."""
        for owner in soon:
            at = self._call(owner, 0, at)
        later = self._later
        ends_at = at + LATER_A_TURN
        if later and (others < EVENTS_A_TURN // 2 or at >= self._later_at):
            self._later_at = ends_at + LATER_AT_LEAST
            for _ in range(len(later)):  # who asks again meanwhile is not called again
                owner = next(iter(later))
                at = self._call(owner, later.pop(owner), at)
                if at >= ends_at:
                    break
        return at

    def _call(self, owner: Watched, mask: int, began: float) -> float:
        """One turn that was asked for; when it was over."""
        try:
            owner.ready(mask)
        except Exception as error:
            self._failed(owner, error)
        now = self._clock()
        if now - began > SLOW:
            self.turns.slow(owner, now - began)
        return now

    def _failed(self, owner: Watched, error: Exception) -> None:
        self._log.failure("A session's socket callback failed: {owner!r}", owner=owner)
        try:
            owner.failed(error)
        except Exception:
            self._log.failure("... and so did its end: {owner!r}", owner=owner)
            for fd in [fd for fd, other in self._watched.items() if other is owner]:
                self.remove(fd)
