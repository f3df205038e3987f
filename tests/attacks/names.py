"""A name server that attacks: for each question datagrams, and over TCP messages, that cost a careless reader seconds.

It needs port 53, so it has an address of its own in 127.0.0.0/8; the proxy finds it by a resolv.conf that is laid over
/etc/resolv.conf in a mount namespace of the proxy's own.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

HEADER = 12
Answers = Callable[[bytes], list[bytes]]


@cache
def missing() -> str:
    """Why this can't be done here, or empty."""
    if os.geteuid() != 0:
        return "a resolv.conf of the proxy's own needs root"
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False, timeout=20)
    return "" if tried.returncode == 0 else "no mount namespaces here"


def _answer(asked: bytes, flags: bytes, records: int, body: bytes, number: bytes = b"") -> bytes:
    return (number or asked[:2]) + flags + b"\0\1" + records.to_bytes(2, "big") + bytes(4) + asked[HEADER:] + body


def _labels(asked: bytes, size: int) -> bytes:
    """A name of `size` labels, and records whose owners are pointers to it."""
    start = (0xC000 | len(asked)).to_bytes(2, "big")
    body = b"\1a" * size + b"\0" + b"\0\1\0\1\0\0\0\0\0\0"
    return body + (start + b"\0\1\0\1\0\0\0\0\0\0") * ((27_000 - len(body)) // 12)


def _wrong(asked: bytes) -> bytes:
    return bytes([asked[0] ^ 1, asked[1]])


def wrong_number(asked: bytes) -> list[bytes]:
    return [_answer(asked, b"\x81\x80", 65535, _labels(asked, 8000), _wrong(asked))] * 6


def right_number(asked: bytes) -> list[bytes]:
    return [_answer(asked, b"\x81\x80", 65535, _labels(asked, 8000))] * 6


def records_without_end(asked: bytes) -> list[bytes]:
    """65,535 of them are told; over UDP it is cut, over TCP as much comes as a message holds."""
    return [_answer(asked, b"\x83\x80", 65535, b"\0\0\1\0\1\0\0\0\0\0\0" * 5900)]


def a_storm_of_small_ones(asked: bytes) -> list[bytes]:
    return [_answer(asked, b"\x81\x80", 1, b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1", _wrong(asked))] * 2000


def late(asked: bytes) -> list[bytes]:
    """Behind the time at which the next server is asked, with an address that must not be connected."""
    time.sleep(2.1)
    return [_answer(asked, b"\x81\x80", 1, b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1")]


class HostileNames:
    """Answers from `answers` over UDP and TCP."""

    def __init__(self, host: str, answers: Answers) -> None:
        self.answers = answers
        self.asked = 0
        self._askers: deque[tuple[bytes, tuple[str, int]]] = deque(maxlen=4)
        self._over = threading.Event()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind((host, 53))
        self._tcp = socket.create_server((host, 53), backlog=256)
        self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        self._udp.setblocking(False)
        self._tcp.setblocking(False)
        while not self._over.is_set():
            ready = select.select([self._udp, self._tcp], [], [], 0.02)[0]
            for sock in ready:
                with suppress(OSError):
                    self._over_udp() if sock is self._udp else self._over_tcp()
            for asked, peer in [] if ready else [*self._askers]:  # again and again, for as long as they wait
                self._send(asked, peer)

    def _over_udp(self) -> None:
        asked, peer = self._udp.recvfrom(4096)
        self.asked += 1
        self._askers.append((asked, peer))
        self._send(asked, peer)

    def _send(self, asked: bytes, peer: tuple[str, int]) -> None:
        for answer in self.answers(asked):
            with suppress(OSError):
                self._udp.sendto(answer[:60_000], peer)

    def _over_tcp(self) -> None:
        sock, _ = self._tcp.accept()
        with sock:
            sock.settimeout(2)
            asked = sock.recv(4096)[2:]
            self.asked += 1
            for answer in self.answers(asked):
                sock.sendall(len(answer[:65535]).to_bytes(2, "big") + answer[:65535])

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(5)
        self._udp.close()
        self._tcp.close()


@contextmanager
def hostile_names(host: str, answers: Answers) -> Iterator[HostileNames]:
    server = HostileNames(host, answers)
    try:
        yield server
    finally:
        server.close()


def interpreter_that_asks(host: str, folder: Path, tree: Path) -> str:
    """A program that is Python in `tree` with that name server; it stays the same process."""
    resolv_conf = folder / "resolv.conf"
    resolv_conf.write_text(f"nameserver {host}\n")
    mount = f"mount --make-rprivate / && mount --bind {resolv_conf} /etc/resolv.conf"
    inside = f'{mount} && cd {tree} && exec {sys.executable} "$@"'
    return _program(folder / "python", f"exec unshare --mount sh -c '{inside}' sh \"$@\"")


def interpreter_in(tree: Path, folder: Path) -> str:
    """A program that is Python in `tree`."""
    return _program(folder / "python-there", f'cd {tree} && exec {sys.executable} "$@"')


def _program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)
