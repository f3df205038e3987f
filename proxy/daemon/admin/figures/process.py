"""What `process_*` says of one process: CPU time, memory, descriptors, read from /proc and kept for a few seconds."""

from __future__ import annotations

import os
import resource
import time
from typing import Final

KEPT_FOR: Final = 5.0  # seconds: workers are asked five times a second, and counting descriptors may take a millisecond
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")

NO_PROCESS: Final[dict[str, float]] = {"cpu": 0.0, "resident": 0, "virtual": 0, "fds": 0, "max_fds": 0}


class Process:
    """This process, as it was at most `KEPT_FOR` seconds ago."""

    __slots__ = ("_at", "_told")

    def __init__(self) -> None:
        self._at = -KEPT_FOR
        self._told = NO_PROCESS

    def snapshot(self) -> dict[str, float]:
        """`cpu` (seconds), `resident`, `virtual` (bytes), `fds`, `max_fds`."""
        now = time.monotonic()
        if now - self._at >= KEPT_FOR:
            self._at = now
            self._told = _read()
        return self._told


THIS: Final = Process()


def _read() -> dict[str, float]:
    used = os.times()
    try:
        with open("/proc/self/statm", "rb") as file:
            virtual, resident = map(int, file.read().split()[:2])
        fds = os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))  # the size: since Linux 6.2
    except OSError:  # no /proc in this chroot
        virtual = resident = fds = 0
    return {
        "cpu": used.user + used.system,
        "resident": resident * _PAGE,
        "virtual": virtual * _PAGE,
        "fds": fds,
        "max_fds": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }


def added(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """Two processes as one."""
    return {key: one[key] + other[key] for key in NO_PROCESS}


def ended(one: dict[str, float]) -> dict[str, float]:
    """What is left of a process that has died: the time that it used."""
    return {**NO_PROCESS, "cpu": one["cpu"]}
