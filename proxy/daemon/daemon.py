"""What is the same for one process and for many: start, signals, reload, drain and stop, as an operator sees them.

In order: log, sockets, admin listener, workers, rights given up, READY.  What goes wrong before READY is told in one
line and is exit code 1; what is wrong with the configuration was told before, by whoever read it.

SIGHUP reads the configuration again: a bad one changes nothing.  SIGTERM and SIGINT drain; a second one ends at once.
SIGUSR1 logs the status.  What comes before READY waits for it (`signals`).

Who serves is left to `proxy.daemon.service.Service`, one process, and `proxy.daemon.workers.parent.Parent`.
"""

from __future__ import annotations

import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from proxy import __version__
from proxy.daemon import signals
from proxy.daemon.admin.access import Access, is_loopback
from proxy.daemon.admin.status import RouteShown, StatusBoard
from proxy.daemon.log import logs
from proxy.daemon.log.internal_errors import catch_errors
from proxy.daemon.log.writer import LineWriter
from proxy.daemon.notify import Notifier
from proxy.daemon.rights import drop_rights
from proxy.daemon.serving import CannotStart

if TYPE_CHECKING:
    from proxy.settings import Endpoint, Settings

TICK: Final = 1.0  # seconds between looks at what is due

STOP_MARGIN: Final = 30.0  # seconds that systemd is asked for beyond the drain

Reread = Callable[[], "Settings"]


class Daemon(ABC):
    """What is the same for one process and for many."""

    def __init__(self, settings: Settings, reactor: Any, reread: Reread | None, *, shared: bool = False) -> None:
        """`shared`: other processes write to the same stderr."""
        self.settings = settings
        self.reactor = reactor
        self.reread = reread
        self.writer = LineWriter(2, later=reactor.callLater, shared=shared)
        self.log = logs.EventLog(
            self.writer,
            format=settings.log.format,
            level=settings.log.level,
            journal=logs.stderr_is_journal(),
            max_line=self.writer.max_line,
        )
        self.board = StatusBoard(__version__, time.time(), self.snapshots, time.time)
        self._access = Access()  # of the admin listener
        self.notifier = Notifier()
        self.reload_problem = ""
        self.reload_wanted = False
        self.exit_code = 0
        self.is_ready = False
        self.stopping = False
        self.stop_began = 0.0
        self.is_over = False

    # -- what the kinds of daemon do ---------------------------------------------------------------------------------

    @abstractmethod
    def open(self) -> None:
        """Take the sockets.  Raises CannotStart."""

    def hire(self) -> None:  # noqa: B027  # one process has nobody to hire
        """The last thing before rights are given up.  Raises CannotStart."""

    @abstractmethod
    def begin(self) -> None:
        """The reactor runs: serve, and `tell_ready` when that is so."""

    @abstractmethod
    def apply(self, settings: Settings) -> None:
        """Take another configuration, all of it.  Raises CannotStart, having changed nothing."""

    @abstractmethod
    def snapshots(self) -> list[dict[str, Any]]:
        """What every process has counted."""

    @abstractmethod
    def listening(self) -> list[tuple[str, str]]:
        """Route and address of every listener."""

    @abstractmethod
    def drain(self) -> None:
        """Accept no more, let sessions end; then `stopped`."""

    @abstractmethod
    def end_now(self) -> None:
        """End without waiting; then `stopped`."""

    # -- start -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Start, and let the reactor run until it is over."""
        catch_errors(self.log)
        try:
            self.open()
            self._open_admin()
            self.hire()
            drop_rights(self.settings.service.user)
        except CannotStart as error:
            print(f"ehlo-proxy: cannot start: {error}", file=sys.stderr)
            return 1
        self.reactor.callWhenRunning(self._running)
        self.reactor.run()
        # The reactor has given the signals back, and one that comes now (from somebody in a hurry) may not turn a good
        # end into a death by it.
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        self.writer.close()
        return self.exit_code

    def _running(self) -> None:
        for number, do in (
            (signal.SIGHUP, self.reload),
            (signal.SIGTERM, self.terminate),
            (signal.SIGINT, self.terminate),
            (signal.SIGUSR1, self.tell_status),
        ):
            signal.signal(number, self._caught(do))
        if signals.came(signal.SIGHUP):
            self.reload_wanted = True
        if signals.came(signal.SIGUSR1):
            self.tell_status()
        self.begin()
        self._tick()
        if self.notifier.watchdog_seconds:
            self._feed_watchdog()

    def _caught(self, do: Callable[[], None]) -> Callable[[int, object], None]:
        """A signal's answer, in the reactor's next turn."""
        return lambda _number, _frame: self.reactor.callFromThread(do)

    def _open_admin(self) -> None:
        admin = self.settings.admin
        if admin.listen is not None:
            is_local = not admin.listen.path and is_loopback(admin.listen.host)
            self._access = Access(local=is_local, allow=admin.allow_clients, names=admin.host_names)
            self._listen_admin("admin-ready", admin.listen, self._access)
        if admin.health_listen is not None:
            self._listen_admin("health-ready", admin.health_listen, None)

    def _listen_admin(self, event: str, where: Endpoint, access: Access | None) -> None:
        """`access` is None for the health listener."""
        from proxy.daemon.admin.listening import listen
        from proxy.daemon.admin.site import build_site

        site = build_site(
            self.board,
            access=access or Access(anybody=True),
            health_only=access is None,
            reactor=self.reactor,
        )
        try:
            address = listen(self.reactor, where, site, mode=self.settings.admin.mode, user=self.settings.service.user)
        except OSError as error:
            raise CannotStart(str(error)) from None
        self.log.emit("info", event, {"listen": address})

    def tell_ready(self) -> None:
        """Clients are accepted."""
        self.show()
        listen = [address for _route, address in self.listening()]
        logs.ready(self.log, listen, [route.name for route in self.settings.routes], self.board.workers, __version__)
        self.is_ready = True
        self.notifier.ready(self._status_line())
        if self.reload_wanted:
            self.reload()

    def show(self) -> None:
        """Have the status page show the routes as they are now."""
        listening: Sequence[tuple[str, str]] = self.listening()
        self.board.show(
            [
                RouteShown(
                    route.name,
                    tuple(address for name, address in listening if name == route.name),
                    tuple(str(destination) for destination in route.destination),
                    route.tls.mode,
                    route.repair.mode,
                    route.max_sessions,
                )
                for route in self.settings.routes
            ]
        )

    # -- while it runs -----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Once a second."""
        self.notifier.status(self._status_line())

    def _tick(self) -> None:
        self.tick()
        self.reactor.callLater(TICK, self._tick)

    def _feed_watchdog(self) -> None:
        self.notifier.watchdog()
        self.reactor.callLater(self.notifier.watchdog_seconds / 3, self._feed_watchdog)

    @property
    def sessions(self) -> int:
        """How many sessions are open, as far as it was told."""
        return sum(route["open"] for one in self.snapshots() for route in one["metrics"]["routes"].values())

    def _status_line(self) -> str:
        routes = [route for one in self.snapshots() for route in one["metrics"]["routes"].values()]
        ended = sum(count for route in routes for _outcome, _tls, count in route["outcomes"])
        state = "draining, " if self.stopping else ""
        wrong = f"; the last reload failed: {self.reload_problem}" if self.reload_problem else ""
        return f"{state}{sum(route['open'] for route in routes)} sessions open, {ended} ended{wrong}"

    def tell_status(self) -> None:
        """SIGUSR1."""
        logs.status(self.log, self.board.status())

    def reload(self) -> None:
        """SIGHUP: all of the new configuration, or nothing of it."""
        from proxy.settings import SettingsError

        if self.stopping:
            return
        if not self.is_ready:
            self.reload_wanted = True
            return
        self.notifier.reloading()
        errors: list[str] = []
        if self.reread is None:
            errors = ["there is no file to read: the configuration was given as arguments"]
        else:
            try:
                settings = self.reread()
                self.apply(settings)
            except SettingsError as error:
                errors = [str(problem) for problem in error.problems]
            except CannotStart as error:
                errors = [str(error)]
            else:
                self.settings = settings
                self.log.configure(settings.log.format, settings.log.level)
                self._access.change(settings.admin.allow_clients, settings.admin.host_names)
                self.show()
                listen = [address for _route, address in self.listening()]
                logs.reload(self.log, listen, [route.name for route in settings.routes])
                self.board.reloaded(True)
                self.reload_problem = ""
        if errors:
            self.reload_went_wrong(errors)
        self.notifier.ready(self._status_line())

    def reload_went_wrong(self, errors: Sequence[str]) -> None:
        """Log it, count it, and say it in `systemctl status` until one goes well."""
        logs.reload_failed(self.log, errors)
        self.board.reloaded(False)
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        self.reload_problem = errors[0][:200] + more

    # -- stop --------------------------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """SIGTERM or SIGINT: drain; a second one ends at once."""
        if self.stopping:
            self.end_now()
            return
        self.stopping = True
        self.board.drain()
        self.stop_began = time.monotonic()
        self.notifier.stopping(self.settings.service.drain_timeout + STOP_MARGIN)
        logs.drain(self.log, self.sessions, self.settings.service.drain_timeout)
        self.drain()

    def stopped(self, cut: int) -> None:
        """Nothing is served any more; `cut` sessions were ended before their time.  Told again, it does nothing."""
        if self.is_over:
            return
        self.is_over = True
        if self.stop_began:
            logs.stopped(self.log, time.monotonic() - self.stop_began, cut)
        if self.reactor.running:
            self.reactor.stop()
