"""While another destination is left: a 4xx banner, an end before the banner, or half a minute without one."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.events import End, FinishServer, Found, NextDestination, ToClient, ToServer
from proxy.smtp.session.policy import DestinationMemory, SessionPolicy
from tests.playbook import (
    BANNER,
    EHLO,
    GOOD,
    Client,
    ClientEnds,
    Connected,
    Drain,
    Notice,
    Playbook,
    Server,
    ServerEnds,
    Unreachable,
    Wait,
)

FIRST = Connected("mx1.example.com", "192.0.2.1", another_left=True)
LAST = Connected("mx2.example.com", "192.0.2.2")
CLOSED = "the server ended the connection"


@pytest.mark.parametrize("banner", [b"421 4.3.2 busy\r\n", b"450-busy\r\n450 later\r\n", b"450 busy\r\n250-x\r\n"])
def test_a_banner_that_refuses_for_now_moves_on(banner: bytes) -> None:
    reason = banner.split(b"\r\n")[0].decode()
    assert (
        Playbook()
        >> Client(EHLO)
        >> FIRST
        >> Server(banner)
        << NextDestination(reason)
        >> Server(b"more of it\r\n")
        >> ServerEnds()
        >> LAST
        << ToServer(EHLO)
        >> Server(BANNER)
        << ToClient(BANNER)
        >> Server(GOOD)
        << ToClient(GOOD)
    )


@pytest.mark.parametrize("banner", [b"220 mx1.example.com\r\n", b"554 5.7.1 no\r\n", b"220-a\r\n421 b\r\n"])
def test_any_other_banner_is_shown(banner: bytes) -> None:
    assert Playbook() >> FIRST >> Server(banner) << ToClient(banner) >> Client(EHLO) << ToServer(EHLO)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("said", [b"", b"220 mx1.exam"])
def test_an_end_before_the_banner_moves_on(said: bytes, reset: bool) -> None:
    book = Playbook()
    assert book >> FIRST >> Client(EHLO)
    if said:
        assert book >> Server(said)
    assert book >> ServerEnds(reset) << NextDestination("closed before its banner") >> LAST << ToServer(EHLO)
    assert book >> Server(BANNER) << ToClient(BANNER)


def test_half_a_minute_without_a_banner_moves_on() -> None:
    book = Playbook()
    assert book >> FIRST
    assert book.waits_for == 30.0
    assert book >> Wait(29.9) >> Wait(0.1) << NextDestination("no banner in time")
    assert book.waits_for is None
    assert book >> LAST
    assert book.waits_for == 300.0


def test_a_shorter_time_for_the_banner_is_respected() -> None:
    book = Playbook(SessionPolicy(banner_timeout=5.0))
    assert book >> FIRST
    assert book.waits_for == 5.0


def test_once_something_was_shown_there_is_no_other_destination() -> None:
    start = b"220-mx1.example.com\r\n"
    assert (
        Playbook()
        >> FIRST
        >> Server(start)
        << ToClient(start)
        >> ServerEnds()
        << Notice("421 4.4.2", CLOSED)
        << End("server-closed", "server", CLOSED)
    )
    cause = "no banner in time"
    book = Playbook()
    assert book >> FIRST >> Server(start) << ToClient(start)
    assert book.waits_for == 300.0
    assert book >> Wait(300) << Notice("421 4.4.2", cause) << End("timeout", "server", cause)


def test_the_last_ones_refusal_is_shown_unchanged() -> None:
    assert (
        Playbook()
        >> FIRST
        >> Server(b"421 one\r\n")
        << NextDestination("421 one")
        >> LAST
        >> Server(b"421 two\r\n")
        << ToClient(b"421 two\r\n")
        >> ServerEnds()
        << End("server-closed", "server")
    )


def test_when_the_next_cannot_be_connected_the_client_is_told() -> None:
    assert (
        Playbook()
        >> FIRST
        >> ServerEnds()
        << NextDestination("closed before its banner")
        >> Unreachable()
        << Notice("421 4.4.1", "connection refused")
        << End("unreachable", "proxy", "connection refused")
    )


def test_the_client_says_nothing_to_a_server_that_may_be_given_up() -> None:
    assert (
        Playbook()
        >> FIRST
        >> Client(b"HELO x\r\n")
        >> Client(b"NOOP\r\n")
        >> Server(BANNER)
        << ToClient(BANNER)
        << ToServer(b"HELO x\r\nNOOP\r\n")
    )


def test_a_client_that_ends_meanwhile_ends_for_the_server_behind_what_it_said() -> None:
    assert (
        Playbook()
        >> FIRST
        >> Client(b"QUIT\r\n")
        >> ClientEnds()
        >> Server(BANNER)
        << ToClient(BANNER)
        << ToServer(b"QUIT\r\n")
        << FinishServer()
    )


def test_an_endless_line_in_place_of_a_banner_moves_on_too() -> None:
    cause = "a line without an end in place of its banner"
    assert Playbook() >> FIRST >> Server(b"x" * 20000) << NextDestination(cause)
    assert Playbook() >> LAST >> Server(b"x" * 20000) << Notice("421 4.4.2", cause) << End("error", "server", cause)
    long = b"220 " + b"x" * 20000
    assert (
        Playbook()
        >> FIRST
        >> Server(long)
        << ToClient(long)
        >> Server(b"\r\n")
        << ToClient(b"\r\n")
        >> Client(EHLO)
        << ToServer(EHLO)
    )


def test_each_destination_has_its_own_memory() -> None:
    first, last = DestinationMemory(), DestinationMemory()
    book = Playbook(memory=first)
    assert book >> FIRST >> ServerEnds() << NextDestination("closed before its banner")
    book.player.memory = last
    assert book >> LAST
    assert book.session.server.memory is last


# -- lines before the banner -----------------------------------------------------------------------------------------


def test_ehlo_lines_before_the_banner_are_removed_and_told_once() -> None:
    assert (
        Playbook()
        >> LAST
        >> Server(b"250-STARTTLS\r\n")
        << Found("line-before-banner", (b"250-STARTTLS\r\n",), True)
        >> Server(b"250 HELP\r\n\r\n" * 500)
        >> Server(BANNER)
        << ToClient(BANNER)
        >> Client(EHLO)
        << ToServer(EHLO)
    )


def test_nothing_was_shown_as_long_as_they_were_removed() -> None:
    assert (
        Playbook()
        >> FIRST
        >> Server(b"250 HELP\r\n450 busy\r\n")
        << Found("line-before-banner", (b"250 HELP\r\n",), True)
        << NextDestination("450 busy")
    )


def test_modes_that_change_nothing_let_them_pass_and_await_the_banner() -> None:
    lines = b"250-STARTTLS\r\n\r\n250 HELP\r\n"
    for mode, findings in (("observe", [Found("line-before-banner", (b"250-STARTTLS\r\n",), False)]), ("off", [])):
        book = Playbook(SessionPolicy(repair=RepairPolicy(mode=mode)))
        book >> LAST >> Server(lines)
        for finding in findings:
            book << finding
        assert book << ToClient(lines) >> Server(BANNER) << ToClient(BANNER) >> Client(EHLO) << ToServer(EHLO)


def test_a_line_that_is_no_reply_passes_and_is_not_the_banner() -> None:
    for line in (b"\r\n", b"welcome\r\n"):
        assert Playbook() >> FIRST >> Server(line) << ToClient(line) >> Server(b"450 no\r\n") << ToClient(b"450 no\r\n")
        assert (
            Playbook()
            >> LAST
            >> Server(line + BANNER)
            << ToClient(line + BANNER)
            >> Client(EHLO)
            << ToServer(EHLO)
            >> Server(b"250-STARTTLS\r\n250 DSN\r\n")
            >> Wait(0.2)
            << ToClient(b"250-mail.example.com\r\n250-STARTTLS\r\n250 DSN\r\n")
        )


def test_draining_before_anything_was_shown_ends_at_once() -> None:
    end = End("aborted", "proxy", "the proxy is being stopped, try again")
    assert Playbook() >> Drain() << Notice("421 4.3.2", "being stopped") << end >> Connected()
    assert Playbook() >> FIRST >> Drain() << Notice("421 4.3.2", "being stopped") << end
