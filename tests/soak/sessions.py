"""The sessions of the soak: what clients do, well or in every wrong way.

`GOOD` are mails and greetings that must go as they always do; each returns how many mails were confirmed, and raises
when anything is not as it should be.  `BROKEN` are clients that misbehave at every step, and ordinary clients of the
hostile servers: of these only the end is asked for, within `ENDS` seconds.
"""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.certificates import NAME
from tests.scripted import Ended, Peer, begin_message, connect, greet

ENDS = 20.0  # seconds after which a session that went wrong must be over
STRANGER = "127.0.0.9"  # not in allow_clients of the route `refused`
HEADER_1 = b"PROXY TCP4 127.0.0.1 127.0.0.1 4000 25\r\n"
HEADER_2 = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11\x00\x0c" + bytes([127, 0, 0, 1]) * 2 + b"\x0f\xa0\x00\x19"
BLOCK = random.Random(8).randbytes(300000).hex().encode()  # 600 kB of text, to be cut into lines
BIG = b"Subject: big\r\n\r\n" + b"\r\n".join(BLOCK[at : at + 78] for at in range(0, len(BLOCK), 78))
SMALL = b"Subject: small\r\n\r\n" + BIG[100:3000]


@dataclass(frozen=True, slots=True)
class Where:
    """The proxy's port of each route, and what clients trust."""

    ports: dict[str, int]
    context: ssl.SSLContext

    def to(self, route: str, **keys: str | int) -> Peer:
        return connect(self.ports[route], **keys)  # type: ignore[arg-type]  # the keys are connect's


Session = Callable[[Where], int]


# -- what goes well --------------------------------------------------------------------------------------------------


def secured(where: Where, route: str) -> Peer:
    client = where.to(route)
    assert b"STARTTLS" in greet(client)
    assert client.say(b"STARTTLS")[:4] == b"220 "
    client.start_tls(where.context, server=False, name=NAME)
    assert client.say(b"EHLO client.example").startswith(b"250-")
    return client


def one_mail(client: Peer, message: bytes) -> int:
    begin_message(client)
    client.send(message + b"\r\n.\r\n")
    reply = client.reply()
    assert reply == b"250 2.0.0 taken\r\n", reply
    return 1


def goodbye(client: Peer) -> None:
    assert client.say(b"QUIT")[:3] == b"221"
    assert client.rest() == b""


def in_clear(message: bytes, route: str = "mail", header: bytes = b"") -> Session:
    def session(where: Where) -> int:
        with where.to(route) as client:
            if header:
                client.send(header)
            assert greet(client).startswith(b"250-mail.example\r\n")
            sent = one_mail(client, message)
            goodbye(client)
            return sent

    return session


def in_tls(message: bytes, route: str = "mail", mails: int = 1) -> Session:
    def session(where: Where) -> int:
        with secured(where, route) as client:
            sent = sum(one_mail(client, message) for _ in range(mails))
            goodbye(client)
            return sent

    return session


def in_one_segment(where: Where) -> int:
    lines = (b"EHLO a.example", b"MAIL FROM:<a@example.org>", b"RCPT TO:<b@example.org>", b"DATA")
    with where.to("mail") as client:
        client.send(b"\r\n".join(lines) + b"\r\n" + SMALL + b"\r\n.\r\nQUIT\r\n")
        assert client.rest().endswith(b"250 2.0.0 taken\r\n221 bye\r\n")
        return 1


def only_greets(where: Where) -> int:
    with where.to("mail") as client:
        greet(client)
        assert client.say(b"NOOP")[:3] == client.say(b"RSET")[:3] == b"250"
        goodbye(client)
        return 0


def ends_by_half_close(where: Where) -> int:
    with where.to("mail") as client:
        greet(client)
        sent = one_mail(client, SMALL)
        client.finish()
        client.rest()
        return sent


GOOD: dict[str, Session] = {
    "mail in TLS": in_tls(SMALL),
    "mail in clear": in_clear(SMALL),
    "mail over a bridge": in_tls(SMALL, "bridge"),
    "three mails in TLS": in_tls(SMALL, mails=3),
    "a big mail in TLS": in_tls(BIG),
    "a big mail in clear": in_clear(BIG),
    "a big mail over a bridge": in_tls(BIG, "bridge"),
    "a mail all at once": in_one_segment,
    "behind a PROXY header": in_clear(SMALL, "header", HEADER_1),
    "behind a binary PROXY header": in_clear(SMALL, "header", HEADER_2),
    "recorded": in_clear(SMALL, "recorded"),
    "recorded, in TLS": in_tls(SMALL, "recorded"),
    "only greets": only_greets,
    "ends by a half-close": ends_by_half_close,
}

# -- what goes wrong -------------------------------------------------------------------------------------------------


def reset(client: Peer) -> None:
    client.reset()


def leave(client: Peer) -> None:
    client.close()


def stall(client: Peer) -> None:
    """Say nothing until the proxy has had enough."""
    client.rest(ENDS)


def noise(client: Peer) -> None:
    client.send(random.randbytes(random.randrange(1, 4000)))
    client.finish()
    client.rest(ENDS)


def line_without_end(client: Peer) -> None:
    with suppress(OSError):
        for _ in range(64):
            client.sock.sendall(b"x" * 16384)
    client.rest(ENDS)


def commands_without_end(client: Peer) -> None:
    """Never read what they bring."""
    client.sock.settimeout(0.3)
    with suppress(OSError):
        for _ in range(256):
            client.sock.sendall(b"NOOP\r\n" * 1000)


def byte_by_byte(client: Peer) -> None:
    with suppress(OSError):
        for byte in b"NOOP and a few words behind it\r\nEHLO again.example\r\n":
            client.sock.sendall(bytes([byte]))
            time.sleep(0.002)
    client.rest(ENDS)


def injects(client: Peer) -> None:
    client.send(b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n")
    assert b"421 4.7.0" in client.rest(ENDS)


def half_a_command(client: Peer) -> None:
    client.send(b"MAIL FROM:<a@exam")
    client.finish()
    client.rest(ENDS)


STEPS: dict[str, Callable[[Where, str], Peer]] = {}


def step(name: str) -> Callable[[Callable[[Where, str], Peer]], Callable[[Where, str], Peer]]:
    def kept(function: Callable[[Where, str], Peer]) -> Callable[[Where, str], Peer]:
        STEPS[name] = function
        return function

    return kept


@step("connected")
def connected(where: Where, route: str) -> Peer:
    return where.to(route)


@step("greeted")
def greeted(where: Where, route: str) -> Peer:
    client = where.to(route)
    greet(client)
    return client


@step("behind STARTTLS")
def behind_starttls(where: Where, route: str) -> Peer:
    client = greeted(where, route)
    client.say(b"STARTTLS")
    return client


@step("in a handshake")
def in_a_handshake(where: Where, route: str) -> Peer:
    client = behind_starttls(where, route)
    outgoing = ssl.MemoryBIO()
    tls = where.context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
    with suppress(ssl.SSLError):
        tls.do_handshake()
    hello = outgoing.read()
    client.send(hello[: random.randrange(1, len(hello))])
    return client


@step("in TLS")
def in_tls_now(where: Where, route: str) -> Peer:
    return secured(where, route)


@step("in a message")
def in_a_message(where: Where, route: str) -> Peer:
    client = in_tls_now(where, route) if "bridge" in route else greeted(where, route)
    begin_message(client)
    client.send(BIG[: random.randrange(1, 200000)])
    return client


def misbehaves(at: str, how: Callable[[Peer], None], route: str) -> Session:
    def session(where: Where) -> int:
        with suppress(OSError, Ended), STEPS[at](where, route) as client:
            how(client)
        return 0

    return session


def bad_header(header: bytes) -> Session:
    def session(where: Where) -> int:
        with where.to("header") as client:
            client.send(header)
            assert client.rest(ENDS) == b""  # closed without a word
        return 0

    return session


def stranger(where: Where) -> int:
    with where.to("refused", source=STRANGER) as client:
        assert client.rest().startswith(b"421 4.7.1 ")
    return 0


def wrong_identity(where: Where) -> int:
    with where.to("other") as client:
        greet(client)
        assert client.say(b"STARTTLS").startswith(b"454 4.7.0 ")
        assert client.say(b"MAIL FROM:<a@example.org>").startswith(b"421 4.7.0 ")
        client.rest()
    return 0


def meets_a_hostile_server(route: str) -> Session:
    """As far as it goes, as senders do: STARTTLS where it is shown, else a mail in clear."""

    def session(where: Where) -> int:
        with suppress(OSError, Ended, AssertionError, ssl.SSLError), where.to(route) as client:
            try:
                reply = greet(client)
                if b"STARTTLS" in reply and random.random() < 0.6:
                    if client.say(b"STARTTLS")[:3] == b"220":
                        client.buffer.clear()
                        client.start_tls(where.context, server=False, name=NAME)
                elif random.random() < 0.1:
                    client.send(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n", BIG * 4)
                    client.rest(ENDS)
                else:
                    one_mail(client, SMALL)
            finally:
                client.finish()
                client.rest(ENDS)
        return 0

    return session


WAYS: tuple[Callable[[Peer], None], ...] = (
    reset,
    leave,
    stall,
    noise,
    line_without_end,
    commands_without_end,
    byte_by_byte,
    half_a_command,
)
BROKEN: dict[str, Session] = {
    f"{at}, {how.__name__} ({route})": misbehaves(at, how, route)
    for at in STEPS
    for how in WAYS
    for route in ("hasty", "hasty-bridge")
} | {
    "STARTTLS with a command behind it": misbehaves("greeted", injects, "hasty"),
    "STARTTLS with a command behind it, at a bridge": misbehaves("greeted", injects, "hasty-bridge"),
    "a forged header": bad_header(b"PROXY TCP4 300.0.0.1 127.0.0.1 1 25\r\n"),
    "a header of another kind": bad_header(b"EHLO a.example\r\n"),
    "half a header": bad_header(HEADER_1[:20]),
    "half a binary header": bad_header(HEADER_2[:18]),
    "a forged binary header": bad_header(HEADER_2[:12] + b"\x31" + HEADER_2[13:]),
    "no header": bad_header(b""),
    "a stranger": stranger,
    "a server with the wrong name": wrong_identity,
}
HOSTILE = {route: meets_a_hostile_server(route) for route in ("hostile", "hostile-bridge")}


def next_session(number: int) -> tuple[str, Session]:
    """One in ten is broken; of those half are the servers' fault."""
    if number % 10:
        name = random.choice(list(GOOD))
        return name, GOOD[name]
    if number % 20:
        name = random.choice(list(BROKEN))
        return name, BROKEN[name]
    name = random.choice(list(HOSTILE))
    return name, HOSTILE[name]
