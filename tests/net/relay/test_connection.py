"""One end of a session over edge-triggered events: what was told while nobody read must not be forgotten."""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from proxy.net.relay import splice
from proxy.net.relay.connection import Connection
from proxy.net.relay.sender import MAX_PENDING
from tests.own_reactor import OwnReactor
from tests.tls_pair import tcp_pair


class Tells:
    """In place of a carrier: what the connections told."""

    def __init__(self) -> None:
        self.ends: list[tuple[Connection, bool]] = []

    def ended(self, connection: Connection, reset: bool) -> None:
        self.ends.append((connection, reset))

    def looks(self) -> bool:
        return False

    def failed(self, error: BaseException) -> None:
        raise error


class Relay:
    """Both ends of a relay, with sockets whose buffers are small, and the far sides of them."""

    def __init__(self, own: OwnReactor) -> None:
        self.own = own
        self.tells: Any = Tells()
        self.client_far, near = pair()
        self.server_far, other = pair()
        self.client = Connection("client", near, self.tells, own.poller, own.deadlines)
        self.server = Connection("server", other, self.tells, own.poller, own.deadlines)
        self.client.join(self.server)
        for one in (self.client, self.server):
            one.let_go()
            own.poller.add(one.sock.fileno(), one)

    def close(self) -> None:
        for one in (self.client, self.server):
            one.abort()
        self.client_far.close()
        self.server_far.close()


def pair() -> tuple[socket.socket, socket.socket]:
    far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for one in (far, near):
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200000)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return far, near


@pytest.fixture
def relay() -> Iterator[Relay]:
    own = OwnReactor()
    relay = Relay(own)
    yield relay
    relay.close()
    own.close()


def test_end_that_was_told_while_the_peer_was_full_is_passed_on(relay: Relay) -> None:
    sent = relay.server_far.send(b"x" * 200000)
    assert sent > MAX_PENDING
    relay.own.turns(0.1)
    assert relay.server.paused
    rest = relay.server_far.send(b"y" * 1000)  # little: it is read in one piece
    relay.server_far.close()
    relay.own.turns(0.1)
    assert relay.tells.ends == []
    got = bytearray()

    def comes(until: bool) -> bool:
        with suppress(BlockingIOError):
            got.extend(relay.client_far.recv(8192))
        return until

    relay.own.run(lambda: comes(bool(relay.tells.ends)))
    assert relay.tells.ends == [(relay.server, False)]
    relay.own.run(lambda: comes(len(got) >= sent + rest))
    assert bytes(got) == b"x" * sent + b"y" * rest


def test_nothing_overtakes_what_waits_when_a_direction_goes_on_in_the_kernel(relay: Relay) -> None:
    relay.server.flow.pipe = splice.pipe()  # a long direction, of which all has left
    sent = os.urandom(10000)
    relay.server_far.sendall(sent)
    relay.server.ready(select.EPOLLIN | select.EPOLLOUT)
    assert relay.client.sender.pending
    more = os.urandom(30000)
    relay.server_far.sendall(more)
    got = bytearray()
    with suppress(BlockingIOError):
        while data := relay.client_far.recv(65536):
            got += data
    relay.server.ready(select.EPOLLIN | select.EPOLLOUT)  # before the client's socket tells that it has room

    def comes() -> bool:
        with suppress(BlockingIOError):
            got.extend(relay.client_far.recv(65536))
        return len(got) >= len(sent + more)

    relay.own.run(comes)
    assert bytes(got) == sent + more


def test_the_last_words_are_known_however_they_are_cut_and_also_behind_a_long_relay(relay: Relay) -> None:
    for piece in (b"250 ok\r\n22", b"1 by", b"e\r\n"):
        relay.server_far.sendall(piece)
        relay.own.turns(0.03)
    assert relay.server.flow.last_words == b"250 ok\r\n221 bye\r\n"
    assert relay.client_far.recv(100) == b"250 ok\r\n221 bye\r\n"
    relay.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200000)
    left = splice.BEGIN_AFTER + 400000

    def comes() -> bool:
        nonlocal left
        with suppress(BlockingIOError):
            relay.server_far.send(bytes(min(left, 65536)))
            left = max(0, left - 65536)
        with suppress(BlockingIOError):
            relay.client_far.recv(65536)
        return not left and relay.server.flow.pipe is not None and not relay.server.flow.pipe.holds

    relay.own.run(comes)
    relay.own.turns(0.05)
    relay.server_far.sendall(b"221 bye\r\n")
    relay.own.turns(0.05)
    assert relay.server.flow.last_words.endswith(b"221 bye\r\n")


@pytest.mark.parametrize("said", [(b"", b""), (b"QUIT\r\n", b""), (b"", b"221 bye\r\n"), (b"QUIT\r\n", b"221 bye\r\n")])
def test_two_peers_that_reset_in_one_turn_are_over(said: tuple[bytes, bytes]) -> None:
    own = OwnReactor()
    with tcp_pair() as (client_far, client_near), tcp_pair() as (server_far, server_near):
        tells: Any = Tells()
        client = Connection("client", client_near, tells, own.poller, own.deadlines)
        server = Connection("server", server_near, tells, own.poller, own.deadlines)
        client.join(server)
        for one in (client, server):
            one.let_go()
            own.poller.add(one.sock.fileno(), one)
        own.turns(0.02)
        for far, words in zip((client_far, server_far), said, strict=True):
            if words:
                far.send(words)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client_far.close()
        server_far.close()
        own.run(lambda: tells.ends)  # the first one ends the session
        assert tells.ends[0][1]
        client.abort()
        server.abort()
    own.close()
