"""Every pair of sides: `client` and `server` each starttls, implicit or none, when all goes well and when not."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.bridge.parties import INSIDE, MESSAGE, Keys, Server, Stage, ending, hello, secure
from tests.certificates import NAME, make
from tests.loopback import free_port
from tests.scripted import begin_message, connect, nameless

SIDES = ("starttls", "implicit", "none")
PAIRS = list(itertools.product(SIDES, SIDES))
IDS = [f"client-{client}-server-{server}" for client, server in PAIRS]
LIST_IN_CLEAR = b"250-mail.example\r\n250-SIZE 10240000\r\n250 HELP\r\n"  # BROKEN and INSIDE, repaired, no STARTTLS
LIST_INSIDE = b"250-mail.example\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n"


@pytest.mark.parametrize("required", [True, False], ids=["required", "not-required"])
@pytest.mark.parametrize(("client_side", "server_side"), PAIRS, ids=IDS)
def test_a_mail_goes_through_and_starttls_is_shown_where_it_is_the_proxys(
    client_side: str, server_side: str, required: bool, keys: Keys, stage: Stage
) -> None:
    server = Server(None if server_side == "none" else keys.server(make("good")), implicit=server_side == "implicit")
    tls = {"client": client_side, "server": server_side, "required": required}
    with stage.scene(server, tls) as scene, connect(scene.port) as client:
        if client_side == "implicit":
            secure(client, keys.client())
        assert client.reply() == b"220 mail.example ESMTP ready\r\n"
        shown = client.say(b"EHLO client.example")
        final = LIST_IN_CLEAR if server_side == "none" else LIST_INSIDE
        if client_side == "starttls":
            in_clear = LIST_INSIDE if server_side == "implicit" else LIST_IN_CLEAR
            # The first keyword where the proxy shows it by itself; the server's own is the first here, too.
            assert shown == in_clear.replace(b"250-mail.example\r\n", b"250-mail.example\r\n250-STARTTLS\r\n")
            assert client.say(b"STARTTLS") == b"220 2.0.0 Ready to start TLS\r\n"
            secure(client, keys.client())
            shown = client.say(b"EHLO client.example")
        assert shown == final
        begin_message(client)
        client.send(MESSAGE + b".\r\n")
        assert client.reply() == b"250 2.0.0 taken\r\n"
        assert client.say(b"QUIT") == b"221 bye\r\n"
        assert ending(client) == ("fin" if client_side == "none" else "close_notify")
        client.close()
        end = scene.wait_for("session-end")
        assert end["outcome"] == "completed"
        assert end["tls"] == ("none" if (client_side, server_side) == ("none", "none") else "bridge")
    assert server.mails == [MESSAGE + b".\r\n"]
    assert bool(server.inside) is (server_side != "none")
    if server_side != "none":
        assert not any(line[:4] in (b"MAIL", b"RCPT", b"DATA") for line in server.clear)


@pytest.mark.parametrize("required", [True, False], ids=["required", "not-required"])
@pytest.mark.parametrize("kind", ["wrong-name", "expired"])
@pytest.mark.parametrize(
    ("client_side", "server_side"),
    [pair for pair in PAIRS if pair[1] != "none"],
    ids=[i for i in IDS if i[-4:] != "none"],
)
def test_a_wrong_server_is_told_where_the_client_can_be_told(
    client_side: str, server_side: str, kind: str, required: bool, keys: Keys, stage: Stage
) -> None:
    words = {
        "wrong-name": b"certificate is for mx.other.example, not mail.domain1.com",
        "expired": b"certificate expired on 2024-01-01",
    }[kind]
    server = Server(keys.server(make(kind)), implicit=server_side == "implicit")
    tls = {"client": client_side, "server": server_side, "required": required}
    with stage.scene(server, tls) as scene, connect(scene.port) as client:
        if client_side == "implicit":
            secure(client, keys.client())
        if (client_side, server_side) == ("starttls", "starttls"):
            assert client.reply()[:4] == b"220 "
            client.say(b"EHLO client.example")
            assert nameless(client.say(b"STARTTLS")) == b"454 4.7.0 TLS not available, " + scene.where + words + b"\r\n"
            assert nameless(client.say(b"MAIL FROM:<a@example.org>")) == b"421 4.7.0 " + scene.where + words + b"\r\n"
        else:
            assert nameless(client.reply()) == b"421 4.7.0 " + scene.where + words + b"\r\n"
        assert ending(client) == ("close_notify" if client_side == "implicit" else "fin")
        end = scene.wait_for("session-end")
        assert end["outcome"] == "tls-failed"
        assert words.decode() in end["reason"]
    assert server.inside == []


@pytest.mark.parametrize("client_side", SIDES)
def test_an_unreachable_server_is_told_inside_the_clients_tls_where_that_is_implicit(
    client_side: str, keys: Keys, stage: Stage
) -> None:
    for wait in (0.0, 0.15):  # also when the refusal is there before the client has begun its handshake
        with stage.scene(Server(None), {"client": client_side}, max_sessions=5) as scene:
            scene.server.stop()
            with connect(scene.port) as client:
                time.sleep(wait)
                if client_side == "implicit":
                    secure(client, keys.client())
                assert client.reply().startswith(b"421 4.4.1 ehlo-proxy route " + scene.name.encode())
                assert ending(client) == ("close_notify" if client_side == "implicit" else "fin")


def test_the_proxys_own_starttls_is_in_clear_only_and_what_the_server_said_of_it_does_not_count(
    keys: Keys, stage: Stage
) -> None:
    """server = implicit, whose EHLO reply wrongly has STARTTLS in it: shown once, first, and inside not at all."""
    server = Server(keys.server(make("good")), implicit=True)
    assert INSIDE.count(b"STARTTLS") == 1
    with stage.scene(server, {"server": "implicit"}) as scene:
        client, reply = hello(scene.port)
        with client:
            assert reply == b"250-mail.example\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n"
            assert client.say(b"STARTTLS")[:4] == b"220 "
            secure(client, keys.client())
            assert b"STARTTLS" not in client.say(b"EHLO client.example")


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_the_proxys_own_starttls_is_shown_in_every_mode(mode: str, keys: Keys, stage: Stage) -> None:
    server = Server(None, reply=b"250-mail.example\r\n250 HELP\r\n")
    with stage.scene(server, {"server": "none"}, repair={"mode": mode}) as scene:
        client, reply = hello(scene.port)
        with client:
            assert reply == b"250-mail.example\r\n250-STARTTLS\r\n250 HELP\r\n"


@pytest.mark.parametrize("client_side", ["implicit", "none"])
@pytest.mark.parametrize("mode", ["repair", "observe", "off"])
def test_a_client_that_could_not_use_starttls_is_not_offered_it(
    mode: str, client_side: str, keys: Keys, stage: Stage
) -> None:
    for server_side in SIDES:
        script = Server(
            None if server_side == "none" else keys.server(make("good")),
            implicit=server_side == "implicit",
            reply=b"250-mail.example\r\n250-STARTTLS\r\n250 HELP\r\n",
        )
        tls = {"client": client_side, "server": server_side}
        with stage.scene(script, tls, repair={"mode": mode}) as scene:
            client, reply = hello(scene.port, keys.client() if client_side == "implicit" else None)
            with client:
                assert b"STARTTLS" not in reply


@pytest.mark.parametrize("server_side", SIDES)
def test_a_client_that_asks_all_the_same_gets_the_servers_own_answer(
    server_side: str, keys: Keys, stage: Stage
) -> None:
    """client = none: what the two peers negotiate inside is theirs, as in pass-through."""
    server = Server(None if server_side == "none" else keys.server(make("good")), implicit=server_side == "implicit")
    server.starttls = b"502 5.5.1 not here\r\n" if server_side == "none" else server.starttls
    with stage.scene(server, {"client": "none", "server": server_side}) as scene:
        client, _ = hello(scene.port)
        with client:
            said = client.say(b"STARTTLS")
            assert said == (b"502 5.5.1 not here\r\n" if server_side == "none" else b"250 2.1.0 well\r\n")
            assert client.say(b"NOOP")[:3] == b"250"


@pytest.mark.parametrize("client_side", ["implicit", "none"])
def test_a_client_that_speaks_first_waits_until_the_servers_side_is_ready(
    client_side: str, keys: Keys, stage: Stage
) -> None:
    server = Server(keys.server(make("good")), delay=0.1)
    with stage.scene(server, {"client": client_side}) as scene, connect(scene.port) as client:
        if client_side == "implicit":
            secure(client, keys.client())
        client.send(b"EHLO client.example\r\nNOOP\r\n")
        assert client.reply() == b"220 mail.example ESMTP ready\r\n"
        assert client.reply() == LIST_INSIDE
        assert client.reply() == b"250 2.1.0 well\r\n"
    assert server.clear[0].startswith(b"EHLO ")
    assert server.inside[:2] == [b"EHLO client.example\r\n", b"NOOP\r\n"]


def test_the_proxys_own_ehlo_says_the_configured_name(keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")))
    with stage.scene(server, {"client": "none"}, ehlo_name="proxy.example") as scene:
        client, _ = hello(scene.port)
        client.close()
    assert server.clear == [b"EHLO proxy.example\r\n", b"STARTTLS\r\n"]


def test_the_next_destination_is_tried_when_an_implicit_server_is_not_the_one(keys: Keys, stage: Stage) -> None:
    good = Server(keys.server(make("good")), implicit=True)
    bad = Server(keys.server(make("expired")), implicit=True)
    with stage.scene(good, {"server": "implicit"}) as first:
        destination = f"127.0.0.1:{first.server.port}"
        with stage.scene(bad, {"server": "implicit"}, more_destinations=[destination]) as scene:
            client, reply = hello(scene.port)
            with client:
                assert b"STARTTLS" in reply
                assert client.say(b"NOOP")[:3] == b"250"
    assert bad.inside == []
    assert good.inside[0] == b"EHLO client.example\r\n"


def test_a_client_without_ehlo_is_served_by_an_implicit_server(keys: Keys, stage: Stage) -> None:
    """Whether XCLIENT is offered has to be asked then, and inside TLS."""
    server = Server(keys.server(make("good")), implicit=True)
    with stage.scene(server, {"client": "none", "server": "implicit"}) as scene, connect(scene.port) as client:
        assert client.reply()[:4] == b"220 "
        assert client.say(b"HELO client.example")[:3] == b"250"
        begin_message(client)
        assert scene.server.connections == 1


def test_a_server_that_offers_xclient_inside_tls_is_found_out_by_the_question(keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("good")), implicit=True, inside=b"250-mail.example\r\n250 XCLIENT ADDR\r\n")
    with stage.scene(server, {"client": "none", "server": "implicit"}) as scene, connect(scene.port) as client:
        assert client.reply()[:4] == b"220 "
        assert client.say(b"HELO client.example")[:3] == b"250"
        assert client.say(b"MAIL FROM:<a@example.org>")[:9] == b"421 4.7.1"


def test_the_name_of_the_server_is_sent_as_sni_and_an_address_never(keys: Keys, stage: Stage) -> None:
    for tls, sni in (({"verify_name": NAME}, NAME), ({"verify": "none"}, None)):
        server = Server(keys.server(make("good")))
        with stage.scene(server, {"client": "none", **tls}) as scene:
            client, _ = hello(scene.port)
            client.close()
        assert server.sni == [sni]


def test_nothing_listens_is_421_for_every_pair(keys: Keys, stage: Stage) -> None:
    with stage.scene(Server(None), more_destinations=[f"127.0.0.1:{free_port()}"]) as scene:
        scene.server.stop()
        with connect(scene.port) as client:
            assert client.reply()[:9] == b"421 4.4.1"
