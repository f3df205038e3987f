"""Loopback ports and child processes for the tests that start real programs.

A child is ended by its own process id and never outlives the test; nothing here listens on anything but loopback.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

STOP_SECONDS = 5.0
TOP = Path(__file__).parent.parent
T = TypeVar("T")
_given: set[int] = set()


def free_port() -> int:
    """A loopback port that nobody has now, and that no other call here has given.

    Below the range from which the kernel takes ports for clients, and from a part of its own for each of xdist's
    workers, since a port is only taken when its program binds it.
    """
    part = int(os.environ.get("PYTEST_XDIST_WORKER", "gw3").removeprefix("gw") or 0) % 4
    for port in random.sample(range(10240 + part * 5000, 10240 + (part + 1) * 5000), 500):
        with socket.socket() as probe, contextlib.suppress(OSError):
            if port not in _given:
                probe.bind(("127.0.0.1", port))
                _given.add(port)
                return port
    raise OSError("no free port in 500 tries")


def wait_until(look: Callable[[], T], seconds: float, what: str) -> T:
    """The first true thing that `look` gives; AssertionError with `what` after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """One for programs that run as other users; pytest's own are for nobody else."""
    with tempfile.TemporaryDirectory(prefix="ehlo-proxy-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def child(
    command: Sequence[str | Path], log: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A running program whose stdout and stderr go to `log`; ended by SIGTERM, then SIGKILL."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=TOP,
            env={**os.environ, **(environment or {})},
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        wait_or_kill(process, STOP_SECONDS)


def let_go(process: subprocess.Popen[str]) -> None:
    """The end of a child that ends when its stdin does."""
    assert process.stdin is not None
    process.stdin.close()
    wait_or_kill(process, 2 * STOP_SECONDS)


def wait_or_kill(process: subprocess.Popen[Any], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
