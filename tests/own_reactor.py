"""A reactor of a test's own, with a poller and deadlines on it, that leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Callable

from twisted.internet.epollreactor import EPollReactor

from proxy.net.waiting.deadlines import Deadlines
from proxy.net.waiting.poller import Poller


class OwnReactor:
    """Turned by hand; `close` asserts that no socket and no deadline is left."""

    def __init__(self) -> None:
        self.reactor = EPollReactor()
        self.ahead = 0.0  # seconds that the test has let go by
        self.reactor.seconds = lambda: time.monotonic() + self.ahead
        self.poller = Poller(self.reactor)
        self.poller.start()
        self.deadlines = Deadlines(self.reactor, 0.01)

    def run(self, until: Callable[[], object], limit: float = 5.0) -> float:
        """Turn until something is so; the seconds that it took."""
        start = time.monotonic()
        while not until():
            assert time.monotonic() - start < limit, "it did not come to that"
            self.reactor.iterate(0.02)
        return time.monotonic() - start

    def turns(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.reactor.iterate(0.02)

    def close(self) -> None:
        assert len(self.poller) == 0
        assert len(self.deadlines) == 0
        self.deadlines.stop()
        self.poller.stop()
        assert [call for call in self.reactor.getDelayedCalls() if call.active()] == []
        self.reactor.removeAll()
        for reader in list(self.reactor._internalReaders):
            self.reactor.removeReader(reader)
            reader.connectionLost(None)
        self.reactor._poller.close()
