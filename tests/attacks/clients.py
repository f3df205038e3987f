"""Clients that attack: each is one attacker, from connecting to its end, and is called again while the attack lasts."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING

from tests.bridge.parties import hello, starttls
from tests.scripted import Peer, connect, greet
from tests.tls13 import Flooder

if TYPE_CHECKING:
    from tests.attacks.field import Act, Field

HEADER_1 = b"PROXY TCP4 127.0.0.9 127.0.0.1 40000 25\r\n"


def says(data: bytes) -> Act:
    """Pours `data` and never reads."""

    def act(ground: Field) -> None:
        with connect(ground.port) as client:
            client.line()
            ground.pour(client, data)

    return act


def reads(ground: Field) -> None:
    """Says EHLO and MAIL, and reads what comes."""
    with connect(ground.port) as client:
        client.send(b"EHLO a\r\n")
        ground.hits += 1
        ground.swallow(client)


def reads_nothing(ground: Field) -> None:
    with connect(ground.port, receive_buffer=4096) as client:
        client.send(b"EHLO a\r\nMAIL FROM:<>\r\n")
        ground.hits += 1
        ground.wait()


def asks_for_tls(ground: Field) -> None:
    client, _ = hello(ground.port)
    with client:
        client.send(b"STARTTLS\r\n")
        ground.hits += 1
        ground.swallow(client)


def repeats_ehlo(ground: Field) -> None:
    with connect(ground.port) as client:
        greet(client)
        while ground.going():
            client.say(b"EHLO again.example")
            ground.hits += 1


def byte_by_byte(ground: Field) -> None:
    with connect(ground.port) as client:
        for byte in b"EHLO slow.example\r\n" + b"NOOP and words\r\n" * 2000:
            if not ground.going():
                return
            client.sock.send(bytes([byte]))
            ground.hits += 1


def quits(ground: Field) -> None:
    with connect(ground.port) as client:
        client.reply()
        client.say(b"QUIT")
        ground.hits += 1
        ground.wait(0.2)


# -- connections -------------------------------------------------------------------------------------------------------


def comes_and_goes(ground: Field) -> None:
    for _ in range(50):
        connect(ground.port).close()
        ground.hits += 1


def comes_and_resets(ground: Field) -> None:
    linger = struct.pack("ii", 1, 0)
    for number in range(50):
        with socket.create_connection(("127.0.0.1", ground.port), timeout=5) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            if number % 3 == 0:
                sock.send(b"EHLO a\r\nMAIL FROM:<>\r\n")
                ground.hits += 1


def holds(number: int, source: str = "", first: bytes = b"") -> Act:
    """So many connections, held for as long as they may be, and opened again."""

    def act(ground: Field) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(number):
                if not ground.going():
                    return
                client = stack.enter_context(connect(ground.port, source=source))
                ground.hits += 1
                if first:
                    client.sock.send(first)
            ground.wait(2.0)

    return act


def half_closes(ground: Field) -> None:
    """Ends its side at once and stays."""
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(connect(ground.port)).finish()
            ground.hits += 1
        ground.wait(1.0)


def trickles(data: bytes, gap: float = 0.02) -> Act:
    """A hundred connections at once, each an octet of `data` at a time."""

    def act(ground: Field) -> None:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(ground.port)) for _ in range(100)]
            for byte in data:
                for client in clients:
                    if not ground.going():
                        return
                    with contextlib.suppress(OSError):
                        client.sock.send(bytes([byte]))
                        ground.hits += 1
                time.sleep(gap)

    return act


def bad_headers(ground: Field) -> None:
    for _ in range(20):
        with connect(ground.port) as client:
            client.send(random.randbytes(200))
            ground.hits += 1


# -- TLS ---------------------------------------------------------------------------------------------------------------


def _inside(ground: Field) -> Peer:
    return starttls(ground.port, ground.keys.client("TLSv1.3"))


def key_updates(ground: Field) -> None:
    client, _ = hello(ground.port)
    with client:
        assert client.say(b"STARTTLS")[:3] == b"220"
        flooder = Flooder(client.sock)
        while ground.going():
            client.sock.sendall(b"".join(flooder.key_update() for _ in range(500)))
            ground.hits += 1


def key_updates_among_data(ground: Field) -> None:
    """Each has its record of data, so that their number alone ends nothing: inside a message, as fast as they go."""
    client, _ = hello(ground.port)
    with client:
        assert client.say(b"STARTTLS")[:3] == b"220"
        flooder = Flooder(client.sock)
        for command in (b"EHLO flood.example", b"MAIL FROM:<>", b"RCPT TO:<a@b.example>", b"DATA"):
            assert flooder.say(command)[:1] in b"23"
        while ground.going():
            client.sock.sendall(b"".join(flooder.data(b"x") + flooder.key_update() for _ in range(300)))
            ground.hits += 1


def small_records(ground: Field) -> None:
    """Two octets a record, behind an EHLO that is not answered."""
    with _inside(ground) as client:
        client.send(b"EHLO a\r\n")
        client.sock.settimeout(0.2)
        while ground.going():
            with contextlib.suppress(TimeoutError):
                client.sock.send(b"NO")
                ground.hits += 1


def handshakes(ground: Field) -> None:
    """One after the other, each left when it is done: what costs the proxy most for each octet of ours."""
    _inside(ground).close()
    ground.hits += 1


def half_a_handshake(ground: Field) -> None:
    """The hello, and then nothing."""
    context = ground.keys.client()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client, _ = hello(ground.port)
            stack.enter_context(client)
            client.say(b"STARTTLS")
            outgoing = ssl.MemoryBIO()
            tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="mail.domain1.com")
            with contextlib.suppress(ssl.SSLError):
                tls.do_handshake()
            client.send(outgoing.read())
            ground.hits += 1
        ground.wait(1.0)


def hellos_at_once(ground: Field) -> None:
    """Two hundred connections first, then one hello on all of them: no work for us, a signature each for the proxy."""
    outgoing = ssl.MemoryBIO()
    tls = ground.keys.client().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="mail.domain1.com")
    with contextlib.suppress(ssl.SSLError):
        tls.do_handshake()
    said = outgoing.read()
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(ground.port)) for _ in range(200)]
        for client in waiting:
            client.sock.send(said)
            ground.hits += 1
        ground.wait(0.5)


def hello_without_end(ground: Field) -> None:
    client, _ = hello(ground.port)
    with client:
        client.say(b"STARTTLS")
        client.sock.sendall(b"\x16\x03\x01\x40\x00\x01\xff\xff\xff\x03\x03" + bytes(16377))
        ground.pour(client, b"\x16\x03\x01\x40\x00" + bytes(16384))


# -- the admin listener ------------------------------------------------------------------------------------------------


def _admin(ground: Field, path: bytes, *, receive_buffer: int = 0) -> Peer:
    assert ground.running is not None
    client = connect(ground.running.admin_port, receive_buffer=receive_buffer)
    client.sock.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    return client


def looks_at_all_pages(ground: Field) -> None:
    """One mail on the route, so that there is something to see; then the pages, one after the other."""
    with connect(ground.port) as client:
        client.now(0.2)
    while ground.going():
        for path in (b"/status.json", b"/metrics", b"/"):
            with _admin(ground, path) as client:
                ground.swallow(client)


def asks_for_pages_and_reads_nothing(ground: Field) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(100):
            if not ground.going():
                return
            path = (b"/metrics", b"/", b"/status.json")[number % 3]
            stack.enter_context(_admin(ground, path, receive_buffer=2048))
            ground.hits += 1
        ground.wait(0.5)


def holds_the_admin_listener(ground: Field) -> None:
    """A thousand connections that ask for nothing, or for half of something."""
    assert ground.running is not None
    with contextlib.ExitStack() as stack:
        for number in range(1000):
            if not ground.going():
                return
            client = stack.enter_context(connect(ground.running.admin_port))
            ground.hits += 1
            if number % 2:
                client.sock.send(b"GET /metrics HTTP/1.1\r\nX-")
        ground.wait(0.5)


def pipelines_pages(ground: Field) -> None:
    """Hundreds of requests in one segment, none of whose answers is read."""
    assert ground.running is not None
    with connect(ground.running.admin_port, receive_buffer=2048) as client:
        ground.pour(client, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400)
