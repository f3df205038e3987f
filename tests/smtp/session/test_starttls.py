"""STARTTLS in pass-through: what is held behind it, and both injections (CVE-2011-0411 and its mirror image)."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.events import End, FinishServer, Injected, ReleaseClient, ReleaseServer, ToClient, ToServer
from proxy.smtp.session.policy import SessionPolicy
from tests.playbook import (
    EHLO,
    GOOD,
    Client,
    ClientEnds,
    Notice,
    Playbook,
    Server,
    ServerEnds,
    Told,
    Wait,
    after_ehlo,
    greeted,
)

STARTTLS = b"STARTTLS\r\n"
READY = b"220 2.0.0 Ready to start TLS\r\n"
PIPELINED = Injected("starttls-pipelined", "bytes of the client behind STARTTLS, before the 220")
BEHIND = Injected("starttls-response-injection", "bytes of the server behind its 220 to STARTTLS")
LATER = Injected("starttls-response-injection", "bytes of the server behind its 220, before TLS")

SPELLINGS = [
    b"STARTTLS\r\n", b"starttls\n", b"StartTLS\r\n", b" STARTTLS\r\n", b"STARTTLS \r\n", b"\tSTARTTLS\t\r\n",
    b"STARTTLS foo\r\n", b"STARTTLS\x0b\r\n", b"STARTTLS \xff\r\n",
]  # fmt: skip


def asked(line: bytes = STARTTLS, mode: str = "repair") -> Playbook:
    book = after_ehlo(SessionPolicy(repair=RepairPolicy(mode=mode)))
    assert book >> Client(line) << ToServer(line)
    return book


def accepted() -> Playbook:
    book = asked()
    assert book >> Server(READY) << ToClient(READY)
    return book


# -- the good course -------------------------------------------------------------------------------------------------


def test_the_220_is_held_until_it_is_whole() -> None:
    assert (
        asked()
        >> Server(b"220-one\r\n220")
        >> Server(b" two\r\n")
        << ToClient(b"220-one\r\n220 two\r\n")
        >> Client(b"\x16")
        << ReleaseClient()
        << ReleaseServer(True)
        << ToServer(b"\x16")
        >> Server(b"\x16\x03")
        << ToClient(b"\x16\x03")
    )


@pytest.mark.parametrize(
    "reply", [b"454 4.7.0 not now\r\n", b"502 no\r\n", b"354 what\r\n", b"250 fine\r\n", b"421 no\r\n"]
)
def test_what_is_held_behind_a_refused_starttls_goes_on_in_order(reply: bytes) -> None:
    book = greeted(loud=True)
    assert (
        book
        >> Client(STARTTLS + b"NOOP\r\nRS")
        << ToServer(STARTTLS)
        >> Client(b"ET\r\n")
        >> Server(reply)
        << Told("starttls refused")
        << ToClient(reply)
        << ToServer(b"NOOP\r\nRSET\r\n")
    )


def test_starttls_behind_pipelined_commands_awaits_its_own_reply() -> None:
    assert (
        after_ehlo()
        >> Client(b"NOOP\r\nRSET\r\nSTARTTLS\r\n")
        << ToServer(b"NOOP\r\nRSET\r\nSTARTTLS\r\n")
        >> Server(b"250 ok\r\n220 not yet\r\n")
        << ToClient(b"250 ok\r\n220 not yet\r\n")
        >> Server(READY)
        << ToClient(READY)
        >> Client(b"\x16")
        << ReleaseClient()
        << ReleaseServer(True)
        << ToServer(b"\x16")
    )


def test_an_end_or_an_end_of_the_client_in_place_of_tls_is_passed_on() -> None:
    assert accepted() >> ClientEnds() << ReleaseClient() << ReleaseServer(True) << FinishServer()
    assert accepted() >> ClientEnds(reset=True) << End("client-reset", "client", reset_server=True)
    assert accepted() >> ServerEnds() << End("server-closed", "server")
    assert accepted() >> ServerEnds(reset=True) << End("server-reset", "server", reset_client=True)


def test_a_client_that_ended_behind_starttls_ends_for_the_server_once_it_is_answered() -> None:
    assert (
        asked()
        >> ClientEnds()
        >> Server(READY)
        << ToClient(READY)
        << ReleaseClient()
        << ReleaseServer(True)
        << FinishServer()
    )


def test_nothing_is_said_to_a_client_that_was_told_220_and_never_begins() -> None:
    assert accepted() >> Wait(299) >> Wait(1) << End("timeout", "client", "no TLS in time")


# -- command injection -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["repair", "observe", "off"])
@pytest.mark.parametrize("line", SPELLINGS, ids=repr)
def test_command_injection_ends_the_session_in_every_spelling_and_mode(line: bytes, mode: str) -> None:
    assert (
        after_ehlo(SessionPolicy(repair=RepairPolicy(mode=mode)))
        >> Client(line + b"MAIL FROM:<evil@example.net>\r\n")
        << ToServer(line)
        >> Server(READY)
        << PIPELINED
        << Notice("421 4.7.0", "default", "mail.example.com", "behind STARTTLS")
        << End("injection", "client", PIPELINED.detail)
    )


@pytest.mark.parametrize("injected", [b"N", b"\n", b"\r\n", b"RSET\r\n", b"\x16\x03\x01"], ids=repr)
def test_command_injection_in_a_segment_of_its_own_is_the_same(injected: bytes) -> None:
    assert (
        asked()
        >> Client(injected)
        >> Server(READY)
        << PIPELINED
        << Notice("421 4.7.0")
        << End("injection", "client", PIPELINED.detail)
        >> Client(b"\x16")
        >> Server(b"x")
        >> ServerEnds()
    )


# -- response injection ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["repair", "observe", "off"])
@pytest.mark.parametrize(
    "injected", [b"2", b"\r\n", b"250 evil\r\n", b"220 again\r\n", b"250-MOR", b"\x16\x03"], ids=repr
)
def test_response_injection_in_the_segment_of_the_220(injected: bytes, mode: str) -> None:
    assert (
        asked(mode=mode)
        >> Server(READY + injected)
        << BEHIND
        << Notice("421 4.7.0")
        << End("injection", "server", BEHIND.detail)
    )


@pytest.mark.parametrize("injected", [b"2", b"\n", b"250 evil\r\n", b"250-8BITMIME\r\n"], ids=repr)
def test_response_injection_later_is_not_forwarded_and_nothing_can_be_said(injected: bytes) -> None:
    assert accepted() >> Server(injected) << LATER << End("injection", "server", LATER.detail) >> Client(b"\x16")


def test_a_reply_of_several_codes_counts_as_220_if_it_begins_or_ends_so() -> None:
    for reply in (b"220-yes\r\n454 no\r\n", b"454-no\r\n220 yes\r\n"):
        assert (
            asked()
            >> Server(reply + b"x")
            << BEHIND
            << Notice("421 4.7.0")
            << End("injection", "server", BEHIND.detail)
        )
    reply = b"454-no\r\n220-maybe\r\n454 no\r\n"
    assert asked() >> Server(reply) << ToClient(reply) >> Client(b"NOOP\r\n") << ToServer(b"NOOP\r\n")


def test_both_injections_at_once_are_one() -> None:
    assert (
        asked()
        >> Client(b"x")
        >> Server(READY + b"x")
        << BEHIND
        << Notice("421 4.7.0")
        << End("injection", "server", BEHIND.detail)
    )


@pytest.mark.parametrize("mode", ["repair", "observe", "off"])
@pytest.mark.parametrize("reply", [b"220 ready\r\n", b"220-ready\r\n", b"220\r\n", b"220 " + b"x" * 20000], ids=len)
def test_a_220_that_nobody_asked_for_ends_the_session(reply: bytes, mode: str) -> None:
    cause = "the server sent a 220 that nobody asked for"
    book = after_ehlo(SessionPolicy(repair=RepairPolicy(mode=mode)))
    assert book >> Server(reply) << Notice("421 4.7.0", cause) << End("injection", "server", cause)


def test_a_220_that_comes_before_starttls_was_refused_does_not_stand_for_the_next() -> None:
    assert (
        asked()
        >> Server(b"454 no\r\n220 yes\r\n")
        << Notice("421 4.7.0", "nobody asked for", behind=b"454 no\r\n")
        << End("injection", "server", "the server sent a 220 that nobody asked for")
    )


def test_the_reply_to_starttls_has_bounds() -> None:
    cause = "a reply without an end"
    book = asked()
    for _ in range(655):
        assert book >> Server(b"220-" + b"x" * 94 + b"\r\n")
    assert book >> Server(b"220-" + b"x" * 94 + b"\r\n") << Notice("421 4.4.2", cause) << End("error", "server", cause)
    cause = "a reply line without an end"
    assert asked() >> Server(b"220 " + b"x" * 20000) << Notice("421 4.4.2", cause) << End("error", "server", cause)


def test_starttls_behind_ehlo_in_one_segment_waits_for_its_reply() -> None:
    assert (
        greeted()
        >> Client(EHLO + STARTTLS)
        << ToServer(EHLO)
        >> Server(GOOD)
        << ToClient(GOOD)
        << ToServer(STARTTLS)
        >> Server(READY)
        << ToClient(READY)
    )
