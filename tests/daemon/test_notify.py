"""systemd's protocols, spoken to a fake systemd."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.daemon.notify import Notifier, listen_fds


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """A socket that listens as systemd does, and the environment that leads to it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"\0ehlo-proxy-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name)
        listening.settimeout(5)
        yield listening, {"NOTIFY_SOCKET": name.replace("\0", "@")}


@pytest.fixture
def notifier(systemd: tuple[socket.socket, dict[str, str]]) -> Iterator[Notifier]:
    made = Notifier(systemd[1])
    yield made
    made.close()


def told(systemd: tuple[socket.socket, dict[str, str]]) -> list[str]:
    return systemd[0].recv(4096).decode("utf-8").split("\n")


def nothing_more(systemd: tuple[socket.socket, dict[str, str]]) -> bool:
    systemd[0].setblocking(False)
    try:
        systemd[0].recv(4096)
    except BlockingIOError:
        return True
    return False


def test_a_service_tells_its_life(systemd: tuple[socket.socket, dict[str, str]], notifier: Notifier) -> None:
    notifier.ready("0 sessions open")
    assert told(systemd) == ["READY=1", "STATUS=0 sessions open"]
    notifier.status("3 sessions open")
    assert told(systemd) == ["STATUS=3 sessions open"]
    notifier.watchdog()
    assert told(systemd) == ["WATCHDOG=1"]
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    reloading, at = told(systemd)
    assert reloading == "RELOADING=1"
    name, _, microseconds = at.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000
    notifier.ready("3 sessions open")
    assert told(systemd) == ["READY=1"]
    notifier.stopping()
    assert told(systemd) == ["STOPPING=1"]
    notifier.stopping(900.5)
    assert told(systemd) == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=900500000"]


def test_the_same_status_is_not_sent_twice(systemd: tuple[socket.socket, dict[str, str]], notifier: Notifier) -> None:
    notifier.status("same")
    notifier.status("same")
    assert told(systemd) == ["STATUS=same"]
    assert nothing_more(systemd)


def test_a_status_is_one_line(systemd: tuple[socket.socket, dict[str, str]], notifier: Notifier) -> None:
    notifier.status("1 session\nREADY=1\r\n" + "x" * 9999)
    (line,) = told(systemd)
    assert line.startswith("STATUS=1 session READY=1 xxx")
    assert len(line) < 600


def test_the_variables_are_taken_out_of_the_environment() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    notifier = Notifier(environ)
    assert environ == {"HOME": "/"}
    assert notifier.watchdog_seconds == 1.0


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "@"},
        {"NOTIFY_SOCKET": "/nowhere/at/all"},
        {"NOTIFY_SOCKET": "vsock:2:1"},
    ],
)
def test_without_systemd_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    assert notifier.watchdog_seconds == 0.0
    notifier.ready("x")
    notifier.watchdog()
    notifier.stopping()
    notifier.close()


def test_a_systemd_that_does_not_read_stops_nobody(
    systemd: tuple[socket.socket, dict[str, str]], notifier: Notifier
) -> None:
    begun = time.monotonic()
    for number in range(3000):
        notifier.status(f"number {number}")
    assert time.monotonic() - begun < 5
    assert told(systemd) == ["STATUS=number 0"]


@pytest.mark.parametrize(
    ("interval", "pid", "seconds"),
    [("60000000", "", 60.0), ("60000000", "own", 60.0), ("60000000", "1", 0.0), ("", "", 0.0), ("often", "", 0.0)],
)
def test_the_watchdog_is_for_the_process_that_is_meant(interval: str, pid: str, seconds: float) -> None:
    environ = {"WATCHDOG_USEC": interval, "WATCHDOG_PID": str(os.getpid()) if pid == "own" else pid}
    assert Notifier(environ).watchdog_seconds == seconds


@pytest.fixture
def sockets() -> Iterator[list[int]]:
    """Four descriptors in a row, high up: sockets, and in the third place a pipe."""
    first = fcntl.fcntl(0, fcntl.F_DUPFD, 200)
    os.close(first)
    made = [socket.socket() for _ in range(3)]
    read, write = os.pipe()
    for place, fd in enumerate((made[0].fileno(), made[1].fileno(), read, made[2].fileno())):
        os.dup2(fd, first + place)
    os.close(read)
    os.close(write)
    for one in made:
        one.close()
    yield list(range(first, first + 4))
    for fd in range(first, first + 4):
        os.close(fd)


def test_sockets_are_found_by_name_and_closed_at_exec(sockets: list[int]) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "4", "LISTEN_FDNAMES": "v4:v6:file:v4", "HOME": "/"}
    assert listen_fds(environ, first=sockets[0]) == {"v4": [sockets[0], sockets[3]], "v6": [sockets[1]]}
    assert environ == {"HOME": "/"}
    assert not os.get_inheritable(sockets[0])
    assert listen_fds(environ, first=sockets[0]) == {}, "only once"


def test_sockets_without_names_are_kept_too(sockets: list[int]) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}
    assert listen_fds(environ, first=sockets[0]) == {"unknown": sockets[:2]}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "own", "LISTEN_FDS": ""},
        {"LISTEN_PID": "own", "LISTEN_FDS": "-1"},
        {"LISTEN_PID": "own", "LISTEN_FDS": "many"},
        {"LISTEN_PID": "own", "LISTEN_FDS": "99999999"},
    ],
)
def test_what_is_not_meant_for_this_process_is_not_taken(environ: dict[str, str], sockets: list[int]) -> None:
    environ = {key: str(os.getpid()) if value == "own" else value for key, value in environ.items()}
    assert listen_fds(environ, first=sockets[0]) == {}
    assert environ == {}


def test_descriptors_that_are_not_there_are_left_out(sockets: list[int]) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "9", "LISTEN_FDNAMES": "a"}
    found = listen_fds(environ, first=sockets[3])
    assert found["a"] == [sockets[3]]


def test_a_real_process_finds_its_sockets_from_3_on() -> None:
    code = (
        "import os; os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "from proxy.daemon.notify import listen_fds\n"
        "print(listen_fds(), 'LISTEN_FDS' in os.environ)"
    )
    shell = 'exec "$0" -c "$1" 3<&0'
    with socket.socket() as listening:
        ran = subprocess.run(
            ["/bin/sh", "-c", shell, sys.executable, code],
            stdin=listening.fileno(),
            capture_output=True,
            text=True,
            timeout=30,
            env={**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "ehlo-proxy-25-v4", "PYTHONPATH": "."},
            cwd=Path(__file__).parents[2],
        )
    assert ran.stdout == "{'ehlo-proxy-25-v4': [3]} False\n", ran.stderr
