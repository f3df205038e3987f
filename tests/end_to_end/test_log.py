"""The log as an operator reads it: one end a session, with the right words, that no peer can forge or stop."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.end_to_end.lab import Lab, case, open_lab, tls_contexts
from tests.loopback import wait_until
from tests.proxy_process import Event, proxy, route, running_proxy
from tests.scripted import (
    BANNER,
    BROKEN,
    GOOD,
    Mailbox,
    Peer,
    ScriptedServer,
    begin_message,
    connect,
    greet,
    send_mail,
    together,
)

FIXED = b"250-mail.example\r\n250-STARTTLS\r\n250-SIZE 10240000\r\n250 HELP\r\n"
KEYS = {
    "time", "level", "event", "session", "route", "client", "client_port", "ehlo_name", "outcome", "reason", "alert",
    "by", "ehlo", "repaired", "tls", "tls_version", "sni", "seconds", "bytes_from_client", "bytes_from_server",
}  # fmt: skip
WELL = ("completed", "client-closed", "client-reset", "server-closed")
SHORT = {"command": 0.4, "banner": 0.4, "idle": 0.4, "abort": 0.5}


def peace(peer: Peer) -> None:
    raise AssertionError("no script was set")


def silent(peer: Peer) -> None:
    peer.rest(10)


SERVER_TLS, TRUSTING = tls_contexts()


def dies(how: str, after: int) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        for _ in range(after):
            line = peer.line()
            peer.send(BROKEN if line[:4] == b"EHLO" else b"250 ok\r\n")
        if after == 1:
            peer.line()
            peer.send(b"250 half")
        if how == "reset":
            peer.reset()

    return script


CASES = {
    "mail": case(Mailbox(tls=SERVER_TLS)),
    "good": case(Mailbox(GOOD)),
    "observe": case(Mailbox(), repair={"mode": "observe"}),
    "off": case(Mailbox(), repair={"mode": "off"}),
    "refuses": case(Mailbox(b"502 5.5.1 no\r\n")),
    "fin": case(dies("fin", 1)),
    "reset": case(dies("reset", 2)),
    "silent": case(silent, timeouts=SHORT),
    "idle": case(Mailbox(), timeouts=SHORT),
    "stranger": case(Mailbox(), allow_clients=["192.0.2.1/32"]),
    "injects": case(peace),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab(CASES) as lab:
        yield lab


def one_end(lab: Lab, name: str, play: Callable[[Peer], object]) -> Event:
    """What is told of the one session that is played."""
    before = len(lab.running.of("session-end", route=name))
    with lab.connect(name) as client:
        play(client)
    end = lab.running.wait_for("session-end", route=name, count=before + 1)
    time.sleep(0.1)
    assert len(lab.running.of("session-end", route=name)) == before + 1
    assert set(end) - {"destination", "source_port"} == KEYS
    assert end["level"] == ("info" if end["outcome"] in WELL else "warning")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", end["time"])
    return end


def expect(end: Event, **fields: Any) -> None:
    assert {key: end[key] for key in fields} == fields


def with_tls(client: Peer) -> None:
    greet(client)
    client.say(b"STARTTLS")
    client.start_tls(TRUSTING, server=False, name="mail.domain1.com")
    client.say(b"EHLO inside")
    client.say(b"QUIT")
    client.close()


def leaves(client: Peer) -> None:
    greet(client)
    client.finish()
    client.rest(3)


def resets(client: Peer) -> None:
    greet(client)
    client.reset()


# -- outcomes --------------------------------------------------------------------------------------------------------


def test_mail_that_was_sent(lab: Lab) -> None:
    end = one_end(lab, "mail", send_mail)
    expect(
        end, outcome="completed", ehlo="repaired", repaired=["greeting-not-first"], tls="none", tls_version="", sni=""
    )
    assert end["destination"] == f"127.0.0.1:{lab.server('mail').port}"
    assert 0 <= end["seconds"] < 5
    said = b"EHLO client.example\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
    said += b"Subject: hi\r\n\r\nhello\r\n.\r\nQUIT\r\n"
    assert end["bytes_from_client"] == len(said)
    heard = BANNER + BROKEN + b"250 2.1.0 well\r\n" * 2 + b"354 go on\r\n250 2.0.0 taken\r\n221 bye\r\n"
    assert end["bytes_from_server"] == len(heard)


def test_mail_over_tls(lab: Lab) -> None:
    end = one_end(lab, "mail", with_tls)
    expect(end, outcome="completed", tls="passthrough", sni="mail.domain1.com")
    assert end["tls_version"] in ("TLSv1.3", "TLSv1.2")


def test_what_became_of_the_ehlo_reply(lab: Lab) -> None:
    expect(one_end(lab, "good", send_mail), ehlo="good", repaired=[])
    expect(one_end(lab, "observe", send_mail), ehlo="observed", repaired=[])
    expect(one_end(lab, "off", send_mail), ehlo="good", repaired=[])
    expect(one_end(lab, "refuses", lambda client: (greet(client), client.say(b"QUIT"))), ehlo="refused", repaired=[])
    expect(one_end(lab, "good", lambda client: (client.reply(), client.say(b"QUIT"))), ehlo="none", outcome="completed")


def test_who_ended_it_and_how(lab: Lab) -> None:
    expect(one_end(lab, "good", resets), outcome="client-reset", by="client")
    end = one_end(lab, "good", leaves)
    assert end["outcome"] in ("client-closed", "completed")
    assert end["by"] in ("client", "server")
    expect(
        one_end(lab, "fin", lambda client: (greet(client), client.send(b"NOOP\r\n"), client.rest())),
        outcome="server-closed",
        by="server",
    )
    expect(
        one_end(lab, "reset", lambda client: (greet(client), client.say(b"MAIL FROM:<>"), client.rest())),
        outcome="server-reset", by="server",
    )  # fmt: skip
    expect(one_end(lab, "silent", lambda client: client.rest()), outcome="timeout", by="server")
    expect(one_end(lab, "idle", lambda client: client.rest()), outcome="timeout", by="client")
    expect(one_end(lab, "stranger", lambda client: client.rest()), outcome="refused", by="proxy")


def test_injection_is_told_loudly_and_counts_as_one(lab: Lab) -> None:
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(GOOD)
        peer.line()
        peer.send(b"220 ready\r\n250 injected\r\n")
        peer.rest()

    lab.server("injects").script = script
    end = one_end(lab, "injects", lambda client: (greet(client), client.send(b"STARTTLS\r\n"), client.rest()))
    expect(end, outcome="injection", by="server")
    told = lab.running.of("starttls-response-injection", session=end["session"])
    assert [one["level"] for one in told] == ["warning"]


def test_every_event_of_a_session_names_it(lab: Lab) -> None:
    one_end(lab, "mail", with_tls)
    for event in lab.running.events:
        if event["event"] in (
            "session-start",
            "destination-connected",
            "ehlo-findings",
            "starttls",
            "tls",
            "session-end",
        ):
            assert event["session"]
            assert event["route"] in CASES
            assert event["client"] == "127.0.0.1"
            assert 0 < event["client_port"] < 65536
            if event["event"] not in ("session-start", "session-end"):
                assert event["destination"]


def test_lines_of_the_reply_come_once_for_a_destination(lab: Lab) -> None:
    for _ in range(3):
        one_end(lab, "observe", send_mail)
    told = lab.running.of("ehlo-findings", route="observe")
    assert len(told) == 1
    assert told[0]["before"] == ["250-STARTTLS", "250-mail.example", "250-SIZE 10240000", "250 HELP"]
    assert told[0]["findings"] == ["greeting-not-first"]
    assert told[0]["phase"] == "clear"


def test_info_level_tells_one_or_two_lines_a_session() -> None:
    with ScriptedServer(Mailbox()) as server, proxy(server.port) as running:
        for _ in range(5):
            with connect(running.port) as client:
                send_mail(client)
        running.wait_for("session-end", count=5)
        per_session: dict[str, list[str]] = {}
        for event in running.events:
            if "session" in event:
                per_session.setdefault(event["session"], []).append(event["event"])
        assert len(per_session) == 5
        assert sorted(per_session.values()) == [["ehlo-findings", "session-end"], *[["session-end"]] * 4]


# -- forging ---------------------------------------------------------------------------------------------------------

FORGED = [
    b"x\r\nsession-end session=forged outcome=completed",
    b'x" session="forged" outcome="completed',
    b"\x1b[2Jsession-end session=forged",
    b"\\nsession-end session=forged",
    b'","session":"forged","x":"',
    b"\xe2\x80\xa8session-end session=forged\xc2\x85",
    b"x" * 5000,
    b"\0\x01\x02\xff",
]


@pytest.mark.parametrize("format", ["json", "text"])
def test_no_peer_can_forge_a_line(format: str) -> None:
    def script(peer: Peer) -> None:
        number = int(peer.sock.getpeername()[1]) % len(FORGED)
        forged = FORGED[number]
        peer.send(b"220 " + forged.replace(b"\r\n", b" ") + b"\r\n")
        peer.line()
        peer.send(b"250-STARTTLS\r\n250-mail." + forged + b"\r\n250-" + forged + b"\r\n250 " + forged + b"\r\n")
        peer.line()
        peer.send(b"221 " + forged + b"\r\n")

    with ScriptedServer(script) as server:
        config = {"log": {"format": format, "level": "debug"}, "route": [route(server.port)]}
        with running_proxy(config, ready=format == "json", quiet=format == "json") as running:
            if format == "text":
                wait_until(lambda: any(" info ready " in line for line in running.lines), 20, "ready")
                line = next(line for line in running.lines if " info ready " in line)
                port = int(line.partition("listen=127.0.0.1:")[2].split()[0])
            else:
                port = running.port

            def once(number: int) -> None:
                with connect(port) as client:
                    client.line()
                    client.send(b"EHLO " + FORGED[number % len(FORGED)] + b"\r\n")
                    client.now(0.05)
                    with suppress(OSError):  # the server may have gone, its 221 said to a question of the proxy's
                        client.send(b"QUIT\r\n")
                        client.now(0.05)

            together([lambda n=number: once(n) for number in range(len(FORGED) * 4)], 8)
            time.sleep(0.5)
            running.stop()
            lines = running.lines
    assert len(lines) > len(FORGED) * 4
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        assert len(line) <= 8192
        if format == "json":
            assert json.loads(line)["event"]
            assert json.loads(line).get("session") != "forged"
        else:
            when, level, event, rest = (*line.split(" ", 3), "")[:4]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", when)
            assert level in ("debug", "info", "warning", "error")
            assert re.fullmatch(r"[a-z-]+", event)
            # Every value is a plain word or stands in quotes, and the first session of a line is ours.
            assert re.fullmatch(r'([a-z_]+=([A-Za-z0-9_.:/@+\[\],-]+|"([^"\\]|\\.)*")( |$))*', rest), line
            assert not rest.startswith("session=forged")


def test_nothing_of_a_message_or_of_auth_is_logged(lab: Lab) -> None:
    def secret(client: Peer) -> None:
        greet(client)
        client.say(b"AUTH PLAIN c2VjcmV0LXBhc3N3b3Jk")
        client.say(b"MAIL FROM:<a@x>")
        client.say(b"DATA")
        client.send(b"very private words\r\n.\r\n")
        client.reply()
        client.say(b"QUIT")

    one_end(lab, "mail", secret)
    log = "\n".join(lab.running.lines)
    assert "c2VjcmV0" not in log
    assert "private" not in log
    assert "a@x" not in log


# -- floods and blocked readers --------------------------------------------------------------------------------------


def test_flood_of_refusals_is_counted_and_not_told_one_by_one() -> None:
    with running_proxy({"route": [route("127.0.0.1:9", allow_clients=["192.0.2.1/32"])]}) as running:
        for _ in range(100):
            with connect(running.port) as client:
                assert client.rest().startswith(b"421 4.7.1 ")
        time.sleep(0.2)
        assert len(running.of("session-end", outcome="refused")) == 20
        running.stop()
        assert [(one["client"], one["count"], one["level"]) for one in running.of("refused")] == [
            ("127.0.0.1", 80, "warning")
        ]


@pytest.mark.parametrize("workers", [1, 2])
def test_stderr_that_nobody_reads_does_not_stop_the_mail_and_what_was_lost_is_told(workers: int) -> None:
    mailbox = Mailbox()
    with ScriptedServer(mailbox) as server:
        config = {"service": {"workers": workers}, "log": {"level": "debug"}, "route": [route(server.port)]}
        with running_proxy(config) as running:
            port = running.port
            running.stop_reading()
            began = time.monotonic()

            def once() -> None:
                with connect(port) as client:
                    client.send(b"EHLO a\r\nQUIT\r\n")
                    assert client.rest() == BANNER + FIXED + b"221 bye\r\n"

            together([once] * 700 * workers, 4)  # far more than a pipe and the backlog take
            took = time.monotonic() - began
            with connect(port) as client:
                greet(client)
                begin_message(client)
                client.send(b"hi\r\n.\r\n")
                assert client.reply() == b"250 2.0.0 taken\r\n"
            assert took < 30
            running.read_on()
            with connect(port) as client:
                send_mail(client)
            lost = running.wait_for("log-lost", 10)
            assert int(lost["lines"]) > 0
            assert running.noise == []  # no line is torn


def test_stderr_that_is_closed_does_not_stop_the_mail() -> None:
    with ScriptedServer(Mailbox()) as server, proxy(server.port) as running:
        port = running.port
        running.close_stderr()
        for _ in range(5):
            with connect(port) as client:
                assert send_mail(client) == b"250 2.0.0 taken\r\n"
        running.signal(signal.SIGTERM)
        assert running.process.wait(5) == 0


def test_what_is_wrong_beside_the_reply_is_told_and_counted_where_a_session_shows_it() -> None:
    """STARTTLS that is offered and not taken, by a refusal or by another code, and a second EHLO that is refused."""

    def server(peer: Peer) -> None:
        peer.send(BANNER)
        hellos = 0
        while True:
            verb = peer.line()[:4]
            hellos += verb == b"EHLO"
            if verb == b"EHLO":
                peer.send(GOOD if hellos == 1 else b"503 5.5.1 twice\r\n")
            elif verb == b"STAR":
                peer.send(b"454 4.7.0 not now\r\n" if not server_was_asked else b"250 yes\r\n")
                server_was_asked.append(True)
            else:
                peer.send(b"221 bye\r\n")
                return

    server_was_asked: list[bool] = []
    with ScriptedServer(server) as one, proxy(one.port, admin=True) as running:
        for _ in range(3):
            with connect(running.port) as client:
                greet(client)
                client.say(b"STARTTLS")
                assert client.say(b"EHLO again.example")[:3] == b"503"
                client.say(b"QUIT")
        running.wait_for("session-end", count=3)
        told = running.of("ehlo-findings")
        assert [(one["findings"], one["phase"], one["before"]) for one in told] == [
            (["starttls-refused"], "starttls", ["454 4.7.0 not now"]),
            (["ehlo-repeat-refused"], "again", ["503 5.5.1 twice"]),
            (["starttls-reply-code"], "starttls", ["250 yes"]),
        ]
        for finding, count in (("starttls-refused", 1), ("starttls-reply-code", 2), ("ehlo-repeat-refused", 3)):
            assert running.metric("ehlo_proxy_findings_total", finding=finding, repaired="false") == count


def test_a_starttls_that_was_not_offered_is_no_finding() -> None:
    with ScriptedServer(Mailbox(b"250 mail.example\r\n")) as one, proxy(one.port) as running:
        with connect(running.port) as client:
            greet(client)
            client.say(b"STARTTLS")
            client.say(b"QUIT")
        running.wait_for("session-end")
        assert not running.of("ehlo-findings")
