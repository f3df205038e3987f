"""What one hostile session can make the proxy hold, whatever its peers do: the bound that SECURITY.md tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.proxy_process import proxy
from tests.scripted import BANNER, Peer, Script, ScriptedServer, connect

SESSIONS = 30
PUSHED_FOR = 1.0  # seconds
BOUND = 256 * 1024  # bytes, of both directions together; the contract allows as much to each


def silent(peer: Peer) -> None:
    """Takes what comes, and answers nothing."""
    peer.send(BANNER)
    time.sleep(20)


def floods(peer: Peer) -> None:
    """Reads nothing behind MAIL, and sends without end."""
    peer.send(BANNER)
    peer.line()
    peer.send(b"250-mail.example\r\n250 PIPELINING\r\n")
    peer.line()
    peer.send(b"250 ok\r\n")
    peer.sock.settimeout(10)
    try:
        while True:
            peer.sock.sendall(b"2" * 65536)
    except OSError:
        pass


def never_ends_its_reply(peer: Peer) -> None:
    peer.send(BANNER)
    peer.line()
    for number in range(99):
        peer.send(b"250-A%05d %b\r\n" % (number, b"x" * 600))
    time.sleep(20)


def push(data: bytes, first: bytes = b"EHLO a\r\n") -> Callable[[Peer], None]:
    """Send as much as is taken; read nothing."""

    def act(client: Peer) -> None:
        client.send(first)
        client.sock.setblocking(False)
        until = time.monotonic() + PUSHED_FOR
        while time.monotonic() < until:
            try:
                client.sock.send(data)
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:
                return

    return act


def let_go(client: Peer) -> None:
    client.send(b"EHLO a\r\n")
    client.reply()
    push(b"z" * 65536, b"MAIL FROM:<>\r\n")(client)


@pytest.mark.alone
@pytest.mark.parametrize(
    ("server", "act"),
    [
        pytest.param(silent, push(b"NOOP\r\n" * 600), id="commands"),
        pytest.param(silent, push(b"\r\n" * 2000), id="line ends"),
        pytest.param(silent, push(b"x" * 4000), id="a line without end"),
        pytest.param(floods, let_go, id="both flood and nobody reads"),
        pytest.param(never_ends_its_reply, push(b"NOOP\r\n" * 600), id="an EHLO reply without end"),
    ],
)
def test_a_session_costs_less_than_the_bound(server: Script, act: Callable[[Peer], None]) -> None:
    with ScriptedServer(server) as there, proxy(there.port) as running, ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(running.port)).reply()
        before = running.memory
        clients = [stack.enter_context(connect(running.port)) for _ in range(SESSIONS)]
        for client in clients:
            client.reply()
        threads = [threading.Thread(target=act, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        a_session = (running.memory - before) / SESSIONS
        print(f"{a_session / 1024:.0f} KiB a session")
        assert a_session < BOUND
