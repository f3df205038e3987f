"""The service: `run` chooses who serves, one process by itself (`Service`) or a parent with workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from proxy.daemon.daemon import Daemon, Reread
from proxy.daemon.notify import listen_fds
from proxy.daemon.reports import Reports
from proxy.daemon.rights import raise_descriptor_limit
from proxy.daemon.serving import Serving, own_doors

if TYPE_CHECKING:
    from proxy.settings import Settings


def run(settings: Settings, reactor: Any, *, reread: Reread | None = None) -> int:
    """Serve until SIGTERM or SIGINT.  0 after that, 1 if the service could not be started.

    `reread` reads the configuration anew and raises SettingsError; without it SIGHUP is refused.
    """
    raise_descriptor_limit()  # workers inherit it
    if settings.service.workers != 1:
        from proxy.daemon.workers.parent import Parent

        return Parent(settings, reactor, reread).run()
    return Service(settings, reactor, reread).run()


class Service(Daemon):
    """One process that serves."""

    def __init__(self, settings: Settings, reactor: Any, reread: Reread | None) -> None:
        super().__init__(settings, reactor, reread)
        self.reports = Reports(self.log)
        self.serving = Serving(reactor, self.reports, doors=own_doors(listen_fds()))
        self.reports.metrics.watch_turns(self.serving.poller.turns)
        self.serving.gather_log(self.writer)

    def open(self) -> None:
        self.serving.apply(self.settings)

    def begin(self) -> None:
        self.tell_ready()

    def apply(self, settings: Settings) -> None:
        self.serving.apply(settings)

    def snapshots(self) -> list[dict[str, Any]]:
        return [self.reports.snapshot()]

    @property
    def sessions(self) -> int:
        return self.reports.sessions_open

    def listening(self) -> list[tuple[str, str]]:
        return self.serving.listening()

    def tick(self) -> None:
        self.reports.tick()
        super().tick()

    def drain(self) -> None:
        self.serving.drain(self.settings.service.drain_timeout, self.stopped)

    def end_now(self) -> None:
        self.stopped(self.serving.sessions)

    def stopped(self, cut: int) -> None:
        if not self.is_over:
            self.serving.stop()
            self.reports.flush()
        super().stopped(cut)
