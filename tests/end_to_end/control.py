"""A mail every tenth of a second through the proxy, in a process of its own: what honest users notice of an attack.

`python -m tests.end_to_end.control` prints the port of a server that takes mail; told the proxy's port on stdin, it
prints the seconds that each session took, until stdin ends.  The attacker's threads would slow it down, so it shares
no interpreter with them.
"""

from __future__ import annotations

import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.loopback import let_go
from tests.proxy_process import TOP
from tests.scripted import Mailbox, ScriptedServer, connect, send_mail

EVERY = 0.1


def main() -> None:
    with ScriptedServer(Mailbox()) as server:
        print(server.port, flush=True)
        port = int(sys.stdin.readline())
        while not select.select([sys.stdin], [], [], EVERY)[0]:
            began = time.monotonic()
            with connect(port) as client:
                assert send_mail(client) == b"250 2.0.0 taken\r\n"
            print(f"{time.monotonic() - began:.3f}", flush=True)


class Control:
    """That process; `slowest_since` tells what its sessions took."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())
        self.took: list[float] = []
        self.thread = threading.Thread(target=self._read, daemon=True)

    def begin(self, proxy_port: int) -> None:
        assert self.process.stdin is not None
        print(proxy_port, file=self.process.stdin, flush=True)
        self.thread.start()

    def end(self) -> None:
        let_go(self.process)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.took.append(float(line))

    def slowest_since(self, count: int) -> float:
        """The longest of the sessions behind the first `count`; waits for one more, at most ten seconds."""
        until = time.monotonic() + 10
        now = len(self.took)
        while len(self.took) <= now:
            assert self.process.poll() is None, "the control sessions failed"
            assert time.monotonic() < until, "no control session for ten seconds"
            time.sleep(0.01)
        return max(self.took[count:])


@contextmanager
def control_process() -> Iterator[Control]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.end_to_end.control"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TOP,
    )  # fmt: skip
    control = Control(process)
    try:
        yield control
    finally:
        control.end()
        assert process.stdout is not None
        process.stdout.close()


if __name__ == "__main__":
    main()
