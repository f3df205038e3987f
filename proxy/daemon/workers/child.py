"""One worker, seen from its parent: the process, what it last told, and what was lent to it.

It is started as this program is, by this interpreter: from the directory that this package was loaded from, and with
`-P`, so that no `proxy/` that lies in the working directory is taken for it.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import proxy
from proxy.daemon.workers.channel import Channel, adopt

if TYPE_CHECKING:
    from proxy.settings import Settings

_FROM: Final = str(Path(proxy.__file__).resolve().parent.parent)
_NOT_FOR_IT: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

Lent = Sequence[tuple[str, socket.socket]]  # listening sockets with their addresses


class Child(ProcessProtocol):
    """`news` is told each message; `exited` the end of the process, with the reason if it was not a good one."""

    def __init__(
        self,
        number: int,
        place: int,
        news: Callable[[Child, str, Any], None],
        exited: Callable[[Child, str], None],
    ) -> None:
        """`number` is that of its sockets, `place` that of its counters in the shared memory."""
        self.number = number
        self.place = place
        self.pid = 0
        self.is_ready = False
        self.hangs = False
        self.started_at = time.monotonic()
        self.silent = 0.0  # seconds since its last word, of those in which this process ran itself
        self.snapshot: dict[str, Any] | None = None
        self._news = news
        self._exited = exited
        self._channel = Channel(self._heard, lambda: None)
        self._process: Any = None  # Twisted's transport
        self._lent: deque[list[socket.socket]] = deque()  # for each order that was not answered yet

    def start(self, reactor: Any, inherited: Mapping[str, list[int]]) -> None:
        """Start the process.  Raises OSError, with nothing left of it."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            descriptors = {0: 0, 1: 1, 2: 2}
            for numbers in inherited.values():
                descriptors.update({number: number for number in numbers})
            channel_fd = max(descriptors) + 1  # behind systemd's, which keep their numbers
            descriptors[channel_fd] = theirs.fileno()
            self._process = reactor.spawnProcess(
                self,
                sys.executable,
                [sys.executable, "-P", "-m", "proxy", "worker", str(channel_fd)],
                env=_environment(),
                childFDs=descriptors,
            )
            self.pid = self._process.pid
            adopt(reactor, ours.fileno(), self._channel)

    def serve(
        self, settings: Settings, inherited: Mapping[str, list[int]], places: tuple[int, int], lent: Lent
    ) -> None:
        """Its first order.  `places` are the descriptor of the shared counters and for how many processes they are."""
        descriptor, count = places
        addresses, sockets = self._lend(lent)
        told = (settings, dict(inherited), addresses, (count, self.place))
        self._channel.say("serve", told, settings=True, descriptors=[descriptor, *sockets])

    def change(self, settings: Settings, lent: Lent) -> None:
        """Other settings, and the sockets that go with them."""
        addresses, sockets = self._lend(lent)
        self._channel.say("settings", (settings, addresses), settings=True, descriptors=sockets)

    def another_tick(self, seconds: float) -> float:
        """So much time has passed; how long it has said nothing now."""
        self.silent += seconds
        return self.silent

    def give_up(self) -> None:
        """It hangs, and another takes over its sockets.  When it comes to itself it lets its sessions end."""
        self.hangs = True
        self._channel.say("leave")

    def order(self, what: str) -> None:
        """`drain` or `end`."""
        self._channel.say(what)

    def kill(self) -> None:
        """End it at once; nothing if it has no process (any more)."""
        if self._process is not None:
            try:
                self._process.signalProcess("KILL")
            except (ProcessExitedAlready, OSError):
                pass

    def _lend(self, lent: Lent) -> tuple[list[str], list[int]]:
        # Copies, that stay open until it has answered: a message may wait to be sent.
        copies = [sock.dup() for _address, sock in lent]
        self._lent.append(copies)
        return [address for address, _sock in lent], [sock.fileno() for sock in copies]

    def _take_back(self) -> None:
        for sock in self._lent.popleft() if self._lent else ():
            sock.close()

    def _heard(self, what: str, told: Any) -> None:
        self.silent = 0.0
        if what == "snapshot":
            self.snapshot = told
        elif what in ("ready", "took", "failed"):
            self.is_ready = self.is_ready or what == "ready"
            self._take_back()
        self._news(self, what, told)

    def processExited(self, reason: Failure) -> None:
        while self._lent:
            self._take_back()
        self._exited(self, "" if reason.check(ProcessDone) else reason.getErrorMessage())


def _environment() -> dict[str, str]:
    environment = {key: value for key, value in os.environ.items() if key not in _NOT_FOR_IT}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (_FROM, environment.get("PYTHONPATH", ""))))
    return environment
