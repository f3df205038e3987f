"""What may go in clear in bridge mode: nothing that matters with `required`, what the server refused without it."""

from __future__ import annotations

import socket

import pytest

from tests.bridge.parties import MESSAGE, Keys, Server, Stage, ending, hello, secure, starttls
from tests.certificates import Issued, make
from tests.scripted import GOOD, connect

MAIL = b"MAIL FROM:<a@example.org>"

# What a client may try in clear before STARTTLS; every one of them ends the session and reaches no server.
TRIES = {
    "mail": MAIL + b"\r\n",
    "mail-in-one-segment": b"EHLO a\r\n" + MAIL + b"\r\nRCPT TO:<b@example.org>\r\nDATA\r\n",
    "lower-case": b"mail from:<a@example.org>\r\n",
    "line-feed-only": MAIL + b"\n",
    "leading-blank": b" " + MAIL + b"\r\n",
    "auth": b"AUTH PLAIN AGEAYg==\r\n",
    "bdat": b"BDAT 4 LAST\r\nabcd",
    "unknown": b"XYZZY\r\n",
    "nul": b"NOOP\0\r\n" + MAIL + b"\r\n",
    "lone-cr": b"NOOP\r" + MAIL + b"\r\n",
    "hidden-in-noop": b"NOOP x\r" + MAIL + b"\r\n",
    "too-long": b"NOOP " + b"x" * 5000 + b"\r\n" + MAIL + b"\r\n",
    "endless": b"MAIL FROM:<" + b"x" * 6000,
    "vrfy": b"VRFY anna\r\n",
    "xclient": b"XCLIENT ADDR=127.0.0.1\r\n",
    "behind-starttls": b"STARTTLS\r\n" + MAIL + b"\r\n",
}


@pytest.mark.parametrize("how", TRIES)
def test_with_required_no_mail_reaches_the_server_in_clear(how: str, keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")), delay=0.1)
    with stage.scene(server) as scene, connect(scene.port) as client:
        assert client.reply()[:4] == b"220 "
        client.send(TRIES[how])
        got = client.rest()
        assert b"421 4.7" in got
        assert b"\r\n354" not in got
        assert got[:3] != b"354"
    assert not [line for line in server.clear if line[:4] not in (b"EHLO", b"NOOP", b"STAR")]
    assert not any(b"MAIL" in line.upper() for line in (*server.clear, *server.inside))


def test_with_required_half_a_command_and_an_end_reach_no_server(keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")))
    with stage.scene(server) as scene:
        client, _ = hello(scene.port)
        with client:
            client.send(MAIL)
            client.finish()
            client.rest()
        server.wait_until("endings")
    assert server.clear == [b"EHLO client.example\r\n"]


def test_half_a_command_and_an_end_after_a_454_reach_no_server(keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("expired")))
    with stage.scene(server) as scene:
        client, _ = hello(scene.port)
        with client:
            assert client.say(b"STARTTLS")[:4] == b"454 "
            client.send(MAIL)
            client.finish()
            assert client.rest() == b""
        assert scene.wait_for("session-end")["outcome"] == "tls-failed"
    assert server.clear == [b"EHLO client.example\r\n", b"STARTTLS\r\n"]


@pytest.mark.parametrize(
    "server_side",
    ["starttls-not-offered", "starttls-refused", "starttls-454", "starttls-354"],
)
def test_with_required_a_server_without_tls_gets_no_mail(server_side: str, keys: Keys, stage: Stage) -> None:
    server = {
        "starttls-not-offered": Server(None, reply=b"250-mail.example\r\n250 HELP\r\n", starttls=b"502 what?\r\n"),
        "starttls-refused": Server(None, starttls=b"502 5.5.1 not here\r\n"),
        "starttls-454": Server(None, starttls=b"454 4.7.0 no certificate\r\n"),
        "starttls-354": Server(None, starttls=b"354 go on\r\n"),
    }[server_side]
    with stage.scene(server) as scene:
        client, _ = hello(scene.port)
        with client:
            said = client.say(b"STARTTLS")
            assert said.startswith(b"454 4.7.0 TLS not available, " + scene.where)
            assert b"the server refused STARTTLS: " + server.starttls[:3] in said
            assert client.say(MAIL)[:9] == b"421 4.7.0"
            assert client.rest() == b""
        assert scene.wait_for("session-end")["outcome"] == "tls-failed"
        assert scene.server.connections == 1
    assert [line[:4] for line in server.clear] == [b"EHLO", b"STAR"]


@pytest.mark.parametrize("greeting", [b"EHLO client.example", b"HELO client.example", b"ehlo client.example"])
def test_without_required_a_refused_starttls_goes_on_in_clear_over_a_fresh_connection(
    greeting: bytes, keys: Keys, stage: Stage
) -> None:
    server = Server(None, starttls=b"454 4.7.0 no certificate\r\n")
    with stage.scene(server, {"required": False}) as scene, connect(scene.port) as client:
        assert client.reply()[:4] == b"220 "
        first = client.say(greeting)
        assert first[:3] == b"250"
        client.send(b"STARTTLS\r\n")
        assert client.reply()[:9] == b"454 4.7.0"
        # Nothing of the repeated greeting shows: the next reply is the next command's.
        assert client.say(MAIL) == b"250 2.1.0 well\r\n"
        assert client.say(b"RCPT TO:<b@example.org>") == b"250 2.1.0 well\r\n"
        assert client.say(b"DATA")[:3] == b"354"
        client.send(MESSAGE + b".\r\n")
        assert client.reply() == b"250 2.0.0 taken\r\n"
        assert client.say(b"QUIT") == b"221 bye\r\n"
        assert client.rest() == b""
        client.close()
        assert scene.wait_for("session-end")["outcome"] == "completed"
        assert scene.server.connections == 2
    assert server.mails == [MESSAGE + b".\r\n"]
    line = greeting + b"\r\n"
    said = [one for one in server.clear if one[:4] not in (b"EHLO", b"QUIT") or one == line]
    # Where no EHLO reply has told of XCLIENT the server was asked, and heard the HELO once more.
    again = [line] if greeting[:4] == b"HELO" else []
    assert said[: 4 + len(again)] == [line, b"STARTTLS\r\n", line, *again, MAIL + b"\r\n"]


def test_what_is_pipelined_behind_a_refused_starttls_goes_on_in_order_behind_the_repeated_ehlo(
    keys: Keys, stage: Stage
) -> None:
    server = Server(None, starttls=b"502 5.5.1 not here\r\n")
    with stage.scene(server, {"required": False}) as scene:
        client, _ = hello(scene.port)
        with client:
            client.send(b"STARTTLS\r\nRSET\r\n" + MAIL + b"\r\n")
            assert client.reply()[:9] == b"454 4.7.0"
            assert client.reply() == b"250 2.1.0 well\r\n"
            assert client.reply() == b"250 2.1.0 well\r\n"
            assert client.now() == b""
    assert server.clear[2:] == [b"EHLO client.example\r\n", b"RSET\r\n", MAIL + b"\r\n"]


def test_a_fresh_connection_that_fails_is_421(keys: Keys, stage: Stage) -> None:
    server = Server(None, starttls=b"502 5.5.1 not here\r\n")
    with stage.scene(server, {"required": False}) as scene:
        client, _ = hello(scene.port)
        with client:
            scene.server.listener.shutdown(socket.SHUT_RDWR)
            client.send(b"STARTTLS\r\n")
            assert client.reply()[:9] == b"454 4.7.0"
            assert client.reply()[:9] == b"421 4.4.1"
            assert client.rest() == b""


@pytest.mark.parametrize("banner", [b"421 4.3.2 busy\r\n", b"554 5.7.1 go away\r\n"])
def test_a_fresh_connection_that_is_turned_away_is_421(banner: bytes, keys: Keys, stage: Stage) -> None:
    server = Server(None, starttls=b"502 5.5.1 not here\r\n")
    with stage.scene(server, {"required": False}) as scene:
        client, _ = hello(scene.port)
        with client:
            server.banner = banner
            client.send(b"STARTTLS\r\n")
            assert client.reply()[:9] == b"454 4.7.0"
            assert client.reply()[:9] == b"421 4.4.2"
            assert client.rest() == b""


def test_without_required_a_client_that_never_asks_goes_in_clear(keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")), reply=GOOD)
    with stage.scene(server, {"required": False}) as scene:
        client, reply = hello(scene.port)
        with client:
            assert reply == GOOD
            assert client.say(MAIL)[:3] == b"250"
            assert client.say(b"QUIT") == b"221 bye\r\n"
            assert ending(client) == "fin"


def test_starttls_behind_an_unknown_command_is_the_peers_own_where_tls_is_not_required(
    keys: Keys, stage: Stage
) -> None:
    """The proxy has let go: it relays, and what the two negotiate then is between them, end to end."""
    server = Server(keys.server(make("good")))
    with stage.scene(server, {"required": False}) as scene:
        client, _ = hello(scene.port)
        with client:
            assert client.say(b"XYZZY") == b"250 2.1.0 well\r\n"
            assert client.say(b"STARTTLS") == b"220 2.0.0 go ahead\r\n"
            sock = secure(client, keys.client())
            assert sock.getpeercert(binary_form=True) == _der(make("good"))
            assert client.say(MAIL)[:3] == b"250"
        assert scene.wait_for("session-end")["tls"] == "none"


def test_starttls_behind_an_unknown_command_never_comes_to_be_where_tls_is_required(keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")))
    with stage.scene(server) as scene:
        client, _ = hello(scene.port)
        with client:
            assert client.say(b"XYZZY")[:9] == b"421 4.7.0"
            assert client.rest() == b""
    assert [line[:4] for line in server.clear] == [b"EHLO"]


def test_starttls_behind_an_unknown_command_inside_tls_is_the_servers_to_answer(keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")))
    with stage.scene(server) as scene, starttls(scene.port, keys.client()) as client:
        assert client.say(b"EHLO a")[:3] == b"250"
        assert client.say(b"XYZZY") == b"250 2.1.0 well\r\n"
        assert client.say(b"STARTTLS") == b"250 2.1.0 well\r\n"


@pytest.mark.parametrize("client_side", ["none", "implicit"])
def test_without_required_a_server_that_has_no_tls_is_served_in_clear(
    client_side: str, keys: Keys, stage: Stage
) -> None:
    for server in (
        Server(None, reply=b"250-mail.example\r\n250 HELP\r\n"),
        Server(None, starttls=b"454 4.7.0 no certificate\r\n"),
    ):
        tls = {"required": False, "client": client_side}
        with stage.scene(server, tls) as scene, connect(scene.port) as client:
            if client_side == "implicit":
                secure(client, keys.client())
            assert client.reply()[:4] == b"220 "
            assert b"STARTTLS" not in client.say(b"EHLO client.example")
            assert client.say(MAIL)[:3] == b"250"
            assert client.say(b"QUIT") == b"221 bye\r\n"


def test_with_required_a_server_that_offers_no_starttls_is_421_in_place_of_the_banner(keys: Keys, stage: Stage) -> None:
    for server, cause in (
        (Server(None, reply=b"250-mail.example\r\n250 HELP\r\n"), b"the server does not offer STARTTLS"),
        (Server(None, starttls=b"454 4.7.0 no certificate\r\n"), b"the server refused STARTTLS: 454 4.7.0 no cert"),
    ):
        with stage.scene(server, {"client": "none"}) as scene, connect(scene.port) as client:
            said = client.reply()
            assert said.startswith(b"421 4.7.0 " + scene.where)
            assert cause in said
            assert client.rest() == b""


def _der(issued: Issued) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return issued.certificate.public_bytes(Encoding.DER)
