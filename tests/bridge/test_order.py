"""The order at STARTTLS: the client hears 220 only once the server's side is in TLS and its identity was judged."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.bridge.parties import Keys, Server, Stage, hello, secure
from tests.certificates import make
from tests.scripted import Peer, connect


def stalls(peer: Peer) -> None:
    peer.rest(5)


def stalls_after_its_hello(peer: Peer) -> None:
    """Answers with the beginning of a handshake record, and no more."""
    peer.take(100)
    peer.send(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03")
    peer.rest(5)


def resets(peer: Peer) -> None:
    peer.reset()


def resets_after_the_client_hello(peer: Peer) -> None:
    peer.take(100)
    peer.reset()


def closes(peer: Peer) -> None:
    peer.take(100)


def answers_in_clear(peer: Peer) -> None:
    peer.take(100)
    peer.send(b"250 hello to you\r\n")
    peer.rest(5)


def answers_220_again(peer: Peer) -> None:
    peer.take(100)
    peer.send(b"220 2.0.0 go ahead\r\n" * 40)
    peer.rest(5)


def alerts(peer: Peer) -> None:
    peer.take(100)
    peer.send(b"\x15\x03\x03\x00\x02\x02\x28")  # handshake_failure
    peer.rest(5)


FAILURES: dict[str, tuple[Callable[[Peer], None], str]] = {
    "stalls": (stalls, "the server never answered the ClientHello of 1"),  # and three more digits
    "stalls-half-way": (stalls_after_its_hello, "the server did not finish the TLS handshake in time"),
    "resets": (resets, "the server "),
    "resets-later": (resets_after_the_client_hello, "the server was lost during the TLS handshake"),
    "closes": (closes, "the server "),
    "in-clear": (answers_in_clear, "the server did not answer with TLS"),
    "220-again": (answers_220_again, "the server did not answer with TLS"),
    "alert": (alerts, "the server sent the TLS alert 'handshake failure'"),
}
QUICK = {"handshake": 0.7}


@pytest.mark.parametrize("required", [True, False], ids=["required", "not-required"])
@pytest.mark.parametrize("how", FAILURES)
def test_no_220_when_the_servers_handshake_goes_wrong(how: str, required: bool, keys: Keys, stage: Stage) -> None:
    handshake, reason = FAILURES[how]
    server = Server(keys.server(make("good")), handshake=handshake)
    with stage.scene(server, {"required": required}, timeouts=QUICK) as scene:
        client, _ = hello(scene.port)
        with client:
            client.send(b"STARTTLS\r\n")
            if "stalls" in how:
                assert client.now(0.4) == b""  # not a byte of a 220
            said = client.reply(3)
            assert said.startswith(b"454 4.7.0 TLS not available, " + scene.where)
            assert reason.encode() in said
            assert client.say(b"MAIL FROM:<a@example.org>").startswith(b"421 4.7.0 " + scene.where)
            assert client.rest() == b""
        end = scene.wait_for("session-end")
        assert (end["outcome"], end["tls"]) == ("tls-failed", "none")
        assert reason in end["reason"]
        assert scene.of("starttls", result="failed")
    assert [line[:4] for line in server.clear] == [b"EHLO", b"STAR"]
    assert server.inside == []


@pytest.mark.parametrize("kind", ["wrong-name", "self-signed"])
def test_a_failed_identity_never_ends_in_clear_even_where_tls_is_not_required(
    kind: str, keys: Keys, stage: Stage
) -> None:
    server = Server(keys.server(make(kind)))
    with stage.scene(server, {"required": False}) as scene:
        for command in (b"MAIL FROM:<a@example.org>", b"QUIT", b"NOOP", b"STARTTLS", b"EHLO again"):
            client, _ = hello(scene.port)
            with client:
                assert client.say(b"STARTTLS")[:9] == b"454 4.7.0"
                assert client.say(command)[:9] == b"421 4.7.0"
                assert client.rest() == b""
        assert scene.server.connections == 5
    assert server.inside == []
    assert {line[:4] for line in server.clear} == {b"EHLO", b"STAR"}


def test_the_220_comes_after_the_servers_handshake_and_not_before(keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")), delay=0.3)
    with stage.scene(server) as scene:
        client, _ = hello(scene.port)
        with client:
            client.send(b"STARTTLS\r\n")
            assert client.now(0.2) == b""
            assert client.reply() == b"220 2.0.0 Ready to start TLS\r\n"
            server.wait_until("secured_at")
            secure(client, keys.client())
            assert client.say(b"NOOP") == b"250 2.1.0 well\r\n"
        scene.wait_for("tls", side="client")
        assert [told["side"] for told in scene.of("tls")] == ["server", "client"]


def test_an_early_220_does_not_overtake_the_replies_to_earlier_commands(keys: Keys, stage: Stage) -> None:
    """server = implicit: STARTTLS is the proxy's own to answer, but in its turn."""

    class Slow(Server):
        def __call__(self, peer: Peer) -> None:
            self._secure(peer)
            peer.send(self.banner)
            for _ in range(3):
                line = peer.line()
                time.sleep(0.1)
                peer.send(b"250 2.0.0 to " + line[:4] + b"\r\n")
            super()._line(peer)

    server = Slow(keys.server(make("good")), implicit=True)
    with stage.scene(server, {"server": "implicit"}) as scene, connect(scene.port) as client:
        assert client.reply()[:4] == b"220 "
        client.send(b"NOOP\r\nRSET\r\nNOOP\r\nSTARTTLS\r\n")
        got = b"".join(client.reply() for _ in range(4))
        assert got == (
            b"250 2.0.0 to NOOP\r\n250 2.0.0 to RSET\r\n250 2.0.0 to NOOP\r\n220 2.0.0 Ready to start TLS\r\n"
        )
        secure(client, keys.client())


@pytest.mark.parametrize("client_side", ["none", "implicit"])
@pytest.mark.parametrize("how", ["stalls", "in-clear", "resets-later"])
def test_a_failure_is_421_in_place_of_the_banner_where_the_client_does_not_ask(
    how: str, client_side: str, keys: Keys, stage: Stage
) -> None:
    handshake, reason = FAILURES[how]
    server = Server(keys.server(make("good")), handshake=handshake)
    with stage.scene(server, {"client": client_side}, timeouts=QUICK) as scene, connect(scene.port) as client:
        if client_side == "implicit":
            secure(client, keys.client())
        said = client.reply(3)
        assert said.startswith(b"421 4.7.0 " + scene.where)
        assert reason.encode() in said
    assert server.inside == []
