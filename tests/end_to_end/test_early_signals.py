"""Signals that come before `ready`: a hang-up is not the end of the process, and an end is a good one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.loopback import wait_until
from tests.proxy_process import Running, route, running_proxy
from tests.scripted import Mailbox, ScriptedServer, connect, send_mail

EARLY = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)  # seconds behind the first instant


def holds(running: Running) -> bool:
    """Python itself is up, and our first line was run: what `SigCgt` of proc(5) says of SIGHUP."""
    return bool(caught(running.pid) & 1 << (signal.SIGHUP - 1))


def caught(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("SigCgt")).split()[1], 16)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("after", EARLY)
def test_a_hang_up_before_ready_is_a_reload(workers: int, after: float) -> None:
    with ScriptedServer(Mailbox()) as server:
        config = {"service": {"workers": workers}, "route": [route(server.port)]}
        with running_proxy(config, ready=False) as running:
            wait_until(lambda: holds(running), 10, "it has begun")
            time.sleep(after)
            running.signal(signal.SIGHUP)
            running.signal(signal.SIGUSR1)
            running.wait_for("ready", 20)
            running.wait_for("reload")
            with connect(running.port) as client:
                assert send_mail(client) == b"250 2.0.0 taken\r\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("after", EARLY)
def test_an_end_before_ready_is_a_good_one(workers: int, after: float, number: signal.Signals) -> None:
    with ScriptedServer(Mailbox()) as server:
        config = {"service": {"workers": workers}, "route": [route(server.port)]}
        with running_proxy(config, ready=False) as running:
            wait_until(lambda: holds(running), 10, "it has begun")
            time.sleep(after)
            running.signal(number)
            assert running.wait(10) == 0


def test_a_hang_up_of_the_terminal_ends_no_worker_that_starts() -> None:
    with ScriptedServer(Mailbox()) as server:
        config = {"service": {"workers": 2}, "route": [route(server.port)]}
        with running_proxy(config, ready=False) as running:
            children = wait_until(lambda: len(running.children) == 2 and running.children, 20, "two workers")
            for pid in children:
                wait_until(lambda pid=pid: ignores(pid, signal.SIGHUP), 20, "it is one of ours")
                for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1):
                    os.kill(pid, number)
            running.wait_for("ready", 20)
            assert running.children == children


def ignores(pid: int, number: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return bool(int(next(line for line in lines if line.startswith("SigIgn")).split()[1], 16) & 1 << (number - 1))
