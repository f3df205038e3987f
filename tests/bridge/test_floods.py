"""Peers that feed OpenSSL what brings no data, as fast as loopback goes: an innocent mail on another route stays quick.

Given the socket, OpenSSL works on as long as bytes come: the flood of HelloRequests held a mail on another route for
8 s, that of KeyUpdates for 19 s, and with two workers the parent killed the worker that did not answer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.bridge.parties import Keys, Server, bridge, hello
from tests.certificates import Issued
from tests.proxy_process import Running, allowed, route, running_proxy
from tests.scripted import GOOD, Mailbox, Peer, ScriptedServer, connect, send_mail
from tests.tls13 import Flooder

HELLO_REQUESTS = b"\x16\x03\x03\x40\x00" + bytes(16384)  # 4096 of them in one record, in clear
FLOOD = 3.0  # seconds
LATEST = 1.0  # seconds that an innocent mail may take

pytestmark = pytest.mark.parametrize("workers", [1, 2])


def _flood(peer: Peer) -> None:
    """In place of the handshake, once its first bytes have come."""
    peer.sock.recv(1)
    until = time.monotonic() + FLOOD
    with contextlib.suppress(OSError):
        while time.monotonic() < until:
            peer.sock.sendall(HELLO_REQUESTS * 16)


def _mail(port: int) -> float:
    """How long one takes."""
    begun = time.monotonic()
    with connect(port) as client:
        assert send_mail(client)[:3] == b"250"
    return time.monotonic() - begun


def _inside_tls(running: Running) -> tuple[Peer, Flooder]:
    """A client of the route that is flooded."""
    client, _ = hello(running.port_of("flooded"))
    assert client.say(b"STARTTLS")[:3] == b"220"
    return client, Flooder(client.sock)


@contextlib.contextmanager
def _stage(script: Server, workers: int, keys: Keys, ours: Issued) -> Iterator[Running]:
    """The route that is flooded and the innocent one; each worker gets some of the connections."""
    with ScriptedServer(script) as server, ScriptedServer(Mailbox(GOOD)) as other:
        config = {
            "service": {"workers": workers},
            "log": {"level": "debug"},
            "route": [
                bridge(server.port, keys=keys, issued=ours, name="flooded"),
                route(other.port, name="innocent"),
            ],
        }
        with running_proxy(config) as running:
            yield running


def _mails_while(flood: Callable[[], None], port: int, at_once: int = 1) -> list[float]:
    """How long mails took while the flood goes on; what it raises is raised here."""
    with ThreadPoolExecutor(at_once) as pool:
        floods = [pool.submit(flood) for _ in range(at_once)]
        until = time.monotonic() + 30
        took = [_mail(port) for _ in range(4)]  # whichever worker they come to
        while not all(one.done() for one in floods) and time.monotonic() < until:
            took.append(_mail(port))
            time.sleep(0.02)
        for one in floods:
            one.result(1)
    return took


def test_hello_requests_in_clear_hold_nobody_and_are_too_much_at_256_kib(
    workers: int, keys: Keys, ours: Issued
) -> None:
    with _stage(Server(keys.server(ours), handshake=_flood), workers, keys, ours) as running:
        said: list[bytes] = []

        def flooded() -> None:
            for _ in range(2 * workers):
                client, _ = hello(running.port_of("flooded"))
                said.append(client.say(b"STARTTLS"))
                client.close()

        took = _mails_while(flooded, running.port_of("innocent"))
        assert max(took) < allowed(LATEST)
        assert all(b"the server sent 256 KiB and no end of the TLS handshake" in line for line in said), said
        assert not running.of("worker-ended")


def test_key_updates_of_a_client_hold_nobody_and_end_its_session(workers: int, keys: Keys, ours: Issued) -> None:
    with _stage(Server(keys.server(ours)), workers, keys, ours) as running:

        def flood() -> None:
            client, flooder = _inside_tls(running)
            records = b"".join(flooder.key_update() for _ in range(80_000))
            with contextlib.suppress(OSError):
                client.sock.sendall(records)
            client.close()

        took = _mails_while(flood, running.port_of("innocent"), workers)
        assert max(took) < allowed(LATEST)
        end = running.wait_for("session-end", route="flooded")
        assert end["outcome"] != "error"
        assert not running.of("worker-ended")


def test_key_updates_among_data_hold_nobody(workers: int, keys: Keys, ours: Issued) -> None:
    """Each has its record of data, so that their number alone ends nothing: inside a message, as fast as they go."""
    with _stage(Server(keys.server(ours)), workers, keys, ours) as running:

        def flood() -> None:
            client, flooder = _inside_tls(running)
            for command in (b"EHLO flood.example", b"MAIL FROM:<>", b"RCPT TO:<a@b.example>", b"DATA"):
                assert flooder.say(command)[:1] in b"23"
            pieces = [flooder.data(b"x") + flooder.key_update() for _ in range(20_000)]
            client.sock.sendall(b"".join(pieces))
            assert flooder.say(b"\r\n.")[:3] == b"250"
            client.close()

        took = _mails_while(flood, running.port_of("innocent"))
        assert max(took) < allowed(LATEST)
        assert not running.of("worker-ended")
