"""What the client is told when something goes wrong: every row of the table, on sockets, to the byte.

421 is for what the proxy says by itself, with the route, the destination and the cause in it; 4.7.1 goes to strangers
and names neither route nor destination.  What the server said passes unchanged.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.lab import Lab, case, open_lab
from tests.loopback import free_port, wait_until
from tests.proxy_process import allowed, proxy, route, running_proxy
from tests.scripted import (
    BANNER,
    BROKEN,
    GOOD,
    Mailbox,
    Peer,
    Script,
    ScriptedServer,
    connect,
    greet,
    nameless,
    send_mail,
)

FIXED = b"250-mail.example\r\n250-STARTTLS\r\n250-SIZE 10240000\r\n250 HELP\r\n"


def silent(peer: Peer) -> None:
    peer.rest(30)


def says(*pieces: bytes, then: str = "finish") -> Script:
    """A server that says the banner and these replies to the commands that come, and ends."""

    def script(peer: Peer) -> None:
        peer.send(pieces[0])
        for piece in pieces[1:]:
            peer.line()
            peer.send(piece)
        if then == "reset":
            peer.line()
            peer.reset()
        elif then == "wait":
            peer.rest(30)

    return script


def dies_behind_hello(how: str) -> Script:
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(BROKEN)
        peer.line()
        if how == "reset":
            peer.reset()

    return script


def dies_in_a_line(peer: Peer) -> None:
    peer.send(BANNER)
    peer.line()
    peer.send(BROKEN)
    assert peer.line() == b"NOOP\r\n"
    peer.send(b"250 half a li")


def until_data(peer: Peer) -> None:
    peer.send(BANNER)
    peer.line()
    peer.send(BROKEN)
    for _ in range(2):
        peer.line()
        peer.send(b"250 2.1.0 well\r\n")
    peer.until(b"DATA\r\n")


def dies_after_letting_go(how: str) -> Script:
    def script(peer: Peer) -> None:
        until_data(peer)
        peer.send(b"354 go")
        time.sleep(0.1)
        if how == "reset":
            peer.reset()

    return script


def keeps_what_comes(seen: dict[str, object]) -> Script:
    def script(peer: Peer) -> None:
        until_data(peer)
        peer.send(b"354 go on\r\n")
        seen["got"] = peer.rest()
        seen["ended"] = peer.ended

    return script


SEEN: dict[str, dict[str, object]] = {"fin": {}, "reset": {}}
SHORT = {"banner": 0.4, "command": 0.4, "connect": "2s", "resolve": "1s", "abort": "1s"}
TAKES = Mailbox()

CASES = {
    "stranger": case(silent, allow_clients=["192.0.2.0/24"]),
    "full": case(TAKES, max_sessions=1),
    "share": case(TAKES, max_sessions_per_client=1),
    "late-banner": case(silent, timeouts=SHORT),
    "late-in-banner": case(says(b"220-not yet\r\n", then="wait"), timeouts=SHORT),
    "late-command": case(TAKES, timeouts=SHORT),
    "late-reply": case(says(BANNER, BROKEN, then="wait"), timeouts=SHORT),
    "late-ehlo": case(says(BANNER, b"250-mail.exam", then="wait"), timeouts=SHORT),
    "busy": case(says(b"421 4.3.2 try later\r\n")),
    "refuses": case(says(b"554 5.7.1 go away\r\n", b"503 5.5.1 no\r\n", then="wait")),
    "refuses-ehlo": case(says(BANNER, b"550 5.7.1 no\r\n", then="wait")),
    "busy-next": case(says(b"450 4.3.2 later\r\n"), TAKES),
    "gone-next": case(says(b""), TAKES),
    "silent-next": case(silent, TAKES, timeouts=SHORT),
    "both-busy": case(says(b"450 4.3.2 later\r\n"), says(b"451 4.3.0 last\r\n")),
    "lost": case(dies_behind_hello("fin")),
    "lost-reset": case(dies_behind_hello("reset")),
    "lost-before-banner": case(says(b"")),
    "said-421": case(says(BANNER, BROKEN, b"421 4.3.0 shutting down\r\n")),
    "said-221": case(says(BANNER, BROKEN, b"221 2.0.0 bye\r\n")),
    "in-a-line": case(dies_in_a_line),
    "let-go": case(dies_after_letting_go("fin")),
    "let-go-reset": case(dies_after_letting_go("reset")),
    "client-fin": case(keeps_what_comes(SEEN["fin"])),
    "client-reset": case(keeps_what_comes(SEEN["reset"])),
    "header": case(TAKES, proxy_protocol=True, trusted_proxies=["127.0.0.1/32"]),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab(CASES) as lab:
        yield lab
        for name in CASES:
            ends = lab.running.of("session-end", route=name)
            assert len({end["session"] for end in ends}) == len(ends)


def test_client_that_is_not_allowed_gets_471_without_any_name_and_no_server_is_connected(lab: Lab) -> None:
    with lab.connect("stranger") as client:
        assert nameless(client.rest()) == b"421 4.7.1 127.0.0.1 may not use this service\r\n"
        assert client.ended == "fin"
    end = lab.end("stranger", outcome="refused", by="proxy")
    assert "destination" not in end
    assert lab.server("stranger").connections == 0


def test_full_route_says_432_and_serves_again_when_a_session_has_ended(lab: Lab) -> None:
    with lab.connect("full") as first:
        assert first.reply() == BANNER
        with lab.connect("full") as second:
            assert nameless(second.rest()) == b"421 4.3.2 ehlo-proxy route full: too many sessions, try again\r\n"
        assert first.say(b"QUIT") == b"221 bye\r\n"
        assert first.rest() == b""
    lab.end("full", outcome="completed")
    with lab.connect("full") as third:
        assert third.reply() == BANNER


def test_client_with_its_share_says_470(lab: Lab) -> None:
    with lab.connect("share") as first:
        assert first.reply() == BANNER
        with lab.connect("share") as second:
            assert nameless(second.rest()) == b"421 4.7.0 ehlo-proxy route share: too many sessions from 127.0.0.1\r\n"


def test_draining_says_432_at_once_to_a_session_that_waits_for_a_command() -> None:
    with ScriptedServer(Mailbox()) as server, proxy(server.port) as running, connect(running.port) as client:
        greet(client)
        running.signal(signal.SIGTERM)
        assert nameless(client.rest()) == b"421 4.3.2 ehlo-proxy route r: the proxy is being stopped, try again\r\n"
        client.close()
        assert running.wait() == 0
        running.wait_for("session-end", outcome="aborted", by="proxy")


def test_no_destination_reachable_says_441_in_place_of_a_banner() -> None:
    port = free_port()
    with proxy(port) as running, connect(running.port) as client:
        said = client.rest()
        assert nameless(said) == f"421 4.4.1 ehlo-proxy route r: 127.0.0.1:{port}: connection refused\r\n".encode()
        end = running.wait_for("session-end", outcome="unreachable", by="proxy")
        assert said.endswith(f" [{end['session']}]\r\n".encode()), "it is found in the log by its id"


def test_destination_that_does_not_answer_says_441_in_time() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        others = [socket.socket() for _ in range(8)]  # what fills the queue of one
        try:
            for other in others:
                other.setblocking(False)
                other.connect_ex(full.getsockname())
            port = full.getsockname()[1]
            with proxy(port, timeouts={"connect": 0.5}) as running, connect(running.port) as client:
                said = client.rest(3)
                assert said.startswith(f"421 4.4.1 ehlo-proxy route r: 127.0.0.1:{port}: no connection within".encode())
        finally:
            for other in others:
                other.close()


def test_name_that_is_not_resolved_says_443() -> None:
    with (
        proxy("no-such-host.invalid:25", timeouts={"resolve": 0.5}) as running,
        connect(running.port) as client,
    ):
        said = client.rest()
        assert said.startswith(b"421 4.4.3 ehlo-proxy route r: no-such-host.invalid")
        assert said.count(b"\r\n") == 1


def test_destination_that_is_the_proxy_itself_says_446() -> None:
    # By an intercepted connection's destination; in a configuration `check` finds it before.
    port = free_port()
    header = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1/32"]}
    only = {"original_networks": ["127.0.0.0/8"], "original_ports": [port]}
    with proxy("original", listen=f"127.0.0.1:{port}", **header, **only), connect(port) as client:
        client.send(f"PROXY TCP4 127.0.0.1 127.0.0.1 40000 {port}\r\n".encode())
        said = client.rest()
        assert said.startswith(f"421 4.4.6 ehlo-proxy route r: 127.0.0.1:{port}: ".encode()), said
        assert said.count(b"\n") == 1


@pytest.mark.parametrize(
    ("name", "cause", "by"),
    [("late-banner", "no banner in time", "server"), ("late-in-banner", "no banner in time", "server")],
)
def test_late_banner_says_442(lab: Lab, name: str, cause: str, by: str) -> None:
    with lab.connect(name) as client:
        said = client.rest()
        ours = f"421 4.4.2 ehlo-proxy route {name}: {lab.where(name)}: {cause}\r\n".encode()
        assert nameless(said) in (ours, b"220-not yet\r\n" + ours)
    lab.end(name, outcome="timeout", by=by)


@pytest.mark.parametrize("name", ["late-reply", "late-ehlo"])
def test_late_reply_says_442(lab: Lab, name: str) -> None:
    with lab.connect(name) as client:
        assert client.reply() == BANNER
        client.send(b"EHLO a\r\n")
        if name == "late-reply":
            assert client.reply() == FIXED
            client.send(b"NOOP\r\n")
        where = lab.where(name)
        assert nameless(client.rest()) == f"421 4.4.2 ehlo-proxy route {name}: {where}: no reply in time\r\n".encode()
    lab.end(name, outcome="timeout", by="server")


def test_late_command_says_442_counted_for_the_whole_command(lab: Lab) -> None:
    with lab.connect("late-command") as client:
        assert client.reply() == BANNER
        began = time.monotonic()
        client.send(*[b"N"] * 3, gap=0.1)  # bytes are no command
        where = lab.where("late-command")
        assert (
            nameless(client.rest())
            == f"421 4.4.2 ehlo-proxy route late-command: {where}: no command in time\r\n".encode()
        )
        assert time.monotonic() - began < allowed(0.8)
    lab.end("late-command", outcome="timeout", by="client")


def test_what_the_server_refuses_with_passes_unchanged(lab: Lab) -> None:
    with lab.connect("busy") as client:
        assert client.rest() == b"421 4.3.2 try later\r\n"
    lab.end("busy", outcome="server-closed", by="server")
    with lab.connect("refuses") as client:
        assert client.reply() == b"554 5.7.1 go away\r\n"
        assert client.say(b"EHLO a") == b"503 5.5.1 no\r\n"
    with lab.connect("refuses-ehlo") as client:
        assert client.reply() == BANNER
        assert client.say(b"EHLO a") == b"550 5.7.1 no\r\n"
    lab.end("refuses-ehlo", ehlo="refused")


@pytest.mark.parametrize("name", ["busy-next", "gone-next"])
def test_next_destination_is_tried_after_a_4xx_banner_or_an_end_before_it(lab: Lab, name: str) -> None:
    with lab.connect(name) as client:
        assert b"2.0.0 taken" in send_mail(client)
    end = lab.end(name, outcome="completed")
    assert end["destination"].endswith(str(lab.servers[name][1].port))
    # The one that failed is tried last from now on.
    before = lab.server(name).connections
    with lab.connect(name) as client:
        assert b"2.0.0 taken" in send_mail(client)
    assert lab.server(name).connections == before


def test_next_destination_is_tried_when_the_banner_is_late(lab: Lab) -> None:
    with lab.connect("silent-next") as client:
        assert client.reply() == BANNER


def test_last_destinations_4xx_banner_is_what_the_client_sees(lab: Lab) -> None:
    with lab.connect("both-busy") as client:
        assert client.reply() == b"451 4.3.0 last\r\n"
        # That was no 421, and then the server ended.
        assert client.rest().startswith(f"421 4.4.2 ehlo-proxy route both-busy: {lab.where('both-busy', 1)}: ".encode())


@pytest.mark.parametrize(("name", "how"), [("lost", ""), ("lost-reset", " by a reset")])
def test_server_lost_at_a_line_boundary_says_442(lab: Lab, name: str, how: str) -> None:
    with lab.connect(name) as client:
        assert greet(client) == FIXED
        client.send(b"NOOP\r\n")
        where = lab.where(name)
        cause = f"the server ended the connection{how}"
        assert nameless(client.rest()) == f"421 4.4.2 ehlo-proxy route {name}: {where}: {cause}\r\n".encode()
        assert client.ended == "fin"
    lab.end(name, outcome="server-reset" if how else "server-closed", by="server")


def test_server_lost_before_its_banner_says_442(lab: Lab) -> None:
    with lab.connect("lost-before-banner") as client:
        assert client.rest().startswith(b"421 4.4.2 ehlo-proxy route lost-before-banner: ")


@pytest.mark.parametrize(
    ("name", "last"), [("said-421", b"421 4.3.0 shutting down\r\n"), ("said-221", b"221 2.0.0 bye\r\n")]
)
def test_nothing_is_added_to_a_servers_last_word(lab: Lab, name: str, last: bytes) -> None:
    with lab.connect(name) as client:
        greet(client)
        client.send(b"QUIT\r\n")
        assert client.rest() == last
        assert client.ended == "fin"
    lab.end(name, outcome="completed" if name == "said-221" else "server-closed")


def test_server_lost_inside_a_line_what_came_and_fin(lab: Lab) -> None:
    with lab.connect("in-a-line") as client:
        greet(client)
        client.send(b"NOOP\r\n")
        assert client.rest() == b"250 half a li"
        assert client.ended == "fin"
    lab.end("in-a-line", outcome="server-closed", by="server")


@pytest.mark.parametrize(("name", "ended"), [("let-go", "fin"), ("let-go-reset", "reset")])
def test_server_lost_after_the_letting_go_fin_for_fin_and_reset_for_reset(lab: Lab, name: str, ended: str) -> None:
    with lab.connect(name) as client:
        greet(client)
        client.say(b"MAIL FROM:<>")
        client.say(b"RCPT TO:<b@example>")
        client.send(b"DATA\r\n")
        assert client.rest() == b"354 go"
        assert client.ended == ended
    lab.end(name, outcome="completed" if ended == "fin" else "server-reset")


@pytest.mark.parametrize("ended", ["fin", "reset"])
def test_client_lost_in_a_message_is_no_end_of_it(lab: Lab, ended: str) -> None:
    name = f"client-{ended}"
    with lab.connect(name) as client:
        greet(client)
        client.say(b"MAIL FROM:<>")
        client.say(b"RCPT TO:<b@example>")
        client.say(b"DATA")
        client.send(b"Subject: half a mes")
        time.sleep(0.05)
        if ended == "reset":
            client.reset()
        else:
            client.finish()
            assert client.rest() == b""
    lab.end(name, outcome="client-reset" if ended == "reset" else "completed")
    wait_until(lambda: "ended" in SEEN[ended], 5, "the server saw the end")
    assert SEEN[ended] == {"got": b"Subject: half a mes", "ended": ended}


@pytest.mark.parametrize("how", ["bad", "cut", "late", "missing"])
def test_trusted_proxy_whose_header_is_bad_late_or_missing_is_closed_without_a_word(lab: Lab, how: str) -> None:
    with lab.connect("header") as client:
        began = time.monotonic()
        if how == "bad":
            client.send(b"PROXY TCP4 192.0.2.300 127.0.0.1 1 2\r\n")
        elif how == "missing":
            client.send(b"EHLO a\r\n")
        elif how == "cut":
            client.send(b"PROXY TCP4 192.0")
            client.finish()
        assert client.rest() == b""
        assert (time.monotonic() - began < 2) == (how != "late")


def test_the_same_4xx_codes_leave_no_session_behind(lab: Lab) -> None:
    started = {one["session"] for one in lab.running.of("session-start")}
    lab.running.wait_for("session-end")
    deadline = time.monotonic() + 5
    while started - {one["session"] for one in lab.running.of("session-end")} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert started - {one["session"] for one in lab.running.of("session-end")} == set()


# -- what `run` says when it cannot start ----------------------------------------------------------------------------


def test_port_that_is_taken_is_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = {"route": [route(free_port(), listen=f"127.0.0.1:{port}")]}
        with running_proxy(config, ready=False, quiet=False) as running:
            assert running.wait() == 1
        assert f"127.0.0.1:{port}" in "\n".join(running.noise)


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_configuration_is_exit_code_2_with_every_error(workers: int) -> None:
    config = {
        "service": {"workers": workers},
        "route": [route("192.0.2.1:99999", lissten=["x"], max_sessions="many")],
    }
    with running_proxy(config, ready=False, quiet=False) as running:
        assert running.wait() == 2
    told = "\n".join(running.noise)
    assert "max_sessions" in told
    assert "lissten" in told
    assert "99999" in told


def test_key_that_cannot_be_read_is_exit_code_2(tmp_path: object) -> None:
    tls = {"mode": "bridge", "certificate": "/nonexistent/cert.pem", "key": "/nonexistent/key.pem"}
    with running_proxy({"route": [route(free_port(), tls=tls)]}, ready=False, quiet=False) as running:
        assert running.wait() == 2
    assert "/nonexistent/cert.pem" in "\n".join(running.noise)


def test_no_file_is_exit_code_2() -> None:
    with running_proxy(arguments=["--config", f"/nonexistent/{os.getpid()}"], ready=False, quiet=False) as running:
        assert running.wait() == 2


def test_good_reply_is_not_touched_and_a_broken_one_is_repaired_to_the_byte(lab: Lab) -> None:
    with ScriptedServer(Mailbox(GOOD)) as server, proxy(server.port) as running, connect(running.port) as client:
        assert greet(client) == GOOD
    with lab.connect("full") as client:
        assert greet(client) == FIXED
