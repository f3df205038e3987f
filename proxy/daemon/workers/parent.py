"""The parent of several serving processes: the process that the operator sees.

It serves no mail itself.  Its `crew` does, and is started here, told of reloads and of the end, and shown as one
service: ready when all its workers are, its figures the sums of theirs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from proxy.daemon.admin.figures.counters import Metrics
from proxy.daemon.admin.status import own_snapshot
from proxy.daemon.daemon import Daemon
from proxy.daemon.serving import CannotStart
from proxy.daemon.workers.crew import Crew

if TYPE_CHECKING:
    from proxy.daemon.workers.child import Child
    from proxy.settings import Settings


class Parent(Daemon):
    """Serves with several processes, as the `Overseer` of its crew."""

    def __init__(self, settings: Settings, reactor: Any, reread: Callable[[], Settings] | None) -> None:
        super().__init__(settings, reactor, reread, shared=True)
        count = settings.service.workers or len(os.sched_getaffinity(0))
        self.board.serve_with(count)
        self.metrics = Metrics()  # of this process itself
        self.crew = Crew(settings, count, reactor, self.log, self, self.notifier.watchdog_seconds)
        self.cut = 0  # sessions that ended before their time

    # -- start -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.crew.open()

    def hire(self) -> None:
        # They give up their rights themselves; the interpreter may lie where only root gets.
        self.crew.hire()

    def begin(self) -> None:
        """They tell when they are ready."""

    # -- what is told of the workers ---------------------------------------------------------------------------------

    def heard(self, child: Child, what: str, told: Any) -> None:
        if what == "ready":
            if not self.is_ready and self.crew.is_ready:
                self.tell_ready()
        elif what == "failed":
            if self.is_ready:
                self.log.emit("error", "worker-failed", {"worker": child.number, "reason": told})
            else:
                print(f"ehlo-proxy: cannot start: {told}", file=sys.stderr)
                self.exit_code = 1
                self.end_now()
        elif what == "took" and told:
            self.reload_went_wrong([f"worker {child.number}: {told}"])
        elif what == "stopped":
            self.cut += told

    def replaced(self) -> None:
        self.board.worker_restarted()

    def all_gone(self) -> None:
        self.stopped(self.cut)

    def tick(self) -> None:
        super().tick()
        self.crew.tick()

    def snapshots(self) -> list[dict[str, Any]]:
        """What all workers have told, and what this process itself needs."""
        return [*self.crew.snapshots(), own_snapshot(self.metrics, self.log.lines_lost)]

    def listening(self) -> list[tuple[str, str]]:
        return [(route.name, str(listen)) for route in self.crew.settings.routes for listen in route.listen]

    # -- orders ------------------------------------------------------------------------------------------------------

    def apply(self, settings: Settings) -> None:
        for route in settings.routes:
            if route.tls.mode == "bridge":
                from proxy.net.tls.contexts import TlsContexts
                from proxy.net.tls.problem import TlsProblem

                try:
                    TlsContexts(route.tls)
                except TlsProblem as problem:
                    raise CannotStart(f"route {route.name}: {problem.reason}") from None
        self.crew.change(settings)

    def drain(self) -> None:
        self.crew.drain()

    def end_now(self) -> None:
        self.stopping = True
        self.crew.end()
