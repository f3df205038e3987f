"""Bytes where RFC 3207 allows none (CVE-2011-0411 and its mirror image): none of them comes up inside TLS."""

from __future__ import annotations

import ssl
import time

import pytest

from tests.bridge.parties import INSIDE_REPAIRED, Keys, Server, Stage, hello, secure, until_starttls
from tests.certificates import make
from tests.scripted import BANNER, Ended, Peer, connect

BEHIND = {
    "a-command": b"MAIL FROM:<evil@example.org>\r\n",
    "two-commands": b"EHLO evil\r\nMAIL FROM:<evil@example.org>\r\n",
    "a-fragment": b"MAI",
    "one-byte": b"\0",
    "a-line-feed": b"\n",
    "another-starttls": b"STARTTLS\r\n",
    "tls": b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
}
SPELLINGS = {
    "plain": b"STARTTLS\r\n",
    "lower-case": b"starttls\r\n",
    "mixed": b"StArTtLs\r\n",
    "line-feed": b"STARTTLS\n",
    "blank-in-front": b"  STARTTLS\r\n",
    "blank-behind": b"STARTTLS \r\n",
    "parameter": b"STARTTLS foo\r\n",
}


# With server = "implicit" the 220 leaves at once, so that a second segment is part of the handshake already.
@pytest.mark.parametrize(
    ("server_side", "cut"),
    [("starttls", "one-segment"), ("starttls", "two-segments"), ("implicit", "one-segment")],
)
@pytest.mark.parametrize("behind", BEHIND)
def test_client_bytes_behind_starttls_get_454_and_reach_nobody(
    behind: str, cut: str, server_side: str, keys: Keys, stage: Stage
) -> None:
    server = Server(keys.server(make("good")), implicit=server_side == "implicit", delay=0.1)
    with stage.scene(server, {"server": server_side}) as scene:
        client, _ = hello(scene.port)
        with client:
            if cut == "one-segment":
                client.send(b"STARTTLS\r\n" + BEHIND[behind])
            else:
                client.send(b"STARTTLS\r\n", BEHIND[behind])
            assert client.reply().startswith(b"454 4.7.0 TLS not available, " + scene.where)
            client.send(b"NOOP\r\n")  # the fragment's own rest, or the next command: either is the last
            assert client.reply().startswith(b"421 4.7.0 " + scene.where)
            client.rest()
        scene.wait_for("starttls-pipelined")
        scene.wait_for("starttls", result="injection")
        assert scene.wait_for("session-end")["tls"] == "none"
    told = b"".join((*server.clear, *server.inside))
    assert b"evil" not in told
    assert b"MAI" not in told


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_starttls_holds_back_what_follows(spelling: str, keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")), delay=0.05)
    with stage.scene(server) as scene:
        client, _ = hello(scene.port)
        with client:
            client.send(SPELLINGS[spelling] + b"NOOP\r\n")
            said = client.reply()
            assert said[:4] == b"454 ", said
            client.rest()
    assert not any(line.startswith(b"NOOP") for line in (*server.clear, *server.inside))


def test_client_bytes_in_clear_behind_the_220_do_not_come_up_inside_tls(keys: Keys, stage: Stage) -> None:
    """Delayed until the 220 is there: they are no ClientHello."""
    server = Server(keys.server(make("good")))
    with stage.scene(server) as scene:
        client, _ = hello(scene.port)
        with client:
            assert client.say(b"STARTTLS")[:4] == b"220 "
            client.send(b"MAIL FROM:<evil@example.org>\r\n")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                secure(client, keys.client())
        end = scene.wait_for("session-end")
        assert (end["outcome"], end["by"]) == ("tls-failed", "client")
    assert server.inside == []


INJECTED = {
    "a-line": b"250 injected\r\n",
    "a-reply": b"250-injected\r\n250 AUTH PLAIN\r\n",
    "a-fragment": b"25",
    "one-byte": b"2",
    "a-second-220": b"220 2.0.0 go ahead\r\n",
}


@pytest.mark.parametrize("client_side", ["starttls", "none", "implicit"])
@pytest.mark.parametrize("what", INJECTED)
def test_server_bytes_in_the_segment_of_its_220_end_it(what: str, client_side: str, keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")), starttls=b"220 go ahead\r\n" + INJECTED[what])
    with stage.scene(server, {"client": client_side}) as scene:
        if client_side == "starttls":
            client, _ = hello(scene.port)
            with client:
                assert client.say(b"STARTTLS").startswith(b"454 4.7.0 TLS not available, " + scene.where)
                assert client.now(0.05) == b""
                assert client.say(b"NOOP").startswith(b"421 4.7.0 " + scene.where)
                assert client.rest() == b""
        else:
            with connect(scene.port) as client:
                if client_side == "implicit":
                    secure(client, keys.client())
                assert client.reply().startswith(b"421 4.7.0 " + scene.where)
        scene.wait_for("starttls-response-injection")
        assert not scene.of("tls", side="server")
    assert server.inside == []


@pytest.mark.parametrize("what", INJECTED)
def test_server_bytes_in_a_later_segment_are_no_handshake(what: str, keys: Keys, stage: Stage) -> None:
    def injects(peer: Peer) -> None:
        time.sleep(0.03)
        peer.send(INJECTED[what])
        secure(peer, keys.server(make("good")), server=True)
        raise AssertionError("TLS came up over injected bytes")

    server = Server(keys.server(make("good")), handshake=injects)
    with stage.scene(server, timeouts={"handshake": 1.0}) as scene:
        client, _ = hello(scene.port)
        with client:
            assert client.say(b"STARTTLS").startswith(b"454 4.7.0 TLS not available, " + scene.where)
            assert client.say(b"NOOP").startswith(b"421 4.7.0 " + scene.where)
            assert client.rest() == b""


def test_what_a_server_goes_on_to_say_after_its_injection_never_reaches_the_client(keys: Keys, stage: Stage) -> None:
    def goes_on(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(b"250-mail.example\r\n250 STARTTLS\r\n")
        peer.line()
        peer.send(b"220 go ahead\r\n250 injected\r\n", b"250 more\r\n", b"250 and more\r\n", gap=0.05)
        peer.rest()

    with stage.scene(goes_on) as scene:
        client, _ = hello(scene.port)
        with client:
            assert client.say(b"STARTTLS")[:4] == b"454 "
            assert client.now(0.3) == b""


@pytest.mark.parametrize("what", INJECTED)
def test_server_bytes_between_our_220_and_the_clients_tls_end_it(what: str, keys: Keys, stage: Stage) -> None:
    """The server is in TLS already and says something on its own while the client shakes hands."""

    def speaks_up(peer: Peer) -> None:
        server = Server(keys.server(make("good")))
        until_starttls(peer)
        assert server.context is not None
        secure(peer, server.context, server=True)
        time.sleep(0.1)
        peer.send(INJECTED[what])
        assert peer.rest() == b""

    with stage.scene(speaks_up) as scene:
        client, _ = hello(scene.port)
        with client:
            assert client.say(b"STARTTLS")[:4] == b"220 "
            time.sleep(0.25)
            with pytest.raises((ssl.SSLError, ConnectionError, Ended)):
                secure(client, keys.client())
        scene.wait_for("starttls-response-injection")
        assert scene.wait_for("session-end")["outcome"] == "injection"


def test_late_lines_of_an_ehlo_reply_are_removed_there_as_anywhere(keys: Keys, stage: Stage) -> None:
    def late(peer: Peer) -> None:
        secure(peer, keys.server(make("good")), server=True)
        peer.send(BANNER)
        peer.line()
        peer.send(b"250-mail.example\r\n250-SIZE 1000\r\n250 HELP\r\n")
        time.sleep(0.15)
        peer.send(b"250 8BITMIME\r\n")
        peer.line()
        peer.send(b"250-mail.example\r\n250 HELP\r\n")
        peer.rest()

    with stage.scene(late, {"server": "implicit"}) as scene:
        client, _ = hello(scene.port)
        with client:
            assert client.say(b"STARTTLS")[:4] == b"220 "
            time.sleep(0.25)
            secure(client, keys.client())
            assert client.say(b"EHLO again") == b"250-mail.example\r\n250 HELP\r\n"


def test_nothing_said_in_clear_is_remembered_inside(keys: Keys, stage: Stage) -> None:
    """The EHLO of before does not count any more, and the first reply inside is to the first command inside."""
    server = Server(keys.server(make("good")))
    with stage.scene(server) as scene:
        client, reply = hello(scene.port)
        with client:
            assert b"STARTTLS" in reply
            assert client.say(b"STARTTLS")[:4] == b"220 "
            secure(client, keys.client())
            assert client.now(0.1) == b""
            assert client.say(b"EHLO client.example") == INSIDE_REPAIRED
    assert server.inside[0] == b"EHLO client.example\r\n"
