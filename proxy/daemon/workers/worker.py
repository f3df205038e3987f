"""One of several processes that serve: what `workers` starts, and what it does.

A worker has its own listening sockets on the same ports (SO_REUSEPORT), and takes orders from its parent only: the
signals that a terminal sends to a whole group are not for it.  When the parent is gone it drains by itself, so that
even then no mail is cut.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

from proxy.daemon.log import logs
from proxy.daemon.log.internal_errors import catch_errors
from proxy.daemon.log.writer import LineWriter
from proxy.daemon.reports import Reports
from proxy.daemon.rights import drop_rights
from proxy.daemon.serving import CannotStart, Serving
from proxy.daemon.workers.channel import SNAPSHOTS_A_SECOND, Channel, adopt

if TYPE_CHECKING:
    from proxy.settings import Settings


def run_worker(descriptor: int, reactor: Any) -> int:
    """The whole life of a worker; `descriptor` is its end of the channel."""
    reactor.seconds = time.monotonic
    worker = Worker(reactor)
    adopt(reactor, descriptor, worker.channel)
    os.close(descriptor)
    reactor.callWhenRunning(worker.take_signals)
    reactor.run()
    worker.writer.flush()
    return 0


class Worker:
    """Serves as it is told."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.channel = Channel(self.heard, self.parent_lost)
        self.writer = LineWriter(2, later=reactor.callLater, shared=True)
        self.log = logs.EventLog(self.writer, journal=logs.stderr_is_journal(), max_line=self.writer.max_line)
        self.reports = Reports(self.log)
        self.serving: Serving | None = None
        self.settings: Settings | None = None
        self.stopping = False
        self.is_over = False
        self.told: dict[str, Any] = {}

    def take_signals(self) -> None:
        """SIGTERM drains; the rest is the parent's."""
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self.reactor.callFromThread(self.drain))

    def heard(self, what: str, told: Any) -> None:
        """An order."""
        if what == "serve":
            self._serve(*told)
        elif what == "settings":
            self._apply(told)
        elif what == "drain":
            self.drain()
        elif what == "end":
            self._stopped(self.serving.sessions if self.serving is not None else 0)

    def parent_lost(self) -> None:
        """Nobody is left to restart what is restarted: let the sessions end, then go."""
        self.drain()

    def _serve(self, settings: Settings, inherited: dict[str, list[int]], share: int) -> None:
        catch_errors(self.log)
        self.log.configure(settings.log.format, settings.log.level)
        self.serving = Serving(self.reactor, self.reports, inherited=inherited, share=share, reuse_port=True)
        self.reports.metrics.watch_turns(self.serving.poller.turns)
        self.serving.gather_log(self.writer)
        try:
            self.serving.apply(settings)
            drop_rights(settings.service.user)
        except CannotStart as error:
            self.channel.say("failed", str(error))
            self.reactor.callLater(0.1, self.reactor.stop)
            return
        self.settings = settings
        for route in settings.routes:
            self.reports.metrics.route(route.name)
        self.channel.say("ready")
        self._tick()

    def _apply(self, settings: Settings) -> None:
        if self.serving is None or self.stopping:
            return
        try:
            self.serving.apply(settings)
        except CannotStart as error:
            logs.reload_failed(self.log, [str(error)])
            return
        self.settings = settings
        self.log.configure(settings.log.format, settings.log.level)

    def _tick(self) -> None:
        self.reports.tick()
        self._tell()
        self.reactor.callLater(1 / SNAPSHOTS_A_SECOND, self._tick)

    def _tell(self) -> None:
        snapshot = self.reports.snapshot()
        if snapshot != self.told:
            self.told = snapshot
            self.channel.say("snapshot", snapshot)
        else:
            self.channel.say("alive")

    def drain(self) -> None:
        """Let the sessions end, then end."""
        if self.stopping:
            return
        self.stopping = True
        if self.serving is None or self.settings is None:
            self._stopped(0)
        else:
            self.serving.drain(self.settings.service.drain_timeout, self._stopped)

    def _stopped(self, cut: int) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self.serving is not None:
            self.serving.stop()
            self.serving = None
        self.reports.flush()
        self._tell()
        self.channel.say("stopped", cut)
        if self.channel.transport is not None:
            self.channel.transport.loseConnection()
        self.reactor.callLater(0.05, self._go)

    def _go(self) -> None:
        if self.reactor.running:
            self.reactor.stop()
