"""One of several processes that serve: what `workers` starts, and what it does.

A worker gets its listening sockets, and the memory in which all count their sessions, from its parent, and takes orders
from it only: the signals that a terminal sends to a whole group are not for it.  When the parent is gone it drains by
itself, so that even then no mail is cut.

It tells what it has counted `SNAPSHOT_AFTER` seconds after a session began or ended, and less often when nothing of the
sessions changes, down to once a second; that is its sign of life, too.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING, Any, Final

from proxy.daemon.log import logs
from proxy.daemon.log.internal_errors import catch_errors
from proxy.daemon.log.writer import LineWriter
from proxy.daemon.reports import Reports
from proxy.daemon.rights import drop_rights
from proxy.daemon.serving import CannotStart, Doors, Serving
from proxy.daemon.workers.channel import Channel, adopt
from proxy.daemon.workers.places import Counters
from proxy.net.coming_in.sockets import BACKLOG, open_sockets

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from proxy.settings import Listen, Settings

SNAPSHOT_AFTER: Final = 0.2  # seconds
ALIVE_EVERY: Final = 1.0  # seconds


def run_worker(descriptor: int, reactor: Any) -> int:
    """The whole life of a worker; `descriptor` is its end of the channel."""
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
        self.handed: dict[str, int] = {}  # listening sockets by their address, while they are looked through
        self.look_again: IDelayedCall | None = None
        self.look_after = SNAPSHOT_AFTER

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
            self._apply(*told)
        elif what in ("drain", "leave"):
            self.drain(is_replaced=what == "leave")
        elif what == "end":
            self._stopped(self.serving.sessions if self.serving is not None else 0)

    def parent_lost(self) -> None:
        """Nobody is left to restart what is restarted: let the sessions end, then go."""
        self.drain()

    def _serve(
        self, settings: Settings, inherited: dict[str, list[int]], addresses: list[str], places: tuple[int, int]
    ) -> None:
        catch_errors(self.log)
        self.log.configure(settings.log.format, settings.log.level)
        (memory,) = self.channel.take(1)
        counters = Counters(memory, *places, self._changed)
        self.serving = Serving(self.reactor, self.reports, doors=self._doors(inherited), places=counters.of)
        self.reports.metrics.watch_turns(self.serving.poller.turns)
        self.serving.gather_log(self.writer)
        try:
            self._put_into_effect(self.serving, settings, addresses)
            drop_rights(settings.service.user)
        except CannotStart as error:
            self.channel.say("failed", str(error))
            self.reactor.callLater(0.1, self.reactor.stop)
            return
        for route in settings.routes:
            self.reports.metrics.route(route.name)
        self.channel.say("ready")
        self._tick()

    def _apply(self, settings: Settings, addresses: list[str]) -> None:
        if self.serving is None or self.stopping:
            for descriptor in self.channel.take(len(addresses)):
                os.close(descriptor)
            return
        try:
            self._put_into_effect(self.serving, settings, addresses)
        except CannotStart as error:
            self.channel.say("took", str(error))
            return
        self.channel.say("took", "")
        self.log.configure(settings.log.format, settings.log.level)

    def _put_into_effect(self, serving: Serving, settings: Settings, addresses: list[str]) -> None:
        """The settings with the sockets that were sent along.  Raises CannotStart."""
        self.handed = dict(zip(addresses, self.channel.take(len(addresses)), strict=True))
        try:
            serving.apply(settings)
            self.settings = settings
            for descriptor in self.handed.values():
                with socket.socket(fileno=os.dup(descriptor)) as sock:
                    sock.listen(BACKLOG)  # also when it does already: then only its backlog is set
        except OSError as error:
            raise CannotStart(f"cannot listen: {error.strerror}") from None
        finally:
            for descriptor in self.handed.values():
                os.close(descriptor)
            self.handed = {}

    def _doors(self, inherited: dict[str, list[int]]) -> Doors:
        def doors(listen: Listen, is_transparent: bool) -> list[socket.socket]:
            if listen.systemd:
                return open_sockets(listen, inherited, is_transparent=is_transparent)
            return [socket.socket(fileno=os.dup(self.handed[str(listen)]))]

        return doors

    def _changed(self) -> None:
        """A session began or ended."""
        if self.look_after > SNAPSHOT_AFTER and self.look_again is not None and self.look_again.active():
            self.look_after = SNAPSHOT_AFTER
            self.look_again.reset(SNAPSHOT_AFTER)

    def _tick(self) -> None:
        self.reports.tick()
        changed = self._tell()
        self.look_after = SNAPSHOT_AFTER if changed else min(2 * self.look_after, ALIVE_EVERY)
        self.look_again = self.reactor.callLater(self.look_after, self._tick)

    def _tell(self) -> bool:
        """Whether there was something new of the sessions; the process itself and its turns cost a little always."""
        snapshot = self.reports.snapshot()
        self.channel.say("snapshot", snapshot)
        metrics = {key: value for key, value in snapshot["metrics"].items() if key not in ("process", "turns")}
        told, self.told = self.told, {**snapshot, "metrics": metrics}
        return told != self.told

    def drain(self, *, is_replaced: bool = False) -> None:
        """Let the sessions end, then end.  `is_replaced`: another worker has taken over the sockets."""
        if self.stopping:
            return
        self.stopping = True
        if self.serving is None or self.settings is None:
            self._stopped(0)
        else:
            self.serving.drain(self.settings.service.drain_timeout, self._stopped, is_replaced=is_replaced)

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
