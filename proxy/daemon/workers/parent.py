"""The parent of several serving processes: starts them, replaces one that dies, adds up what they counted.

It serves no mail itself.  It keeps each port with a bound socket that does not listen, so that port 0 means the same
port for all, and so that a port that is taken is found before any worker is started or reloaded.  A worker that dies is
started again, at once the first time and slower when it keeps dying; what it had counted stays counted.  systemd's
watchdog sees only this process, so it watches the workers in the same way: one that says nothing for as long as
`WatchdogSec=`, or `SILENT_AT_MOST` without it, is killed and replaced.

The limits of a route are divided among the workers.  Sockets that systemd passed are shared by all; the kernel spreads
clients evenly only over sockets of their own.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ProcessDone
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from proxy.daemon.admin.figures.counters import Metrics
from proxy.daemon.admin.status import merge_retired, own_snapshot, retired_reports
from proxy.daemon.log import logs
from proxy.daemon.notify import listen_fds
from proxy.daemon.service import TICK, Daemon
from proxy.daemon.serving import CannotStart
from proxy.daemon.workers.channel import Channel, adopt

if TYPE_CHECKING:
    from proxy.settings import Listen, Settings

AGAIN_AFTER: Final = 0.1  # seconds before a worker that died is replaced; doubled each time, up to ...
AGAIN_AT_MOST: Final = 10.0
STEADY_AFTER: Final = 30.0  # seconds of life after which that starts anew
SILENT_AT_MOST: Final = 30.0  # seconds without a word after which a worker is taken to hang


def run_parent(settings: Settings, reactor: Any, *, reread: Callable[[], Settings] | None) -> int:
    """Serve with several processes until SIGTERM or SIGINT.  0 after that, 1 if the service could not be started."""
    return Parent(settings, reactor, reread).run()


class Child(ProcessProtocol):
    """One worker, seen from the parent."""

    def __init__(self, parent: Parent, number: int) -> None:
        self.parent = parent
        self.number = number
        self.pid = 0
        self.ready = False
        self.started_at = 0.0
        self.silent = 0.0  # seconds since its last word, of those in which this process ran itself
        self.snapshot: dict[str, Any] | None = None
        self.channel = Channel(self.heard, lambda: None)

    def start(self, reactor: Any) -> None:
        """Start the process and give it its orders."""
        ours, theirs = socket.socketpair()
        descriptors = {0: 0, 1: 1, 2: 2}
        for numbers in self.parent.inherited.values():
            descriptors.update({number: number for number in numbers})
        channel_fd = max(descriptors) + 1  # behind systemd's, which keep their numbers
        descriptors[channel_fd] = theirs.fileno()
        environment = {key: value for key, value in os.environ.items() if key not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")}
        process = reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, "-m", "proxy", "worker", str(channel_fd)],
            env=environment,
            childFDs=descriptors,
        )
        self.pid = process.pid
        self.started_at = time.monotonic()
        theirs.close()
        adopt(reactor, ours.fileno(), self.channel)
        ours.close()
        self.channel.say("serve", (self.parent.concrete, self.parent.inherited, self.parent.count), settings=True)

    def heard(self, what: str, told: Any) -> None:
        """News of the worker."""
        self.silent = 0.0
        if what == "snapshot":
            self.snapshot = told
        elif what == "ready":
            self.ready = True
            self.parent.worker_ready(self)
        elif what == "failed":
            self.parent.worker_failed(self, told)
        elif what == "stopped":
            self.parent.cut += told

    def processExited(self, reason: Failure) -> None:
        self.parent.worker_exited(self, "" if reason.check(ProcessDone) else reason.getErrorMessage())


class Parent(Daemon):
    """The process that the operator sees."""

    def __init__(self, settings: Settings, reactor: Any, reread: Callable[[], Settings] | None) -> None:
        self.children: list[Child] = []
        self.retired: list[dict[str, Any]] = []
        super().__init__(settings, reactor, reread, shared=True)
        self.count = settings.service.workers or len(os.sched_getaffinity(0))
        self.board.serve_with(self.count)
        self.metrics = Metrics()  # of this process itself
        self.inherited: dict[str, list[int]] = {}
        self.reserved: dict[tuple[Listen, str, int], socket.socket] = {}
        self.concrete = settings  # with the ports that port 0 has become
        self.is_ready = False
        self.cut = 0
        self.again_after = AGAIN_AFTER
        self.silent_at_most = max(2 * TICK, self.notifier.watchdog_seconds or SILENT_AT_MOST)

    # -- start -------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.inherited = listen_fds()
        self.concrete = self._reserve(self.settings)

    def begin(self) -> None:
        for number in range(self.count):
            self._start(number)

    def _start(self, number: int) -> None:
        child = Child(self, number)
        self.children.append(child)
        child.start(self.reactor)

    def _reserve(self, settings: Settings) -> Settings:
        reserved: dict[tuple[Listen, str, int], socket.socket] = {}
        routes = []
        try:
            for route in settings.routes:
                concrete = []
                for number, listen in enumerate(route.listen):
                    if listen.systemd:
                        if not self.inherited.get(listen.systemd):
                            raise CannotStart(f"systemd passed no socket named {listen.systemd!r}")
                        concrete.append(listen)
                        continue
                    # a free port belongs to the route that got it
                    key = (listen, route.name, number) if listen.any_port else (listen, "", 0)
                    sock = self.reserved.get(key) or _bound(listen)
                    reserved[key] = sock
                    concrete.append(replace(listen, port=sock.getsockname()[1]))
                routes.append(replace(route, listen=tuple(concrete)))
        except BaseException:
            for key, sock in reserved.items():
                if key not in self.reserved:
                    sock.close()
            raise
        for key, sock in self.reserved.items():
            if key not in reserved:
                sock.close()
        self.reserved = reserved
        return replace(settings, routes=tuple(routes))

    # -- workers -----------------------------------------------------------------------------------------------------

    def worker_ready(self, child: Child) -> None:
        """All of them ready: the service is."""
        if not self.is_ready and all(one.ready for one in self.children):
            self.is_ready = True
            self.tell_ready()

    def worker_failed(self, child: Child, reason: str) -> None:
        """It cannot do what the configuration says."""
        if not self.is_ready:
            print(f"ehlo-proxy: cannot start: {reason}", file=sys.stderr)
            self.exit_code = 1
            self._stop_all()
        else:
            logs.reload_failed(self.log, [f"worker {child.number}: {reason}"])
            self.board.reloaded(False)

    def worker_exited(self, child: Child, reason: str) -> None:
        """Replace it, unless all are to end."""
        if child not in self.children:
            return
        self.children.remove(child)
        if child.snapshot is not None:
            self.retired = [merge_retired([retired_reports(child.snapshot), *self.retired], time.time())]
        if self.stopping or self.exit_code:
            if not self.children:
                self.stopped(self.cut)
            return
        lived = time.monotonic() - child.started_at
        self.again_after = AGAIN_AFTER if lived > STEADY_AFTER else min(self.again_after * 2, AGAIN_AT_MOST)
        self.log.emit(
            "error",
            "worker-died",
            {"worker": child.number, "pid": child.pid, "reason": reason or "it ended", "again": self.again_after},
        )
        self.reactor.callLater(self.again_after, self._replace, child.number)

    def _replace(self, number: int) -> None:
        if not self.stopping:
            self.board.worker_restarted()
            self._start(number)

    def tick(self) -> None:
        for child in self.children:
            # Counted in ticks, not by the clock: after a pause of the whole machine nobody is to blame.
            child.silent += TICK
            if child.ready and not self.stopping and child.silent > self.silent_at_most:
                child.ready = False  # once
                fields = {"worker": child.number, "pid": child.pid, "seconds": child.silent}
                self.log.emit("error", "worker-hangs", fields)
                _kill(child)

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
        self.concrete = self._reserve(settings)
        for child in self.children:
            child.channel.say("settings", self.concrete, settings=True)

    def listening(self) -> list[tuple[str, str]]:
        return [(route.name, str(listen)) for route in self.concrete.routes for listen in route.listen]

    def drain(self) -> None:
        if not self.children:
            self.stopped(0)
        for child in self.children:
            child.channel.say("drain")

    def end_now(self) -> None:
        self._stop_all()

    def _stop_all(self) -> None:
        self.stopping = True
        for child in self.children:
            child.channel.say("end")
            self.reactor.callLater(1.0, _kill, child)
        if not self.children:
            self.stopped(self.cut)


def _bound(listen: Listen) -> socket.socket:
    """A socket that keeps the port without listening.  Raises CannotStart."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((listen.host, listen.port))
    except OSError as error:
        sock.close()
        raise CannotStart(f"cannot listen on {listen}: {error.strerror}") from None
    return sock


def _kill(child: Child) -> None:
    if child in child.parent.children:
        try:
            os.kill(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
