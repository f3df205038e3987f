"""Many clients that pipeline commands as fast as they are taken, and the server that answers them, in one process.

`python -m tests.end_to_end.flood WORD CLIENTS SECONDS` prints the port of its server, is told the proxy's port on
stdin, floods, and prints how many replies came to the clients.  WORD is what each line says; "small" sends as few lines
in one segment as keep below every limit on a single turn.
"""

from __future__ import annotations

import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.proxy_process import TOP


class End:
    """One socket of ours: what it still has to send."""

    def __init__(self, sock: socket.socket, flood: bytes) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.flood = flood
        self.owed = bytearray()
        self.lines = 0

    def go(self, mask: int) -> bool:
        """False when it is over."""
        try:
            if mask & selectors.EVENT_READ:
                data = self.sock.recv(65536)
                if not data:
                    return False
                lines = data.count(b"\n")
                self.lines += lines
                if not self.flood:
                    self.owed += b"250 Ok\r\n" * lines
            if self.flood:
                self.sock.send(self.flood)
            elif self.owed:
                del self.owed[: self.sock.send(self.owed)]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


def main() -> None:
    word, count, seconds = sys.argv[1].encode(), int(sys.argv[2]), float(sys.argv[3])
    line = word + b"\r\n"
    flood = line * (16 if len(sys.argv) > 4 else 16384 // len(line))
    ends = selectors.DefaultSelector()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        port = int(sys.stdin.readline())
        ends.register(listener, selectors.EVENT_READ)
        clients = []
        for _ in range(count):
            client = End(socket.create_connection(("127.0.0.1", port)), flood)
            clients.append(client)
            ends.register(client.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, client)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for key, mask in ends.select(0.1):
                end = key.data
                if end is None:
                    sock, _ = listener.accept()
                    sock.send(b"220 flood.example ESMTP\r\n")
                    ends.register(sock, selectors.EVENT_READ, End(sock, b""))
                else:
                    if not end.go(mask):
                        ends.unregister(end.sock)
                        end.sock.close()
                        continue
                    if not end.flood:
                        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if end.owed else 0)
                        ends.modify(end.sock, wanted, end)
            time.sleep(0.001)
        print(sum(client.lines for client in clients), flush=True)


class Flood:
    """That process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())

    def begin(self, proxy_port: int) -> None:
        assert self.process.stdin is not None
        print(proxy_port, file=self.process.stdin, flush=True)

    def replies(self) -> int:
        """Wait for the end; how many replies the clients got."""
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        self.process.wait(10)
        return int(told or 0)


@contextmanager
def flooding(word: str, clients: int | str, *more: str, seconds: float, nice: int = 0) -> Iterator[Flood]:
    """`nice`: how much less it asks for the processors than others do, since an attacker has its own."""
    program = ["nice", "-n", str(nice), sys.executable, "-m", "tests.end_to_end.flood"]
    process = subprocess.Popen(
        [*program, word, str(clients), str(seconds), *more],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TOP,
    )  # fmt: skip
    try:
        yield Flood(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


if __name__ == "__main__":
    main()
