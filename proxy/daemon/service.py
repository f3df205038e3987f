"""The service: start, signals, reload, drain and stop of one process; more than one are `workers`.

In order: log, sockets, admin listener, rights given up, READY.  What goes wrong before READY is told in one line and
is exit code 1; what is wrong with the configuration was told before, by whoever read it.

SIGHUP reads the configuration again: a bad one changes nothing.  SIGTERM and SIGINT drain; a second one ends at once.
SIGUSR1 logs the status.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from proxy import __version__
from proxy.daemon import logs
from proxy.daemon.internal_errors import catch_errors
from proxy.daemon.log_writer import LineWriter
from proxy.daemon.reports import Reports
from proxy.daemon.rights import drop_rights
from proxy.daemon.serving import CannotStart, Serving
from proxy.daemon.status import RouteShown, StatusBoard

if TYPE_CHECKING:
    from proxy.settings import Settings

TICK: Final = 1.0  # seconds between looks at what is due

Reread = Callable[[], "Settings"]


def run(settings: Settings, reactor: Any, *, reread: Reread | None = None) -> int:
    """Serve until SIGTERM or SIGINT.  0 after that, 1 if the service could not be started.

    `reread` reads the configuration anew and raises SettingsError; without it SIGHUP is refused.
    """
    # Deadlines must not move with the wall clock; the reactor's own timers go by the same.
    reactor.seconds = time.monotonic
    if settings.service.workers != 1:
        from proxy.daemon.workers import run_parent

        return run_parent(settings, reactor, reread=reread)
    return Service(settings, reactor, reread).run()


class Service:
    """One process that serves."""

    def __init__(self, settings: Settings, reactor: Any, reread: Reread | None) -> None:
        self.settings = settings
        self.reactor = reactor
        self.reread = reread
        self.started_at = time.time()
        self.writer = LineWriter(2, later=reactor.callLater)
        self.log = logs.EventLog(
            self.writer, format=settings.log.format, level=settings.log.level, journal=logs.stderr_is_journal()
        )
        self.reports = Reports(self.log)
        self.board = StatusBoard(__version__, self.started_at, lambda: [self.reports.snapshot()], time.time)
        self.serving: Serving | None = None
        self.admin: Any = None
        self.exit_code = 0
        self.stopping = False
        self.stop_began = 0.0

    # -- start -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start, and let the reactor run until it is over."""
        from proxy.daemon.notify import Notifier, listen_fds

        catch_errors(self.log)
        self.notifier = Notifier()
        self.serving = Serving(self.reactor, self.reports, inherited=listen_fds())
        try:
            self.serving.apply(self.settings)
            self._open_admin()
            drop_rights(self.settings.service.user)
        except CannotStart as error:
            print(f"ehlo-proxy: cannot start: {error}", file=sys.stderr)
            return 1
        self._show()
        self.reactor.callWhenRunning(self._ready)
        self.reactor.run()
        self.writer.flush()
        return self.exit_code

    def _ready(self) -> None:
        for number, do in (
            (signal.SIGHUP, self.reload),
            (signal.SIGTERM, self.terminate),
            (signal.SIGINT, self.terminate),
            (signal.SIGUSR1, self.tell_status),
        ):
            signal.signal(number, lambda _number, _frame, do=do: self.reactor.callFromThread(do))
        assert self.serving is not None
        listen = [str(listener) for listener in self.serving.listeners]
        logs.ready(self.log, listen, [route.name for route in self.settings.routes], 1, __version__)
        self.notifier.ready(self._status_line())
        self._tick()
        if self.notifier.watchdog_seconds:
            self._feed_watchdog()

    def _open_admin(self) -> None:
        listen = self.settings.admin.listen
        if listen is None:
            return
        from twisted.internet.error import CannotListenError

        from proxy.daemon.admin import build_site

        try:
            self.admin = self.reactor.listenTCP(listen.port, build_site(self.board), interface=listen.host)
        except CannotListenError as error:
            raise CannotStart(f"cannot listen on {listen} (admin): {os.strerror(error.socketError.errno or 0)}") from None
        host = self.admin.getHost()
        address = f"[{host.host}]:{host.port}" if ":" in host.host else f"{host.host}:{host.port}"
        self.log.emit("info", "admin-ready", {"listen": address})

    def _show(self) -> None:
        assert self.serving is not None
        serving = self.serving
        self.board.routes = tuple(
            RouteShown(
                route.name,
                tuple(str(one) for one in serving.listeners if one.route.settings.name == route.name),
                tuple(str(destination) for destination in route.destination),
            )
            for route in self.settings.routes
        )
        for route in serving.routes.values():
            self.reports.metrics.route(route.settings.name)
            if route.secure is not None:
                told = route.secure.contexts
                if told.not_after:
                    self.reports.certificate_seen(route.settings.name, "client", told.subject, told.not_after)

    # -- while it runs -----------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self.reports.tick()
        self.notifier.status(self._status_line())
        self.reactor.callLater(TICK, self._tick)

    def _feed_watchdog(self) -> None:
        self.notifier.watchdog()
        self.reactor.callLater(self.notifier.watchdog_seconds / 3, self._feed_watchdog)

    def _status_line(self) -> str:
        open_now = self.reports.sessions_open
        total = sum(sum(route.outcomes.values()) for route in self.reports.metrics.routes.values())
        state = "draining, " if self.stopping else ""
        return f"{state}{open_now} sessions open, {total} ended, {len(self.settings.routes)} routes"

    def tell_status(self) -> None:
        """SIGUSR1."""
        logs.status(self.log, self.board.status())

    def reload(self) -> None:
        """SIGHUP: all of the new configuration, or nothing of it."""
        from proxy.settings import SettingsError

        if self.stopping:
            return
        self.notifier.reloading()
        errors: list[str] = []
        if self.reread is None:
            errors = ["there is no file to read: the configuration was given as arguments"]
        else:
            assert self.serving is not None
            try:
                settings = self.reread()
                self.serving.apply(settings)
            except SettingsError as error:
                errors = [str(problem) for problem in error.problems]
            except CannotStart as error:
                errors = [str(error)]
            else:
                self.settings = settings
                self.log.configure(settings.log.format, settings.log.level)
                self._show()
                listen = [str(listener) for listener in self.serving.listeners]
                logs.reload(self.log, listen, [route.name for route in settings.routes])
        if errors:
            logs.reload_failed(self.log, errors)
        self.reports.metrics.reloads["failed" if errors else "ok"] += 1
        self.notifier.ready(self._status_line())

    # -- stop --------------------------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """SIGTERM or SIGINT: drain; a second one ends at once."""
        assert self.serving is not None
        if self.stopping:
            self._stopped(self.serving.sessions)
            return
        self.stopping = True
        self.board.draining = True
        self.stop_began = time.monotonic()
        self.notifier.stopping()
        logs.drain(self.log, self.serving.sessions, self.settings.service.drain_timeout)
        self.serving.drain(self.settings.service.drain_timeout, self._stopped)

    def _stopped(self, cut: int) -> None:
        assert self.serving is not None
        self.serving.stop()
        self.reports.flush()
        logs.stopped(self.log, time.monotonic() - self.stop_began, cut)
        if self.reactor.running:
            self.reactor.stop()
