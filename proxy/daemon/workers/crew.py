"""The workers that there are: started, watched, replaced when they die or hang, and added up.

They share the listening sockets (`doors`), held here so that workers need no rights to have them, and the memory in
which they count their sessions (`places`).  A worker that dies is started again, at once the first time and slower when
it keeps dying, or when no process can be started; what it had counted stays counted, and the places of its sessions are
free.

systemd's watchdog sees only the parent, so it watches the workers in the same way.  One that says nothing for
`SILENT_AT_MOST` seconds, or `WatchdogSec=` if that is less, gets no more clients and is replaced; but it has sessions,
and may come to itself again.  Then it lets them end; it is killed only when they have had their time, `drain_timeout`.
More than `HANG_AT_MOST` that hang at a time can't be kept: the one that hangs longest is killed.

A drain has a deadline of its own here: a worker that does not keep to it is killed, so SIGTERM is always the end.

What all this means for the service is told to its `Overseer`, the parent.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from proxy.daemon.admin.status import merge_retired, retired_reports
from proxy.daemon.daemon import TICK
from proxy.daemon.notify import listen_fds
from proxy.daemon.serving import CannotStart
from proxy.daemon.workers.child import Child
from proxy.daemon.workers.doors import HeldDoors
from proxy.daemon.workers.places import Region

if TYPE_CHECKING:
    from proxy.daemon.log.logs import EventLog
    from proxy.settings import Settings

AGAIN_AFTER: Final = 0.1  # seconds before a worker that died is replaced; doubled each time, up to ...
AGAIN_AT_MOST: Final = 10.0
STEADY_AFTER: Final = 30.0  # seconds of life after which that starts anew
WAIT_AT_MOST: Final = 0.25  # seconds that clients may wait for a worker to be replaced; else they go to the others
SILENT_AT_MOST: Final = 10.0  # seconds without a word after which a worker is taken to hang
START_AT_MOST: Final = 60.0  # seconds that a worker may take to be ready
HANG_AT_MOST: Final = 8  # workers that hang and are kept for the sake of their sessions
GRACE: Final = 5.0  # seconds beyond `drain_timeout` that workers have to tell of their end
KILL_AFTER: Final = 1.0  # seconds that they have for that when all ends at once, twice


class Overseer(Protocol):
    """Who is told of the workers."""

    def heard(self, child: Child, what: str, told: Any) -> None:
        """A worker has said so."""

    def replaced(self) -> None:
        """A worker that died or hung has a successor."""

    def all_gone(self) -> None:
        """After `drain` or `end`: no worker is left, or none that the kernel can end.  May be told twice."""


class Crew:
    """So many workers, as far as the machine lets us have them."""

    def __init__(
        self, settings: Settings, count: int, reactor: Any, log: EventLog, overseer: Overseer, watchdog: float
    ) -> None:
        """`watchdog`: seconds of silence that systemd bears, 0 for any number."""
        self.children: list[Child] = []  # those that hang among them
        self.settings = settings  # with the ports that port 0 has become
        self.silent_at_most = max(2 * TICK, min(watchdog or SILENT_AT_MOST, SILENT_AT_MOST))
        self._retired: list[dict[str, Any]] = []  # what those that are gone had counted
        self._count = count
        self._reactor = reactor
        self._log = log
        self._overseer = overseer
        self._inherited = listen_fds()
        self._doors = HeldDoors(count, self._inherited)
        self._places = Region(count + HANG_AT_MOST)
        self._again_after = AGAIN_AFTER
        self._is_ending = False

    @property
    def is_ready(self) -> bool:
        """Whether every worker serves."""
        return all(child.is_ready for child in self.children)

    def snapshots(self) -> list[dict[str, Any]]:
        """What all have counted, the dead ones included."""
        return [*self._retired, *(child.snapshot for child in self.children if child.snapshot is not None)]

    # -- start -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take the sockets.  Raises CannotStart."""
        self.settings = self._doors.open(self.settings)

    def hire(self) -> None:
        """Start all.  Raises CannotStart."""
        for number in range(self._count):
            try:
                self._start(number)
            except OSError as error:
                raise CannotStart(f"no worker can be started: {error}") from None

    def _start(self, number: int) -> None:
        """Raises OSError, with nothing started."""
        places = self._places
        place = places.give()
        if place < 0:
            raise OSError("too many workers hang")
        child = Child(number, place, self._overseer.heard, self._exited)
        try:
            child.start(self._reactor, self._inherited)
        except OSError:
            places.take_back(place)
            raise
        self.children.append(child)
        child.serve(self.settings, self._inherited, (places.descriptor, places.count), self._doors.of(number))

    # -- while they serve --------------------------------------------------------------------------------------------

    def change(self, settings: Settings) -> None:
        """Have all serve by other settings.  Raises CannotStart, with nothing changed."""
        self.settings = self._doors.open(settings)
        for child in self.children:
            if not child.hangs:
                child.change(self.settings, self._doors.of(child.number))

    def tick(self) -> None:
        """`TICK` seconds have passed in which this process ran."""
        for child in self.children[:]:
            # Counted in ticks, not by the clock: after a pause of the whole machine nobody is to blame.
            silent = child.another_tick(TICK)
            if child.is_ready and not child.hangs and not self._is_ending and silent > self.silent_at_most:
                self._hangs(child)
            elif not child.is_ready and silent > START_AT_MOST:
                child.kill()  # it has no sessions yet

    def _hangs(self, child: Child) -> None:
        """Give its clients to others; its sessions may still come to a good end."""
        self._doors.shut(child.number)
        child.give_up()
        self._log.emit("error", "worker-hangs", {"worker": child.number, "pid": child.pid, "seconds": child.silent})
        self._reactor.callLater(self.settings.service.drain_timeout, self._end_silent, child)
        hanging = [one for one in self.children if one.hangs]
        if len(hanging) >= HANG_AT_MOST:
            hanging[0].kill()
        self._wait_longer(time.monotonic() - child.started_at)
        self._replace_later(child.number)

    def _end_silent(self, child: Child) -> None:
        """Its sessions have had their time, if it hangs still; else it lets them end, with a deadline of its own."""
        if child.silent > self.silent_at_most:
            child.kill()
        elif child in self.children:
            self._reactor.callLater(self.silent_at_most, self._end_silent, child)

    def _exited(self, child: Child, reason: str) -> None:
        """Replace it, unless all are to end."""
        self.children.remove(child)
        self._places.take_back(child.place)
        if child.snapshot is not None:
            self._retired = [merge_retired([retired_reports(child.snapshot), *self._retired], time.time())]
        if self._is_ending:
            if not self.children:
                self._overseer.all_gone()
            return
        if child.hangs:
            return  # it was replaced when it began to
        self._wait_longer(time.monotonic() - child.started_at)
        fields = {"worker": child.number, "pid": child.pid, "reason": reason or "it ended", "again": self._again_after}
        self._log.emit("error", "worker-died", fields)
        self._replace_later(child.number)

    def _wait_longer(self, lived: float) -> None:
        self._again_after = AGAIN_AFTER if lived > STEADY_AFTER else min(self._again_after * 2, AGAIN_AT_MOST)

    def _replace_later(self, number: int) -> None:
        if self._again_after > WAIT_AT_MOST:
            self._doors.shut(number)
        self._reactor.callLater(self._again_after, self._replace, number)

    def _replace(self, number: int) -> None:
        if self._is_ending:
            return
        try:
            self._start(number)
        except OSError as error:
            self._wait_longer(0.0)
            fields = {"worker": number, "reason": str(error), "again": self._again_after}
            self._log.emit("error", "worker-not-started", fields)
            self._replace_later(number)
        else:
            self._overseer.replaced()

    # -- stop --------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Accept no more, and end when the sessions have."""
        self._is_ending = True
        self._doors.close()
        for child in self.children:
            child.order("drain")
        if not self.children:
            self._overseer.all_gone()
        self._reactor.callLater(self.settings.service.drain_timeout + GRACE, self.end)

    def end(self) -> None:
        """End without waiting."""
        self._is_ending = True
        self._doors.close()
        for child in self.children:
            child.order("end")
            self._reactor.callLater(KILL_AFTER, child.kill)
        if not self.children:
            self._overseer.all_gone()
        # Not even the kernel may be able to end one.
        self._reactor.callLater(2 * KILL_AFTER, self._overseer.all_gone)
