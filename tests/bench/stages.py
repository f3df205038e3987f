"""Where the Python of one session goes: each stage timed by itself, with the caches of the processor warm and cold.

The sockets are stand-ins that cost next to nothing, so that no system call, no dial and no wait is in the figures: what
is left is the proxy's own work, its log line and counters included.  Cold means that some MiB of other memory were read
just before the stage, as it is when the peers' TLS handshakes run on the same processors between two events.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, cast

from proxy.daemon.log.logs import EventLog
from proxy.daemon.reports import Reports
from proxy.net.carrier import carrier
from proxy.net.carrier.route import RouteRuntime, RouteState
from proxy.net.coming_in.admission import OwnPlaces
from proxy.net.going_out.destination import Server, Surroundings
from proxy.net.waiting.deadlines import Deadlines
from proxy.settings import from_arguments

SESSIONS = 1500
OTHER_MEMORY = bytearray(3 << 20)  # more than the caches of one core hold
DATA = select.EPOLLIN | select.EPOLLOUT
END = DATA | select.EPOLLRDHUP
REPLY = b"250-STARTTLS\r\n250-mail.domain1.com\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-HELP\r\n250 DELIVERBY 300\r\n"


class Socket:
    """Gives what it was told to give, and takes everything."""

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 40001

    def __init__(self) -> None:
        self.coming: deque[bytes] = deque()

    def recv(self, size: int) -> bytes:
        if not self.coming:
            raise BlockingIOError
        return self.coming.popleft()

    def recv_into(self, buffer: bytearray) -> int:
        data = self.recv(0)
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes) -> int:
        return len(data)

    def fileno(self) -> int:
        return 5

    def shutdown(self, how: int) -> None: ...

    def close(self) -> None: ...


class Nobody:
    """The poller, the reactor's clock and the dial, as far as a session sees them."""

    another_left = False
    started_at = 0.0
    seconds = staticmethod(time.monotonic)

    def dial(self, *_: object) -> Nobody:
        return self

    def callLater(self, *_: object) -> Nobody:
        return self

    def nothing(self, *_: object) -> None: ...

    add = replace = forget = remove = soon = succeeded = cancel = reset = nothing

    def active(self) -> bool:
        return True


def route_runtime() -> tuple[RouteRuntime, Server]:
    """A route as shipped, its log at level info written to nowhere."""
    [route] = from_arguments("127.0.0.1:2601", "127.0.0.1:2600").routes
    nobody = cast(Any, Nobody())
    runtime = RouteRuntime(
        route,
        state=RouteState(OwnPlaces()),
        poller=nobody,
        deadlines=Deadlines(nobody),
        observer=Reports(EventLog(lambda line: None)),
        names=lambda: nobody,
        surroundings=Surroundings(frozenset(), lambda: frozenset()),
        host_name="proxy.example",
        secure=None,
    )
    carrier.Dial = lambda *_: nobody  # type: ignore[assignment,misc]  # a stand-in for the class
    return runtime, Server("127.0.0.1", "127.0.0.1", 2600, route.destination[0])


def session(runtime: RouteRuntime, server: Server) -> Iterator[tuple[str, Callable[[], object]]]:
    """The stages of one session, in order, each as a name and what is to be timed."""
    to_client, to_server = Socket(), Socket()
    address = ("127.0.0.1", 4444)
    yield "admit", lambda: runtime.admit(cast(socket.socket, to_client), address, None)
    [one_session] = runtime.state.sessions
    it = cast(carrier.Carrier, one_session)
    client = it.client
    to_server.coming.append(b"220 mail.domain1.com ESMTP Service ready\r\n")
    yield "connected, banner", lambda: it.server_connected(cast(socket.socket, to_server), server, DATA)
    there = it.server
    assert there is not None
    for name, data in (("EHLO", b"EHLO ESA.com\r\n"), ("EHLO reply, repaired", REPLY), ("STARTTLS", b"STARTTLS\r\n"),
                       ("220 to STARTTLS", b"220 Ready to start TLS\r\n"), ("first bytes of TLS", b"x" * 1008),
                       ("a relayed piece", b"DONE")):  # fmt: skip
        of_client = name in ("EHLO", "STARTTLS", "first bytes of TLS")
        (to_client if of_client else to_server).coming.append(data)
        one = client if of_client else there
        yield name, lambda one=one: one.ready(DATA)  # type: ignore[misc]
    to_client.coming.append(b"")
    yield "FIN of the client", lambda: client.ready(END)
    to_server.coming.append(b"")
    yield "FIN of the server, log", lambda: there.ready(END)
    assert it.over
    assert (it.story.outcome, it.story.ehlo) == ("completed", "repaired")


def measured(cold: bool, sessions: int = SESSIONS) -> dict[str, float]:
    """Median µs of each stage."""
    runtime, server = route_runtime()
    times: dict[str, list[float]] = {}
    for _ in range(sessions):
        for name, do in session(runtime, server):
            if cold:
                OTHER_MEMORY.count(b"\x01")
            before = time.perf_counter()
            do()
            times.setdefault(name, []).append(time.perf_counter() - before)
    return {name: median(values) * 1e6 for name, values in times.items()}


def table(sessions: int = SESSIONS) -> str:
    """Both, in Markdown."""
    warm, cold = measured(False, sessions), measured(True, sessions)
    rows = [*((name, warm[name], cold[name]) for name in warm), ("in all", sum(warm.values()), sum(cold.values()))]
    lines = [f"| {name} | {one:.1f} | {other:.1f} |" for name, one, other in rows]
    return "\n".join(["| Python of one session, µs | caches warm | caches cold |", "|---|---|---|", *lines])


if __name__ == "__main__":
    sys.exit(print(table()))
