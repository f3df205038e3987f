"""The usual course of a session: what is read goes on, the EHLO reply is repaired, nothing else is touched."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.events import End, ReleaseClient, ReleaseServer, ToClient, ToServer
from proxy.smtp.session.policy import SessionPolicy
from tests.playbook import (
    BANNER,
    EHLO,
    GOOD,
    Client,
    Connected,
    Playbook,
    Server,
    ServerEnds,
    Told,
    Wait,
    after_ehlo,
    greeted,
)

BROKEN = b"250-STARTTLS\r\n250-mail.example.com\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-HELP\r\n250 DELIVERBY 300\r\n"
REPAIRED = (
    b"250-mail.example.com\r\n250-STARTTLS\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-HELP\r\n250 DELIVERBY 300\r\n"
)
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


def test_the_main_job_from_the_banner_to_the_first_byte_of_tls() -> None:
    assert (
        Playbook(loud=True)
        >> Connected()
        >> Server(BANNER)
        << ToClient(BANNER)
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(BROKEN)
        << Told("ehlo greeting-not-first")
        << ToClient(REPAIRED)
        >> Client(b"STARTTLS\r\n")
        << ToServer(b"STARTTLS\r\n")
        >> Server(b"220 2.0.0 Ready\r\n")
        << ToClient(b"220 2.0.0 Ready\r\n")
        << Told("starttls accepted")
        >> Client(HELLO)
        << ReleaseClient()
        << ReleaseServer(True)
        << ToServer(HELLO)
    )


def test_a_good_reply_and_all_around_it_is_not_touched() -> None:
    assert (
        after_ehlo()
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
        >> Server(b"250 2.0.0 Ok\r\n")
        << ToClient(b"250 2.0.0 Ok\r\n")
        >> Client(b"quit\n")
        << ToServer(b"quit\n")
        >> Server(b"221 Bye\r\n")
        << ToClient(b"221 Bye\r\n")
        >> ServerEnds()
        << End("completed", "server")
    )


@pytest.mark.parametrize("verb", ["ehlo", "Lhlo", " EHLO\t", "LHLO"])
def test_the_reply_to_ehlo_and_lhlo_is_repaired_in_any_spelling(verb: str) -> None:
    line = verb.encode() + b" client.example\r\n"
    assert greeted() >> Client(line) << ToServer(line) >> Server(BROKEN) << ToClient(REPAIRED)


@pytest.mark.parametrize(
    "command", ["HELO client.example", "NOOP", "RSET", "VRFY you", "EXPN list", "HELP", "XFORWARD"]
)
def test_every_other_reply_passes_whatever_it_looks_like(command: str) -> None:
    line = command.encode() + b"\r\n"
    assert greeted() >> Client(line) << ToServer(line) >> Server(BROKEN) << ToClient(BROKEN)


def test_a_reply_passes_line_by_line_as_it_comes() -> None:
    assert (
        greeted()
        >> Client(b"HELP\r\n")
        << ToServer(b"HELP\r\n")
        >> Server(b"214-one\r\n214-")
        << ToClient(b"214-one\r\n")
        >> Server(b"two\r\nno code\r\n")
        << ToClient(b"214-two\r\nno code\r\n")
        >> Server(b"214 three\r\n")
        << ToClient(b"214 three\r\n")
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
    )


def test_ehlo_twice_is_repaired_twice() -> None:
    assert (
        greeted()
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(BROKEN)
        << ToClient(REPAIRED)
        >> Client(b"EHLO again.example\r\n")
        << ToServer(b"EHLO again.example\r\n")
        >> Server(BROKEN)
        << ToClient(REPAIRED)
    )


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_modes_that_change_nothing_leave_the_stream_untouched(mode: str) -> None:
    policy = SessionPolicy(repair=RepairPolicy(mode=mode))
    assert greeted(policy) >> Client(EHLO) << ToServer(EHLO) >> Server(BROKEN) << ToClient(BROKEN)


def test_what_is_only_observed_is_told() -> None:
    book = greeted(SessionPolicy(repair=RepairPolicy(mode="observe")), loud=True)
    assert (
        book >> Client(EHLO) << ToServer(EHLO) >> Server(BROKEN) << Told("ehlo greeting-not-first") << ToClient(BROKEN)
    )


@pytest.mark.parametrize(
    "reply", [b"502 5.5.1 no EHLO here\r\n", b"421 too many\r\n", b"550-STARTTLS\r\n550 go away\r\n", b"354 what?\r\n"]
)
def test_a_refused_ehlo_passes_at_once(reply: bytes) -> None:
    assert greeted() >> Client(EHLO) << ToServer(EHLO) >> Server(reply) << ToClient(reply)


def test_a_lone_220_is_a_whole_reply_to_ehlo_and_what_follows_it_is_not_joined() -> None:
    assert (
        greeted()
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(BANNER + GOOD)
        << ToClient(BANNER + GOOD)
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
    )


def test_the_greeting_that_is_made_names_the_destination_where_the_banner_names_no_host() -> None:
    book = Playbook()
    banner = b"220 ESMTP ready\r\n"
    assert (
        book
        >> Connected(name="mx.example.net")
        >> Server(banner)
        << ToClient(banner)
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(b"250-STARTTLS\r\n250 HELP\r\n")
        >> Wait(0.2)
        << ToClient(b"250-mx.example.net\r\n250-STARTTLS\r\n250 HELP\r\n")
    )


def test_the_banner_passes_in_as_many_lines_as_it_has() -> None:
    assert (
        Playbook()
        >> Connected()
        >> Server(b"220-mail.example.com\r\n220-no spam")
        << ToClient(b"220-mail.example.com\r\n")
        >> Server(b"\r\n220 ready\r\n")
        << ToClient(b"220-no spam\r\n220 ready\r\n")
        >> Client(EHLO)
        << ToServer(EHLO)
    )


def test_a_banner_that_refuses_passes_and_its_server_may_be_talked_to() -> None:
    assert (
        Playbook()
        >> Connected()
        >> Server(b"554 5.7.1 no service\r\n")
        << ToClient(b"554 5.7.1 no service\r\n")
        >> Client(b"QUIT\r\n")
        << ToServer(b"QUIT\r\n")
        >> Server(b"221 Bye\r\n")
        << ToClient(b"221 Bye\r\n")
    )


def test_a_reply_that_nobody_asked_for_is_forwarded() -> None:
    assert greeted() >> Server(b"252 hello?\r\n") << ToClient(b"252 hello?\r\n")
    assert after_ehlo() >> Server(b"451 hello?\r\n\r\n") << ToClient(b"451 hello?\r\n\r\n")


def test_a_221_that_nobody_asked_for_completes_the_session_too() -> None:
    assert (
        greeted()
        >> Server(b"221 closing\r\n")
        << ToClient(b"221 closing\r\n")
        >> ServerEnds()
        << End("completed", "server")
    )


def test_what_one_turn_brings_for_one_peer_leaves_in_one_write() -> None:
    lines = b"NOOP\r\n" * 100
    assert greeted() >> Client(lines) << ToServer(lines) >> Server(b"250 ok\r\n" * 100) << ToClient(b"250 ok\r\n" * 100)
