"""Inside TLS: the reading starts afresh, messages pass unchanged, and every kind of end stays what it is."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import struct
import threading
import time

import pytest
from OpenSSL import SSL

from proxy.net.tls.channel import TlsChannel
from proxy.net.tls.contexts import server_side
from proxy.settings import Tls
from tests.bridge.parties import (
    INSIDE_REPAIRED,
    MESSAGE,
    VERSIONS,
    Keys,
    Server,
    Stage,
    bridge,
    ending,
    hello,
    secure,
    starttls,
    until_starttls,
)
from tests.certificates import Issued, make
from tests.proxy_process import running_proxy
from tests.scripted import GOOD, LIMIT, Peer, ScriptedServer, begin_message, connect
from tests.tls_pair import receive, server_context, shake, until

MIB = 1 << 20
MAXIMUM = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_ehlo_reply_is_repaired_in_clear_and_inside(version: str, keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")))
    with stage.scene(server) as scene:
        client, in_clear = hello(scene.port)
        with client:
            assert in_clear == b"250-mail.example\r\n250-STARTTLS\r\n250-SIZE 10240000\r\n250 HELP\r\n"
            assert client.say(b"STARTTLS") == b"220 2.0.0 Ready to start TLS\r\n"
            secure(client, keys.client(version))
            assert client.say(b"EHLO client.example") == INSIDE_REPAIRED
            assert client.say(b"LHLO client.example") == INSIDE_REPAIRED
            begin_message(client)
            client.send(MESSAGE + b".\r\n")
            assert client.reply() == b"250 2.0.0 taken\r\n"
            assert client.say(b"QUIT") == b"221 bye\r\n"
            assert ending(client) == "close_notify"
        findings = scene.wait_for("ehlo-findings", phase="tls")
        assert set(findings["findings"]) == {"greeting-not-first", "starttls-inside-tls", "keyword-case"}
        end = scene.wait_for("session-end")
        assert (end["outcome"], end["tls"], end["tls_version"]) == ("completed", "bridge", version)
        assert end["sni"] == "mail.domain1.com"
    assert server.mails == [MESSAGE + b".\r\n"]


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_starttls_is_removed_inside_whatever_the_mode(mode: str, keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")), reply=GOOD)
    with stage.scene(server, repair={"mode": mode}) as scene, starttls(scene.port, keys.client()) as client:
        assert client.say(b"EHLO a") == b"250-AUTH PLAIN\r\n250-mail.example\r\n250 8bitmime\r\n"


def test_every_octet_and_every_cut_of_a_message_pass_unchanged(keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")))
    message = b"".join(bytes([one]) for one in range(256)) + b"\r\nSTARTTLS\r\n.STARTTLS\r\n\n.\n\r.\rEHLO x\r\n..\r\n"
    with stage.scene(server) as scene, starttls(scene.port, keys.client()) as client:
        assert client.say(b"EHLO a")[:3] == b"250"
        begin_message(client)
        for start in range(0, len(message), 7):
            client.send(message[start : start + 7])
        client.send(b".\r\n")
        assert client.reply() == b"250 2.0.0 taken\r\n"
    assert server.mails == [message + b".\r\n"]


def take_hash(peer: Peer, size: int) -> str:
    """The hash of so many bytes."""
    digest = hashlib.sha256(bytes(peer.buffer))
    left = size - len(peer.buffer)
    peer.buffer.clear()
    while left > 0:
        data = peer.sock.recv(min(left, 262144))
        assert data, left
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


def hears_ehlo(peer: Peer) -> None:
    """The client's EHLO inside TLS; of one that lets go without it the proxy asks by an EHLO of its own."""
    assert peer.line() == b"EHLO a\r\n"
    peer.send(GOOD)


def secured(peer: Peer, context: ssl.SSLContext) -> None:
    """A server that is inside TLS now, and has answered the EHLO there."""
    until_starttls(peer)
    secure(peer, context, server=True)
    hears_ehlo(peer)


@pytest.mark.parametrize("version", VERSIONS)
def test_64_mib_pass_unchanged_one_way_and_then_the_other(version: str, keys: Keys, stage: Stage) -> None:
    size = 64 * MIB
    block = os.urandom(MIB)
    wanted = hashlib.sha256(block * 64).hexdigest()
    got: list[str] = []

    def takes_and_gives(peer: Peer) -> None:
        secured(peer, keys.server(make("good"), version))
        assert peer.line() == b"XYZZY\r\n"
        got.append(take_hash(peer, size))
        for _ in range(64):
            peer.send(block)

    with stage.scene(takes_and_gives) as scene, starttls(scene.port, keys.client(version)) as client:
        client.say(b"EHLO a")
        client.sock.settimeout(60)
        client.send(b"XYZZY\r\n")
        for _ in range(64):
            client.sock.sendall(block)
        assert take_hash(client, size) == wanted
    assert got == [wanted]


@pytest.mark.parametrize("version", VERSIONS)
def test_both_directions_at_once_do_not_block_each_other(version: str, keys: Keys, stage: Stage) -> None:
    """Both ends in this thread, since the standard library's sockets can't read and write at the same time."""
    size = 16 * MIB
    data = os.urandom(size)
    ends: list[TlsChannel] = []

    def hand_over(peer: Peer) -> None:
        until_starttls(peer)
        peer.sock.setblocking(False)
        context = server_context(make("good"), maximum=MAXIMUM[version])
        channel = TlsChannel.towards_client(context, peer.sock)
        shake(channel)
        assert receive(channel, 8) == b"EHLO a\r\n"
        channel.send(b"250 mail.example\r\n")
        assert receive(channel, 7) == b"XYZZY\r\n"
        ends.append(channel)
        while not over.wait(0.05):
            pass

    over = threading.Event()
    try:
        with stage.scene(hand_over) as scene:
            client, _ = hello(scene.port)
            with client:
                assert client.say(b"STARTTLS")[:4] == b"220 "
                client.sock.setblocking(False)
                context = server_side(Tls(verify="none"))
                context.set_max_proto_version(MAXIMUM[version])
                near = TlsChannel.towards_server(context, client.sock, "")
                shake(near)
                assert near.version == version
                near.send(b"EHLO a\r\n")
                assert receive(near, 18) == b"250 mail.example\r\n"
                near.send(b"XYZZY\r\n")
                until(lambda: bool(ends))
                pair = (near, ends[0])
                sent = [0, 0]
                received = [bytearray(), bytearray()]

                def step() -> bool:
                    for number, channel in enumerate(pair):
                        at = sent[number]
                        sent[number] += channel.send(memoryview(data)[at : at + 65536])
                        while got := channel.recv(65536):
                            received[number] += got
                    return all(len(one) == size for one in received)

                until(step)
                assert received == [data, data]
    finally:
        over.set()


def test_a_stuck_reader_costs_little_and_stops_the_sender(keys: Keys, ours: Issued) -> None:
    """Flow control through two TLS: at most 256 KiB a direction in user space."""
    sent = [0]

    def floods(peer: Peer) -> None:
        secured(peer, keys.server(make("good")))
        peer.line()
        block = bytes(65536)
        peer.sock.settimeout(1.0)
        try:
            while True:
                peer.sock.sendall(block)
                sent[0] += len(block)
        except TimeoutError:
            pass
        peer.sock.settimeout(LIMIT)
        raise ConnectionError

    with ScriptedServer(floods) as server, running_proxy({"route": [bridge(server.port, keys=keys, issued=ours)]}) as r:
        before = r.memory
        client = connect(r.port, receive_buffer=4096)
        assert client.reply()[:4] == b"220 "
        client.say(b"EHLO a")
        client.say(b"STARTTLS")
        secure(client, keys.client())
        client.say(b"EHLO a")
        client.send(b"XYZZY\r\n")
        time.sleep(1.2)
        assert 0 < sent[0] < 32 * MIB  # what the kernels of two connections hold
        assert r.memory - before < 2 * MIB
        client.reset()


def ends(peer: Peer, how: str) -> None:
    """End in one of the ways there are."""
    sock = peer.sock
    assert isinstance(sock, ssl.SSLSocket)
    if how == "close_notify":
        sock.settimeout(0.2)
        try:
            sock.unwrap()
        except (OSError, ValueError):
            pass
    elif how == "reset":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("when", ["before-a-command", "released"])
@pytest.mark.parametrize("how", ["close_notify", "fin", "reset"])
def test_the_clients_end_is_the_same_end_for_the_server(
    how: str, when: str, version: str, keys: Keys, stage: Stage
) -> None:
    server = Server(keys.server(make("good")))
    with stage.scene(server) as scene, starttls(scene.port, keys.client(version)) as client:
        assert client.say(b"EHLO a")[:3] == b"250"
        if when == "released":
            assert client.say(b"XYZZY")[:3] == b"250"
        ends(client, how)
        server.wait_until("endings")
    assert server.endings == [how]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("when", ["after-221", "released", "inside-a-line"])
@pytest.mark.parametrize("how", ["close_notify", "fin", "reset"])
def test_the_servers_end_is_the_same_end_for_the_client(
    how: str, when: str, version: str, keys: Keys, stage: Stage
) -> None:
    command = {"after-221": b"QUIT\r\n", "released": b"XYZZY\r\n", "inside-a-line": b"NOOP\r\n"}[when]
    last = {"after-221": b"221 bye\r\n", "released": b"250 well\r\n", "inside-a-line": b"250 we"}[when]

    def script(peer: Peer) -> None:
        secured(peer, keys.server(make("good"), version))
        assert peer.line() == command
        peer.send(last)
        ends(peer, how)

    with stage.scene(script) as scene, starttls(scene.port, keys.client(version)) as client:
        client.say(b"EHLO a")
        client.send(command)
        assert client.take(len(last)) == last
        got = ending(client)
        # A reset on top of a last reply may reach the client as one: the reply came, and that is what counts.
        assert got == how or (how == "reset" and when == "after-221" and got in ("fin", "reset", "close_notify"))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reply_that_a_reset_follows_is_delivered(version: str, keys: Keys, stage: Stage) -> None:
    """Else the mail would come twice."""

    def script(peer: Peer) -> None:
        secured(peer, keys.server(make("good"), version))
        peer.line()
        peer.send(b"250 2.1.0 well\r\n")
        peer.until(b"\r\n.\r\n")
        peer.send(b"250 2.0.0 taken\r\n")
        ends(peer, "reset")

    with stage.scene(script) as scene:
        for _ in range(20):
            with starttls(scene.port, keys.client(version)) as client:
                client.say(b"EHLO a")
                assert client.say(b"XYZZY") == b"250 2.1.0 well\r\n"
                client.send(MESSAGE + b".\r\n")
                assert client.reply() == b"250 2.0.0 taken\r\n"
                assert ending(client) == "reset"


def test_what_the_server_says_after_the_clients_close_notify_still_comes(keys: Keys, stage: Stage) -> None:
    """TLS 1.3 allows half-close, and a client may end its side behind the final dot."""

    def script(peer: Peer) -> None:
        secured(peer, keys.server(make("good")))
        peer.line()
        peer.send(b"250 2.1.0 well\r\n")
        peer.until(b"\r\n.\r\n")
        assert peer.sock.recv(100) == b""
        time.sleep(0.1)
        peer.send(b"250 2.0.0 taken\r\n")
        ends(peer, "close_notify")

    with stage.scene(script) as scene, starttls(scene.port, keys.client()) as client:
        client.say(b"EHLO a")
        assert client.say(b"XYZZY") == b"250 2.1.0 well\r\n"
        client.send(MESSAGE + b".\r\n")
        bio = client.sock
        assert isinstance(bio, ssl.SSLSocket)
        bio.settimeout(LIMIT)
        # unwrap() sends close_notify and waits for the server's; what comes before that is lost in the standard
        # library, so only the wire is looked at: more than a close_notify's record has come.
        try:
            bio.unwrap()
        except ssl.SSLError as error:
            assert "APPLICATION_DATA_AFTER_CLOSE_NOTIFY" in str(error)  # noqa: PT017
        else:
            raise AssertionError("the reply behind the close_notify did not come")


def test_a_damaged_record_ends_both_sides(keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")))
    with stage.scene(server) as scene, starttls(scene.port, keys.client()) as client:
        assert client.say(b"EHLO a")[:3] == b"250"
        raw = socket.socket(fileno=os.dup(client.sock.fileno()))
        raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        raw.close()
        server.wait_until("endings")
        assert scene.wait_for("session-end")["outcome"] == "client-reset"
    assert server.endings == ["reset"]
