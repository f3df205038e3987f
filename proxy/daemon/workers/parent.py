"""The parent of several serving processes: starts them, replaces one that dies or hangs, adds up what they counted.

It serves no mail itself.  It holds the listening sockets of all (`doors`), so that it has rights that they need not
have, and the memory in which they count their sessions (`places`).  A worker that dies is started again, at once the
first time and slower when it keeps dying, or when no process can be started; what it had counted stays counted, and the
places of its sessions are free.

systemd's watchdog sees only this process, so it watches the workers in the same way.  One that says nothing for
`SILENT_AT_MOST` seconds, or `WatchdogSec=` if that is less, gets no more clients and is replaced; but it has sessions,
and may come to itself again.  Then it lets them end; it is killed only when they have had their time, `drain_timeout`.
More than `HANG_AT_MOST` that hang at a time can't be kept: the one that hangs longest is killed.

A drain has a deadline of its own here: a worker that does not keep to it is killed, so SIGTERM is always the end.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from proxy.daemon.admin.figures.counters import Metrics
from proxy.daemon.admin.status import merge_retired, own_snapshot, retired_reports
from proxy.daemon.daemon import TICK, Daemon
from proxy.daemon.notify import listen_fds
from proxy.daemon.serving import CannotStart
from proxy.daemon.workers.child import Child
from proxy.daemon.workers.doors import HeldDoors
from proxy.daemon.workers.places import Region

if TYPE_CHECKING:
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


def run_parent(settings: Settings, reactor: Any, *, reread: Callable[[], Settings] | None) -> int:
    """Serve with several processes until SIGTERM or SIGINT.  0 after that, 1 if the service could not be started."""
    return Parent(settings, reactor, reread).run()


class Parent(Daemon):
    """The process that the operator sees."""

    def __init__(self, settings: Settings, reactor: Any, reread: Callable[[], Settings] | None) -> None:
        self.children: list[Child] = []  # those that hang among them
        self.retired: list[dict[str, Any]] = []
        super().__init__(settings, reactor, reread, shared=True)
        self.count = settings.service.workers or len(os.sched_getaffinity(0))
        self.board.serve_with(self.count)
        self.metrics = Metrics()  # of this process itself
        self.inherited: dict[str, list[int]] = {}
        self.doors = HeldDoors(self.count, {})
        self.places = Region(self.count + HANG_AT_MOST)
        self.concrete = settings  # with the ports that port 0 has become
        self.cut = 0
        self.again_after = AGAIN_AFTER
        watchdog = self.notifier.watchdog_seconds or SILENT_AT_MOST
        self.silent_at_most = max(2 * TICK, min(watchdog, SILENT_AT_MOST))

    # -- start -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.inherited = listen_fds()
        self.doors = HeldDoors(self.count, self.inherited)
        self.concrete = self.doors.open(self.settings)

    def hire(self) -> None:
        # They give up their rights themselves; the interpreter may lie where only root gets.
        for number in range(self.count):
            try:
                self._start(number)
            except OSError as error:
                raise CannotStart(f"no worker can be started: {error}") from None

    def begin(self) -> None:
        """They tell when they are ready."""

    def _start(self, number: int) -> None:
        """Raises OSError, with nothing started."""
        place = self.places.give()
        if place < 0:
            raise OSError("too many workers hang")
        child = Child(number, place, self.heard, self.exited)
        try:
            child.start(self.reactor, self.inherited)
        except OSError:
            self.places.take_back(place)
            raise
        self.children.append(child)
        child.serve(self.concrete, self.inherited, (self.places.descriptor, self.places.count), self.doors.of(number))

    def _cannot_start(self, reason: str) -> None:
        print(f"ehlo-proxy: cannot start: {reason}", file=sys.stderr)
        self.exit_code = 1
        self._stop_all()

    # -- what workers tell -------------------------------------------------------------------------------------------

    def heard(self, child: Child, what: str, told: Any) -> None:
        """News of a worker."""
        if what == "ready":
            if not self.is_ready and all(one.is_ready for one in self.children):
                self.tell_ready()
        elif what == "failed":
            if not self.is_ready:
                self._cannot_start(told)
            else:
                self.log.emit("error", "worker-failed", {"worker": child.number, "reason": told})
        elif what == "took" and told:
            self.reload_went_wrong([f"worker {child.number}: {told}"])
        elif what == "stopped":
            self.cut += told

    def exited(self, child: Child, reason: str) -> None:
        """Replace it, unless all are to end."""
        self.children.remove(child)
        self.places.take_back(child.place)
        if child.snapshot is not None:
            self.retired = [merge_retired([retired_reports(child.snapshot), *self.retired], time.time())]
        if self.stopping or self.exit_code:
            if not self.children:
                self.stopped(self.cut)
            return
        if child.hangs:
            return  # it was replaced when it began to
        self._wait_longer(time.monotonic() - child.started_at)
        self.log.emit(
            "error",
            "worker-died",
            {"worker": child.number, "pid": child.pid, "reason": reason or "it ended", "again": self.again_after},
        )
        self._replace_later(child.number)

    def _wait_longer(self, lived: float) -> None:
        self.again_after = AGAIN_AFTER if lived > STEADY_AFTER else min(self.again_after * 2, AGAIN_AT_MOST)

    def _replace_later(self, number: int) -> None:
        if self.again_after > WAIT_AT_MOST:
            self.doors.shut(number)
        self.reactor.callLater(self.again_after, self._replace, number)

    def _replace(self, number: int) -> None:
        if self.stopping or self.exit_code:
            return
        try:
            self._start(number)
        except OSError as error:
            self._wait_longer(0.0)
            fields = {"worker": number, "reason": str(error), "again": self.again_after}
            self.log.emit("error", "worker-not-started", fields)
            self._replace_later(number)
        else:
            self.board.worker_restarted()

    def tick(self) -> None:
        super().tick()
        for child in self.children[:]:
            # Counted in ticks, not by the clock: after a pause of the whole machine nobody is to blame.
            silent = child.another_tick(TICK)
            if child.is_ready and not child.hangs and not self.stopping and silent > self.silent_at_most:
                self._hangs(child)
            elif not child.is_ready and silent > START_AT_MOST:
                child.kill()  # it has no sessions yet

    def _hangs(self, child: Child) -> None:
        """Give its clients to others; its sessions may still come to a good end."""
        self.doors.shut(child.number)
        child.give_up()
        self.log.emit("error", "worker-hangs", {"worker": child.number, "pid": child.pid, "seconds": child.silent})
        self.reactor.callLater(self.settings.service.drain_timeout, self._end_silent, child)
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
            self.reactor.callLater(self.silent_at_most, self._end_silent, child)

    def snapshots(self) -> list[dict[str, Any]]:
        """What all workers have told, the dead ones' included, and what this process itself needs."""
        told = [*self.retired, *(child.snapshot for child in self.children if child.snapshot is not None)]
        return [*told, own_snapshot(self.metrics, self.log.lines_lost)]

    # -- orders ------------------------------------------------------------------------------------------------------

    def apply(self, settings: Settings) -> None:
        for route in settings.routes:
            if route.tls.mode == "bridge":
                from proxy.net.tls.channel import TlsContexts, TlsProblem

                try:
                    TlsContexts(route.tls)
                except TlsProblem as problem:
                    raise CannotStart(f"route {route.name}: {problem.reason}") from None
        self.concrete = self.doors.open(settings)
        for child in self.children:
            if not child.hangs:
                child.change(self.concrete, self.doors.of(child.number))

    def listening(self) -> list[tuple[str, str]]:
        return [(route.name, str(listen)) for route in self.concrete.routes for listen in route.listen]

    def drain(self) -> None:
        self.doors.close()
        if not self.children:
            self.stopped(0)
        for child in self.children:
            child.order("drain")
        self.reactor.callLater(self.settings.service.drain_timeout + GRACE, self._stop_all)

    def end_now(self) -> None:
        self._stop_all()

    def _stop_all(self) -> None:
        self.stopping = True
        self.doors.close()
        for child in self.children:
            child.order("end")
            self.reactor.callLater(KILL_AFTER, child.kill)
        if not self.children:
            self.stopped(self.cut)
        # Not even the kernel may be able to end one.
        self.reactor.callLater(2 * KILL_AFTER, lambda: self.stopped(self.cut))
