"""Who gets a session, in whose name, and who can borrow the server's trust: nobody."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.lab import Lab, case, open_lab
from tests.loopback import wait_until
from tests.proxy_process import Event, allowed, running_proxy
from tests.proxy_process import route as a_route
from tests.scripted import (
    BANNER,
    BROKEN,
    Mailbox,
    Peer,
    Script,
    ScriptedServer,
    begin_message,
    connect,
    greet,
    nameless,
    send_mail,
    together,
)

FIXED = b"250-mail.example\r\n250-STARTTLS\r\n250-SIZE 10240000\r\n250 HELP\r\n"
TRUSTS = b"250-mail.example\r\n250-XCLIENT NAME ADDR PORT\r\n250 HELP\r\n"
FORWARDS = b"250-mail.example\r\n250-XFORWARD NAME ADDR\r\n250 HELP\r\n"
HIDDEN = b"250 mail.example\r\n250 SIZE 1\r\n250 XCLIENT ADDR\r\n"  # every line a final one
NOT_AVAILABLE = b"421 4.7.1 not available to this client\r\n"
LOCAL = ["127.0.0.1/32"]


def talks_to(reply: bytes) -> Mailbox:
    return Mailbox(reply, answers={b"XCLI": b"220 mail.example ESMTP again\r\n"})


PLAIN = talks_to(BROKEN)
CASES = {
    "two": case(PLAIN, allow_clients=["127.0.0.2/32", "127.0.1.0/24"]),
    "share": case(PLAIN, allow_clients=["127.0.0.0/8"], max_sessions=4, max_sessions_per_client=2),
    "six": case(PLAIN, listen=["[::1]:0"], allow_clients=["::1/128"]),
    "header": case(
        PLAIN,
        proxy_protocol=True,
        trusted_proxies=LOCAL,
        allow_clients=["192.0.2.0/24", "127.0.0.0/8", "2001:db8::/32"],
    ),
    "header-share": case(
        PLAIN, proxy_protocol=True, trusted_proxies=LOCAL, allow_clients=["0.0.0.0/0"], max_sessions_per_client=1
    ),
}


BEHIND = {"proxy_protocol": True, "trusted_proxies": LOCAL, "allow_clients": ["192.0.2.0/24"]}
# Routes to servers of which nothing is known yet: so many of each kind, each used once.
POOLS: dict[str, tuple[int, dict[str, object]]] = {
    "repair": (24, {}),
    "observe": (4, {"repair": {"mode": "observe"}}),
    "off": (11, {"repair": {"mode": "off"}}),
    "xclient": (5, {"xclient": True}),
    "trusted": (1, {"trusted_proxies": LOCAL}),
    "behind": (1, BEHIND),
    "v1": (1, {"send_proxy_protocol": 1}),
    "v2": (1, {"send_proxy_protocol": 2}),
    "v1 behind": (1, {"send_proxy_protocol": 1, **BEHIND}),
    "v2 behind": (1, {"send_proxy_protocol": 2, **BEHIND}),
}


def peace(peer: Peer) -> None:
    raise AssertionError("no script was set")


def named(pool: str, number: int) -> str:
    return f"{pool.replace(' ', '-')}-{number}"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    fresh = {named(pool, i): case(peace, **keys) for pool, (count, keys) in POOLS.items() for i in range(count)}
    with open_lab({**CASES, **fresh}) as lab:
        yield lab


_used: dict[str, int] = {}


class Fresh:
    """A route whose server nobody has met yet, and that server with this script."""

    def __init__(self, lab: Lab, pool: str, script: Script) -> None:
        number = _used.get(pool, 0)
        assert number < POOLS[pool][0], f"the pool {pool} is too small"
        _used[pool] = number + 1
        self.name = named(pool, number)
        self.lab = lab
        self.server = lab.server(self.name)
        self.server.script = script

    def connect(self) -> Peer:
        return self.lab.connect(self.name)

    def events(self, event: str) -> list[Event]:
        return self.lab.running.of(event, route=self.name)


# -- addresses -------------------------------------------------------------------------------------------------------


def test_only_networks_that_are_allowed_get_a_session(lab: Lab) -> None:
    for source, served in (("127.0.0.1", False), ("127.0.0.2", True), ("127.0.0.3", False), ("127.0.1.9", True)):
        with lab.connect("two", source=source) as client:
            said = client.reply()
            assert nameless(said) == (BANNER if served else f"421 4.7.1 {source} may not use this service\r\n".encode())


def test_ipv6_listener_is_ipv6_only_and_names_its_clients(lab: Lab) -> None:
    with lab.connect("six", host="::1") as client:
        assert send_mail(client) == b"250 2.0.0 taken\r\n"
    assert lab.end("six")["client"] == "::1"
    with pytest.raises(ConnectionRefusedError):
        connect(lab.port("six"))


def test_limits_are_counted_for_each_client_and_for_the_route_and_given_back(lab: Lab) -> None:
    for _ in range(3):
        held = [lab.connect("share", source=source) for source in ("127.0.0.1", "127.0.0.1", "127.0.0.2")]
        for client in held:
            assert client.reply() == BANNER
        with lab.connect("share", source="127.0.0.1") as client:
            assert nameless(client.rest()) == b"421 4.7.0 ehlo-proxy route share: too many sessions from 127.0.0.1\r\n"
        held.append(lab.connect("share", source="127.0.0.3"))
        assert held[-1].reply() == BANNER
        with lab.connect("share", source="127.0.0.4") as client:
            assert nameless(client.rest()) == b"421 4.3.2 ehlo-proxy route share: too many sessions, try again\r\n"
        # However they end, the places are free again.
        held[0].say(b"QUIT")
        held[0].close()
        held[1].reset()
        for client in held[2:]:
            client.close()
        wait_until(lambda: free(lab), 5, "the places are free again")


def free(lab: Lab) -> bool:
    ended = len([one for one in lab.running.of("session-end", route="share") if one["outcome"] != "refused"])
    return ended == len(lab.running.of("session-start", route="share"))


def test_refused_client_that_speaks_first_still_reads_why(lab: Lab) -> None:
    # Closing with its words unread would be a reset, and destroy the line.
    def once() -> bytes:
        with lab.connect("two", source="127.0.0.3") as client:
            client.send(b"EHLO a\r\n" * 50)
            time.sleep(0.02)
            said = client.rest()
            assert client.ended == "fin"
            return said

    assert set(map(nameless, together([once] * 50, 8))) == {b"421 4.7.1 127.0.0.3 may not use this service\r\n"}


# -- PROXY headers ---------------------------------------------------------------------------------------------------

V2_192_0_2_7 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\x9c\x40\0\x19"
HEADERS = {
    "v1": (b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 25\r\n", "192.0.2.7"),
    "v1 IPv6": (b"PROXY TCP6 2001:db8::7 ::1 40000 25\r\n", "2001:db8::7"),
    "v2": (V2_192_0_2_7, "192.0.2.7"),
    "v2 with TLVs": (V2_192_0_2_7[:14] + b"\0\x13" + V2_192_0_2_7[16:] + b"\x04\0\x04test", "192.0.2.7"),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v2 local": (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "127.0.0.1"),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("behind", [b"", b"EHLO early\r\n"], ids=["alone", "with a command behind it"])
def test_address_in_the_header_is_the_clients(lab: Lab, name: str, behind: bytes) -> None:
    header, address = HEADERS[name]
    before = len(lab.running.of("session-end", route="header", client=address, outcome="completed"))
    with lab.connect("header") as client:
        client.send(header + behind)
        assert client.reply() == BANNER
        assert (client.reply() if behind else client.say(b"EHLO late")) == FIXED
        begin_message(client)
        client.send(b"hi\r\n.\r\n")
        assert client.reply()[:3] == b"250"
        assert client.say(b"QUIT") == b"221 bye\r\n"
    lab.running.wait_for("session-end", route="header", client=address, outcome="completed", count=before + 1)


def test_end_that_comes_with_the_header_is_seen(lab: Lab) -> None:
    with lab.connect("header") as client:
        client.send(HEADERS["v1"][0] + b"QUIT\r\n")
        client.finish()
        assert client.reply() == BANNER
        assert client.rest(3) == b"221 bye\r\n"


def test_allow_clients_and_limits_go_by_the_header(lab: Lab) -> None:
    with lab.connect("header") as client:
        client.send(b"PROXY TCP4 198.51.100.7 127.0.0.1 40000 25\r\n")
        assert nameless(client.rest()) == b"421 4.7.1 198.51.100.7 may not use this service\r\n"
    with lab.connect("header-share") as first, lab.connect("header-share") as second:
        first.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 25\r\n")
        assert first.reply() == BANNER
        second.send(b"PROXY TCP4 192.0.2.8 127.0.0.1 40000 25\r\n")
        assert second.reply() == BANNER
        with lab.connect("header-share") as third:
            third.send(b"PROXY TCP4 192.0.2.7 127.0.0.1 40001 25\r\n")
            assert (
                nameless(third.rest())
                == b"421 4.7.0 ehlo-proxy route header-share: too many sessions from 192.0.2.7\r\n"
            )


def test_header_of_who_is_not_trusted_is_a_command_like_any_other(lab: Lab) -> None:
    with lab.connect("header", source="127.0.0.2") as client:
        assert client.reply() == BANNER
        assert client.say(b"EHLO a") == FIXED
        assert client.say(b"PROXY TCP4 192.0.2.7 127.0.0.1 40000 25") == b"250 2.1.0 well\r\n"
    assert lab.end("header", client="127.0.0.2")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("behind", ["", " behind"], ids=["direct", "behind a proxy"])
def test_header_is_sent_to_the_server_before_anything_else(lab: Lab, version: int, behind: str) -> None:
    got: list[bytes] = []

    def script(peer: Peer) -> None:
        got.append(peer.line() if version == 1 else peer.take(28))
        peer.send(BANNER)
        got.append(peer.line())
        peer.send(BROKEN)
        peer.rest()

    fresh = Fresh(lab, f"v{version}{behind}", script)
    with fresh.connect() as client:
        if behind:
            client.send(HEADERS["v2"][0])
        client.send(b"EHLO a\r\n")
        assert client.reply() == BANNER
        assert client.reply() == FIXED
        address, port = ("192.0.2.7", 40000) if behind else client.sock.getsockname()
    ours = lab.port(fresh.name)
    if version == 1:
        assert got[0] == f"PROXY TCP4 {address} 127.0.0.1 {port} {ours}\r\n".encode()
    else:
        assert got[0][:16] == b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
        assert got[0][16:24] == socket.inet_aton(address) + socket.inet_aton("127.0.0.1")
        assert got[0][24:28] == port.to_bytes(2, "big") + ours.to_bytes(2, "big")
    assert got[1] == b"EHLO a\r\n"


# -- XCLIENT ---------------------------------------------------------------------------------------------------------

MODES = ["repair", "observe", "off"]
OFFERS = [TRUSTS, FORWARDS, TRUSTS.replace(b"XCLIENT", b"xclient"), HIDDEN]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reply", OFFERS, ids=["XCLIENT", "XFORWARD", "small", "every line final"])
def test_stranger_to_whom_xclient_is_offered_gets_471_and_the_log_says_the_remedy(
    lab: Lab, mode: str, reply: bytes
) -> None:
    talks = talks_to(reply)
    fresh = Fresh(lab, mode, talks)
    for _ in range(3):
        with fresh.connect() as client:
            assert nameless(greet(client)) == NOT_AVAILABLE
            assert client.rest() == b""
    lab.running.wait_for("session-end", outcome="refused", route=fresh.name, count=3)
    remedies = fresh.events("xclient-offered")
    assert len(remedies) == 1  # once a minute
    assert "xclient = true" in remedies[0]["remedy"]
    fresh.server.settle()
    assert talks.heard == [b"EHLO client.example\r\n"] * 3


FIRST = [
    b"HELO a\r\nMAIL FROM:<>\r\n",
    b"XCLIENT ADDR=127.0.0.1\r\n",
    b"XFORWARD ADDR=127.0.0.1\r\n",
    b"FOO\r\n",
    b"MAIL FROM:<>\r\n",
    b"AUTH PLAIN\r\n",
    b"\0\r\n",
]


@pytest.mark.parametrize("first", FIRST, ids=repr)
@pytest.mark.parametrize("mode", ["repair", "off"])
def test_stranger_who_never_says_ehlo_is_not_let_go_where_xclient_is_offered(lab: Lab, first: bytes, mode: str) -> None:
    talks = talks_to(TRUSTS)
    fresh = Fresh(lab, mode, talks)
    with fresh.connect() as client:
        assert client.reply() == BANNER
        client.send(first + b"XCLIENT ADDR=127.0.0.1\r\n")
        assert nameless(client.rest(5)).endswith(NOT_AVAILABLE)
    fresh.server.settle()
    heard = b"".join(talks.heard)
    assert b"XCLIENT" not in heard
    assert b"XFORWARD" not in heard
    assert b"MAIL" not in heard


def test_offer_that_stands_behind_a_final_line_is_found_by_the_question_too(lab: Lab) -> None:
    with Fresh(lab, "repair", talks_to(HIDDEN)).connect() as client:
        client.send(b"HELO a\r\nMAIL FROM:<>\r\nXCLIENT ADDR=127.0.0.1\r\n")
        assert nameless(client.rest(5)).endswith(NOT_AVAILABLE)


def test_stranger_who_never_says_ehlo_is_served_where_it_is_not_offered_and_the_answer_is_remembered(lab: Lab) -> None:
    talks = talks_to(BROKEN)
    fresh = Fresh(lab, "repair", talks)
    for number in range(3):
        with fresh.connect() as client:
            assert client.reply() == BANNER
            assert client.say(b"HELO a") == b"250 2.1.0 well\r\n"
            began = time.monotonic()
            begin_message(client)
            assert time.monotonic() - began < allowed(1.5 if number == 0 else 0.3)
            client.send(b"hi\r\n.\r\n")
            assert client.reply() == b"250 2.0.0 taken\r\n"
            assert client.say(b"QUIT") == b"221 bye\r\n"
    fresh.server.settle()
    assert fresh.server.connections == 3  # it is asked on the first session's own
    assert b"".join(talks.heard).count(b"EHLO ") == 1


def test_many_at_once_ask_each_on_its_own_connection(lab: Lab) -> None:
    talks = talks_to(BROKEN)
    fresh = Fresh(lab, "repair", talks)

    def once() -> bytes:
        with fresh.connect() as client:
            client.send(b"HELO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@x>\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n")
            return client.rest()

    said = together([once] * 20, 20)
    assert {one.count(b"250 2.0.0 taken\r\n") for one in said} == {1}
    fresh.server.settle()
    assert fresh.server.connections == 20


def test_xclient_behind_mail_and_rset_reaches_no_server_that_would_take_it(lab: Lab) -> None:
    talks = talks_to(TRUSTS)
    fresh = Fresh(lab, "repair", talks)
    with fresh.connect() as client:
        client.send(b"EHLO a\r\nMAIL FROM:<>\r\nRSET\r\nXCLIENT ADDR=127.0.0.1\r\n")
        assert nameless(client.rest()) == BANNER + NOT_AVAILABLE
    fresh.server.settle()
    assert talks.heard == [b"EHLO a\r\n"]


@pytest.mark.parametrize("why", ["closes", "refuses and closes", "takes no second HELO"])
def test_server_that_the_question_breaks_serves_the_client_over_another_connection_without_it(
    lab: Lab, why: str
) -> None:
    heard: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.send(BANNER)
        greeted = False
        while line := peer.line():
            heard.append(line)
            if line[:4] == b"EHLO" and why != "takes no second HELO":
                peer.send(b"450 4.3.2 not now\r\n" if why != "closes" else b"")
                return
            peer.send(b"503 5.5.1 twice\r\n" if line[:4] == b"HELO" and greeted else b"250 ok\r\n")
            greeted = True

    fresh = Fresh(lab, "repair", script)
    for number in range(2):
        with fresh.connect() as client:
            assert client.reply() == BANNER
            assert client.say(b"HELO a") == b"250 ok\r\n"
            assert client.say(b"MAIL FROM:<>") == b"250 ok\r\n"
        assert sum(line[:4] == b"EHLO" for line in heard) == 1, f"session {number}"
    fresh.server.settle()
    assert fresh.server.connections == 3


def test_question_that_is_answered_without_an_end_ends_the_session_for_now(lab: Lab) -> None:
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.send(b"nonsense\r\n" * 20000 if peer.line()[:4] == b"EHLO" else b"250 ok\r\n")
        peer.rest()

    fresh = Fresh(lab, "repair", script)
    with fresh.connect() as client:
        assert client.reply() == BANNER
        client.send(b"MAIL FROM:<>\r\n")
        assert client.rest(5).startswith(f"421 4.4.2 ehlo-proxy route {fresh.name}: ".encode())


def test_server_without_ehlo_serves_clients_without_ehlo(lab: Lab) -> None:
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        while True:
            peer.send(b"502 5.5.1 what\r\n" if peer.line()[:4] == b"EHLO" else b"250 ok\r\n")

    with Fresh(lab, "repair", script).connect() as client:
        assert client.reply() == BANNER
        assert client.say(b"HELO a") == b"250 ok\r\n"
        assert client.say(b"MAIL FROM:<>") == b"250 ok\r\n"


def test_trusted_client_may_use_xclient(lab: Lab) -> None:
    with Fresh(lab, "trusted", talks_to(TRUSTS)).connect() as client:
        assert greet(client) == TRUSTS
        assert client.say(b"XCLIENT ADDR=192.0.2.1") == b"220 mail.example ESMTP again\r\n"
        assert client.say(b"EHLO again") == TRUSTS
        begin_message(client)


def test_client_behind_a_trusted_proxy_is_no_trusted_client_itself(lab: Lab) -> None:
    # trusted_proxies says whose headers are believed; the clients that they name are strangers.
    with Fresh(lab, "behind", talks_to(TRUSTS)).connect() as client:
        client.send(HEADERS["v1"][0])
        assert nameless(greet(client)) == NOT_AVAILABLE


def test_xclient_true_sends_the_clients_own_address_first_and_shows_the_last_reply_only(lab: Lab) -> None:
    talks = talks_to(TRUSTS)
    fresh = Fresh(lab, "xclient", talks)
    with fresh.connect() as client:
        assert greet(client, b"first.example") == TRUSTS
        begin_message(client)
        client.send(b"hi\r\n.\r\n")
        assert client.reply()[:3] == b"250"
        client.say(b"QUIT")
    fresh.server.settle()
    lines = talks.heard[0].split(b"\r\n")
    assert lines[0] == b"EHLO first.example"
    assert lines[1].startswith(b"XCLIENT ")
    assert b"ADDR=127.0.0.1" in lines[1]
    assert lines[2] == b"EHLO first.example"
    assert lines[3] == b"MAIL FROM:<a@example.org>"
    assert fresh.events("xclient-offered") == []


def test_xclient_true_without_an_offer_changes_nothing(lab: Lab) -> None:
    talks = talks_to(BROKEN)
    fresh = Fresh(lab, "xclient", talks)
    with fresh.connect() as client:
        assert send_mail(client) == b"250 2.0.0 taken\r\n"
    fresh.server.settle()
    assert b"XCLIENT" not in talks.heard[0]


@pytest.mark.parametrize("refusal", [b"550 5.7.0 no\r\n", b"421 4.3.0 no\r\n", b"250 ok\r\n"])
def test_xclient_that_is_refused_lets_nobody_through_in_the_proxys_name(lab: Lab, refusal: bytes) -> None:
    heard: list[bytes] = []

    def script(peer: Peer) -> None:
        peer.send(BANNER)
        while True:
            line = peer.line()
            heard.append(line)
            peer.send(refusal if line[:7] == b"XCLIENT" else TRUSTS)

    fresh = Fresh(lab, "xclient", script)
    with fresh.connect() as client:
        client.send(b"EHLO a\r\nMAIL FROM:<>\r\n")
        said = client.rest(5)
        assert said.startswith(BANNER + b"421 4.")
        assert said.count(b"\r\n") == 2
    fresh.server.settle()
    assert [line[:4] for line in heard] == [b"EHLO", b"XCLI"]


# -- two routes are two doors ----------------------------------------------------------------------------------------


def test_routes_do_not_share_limits() -> None:
    with ScriptedServer(Mailbox()) as server:
        routes = [a_route(server.port, name=name, max_sessions=1) for name in ("one", "two")]
        with (
            running_proxy({"route": routes}) as running,
            connect(running.port_of("one")) as first,
            connect(running.port_of("two")) as second,
        ):
            assert first.reply() == BANNER
            assert second.reply() == BANNER


def test_strangers_never_use_up_the_descriptors_of_clients_that_are_allowed() -> None:
    """200 connections from outside, none of which reads or closes, with 256 descriptors: they held all of them."""
    with ScriptedServer(Mailbox()) as server:
        config = {"route": [a_route(server.port, name="door", allow_clients=["127.0.0.2/32"])]}
        with running_proxy(config, descriptors=256) as running:
            port = running.port_of("door")
            strangers = [connect(port, source="127.0.0.3") for _ in range(200)]
            try:
                for _ in range(20):
                    began = time.monotonic()
                    with connect(port, source="127.0.0.2") as client:
                        assert send_mail(client)[:3] == b"250"
                    assert time.monotonic() - began < 1
            finally:
                for stranger in strangers:
                    stranger.close()
