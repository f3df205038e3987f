"""Servers that attack: each is a script of one connection, and goes on until the attack is over."""

from __future__ import annotations

import contextlib
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tests.attacks import floods
from tests.bridge.parties import Server
from tests.certificates import root
from tests.dhe import dhe_server
from tests.scripted import BANNER, BROKEN, GOOD, Mailbox

if TYPE_CHECKING:
    import ssl

    from tests.attacks.field import Field, Serve
    from tests.certificates import Issued
    from tests.scripted import Peer

HELLO_REQUESTS = b"\x16\x03\x03\x40\x00" + bytes(16384)  # 4096 of them in one record, in clear


def mailbox(ground: Field, peer: Peer) -> None:
    Mailbox()(peer)


def good(ground: Field, peer: Peer) -> None:
    """A server with TLS that does all as it should."""
    Server(ground.keys.server(ground.ours))(peer)


def silent(ground: Field, peer: Peer) -> None:
    """Says nothing, not even a banner."""
    ground.wait()


def answers_nothing(ground: Field, peer: Peer) -> None:
    peer.send(BANNER)
    ground.swallow(peer)


def answers_one_ehlo(ground: Field, peer: Peer) -> None:
    peer.send(BANNER)
    peer.line()
    peer.send(GOOD)
    ground.swallow(peer)


def reads_nothing(ground: Field, peer: Peer) -> None:
    peer.send(BANNER)
    ground.wait()


def answers(ground: Field, peer: Peer, to_ehlo: bytes, to_another: bytes) -> None:
    """These to each line that comes, for as long as the attack lasts."""
    peer.send(BANNER)
    peer.sock.settimeout(0.5)
    while ground.going():
        data = peer.sock.recv(65536)
        if not data:
            return
        ehlo = data.count(b"EHLO")
        peer.sock.sendall(to_ehlo * ehlo + to_another * (data.count(b"\n") - ehlo))


def answers_all(ground: Field, peer: Peer) -> None:
    answers(ground, peer, GOOD, b"250 ok\r\n")


def endless(start: bytes, again: bytes, ehlo: bool) -> Serve:
    """`again` without an end, behind `start`, which is its banner or what it answers to EHLO."""

    def serve(ground: Field, peer: Peer) -> None:
        if ehlo:
            peer.send(BANNER)
            peer.line()
        peer.send(start)
        ground.pour(peer, again)

    return serve


ENDLESS = {name: endless(*how) for name, how in floods.ENDLESS.items()}


def byte_by_byte(ground: Field, peer: Peer) -> None:
    for byte in BANNER + b"250-mail.example\r\n" * 1000:
        if not ground.going():
            return
        peer.sock.send(bytes([byte]))


def large_ehlo_replies(ground: Field, peer: Peer) -> None:
    """Ninety-nine lines of 600 octets each time, as often as EHLO is said."""
    reply = b"".join(b"250-A%05d %b\r\n" % (number, b"x" * 600) for number in range(98)) + b"250 END\r\n"
    answers(ground, peer, reply, b"")


def resets(ground: Field, peer: Peer) -> None:
    peer.send(BANNER)
    peer.line()
    peer.send(BROKEN[:9])
    peer.reset()


def never_closes(ground: Field, peer: Peer) -> None:
    peer.send(BANNER)
    while peer.line() != b"QUIT\r\n":
        peer.send(b"250 ok\r\n")
    peer.send(b"221 bye\r\n")
    ground.wait()


def unprintable(ground: Field, peer: Peer) -> None:
    """A refusal that is long and hard to write down."""
    peer.send(b"450 " + bytes(range(128, 256)) * 3 + b"\r\n")


# -- TLS ---------------------------------------------------------------------------------------------------------------


def hello_requests(ground: Field, peer: Peer) -> None:
    """In place of a handshake, as fast as they go."""

    def flood(peer: Peer) -> None:
        peer.sock.recv(1)
        ground.pour(peer, HELLO_REQUESTS * 16)

    Server(ground.keys.server(ground.ours), handshake=flood)(peer)


def hello_never_answered(ground: Field, peer: Peer) -> None:
    Server(ground.keys.server(ground.ours), handshake=lambda peer: ground.wait())(peer)


def hello_answered_byte_by_byte(ground: Field, peer: Peer) -> None:
    """The beginning of a handshake record of 16 KiB, an octet at a time."""

    def trickle(peer: Peer) -> None:
        peer.sock.recv(1)
        for byte in b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb\x03\x03" + bytes(16000):
            if not ground.going():
                return
            peer.sock.send(bytes([byte]))
            time.sleep(0.0005)

    Server(ground.keys.server(ground.ours), handshake=trickle)(peer)


_once = threading.Lock()


@cache
def many_names() -> Issued:
    letters = "abcdefghijklmnopqrstuvwxyz"
    names = [f"{a}.{b}{c}{d}" for a in letters for b in letters for c in letters for d in "abcdefghijkl"]
    return root().issue(*names[:7000])


@cache
def tiny_names() -> Issued:
    """As many names as a chain of 64 KiB holds, which OpenSSL keeps taken apart for as long as the session lasts."""
    return root().issue(*["a"] * 21_000)


@cache
def _dhe(bits: int) -> ssl.SSLContext:
    with tempfile.TemporaryDirectory() as folder:
        return dhe_server(Path(folder), bits)


def prepare() -> None:
    """Make what takes time to make."""
    many_names()
    tiny_names()
    _dhe(10_000)


def certificate_of_many_names(ground: Field, peer: Peer) -> None:
    with _once:
        context = ground.keys.server(many_names())
    Server(context)(peer)


def dhe(bits: int) -> Serve:
    def serve(ground: Field, peer: Peer) -> None:
        Server(_dhe(bits))(peer)

    return serve


def long_chain(ground: Field, peer: Peer) -> None:
    """A Certificate message of hundreds of KiB, that has no end."""

    def flood(peer: Peer) -> None:
        peer.sock.recv(1)
        hello = b"\x02\x00\x00\x26\x03\x03" + bytes(32) + b"\x00\xc0\x2b\x00"
        with contextlib.suppress(OSError):
            peer.sock.sendall(b"\x16\x03\x03" + len(hello).to_bytes(2, "big") + hello)
            peer.sock.sendall(b"\x16\x03\x03\x40\x00\x0b\x0f\xff\xff\x0f\xff\xfc" + bytes(16376))
        ground.pour(peer, b"\x16\x03\x03\x40\x00" + bytes(16384))

    Server(ground.keys.server(ground.ours), handshake=flood)(peer)
