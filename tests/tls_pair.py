"""Two ends of TLS in one thread, over real loopback TCP: for the tests of everything that is built on `TlsChannel`."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from OpenSSL import SSL

from proxy.net.tls.channel import TlsChannel
from proxy.net.tls.contexts import client_side, parse_credential
from proxy.settings import Tls
from tests.certificates import Issued

LIMIT = 10.0  # seconds that anything here may take


@contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected, non-blocking sockets."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname(), timeout=LIMIT)
        far, _ = listener.accept()
    with near, far:
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield near, far


def until(step: Callable[[], bool]) -> None:
    """Call `step` until it returns True."""
    deadline = time.monotonic() + LIMIT
    while not step():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.0005)


def shake(*channels: TlsChannel) -> None:
    """Both handshakes, to their end; raises what the first to fail raises."""
    waiting = list(channels)

    def step() -> bool:
        waiting[:] = [channel for channel in waiting if not channel.handshake()]
        return not waiting

    until(step)


def receive(channel: TlsChannel, size: int) -> bytes:
    """Exactly `size` bytes, or what came before the end."""
    got = bytearray()

    def step() -> bool:
        data = channel.recv(size - len(got))
        if data is None:
            return False
        got.extend(data)
        return data == b"" or len(got) == size

    until(step)
    return bytes(got)


def server_context(issued: Issued, minimum_version: str = "1.2", maximum: int = 0) -> SSL.Context:
    """A TLS server that shows `issued`, as the proxy itself would be one; `maximum` is one of SSL.TLS1_x_VERSION."""
    credential = parse_credential(issued.certificate_pem, issued.key_pem)
    context = client_side(Tls(minimum_version=minimum_version), credential)
    context.set_max_proto_version(maximum)
    return context
