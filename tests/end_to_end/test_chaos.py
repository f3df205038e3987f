"""Peers that do anything at all, at random and many at a time: nothing of ours may fail, and nothing may be left.

The dice are seeded, but threads are not: a failure names its seed, and what the log said.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from proxy.net.relay.splice import MAX_SPARE
from tests.loopback import wait_until
from tests.proxy_process import route, running_proxy
from tests.scripted import BANNER, BROKEN, GOOD, Peer, ScriptedServer, connect, together

SHORT = {"banner": 0.5, "command": 0.5, "idle": 0.5, "half_closed": 0.4, "abort": 0.3, "connect": 1}
CLIENT_WORDS = [
    b"EHLO a\r\n", b"EHLO b\r\nNOOP\r\n", b"HELO a\r\n", b"STARTTLS\r\n", b"STARTTLS\r\nMAIL FROM:<>\r\n",
    b"MAIL FROM:<>\r\n", b"RCPT TO:<b@x>\r\n", b"DATA\r\n", b"hi\r\n.\r\n", b"QUIT\r\n", b"\x16\x03\x01\0\x05hello",
    b"NOOP\r\n" * 300, b"RS", b"ET\r\n", b"x" * 5000, b"\0\r\n", b"\r\n", b"XCLIENT ADDR=127.0.0.1\r\n",
    b"BDAT 5\r\nhello", b"y" * 300000, b"\r", b"\n",
]  # fmt: skip
SERVER_WORDS = [
    BANNER, BANNER, BROKEN, BROKEN, GOOD, b"250 ok\r\n", b"250 ok\r\n", b"354 go on\r\n", b"220 ready\r\n",
    b"221 bye\r\n", b"421 4.3.0 x\r\n", b"250-STARTTLS\r\n", b"250-half", b"nonsense\r\n", b"\r\n",
    b"250 STARTTLS\r\n250 SIZE\r\n", b"454 no\r\n", b"450 busy\r\n", b"z" * 300000, b"250-X\r\n" * 200,
    b"\x16\x03\x03\0\x05hello", b"250-mail.example\r\n250 XCLIENT ADDR\r\n", b"\0", b"5",
]  # fmt: skip


def behave(peer: Peer, dice: random.Random, words: list[bytes], steps: int) -> None:
    """Say and do things for a while, then end somehow."""
    peer.sock.settimeout(1.0)
    with suppress(OSError):
        for _ in range(dice.randrange(steps)):
            what = dice.random()
            if what < 0.6:
                word = dice.choice(words)
                cut = dice.randrange(len(word) + 1) if what < 0.1 else len(word)
                peer.sock.sendall(word[:cut])
            elif what < 0.85:
                peer.now(dice.choice((0.0, 0.005, 0.03)))
            elif what < 0.95:
                time.sleep(dice.choice((0.001, 0.02, 0.1)))
            elif what < 0.98:
                peer.finish()
            else:
                peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        end = dice.random()
        if end < 0.4:
            peer.close()
        elif end < 0.7:
            peer.reset()
        elif end < 0.85:
            peer.finish()
            peer.now(0.3)
        else:
            time.sleep(0.7)  # stays, silent


def siege(seed: int, sessions: int, at_once: int) -> int:
    """So many clients, so many at a time; how many sessions there were, each ended."""
    dice = random.Random(seed)
    numbers = iter(range(10**9))

    def script(peer: Peer) -> None:
        mine = random.Random(f"server {seed} {next(numbers)}")
        with suppress(OSError):
            if mine.random() < 0.8:
                peer.send(BANNER)
        behave(peer, mine, SERVER_WORDS, 14)

    with ScriptedServer(script) as first, ScriptedServer(script) as second:
        routes = [
            route(first.port, name="plain", timeouts=SHORT, trusted_proxies=["127.0.0.1/32"]),
            route(first.port, second.port, name="two", timeouts=SHORT, repair={"unterminated_after": 0.2}),
            route(first.port, name="observe", timeouts=SHORT, repair={"mode": "observe"}, xclient=True),
            route(first.port, name="off", timeouts=SHORT, repair={"mode": "off"}, send_proxy_protocol=2),
            route(first.port, name="header", timeouts=SHORT, proxy_protocol=True, trusted_proxies=["127.0.0.1/32"]),
        ]
        with running_proxy({"log": {"level": "debug"}, "route": routes}) as running:
            base = running.descriptors
            ports = dict(zip([str(one["name"]) for one in routes], running.ports, strict=True))

            def once(number: int) -> Callable[[], None]:
                def play() -> None:
                    mine = random.Random(f"client {seed} {number}")
                    name = mine.choice(list(ports))
                    with suppress(OSError), connect(ports[name]) as client:
                        if name == "header" and mine.random() < 0.8:
                            client.send(b"PROXY TCP4 127.0.0.9 127.0.0.1 40000 25\r\n")
                        behave(client, mine, CLIENT_WORDS, 16)

                return play

            order = list(range(sessions))
            dice.shuffle(order)
            together([once(number) for number in order], at_once)
            wait_until(
                lambda: len(running.of("session-start")) == ended(running.of("session-end")), 10, f"seed {seed}: ends"
            )
            # A refused client has 5 s to read why.
            kept = base + 2 * MAX_SPARE + 2  # some pipes are kept for the next long relay
            wait_until(lambda: running.descriptors <= kept, 10, f"seed {seed}: descriptors are back")
            running.comes_to_rest()
            assert not running.of("internal-error"), (seed, running.of("internal-error"))
            assert not [one for one in running.of("session-end") if "internal" in one.get("reason", "")]
            assert running.process.poll() is None
            return len(running.of("session-start"))


def ended(ends: list[dict[str, object]]) -> int:
    """Without those who never had a session."""
    return sum(one["outcome"] != "refused" or one["by"] != "proxy" or "destination" in one for one in ends)


@pytest.mark.parametrize("seed", [1, 2])
def test_chaos_breaks_nothing_and_leaves_nothing(seed: int) -> None:
    assert siege(seed, 300, 24) > 200


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 130))
def test_much_chaos_breaks_nothing_and_leaves_nothing(seed: int) -> None:
    assert siege(seed, 1500, 32) > 1000
