"""The proxy as a process under a fake systemd: what it tells over $NOTIFY_SOCKET, and the sockets that it is passed.

The real one is in tests/systemd; this is the same protocol, without root and in seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import TOP, wait_until
from tests.proxy_process import route, toml

WATCHDOG = 1.2  # seconds
# Becomes the proxy, with its sockets from descriptor 3 on and its own process id in the variables, as systemd does it.
LAUNCH = """
import fcntl, os, sys
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
given = [int(number) for number in sys.argv[1].split(",") if number]
kept = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in given]
for place, number in enumerate(kept):
    os.dup2(number, 3 + place, inheritable=True)
os.closerange(3 + len(kept), 200)
os.execv(sys.executable, [sys.executable, "-m", "proxy", "run", "--config", sys.argv[2]])
"""


class Systemd:
    """What systemd is for a service: a notify socket, listening sockets with names, and signals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "ehlo-proxy.toml"
        self.log = folder / "log"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.told: list[str] = []  # assignments
        self.status = ""  # the last one, as `systemctl status` would show it
        self.sockets: dict[str, socket.socket] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def listen(self, name: str, family: int = socket.AF_INET) -> int:
        """A socket unit; its port."""
        sock = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        sock.listen(1024)
        self.sockets[name] = sock
        return int(sock.getsockname()[1])

    def start(self, config: dict[str, Any], watchdog: float = 0.0) -> None:
        """Start the service and await its READY."""
        self.write(config)
        environment = {**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify")}
        if watchdog:
            environment["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        if self.sockets:
            environment["LISTEN_FDS"] = str(len(self.sockets))
            environment["LISTEN_FDNAMES"] = ":".join(self.sockets)
        numbers = [sock.fileno() for sock in self.sockets.values()]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, ",".join(map(str, numbers)), str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=TOP,
                env=environment,
                pass_fds=numbers,
            )
        self.await_told("READY=1")

    def write(self, config: dict[str, Any]) -> None:
        self.config.write_text(toml(config))

    def hear(self, seconds: float) -> None:
        """Take what it tells within that time, and return early once it has told something."""
        while select.select([self.notify], [], [], seconds)[0]:
            message = self.notify.recv(4096).decode()
            for line in message.split("\n"):
                self.told.append(line)
                if line.startswith("STATUS="):
                    self.status = line.removeprefix("STATUS=")
            seconds = 0.0

    def await_told(self, line: str, seconds: float = 20.0) -> str:
        """The next line that begins so; what was told before it is forgotten."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for place, told in enumerate(self.told):
                if told.startswith(line):
                    del self.told[: place + 1]
                    return told
            self.hear(0.2)
            assert self.process is not None
            assert self.process.poll() is None or self.told, self.log.read_text()
        raise AssertionError(f"no {line} in {seconds} s; told: {self.told}\n{self.log.read_text()}")

    def await_status(self, status: str) -> None:
        def look() -> bool:
            self.hear(0.1)
            return self.status == status

        wait_until(look, 10, f"{status!r} in place of {self.status!r}")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.process = None
        return code

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
        for sock in (self.notify, *self.sockets.values()):
            sock.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    fake = Systemd(tmp_path)
    yield fake
    fake.end()


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a broken server."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0), backlog=512)) as listening:
        threading.Thread(target=_serve, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)  # wakes accept


def _serve(listening: socket.socket) -> None:
    while True:
        try:
            sock = listening.accept()[0]
        except OSError:
            return
        threading.Thread(target=_converse, args=(sock,), daemon=True).start()


def _converse(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError), sock.makefile("rb") as lines:
        sock.settimeout(20)
        sock.sendall(b"220 mail.domain1.com ESMTP\r\n")
        for line in lines:
            if line.startswith(b"QUIT"):
                sock.sendall(b"221 bye\r\n")
                return
            sock.sendall(b"250-STARTTLS\r\n250-mail.domain1.com\r\n250 HELP\r\n")


def session(port: int, host: str = "127.0.0.1") -> str:
    """How a whole session went: `completed`, the 421 that it was told, or what went wrong."""
    try:
        with socket.create_connection((host, port), 20) as sock, sock.makefile("rb") as lines:
            told = lines.readline()
            if told.startswith(b"220"):
                sock.sendall(b"EHLO esa.com\r\n")
                told = lines.readline()
                if told == b"250-mail.domain1.com\r\n":
                    assert [lines.readline() for _ in range(2)] == [b"250-STARTTLS\r\n", b"250 HELP\r\n"]
                    sock.sendall(b"QUIT\r\n")
                    told = lines.readline()
            rest = lines.read()
    except OSError as error:
        return repr(error)
    if told.startswith(b"221") and not rest:
        return "completed"
    return "421 4.3.2" if told.startswith(b"421 4.3.2") else repr((told, rest))


def config(server: int, *listen: str, **service: Any) -> dict[str, Any]:
    return {"service": service, "route": [route(server, listen=listen or "127.0.0.1:0")]}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_life_is_told_ready_reloading_stopping(systemd: Systemd, server: int, workers: int) -> None:
    systemd.start(config(server, workers=workers, drain_timeout=70))
    systemd.await_status("0 sessions open, 0 ended")

    before = time.monotonic_ns() // 1000
    systemd.signal(signal.SIGHUP)
    systemd.await_told("RELOADING=1")
    at = int(systemd.await_told("MONOTONIC_USEC=").partition("=")[2])
    assert before <= at <= time.monotonic_ns() // 1000
    systemd.await_told("READY=1")

    systemd.config.write_text("nonsense = 1\n")
    systemd.signal(signal.SIGHUP)
    systemd.await_told("RELOADING=1")
    systemd.await_told("READY=1")  # a bad file changes nothing: it serves as before

    systemd.signal(signal.SIGTERM)
    systemd.await_told("STOPPING=1")
    assert int(systemd.await_told("EXTEND_TIMEOUT_USEC=").partition("=")[2]) > 70e6  # more than the drain may take
    assert systemd.stop() == 0
    assert "reload-failed" in systemd.log.read_text()


def test_the_status_line_has_figures_that_follow(systemd: Systemd, server: int) -> None:
    port = systemd.listen("smtp")
    systemd.start(config(server, "systemd:smtp"))
    for _ in range(3):
        assert session(port) == "completed"
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.recv(100)
        systemd.await_status("1 sessions open, 3 ended")
    systemd.await_status("0 sessions open, 4 ended")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_watchdog_is_pinged_while_the_reactor_turns_and_only_then(
    systemd: Systemd, server: int, workers: int
) -> None:
    systemd.start(config(server, workers=workers), WATCHDOG)
    systemd.await_told("WATCHDOG=1")
    ends_at, pinged = time.monotonic() + 3 * WATCHDOG, [time.monotonic()]
    while time.monotonic() < ends_at:
        systemd.await_told("WATCHDOG=1", WATCHDOG)
        pinged.append(time.monotonic())
    assert max(b - a for a, b in itertools.pairwise(pinged)) < WATCHDOG
    systemd.signal(signal.SIGSTOP)
    time.sleep(0.2)
    systemd.hear(0)
    systemd.told.clear()
    time.sleep(WATCHDOG)
    systemd.hear(0)
    assert systemd.told == []
    systemd.signal(signal.SIGCONT)
    systemd.await_told("WATCHDOG=1")


def test_without_a_watchdog_nothing_is_pinged(systemd: Systemd, server: int) -> None:
    systemd.start(config(server))
    time.sleep(1.5)
    systemd.hear(0)
    assert not [line for line in systemd.told if line.startswith("WATCHDOG")]


@pytest.mark.parametrize("workers", [1, 2])
def test_sockets_are_taken_by_their_names(systemd: Systemd, server: int, workers: int) -> None:
    unused, v6 = systemd.listen("other"), systemd.listen("smtp6", socket.AF_INET6)
    v4 = systemd.listen("smtp4")
    systemd.start(config(server, "systemd:smtp4", "systemd:smtp6", workers=workers))
    assert session(v4) == "completed"
    assert session(v6, "::1") == "completed"
    with socket.create_connection(("127.0.0.1", unused), 5) as sock:
        assert not select.select([sock], [], [], 0.5)[0], "nobody accepts there"


def test_a_name_that_systemd_does_not_pass_is_told(systemd: Systemd, server: int) -> None:
    systemd.listen("smtp")
    systemd.write(config(server, "systemd:smpt"))
    with pytest.raises(AssertionError, match=r"cannot start: .*'smpt'"):
        systemd.start(config(server, "systemd:smpt"))
    assert systemd.process is not None
    assert systemd.process.wait(10) == 1


def test_children_of_the_service_do_not_take_its_variables_for_theirs(systemd: Systemd, server: int) -> None:
    systemd.listen("smtp")
    systemd.start(config(server, "systemd:smtp", workers=2), 30.0)
    assert systemd.process is not None
    pid = systemd.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 2
    for child in children:
        names = {entry.partition(b"=")[0] for entry in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")}
        assert not names & {b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"WATCHDOG_PID", b"LISTEN_FDS", b"LISTEN_PID"}


@pytest.mark.parametrize("workers", [1, 2])
def test_restarts_refuse_and_reset_nobody(systemd: Systemd, server: int, workers: int) -> None:
    """systemd keeps the sockets; who comes while no process is there waits in their queue."""
    port = systemd.listen("smtp")
    systemd.start(config(server, "systemd:smtp", workers=workers))
    ended: Counter[str] = Counter()
    over = threading.Event()
    running: list[threading.Thread] = []

    def one() -> None:
        ended[session(port)] += 1

    def send() -> None:
        while not over.wait(0.01):
            running.append(threading.Thread(target=one, daemon=True))
            running[-1].start()

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    under_way = 0
    for _ in range(2):
        time.sleep(0.5)
        under_way += sum(thread.is_alive() for thread in running)  # few, but on a busy machine
        assert systemd.stop() == 0
        time.sleep(0.3)
        systemd.told.clear()
        systemd.start(config(server, "systemd:smtp", workers=workers))
    time.sleep(0.5)
    over.set()
    sender.join(10)
    for thread in running:
        thread.join(20)
    # One that stood between two commands at the stop is told to come again; nobody else hears of it.
    assert set(ended) <= {"completed", "421 4.3.2"}, ended
    assert ended["421 4.3.2"] <= under_way + 6
    assert sum(ended.values()) == len(running) > 100


def test_a_connection_made_while_nothing_runs_starts_being_served_later(systemd: Systemd, server: int) -> None:
    port = systemd.listen("smtp")
    result: list[str] = []
    early = threading.Thread(target=lambda: result.append(session(port)), daemon=True)
    early.start()
    wait_until(lambda: select.select([systemd.sockets["smtp"]], [], [], 0)[0], 5, "a connection in the queue")
    systemd.start(config(server, "systemd:smtp"))
    early.join(20)
    assert result == ["completed"]


def test_a_worker_that_stands_still_is_replaced_within_the_watchdogs_time(systemd: Systemd, server: int) -> None:
    """systemd watches the parent alone.  The sockets are systemd's: the other worker accepts from them meanwhile."""
    port = systemd.listen("smtp")
    systemd.start(config(server, "systemd:smtp", workers=2), 2.0)
    assert systemd.process is not None
    children = Path(f"/proc/{systemd.process.pid}/task/{systemd.process.pid}/children")
    hung, well = map(int, children.read_text().split())
    os.kill(hung, signal.SIGSTOP)
    wait_until(lambda: len(children.read_text().split()) == 3, 10, "another one")
    assert {str(hung), str(well)} < set(children.read_text().split()), "it is not killed: it may have sessions"
    assert f"worker-hangs worker=0 pid={hung}" in systemd.log.read_text()
    assert [session(port) for _ in range(5)] == ["completed"] * 5
    os.kill(hung, signal.SIGCONT)
    wait_until(lambda: str(hung) not in children.read_text().split(), 10, "it has nothing to do any more, and ends")
    assert [session(port) for _ in range(5)] == ["completed"] * 5
    assert "worker-died" not in systemd.log.read_text()
    assert systemd.stop() == 0
