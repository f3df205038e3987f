"""Time-outs: per command, not per byte; each told to the client where a line may be said."""

from __future__ import annotations

import pytest

from proxy.smtp.session.events import End, FinishServer, ReleaseClient, ReleaseServer, ToClient, ToServer
from proxy.smtp.session.policy import SessionPolicy
from proxy.smtp.session.session import Session
from tests.playbook import (
    BANNER,
    EHLO,
    Client,
    ClientEnds,
    Connected,
    Notice,
    Playbook,
    Server,
    ServerEnds,
    Wait,
    after_ehlo,
    greeted,
)

POLICY = SessionPolicy(banner_timeout=60.0, command_timeout=100.0, half_closed_timeout=40.0)


def late(cause: str, by: str) -> tuple[Notice, End]:
    return Notice("421 4.4.2", "route default", "192.0.2.1", cause), End("timeout", by, cause)


def test_the_banner_has_its_time() -> None:
    notice, end = late("no banner in time", "server")
    book = Playbook(POLICY)
    assert book >> Connected()
    assert book.waits_for == 60.0
    assert book >> Wait(30) >> Client(b"NOOP\r\n") << ToServer(b"NOOP\r\n") >> Wait(29.9) >> Wait(0.1) << notice << end


def test_half_a_banner_has_no_more() -> None:
    notice, end = late("no banner in time", "server")
    book = Playbook(POLICY)
    assert (
        book
        >> Connected()
        >> Wait(50)
        >> Server(b"220-mail.example.com\r\n220-")
        << ToClient(b"220-mail.example.com\r\n")
    )
    assert book >> Wait(10) << notice << end


def test_a_command_said_before_the_banner_has_its_own_time_from_the_banner_on() -> None:
    book = Playbook(POLICY)
    assert book >> Connected() >> Client(EHLO) << ToServer(EHLO) >> Wait(59) >> Server(BANNER) << ToClient(BANNER)
    assert book.waits_for == 100.0


@pytest.mark.parametrize(
    ("last", "outcome"), [(b"221 2.0.0 bye\r\n", "completed"), (b"421 4.3.2 too busy\r\n", "timeout")]
)
def test_nothing_is_said_behind_the_servers_last_word(last: bytes, outcome: str) -> None:
    book = greeted(POLICY) >> Client(b"QUIT\r\n") << ToServer(b"QUIT\r\n") >> Server(last) << ToClient(last)
    assert book >> Wait(100) << End(outcome, "proxy", "nobody closed the connection in time")


def test_the_client_has_its_time_from_the_last_reply_to_a_whole_command() -> None:
    notice, end = late("no command in time", "client")
    book = greeted(POLICY)
    assert book.waits_for == 100.0
    for byte in b"NOOP ....":
        assert book >> Wait(10) >> Client(bytes([byte]))
    assert book >> Wait(9) >> Client(b"\n") << ToServer(b"NOOP ....\n")
    assert book >> Wait(50) >> Server(b"250 ok\r\n") << ToClient(b"250 ok\r\n")
    assert book >> Wait(99) >> Client(b"NOO") >> Wait(1) << notice << end


def test_the_server_has_its_time_from_the_oldest_unanswered_command() -> None:
    notice, end = late("no reply in time", "server")
    book = greeted(POLICY)
    assert (
        book >> Client(b"NOOP\r\n") << ToServer(b"NOOP\r\n") >> Wait(60) >> Client(b"RSET\r\n") << ToServer(b"RSET\r\n")
    )
    assert book >> Wait(39) >> Server(b"250 noop\r\n") << ToClient(b"250 noop\r\n")
    assert book.waits_for == 61.0
    for _ in range(60):
        assert book >> Wait(1) >> Server(b"250-more\r\n") << ToClient(b"250-more\r\n")
    assert book >> Wait(1) << notice << end


def test_a_reply_that_is_late_inside_a_line_ends_without_a_word() -> None:
    long = b"250 " + b"x" * 20000
    _, end = late("no reply in time", "server")
    assert (
        greeted(POLICY)
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
        >> Server(long)
        << ToClient(long)
        >> Wait(100)
        << end
    )


def test_lines_that_nobody_asked_for_give_the_client_no_more_time() -> None:
    notice, end = late("no command in time", "client")
    book = after_ehlo(POLICY)
    for _ in range(10):
        assert book >> Wait(9) >> Server(b"451 hm\r\n") << ToClient(b"451 hm\r\n")
    assert book >> Wait(10) << notice << end


def test_to_call_too_early_or_too_late_does_no_harm() -> None:
    notice, end = late("no command in time", "client")
    book = greeted(POLICY)
    session: Session = book.session
    assert session.time_passed(book.player.now + 99) == []
    assert session.time_passed(book.player.now + 500) == [notice, end]
    assert session.time_passed(book.player.now + 5000) == []
    assert session.deadline is None


def test_before_a_server_is_connected_the_edge_keeps_the_time() -> None:
    book = Playbook(POLICY)
    assert book >> Client(EHLO) >> Wait(10000)
    assert book.waits_for is None


def test_what_was_let_go_has_no_time_here() -> None:
    book = greeted(POLICY)
    assert book >> Client(b"NOOP\r\nMAIL FROM:<>\r\n") << ToServer(b"NOOP\r\nMAIL FROM:<>\r\n") << ReleaseClient()
    assert book.waits_for == 100.0, "but a reply that is still read has"
    assert book >> Server(b"250 ok\r\n") << ToClient(b"250 ok\r\n") << ReleaseServer(False)
    assert book.waits_for is None


def test_a_server_has_half_closed_time_once_the_client_has_ended() -> None:
    book = greeted(POLICY)
    assert book >> ClientEnds() << FinishServer()
    assert book.waits_for == 40.0
    assert book >> Wait(39) >> Server(b"451 hm\r\n") << ToClient(b"451 hm\r\n")
    assert book.waits_for == 40.0, "without a byte"
    assert book >> Wait(40) << End("timeout", "server", "the server did not end in time")


def test_a_reply_that_is_owed_then_has_its_usual_time() -> None:
    notice, end = late("no reply in time", "server")
    book = greeted(POLICY)
    assert book >> Client(b"QUIT\r\n") << ToServer(b"QUIT\r\n") >> ClientEnds() << FinishServer()
    assert book.waits_for == 100.0
    assert book >> Wait(100) << notice << end


@pytest.mark.parametrize("silence", [15.0, 200.0])
def test_the_earlier_of_two_deadlines_counts(silence: float) -> None:
    book = greeted(SessionPolicy(command_timeout=100.0, unterminated_after=silence))
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(b"250-mail.example.com\r\n")
    assert book.waits_for == min(silence, 100.0)


def test_a_client_that_waits_for_an_answer_about_xclient_is_not_late() -> None:
    book = Playbook(POLICY, trusted=False)
    assert (
        book
        >> Connected()
        >> Server(BANNER)
        << ToClient(BANNER)
        >> Wait(99)
        >> Client(b"HELO x\r\n")
        << ToServer(b"HELO x\r\n")
    )
    assert book >> Server(b"250 x\r\n") << ToClient(b"250 x\r\n") >> Wait(99)
    assert book.waits_for == 1.0
    actions = book.player.happens(Client(b"MAIL FROM:<>\r\n"))
    assert [type(action).__name__ for action in actions] == ["SaidPrivately", "ToServer"]
    assert book.waits_for == 100.0


def test_the_end_of_the_server_ends_the_waiting() -> None:
    book = after_ehlo(POLICY)
    assert book >> Client(b"QUIT\r\n") << ToServer(b"QUIT\r\n") >> Server(b"221 bye\r\n") << ToClient(b"221 bye\r\n")
    assert book >> ServerEnds() << End("completed", "server")
    assert book.waits_for is None
