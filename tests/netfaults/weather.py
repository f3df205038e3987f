"""A link with weather, between two hosts: packets are late, overtake each other, come twice or not at all.

`Weather` is two TUN devices and a thread that carries packets from one to the other, so that it needs nothing of the
kernel but TUN.  `netem` asks for the same from the kernel, which not every one has.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from pathlib import Path

from tests.hosts.network import Host

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
QUEUE = 2000  # packets under way; more are lost


def missing() -> str:
    """Why there is no weather here, or empty."""
    return "" if Path("/dev/net/tun").exists() else "no TUN devices in this kernel"


def netem_missing() -> str:
    """Why the kernel's own weather can't be had, or empty."""
    host = Host("netem")
    try:
        done = subprocess.run(
            host.command("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"),
            capture_output=True,
            check=False,
            timeout=20,
        )
        return "" if done.returncode == 0 else f"this kernel has no netem: {done.stderr.decode().strip()}"
    finally:
        host.remove()


class Weather:
    """`one` and `other` get a device and an address each; `remove` ends it."""

    def __init__(
        self,
        one: tuple[Host, str],
        other: tuple[Host, str],
        *,
        delay: float = 0.0,
        jitter: float = 0.0,
        twice: float = 0.0,
        lost: float = 0.0,
    ) -> None:
        self.delay, self.jitter, self.twice, self.lost = delay, jitter, twice, lost
        self.overtaken = self.doubled = self.dropped = self.carried = 0
        self._dice = random.Random(7)
        self._ends = (_device(*one, other[1]), _device(*other, one[1]))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def remove(self) -> None:
        self._over.set()
        self._thread.join(10)
        for end in self._ends:
            os.close(end)

    def _carry(self) -> None:
        way = {self._ends[0]: self._ends[1], self._ends[1]: self._ends[0]}
        under_way: list[tuple[float, int, int, bytes]] = []
        last = dict.fromkeys(self._ends, 0)
        number = 0
        while not self._over.is_set():
            wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else 0.1
            for end in select.select(self._ends, [], [], min(wait, 0.1))[0]:
                packet = os.read(end, 65536)
                copies = 0 if self._dice.random() < self.lost else 2 if self._dice.random() < self.twice else 1
                self.dropped += copies == 0
                self.doubled += copies == 2
                for _ in range(copies if len(under_way) < QUEUE else 0):
                    number += 1
                    due = time.monotonic() + self.delay + self._dice.random() * self.jitter
                    heapq.heappush(under_way, (due, number, way[end], packet))
            now = time.monotonic()
            while under_way and under_way[0][0] <= now:
                _due, mine, end, packet = heapq.heappop(under_way)
                self.overtaken += mine < last[end]
                last[end] = max(mine, last[end])
                self.carried += 1
                with contextlib.suppress(OSError):
                    os.write(end, packet)


def _device(host: Host, address: str, peer: str) -> int:
    """A TUN device on that host, with a way to the peer's address."""
    with host.entered():
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        name = fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", b"weather%d", IFF_TUN | IFF_NO_PI))
    device = name[:16].rstrip(b"\0").decode()
    host.inside(f"ip address add {address}/32 peer {peer} dev {device}; ip link set {device} up")
    return end
