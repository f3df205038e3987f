"""Bridge mode as part of the service: XCLIENT, workers, draining, time-outs, PROXY headers, and many at once."""

from __future__ import annotations

import contextlib
import signal
import ssl
import threading
import time

import pytest

from tests.bridge.parties import (
    INSIDE_REPAIRED,
    MESSAGE,
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
from tests.loopback import wait_until
from tests.proxy_process import running_proxy
from tests.scripted import BANNER, LIMIT, Peer, ScriptedServer, begin_message, connect, together


class TakesXclient(Server):
    """Offers XCLIENT, and gives a new banner for it."""

    def __call__(self, peer: Peer) -> None:
        send = peer.send

        def after_xclient(*pieces: bytes, gap: float = 0.02) -> Peer:
            told = self.inside if isinstance(peer.sock, ssl.SSLSocket) else self.clear
            if told and told[-1].startswith(b"XCLIENT"):
                return send(BANNER)
            return send(*pieces, gap=gap)

        peer.send = after_xclient  # type: ignore[method-assign]
        super().__call__(peer)


OFFER = b"250-mail.example\r\n250-STARTTLS\r\n250 XCLIENT NAME ADDR\r\n"


def test_a_stranger_is_ended_where_xclient_is_offered_inside_tls_only(keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")), inside=OFFER)
    with stage.scene(server) as scene, starttls(scene.port, keys.client()) as client:
        assert client.say(b"EHLO a")[:9] == b"421 4.7.1"
        assert ending(client) == "close_notify"


@pytest.mark.parametrize("server_side", ["starttls", "implicit"])
def test_xclient_is_sent_once_inside_or_before(server_side: str, keys: Keys, stage: Stage) -> None:
    server = TakesXclient(keys.server(make("good")), reply=OFFER, inside=OFFER, implicit=server_side == "implicit")
    with stage.scene(server, {"server": server_side}, xclient=True) as scene:
        client, reply = hello(scene.port)
        with client:
            assert reply[:3] == b"250"
            assert client.say(b"STARTTLS")[:4] == b"220 "
            secure(client, keys.client())
            assert client.say(b"EHLO client.example")[:3] == b"250"
            assert client.say(b"MAIL FROM:<a@example.org>")[:3] == b"250"
    said = [line for line in (*server.clear, *server.inside) if line.startswith(b"XCLIENT")]
    assert said == [b"XCLIENT ADDR=127.0.0.1 NAME=[UNAVAILABLE]\r\n"]


def test_two_workers_serve_and_reload_their_certificates(keys: Keys, ours: Issued) -> None:
    with ScriptedServer(Server(keys.server(make("good")))) as server:
        route = bridge(server.port, keys=keys, issued=ours)
        config = {"service": {"workers": 2}, "admin": {"listen": "127.0.0.1:0"}, "route": [route]}
        with running_proxy(config) as running:
            other = make("good-below-intermediate")
            shown = set()
            for issued in (ours, other):
                again = bridge(server.port, keys=keys, issued=issued)
                running.reload({**config, "route": [again]})
                until = time.monotonic() + LIMIT
                while time.monotonic() < until:
                    with starttls(running.port, keys.client()) as client:
                        assert client.say(b"EHLO a") == INSIDE_REPAIRED
                        assert isinstance(client.sock, ssl.SSLSocket)
                        shown.add(client.sock.getpeercert(binary_form=True))
                    if len(shown) == (1 if issued is ours else 2):
                        break
            assert len(shown) == 2
            wait_until(  # a worker's figures reach the parent now and then
                lambda: (
                    running.metric("ehlo_proxy_certificate_not_after_timestamp_seconds", side="server", route="r")
                    > time.time()
                ),
                LIMIT,
                "the metric of the server's certificate",
            )


def test_sessions_inside_tls_drain_as_those_in_clear_do(keys: Keys, ours: Issued) -> None:
    script = Server(keys.server(make("good")))
    with (
        ScriptedServer(script) as server,
        running_proxy({"route": [bridge(server.port, keys=keys, issued=ours)]}) as running,
        starttls(running.port, keys.client()) as idle,
        starttls(running.port, keys.client()) as busy,
    ):
        assert idle.say(b"EHLO a")[:3] == b"250"
        assert busy.say(b"EHLO a")[:3] == b"250"
        begin_message(busy)
        half, _ = hello(running.port)
        with half:
            running.signal(signal.SIGTERM)
            for client, how in ((idle, "close_notify"), (half, "fin")):
                assert client.reply()[:9] == b"421 4.3.2"
                assert ending(client) == how
                client.close()
        busy.send(MESSAGE + b".\r\n")
        assert busy.reply() == b"250 2.0.0 taken\r\n"
        assert busy.say(b"QUIT") == b"221 bye\r\n"
        busy.close()
        assert running.wait() == 0
    assert script.mails == [MESSAGE + b".\r\n"]


def test_a_client_that_stalls_in_its_handshake_is_ended_in_time(keys: Keys, stage: Stage) -> None:
    for side in ("starttls", "implicit"):
        server = Server(keys.server(make("good")))
        with stage.scene(server, {"client": side}, timeouts={"handshake": 0.4, "abort": 0.5}) as scene:
            if side == "starttls":
                client, _ = hello(scene.port)
                assert client.say(b"STARTTLS")[:4] == b"220 "
            else:
                client = connect(scene.port)
            with client:
                client.send(b"\x16\x03\x01")
                assert client.rest(3) == b""
            end = scene.wait_for("session-end")
            assert (end["outcome"], end["by"]) == ("tls-failed", "client")
            assert "handshake in time" in end["reason"]


@pytest.mark.parametrize("how", ["close_notify", "reset"])
def test_a_server_that_is_lost_while_the_client_shakes_hands_is_told_inside_the_clients_tls(
    how: str, keys: Keys, stage: Stage
) -> None:
    """The 220 has left, so a line in clear would be worth nothing."""

    def lost(peer: Peer) -> None:
        until_starttls(peer)
        secure(peer, keys.server(make("good")), server=True)
        time.sleep(0.05)
        if how == "reset":
            peer.reset()
        else:
            assert isinstance(peer.sock, ssl.SSLSocket)
            peer.sock.settimeout(0.1)
            with contextlib.suppress(OSError):
                peer.sock.unwrap()

    with stage.scene(lost) as scene:
        client, _ = hello(scene.port)
        with client:
            assert client.say(b"STARTTLS")[:4] == b"220 "
            time.sleep(0.15)
            secure(client, keys.client())
            assert client.reply()[:9] == b"421 4.4.2"
            assert ending(client) in ("close_notify", "fin")


def test_a_client_of_an_implicit_route_that_speaks_in_clear_gets_nothing_of_the_server(
    keys: Keys, stage: Stage
) -> None:
    server = Server(keys.server(make("good")))
    with stage.scene(server, {"client": "implicit"}) as scene, connect(scene.port) as client:
        client.send(b"EHLO client.example\r\nMAIL FROM:<a@example.org>\r\n")
        got = client.rest()
        assert b"220" not in got  # an alert at most
        assert not any(32 <= octet < 127 for octet in got[5:])
        end = scene.wait_for("session-end")
        assert (end["outcome"], end["by"]) == ("tls-failed", "client")
    assert not any(b"MAIL" in line for line in (*server.clear, *server.inside))


def test_a_proxy_header_comes_before_implicit_tls_both_ways(keys: Keys, stage: Stage) -> None:
    """The header is in clear; the ClientHello may stand in its segment."""

    class Headed(Server):
        def __call__(self, peer: Peer) -> None:
            header = b""
            while not header.endswith(b"\n"):  # an octet at a time: the ClientHello may be right behind it
                header += peer.sock.recv(1)
            assert header == f"PROXY TCP4 192.0.2.1 127.0.0.1 4711 {scene.port}\r\n".encode()
            super().__call__(peer)

    server = Headed(keys.server(make("good")), implicit=True)
    tls = {"client": "implicit", "server": "implicit"}
    with (
        stage.scene(
            server,
            tls,
            proxy_protocol=True,
            trusted_proxies=["127.0.0.0/8"],
            send_proxy_protocol=1,
            allow_clients=["192.0.2.0/24"],
        ) as scene,
        connect(scene.port) as client,
    ):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        inside = keys.client().wrap_bio(incoming, outgoing, server_hostname="mail.domain1.com")
        with pytest.raises(ssl.SSLWantReadError):
            inside.do_handshake()
        client.send(b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 25\r\n" + outgoing.read())

        def read() -> bytes:
            while True:
                try:
                    return inside.read(4096)
                except ssl.SSLWantReadError:
                    client.send(outgoing.read())
                    incoming.write(client.sock.recv(65536))

        while True:
            try:
                inside.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.send(outgoing.read())
                incoming.write(client.sock.recv(65536))
        client.send(outgoing.read())
        assert read() == BANNER
        assert scene.wait_for("session-start")["client"] == "192.0.2.1"


def test_a_hundred_sessions_at_once_of_which_one_in_three_breaks(keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")))
    context = keys.client()
    lock = threading.Lock()
    well: list[int] = []

    def one(number: int) -> None:
        client, _ = hello(scene.port)
        with client:
            if number % 3 == 0:
                client.send(b"STARTTLS\r\n" + (b"NOOP\r\n" if number % 2 else b""))
                client.reply()
                client.send(b"\x16\x03\x01\x00\x05hello garbage\r\n")
                client.reset()
                return
            assert client.say(b"STARTTLS")[:4] == b"220 "
            secure(client, context)
            assert client.say(b"EHLO client.example") == INSIDE_REPAIRED
            begin_message(client)
            client.send(MESSAGE + b".\r\n")
            assert client.reply() == b"250 2.0.0 taken\r\n"
            assert client.say(b"QUIT") == b"221 bye\r\n"
            with lock:
                well.append(number)

    with stage.scene(server) as scene:
        together([lambda number=number: one(number) for number in range(99)], at_once=24)  # type: ignore[misc]
        scene.wait_for("session-end", count=99, seconds=20)
    assert len(well) == 66
    assert server.mails == [MESSAGE + b".\r\n"] * 66


def test_descriptors_and_memory_come_back(keys: Keys, ours: Issued) -> None:
    script = Server(keys.server(make("good")))
    with ScriptedServer(script) as server:
        config = {"route": [bridge(server.port, keys=keys, issued=ours)]}
        with running_proxy({**config, "admin": {"listen": "127.0.0.1:0"}}) as running:
            context = keys.client()

            def mixed(number: int) -> None:
                if number % 4 == 3:
                    client, _ = hello(running.port)
                    client.say(b"STARTTLS")
                    client.reset()
                    return
                with starttls(running.port, context) as client:
                    client.say(b"EHLO a")
                    if number % 4 == 1:
                        client.reset()
                    elif number % 4 == 2:
                        client.say(b"QUIT")

            for number in range(80):
                mixed(number)
            base, descriptors = running.memory, running.descriptors
            for number in range(240):
                mixed(number)
            until = time.monotonic() + LIMIT
            while running.sessions_open() and time.monotonic() < until:
                time.sleep(0.05)
            assert running.sessions_open() == 0
            assert running.descriptors <= descriptors + 2
            assert running.memory - base < 4 << 20
