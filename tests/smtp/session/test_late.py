"""EHLO lines that come after the reply was taken for over: no reply may be shifted by them."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.events import End, Found, ReleaseClient, ReleaseServer, ToClient, ToServer
from proxy.smtp.session.policy import DestinationMemory, SessionPolicy
from tests.playbook import EHLO, GOOD, Client, Notice, Playbook, Server, ServerEnds, Wait, after_ehlo, greeted

CAUSE = "its EHLO reply went on while another reply was due"
KEYWORDS = [b"250-DSN\r\n", b"250 SIZE 10\r\n", b"PIPELINING\r\n", b"250-help\r\n"]
TEXTS = [b"250-some words more\r\n", b"250-XUNKNOWN\r\n", b"250-Sender ok\r\n"]
GREETINGS = [b"250-mail.example.com\r\n", b"250-MAIL.example.com at your service\r\n", b"250-mx Hello you\r\n"]
LATE = [*KEYWORDS, *TEXTS, *GREETINGS]
COMMANDS = pytest.mark.parametrize("command", [b"RSET\r\n", b"HELO x\r\n", b"QUIT\r\n", b"XFORWARD NAME=x\r\n"])


def seen() -> DestinationMemory:
    return DestinationMemory(went_on_at=1000.0)


def seen_to_go_on() -> Playbook:
    """A server that went on after an end some time ago, and this time did not."""
    book = greeted(memory=seen())
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(GOOD) >> Wait(0.2) << ToClient(GOOD)
    return book


def early(line: bytes) -> Found:
    return Found("final-line-early", (line,), True)


@pytest.mark.parametrize("line", [*LATE, b"250 XUNKNOWN\r\n"], ids=repr)
def test_with_nothing_outstanding_they_are_removed(line: bytes) -> None:
    memory = DestinationMemory()
    assert after_ehlo(memory=memory) >> Server(line) << early(line) >> Client(b"NOOP\r\n") << ToServer(b"NOOP\r\n")
    assert memory.goes_on(1000.0)


@pytest.mark.parametrize("line", KEYWORDS, ids=repr)
def test_with_starttls_outstanding_they_are_removed(line: bytes) -> None:
    assert (
        after_ehlo()
        >> Client(b"STARTTLS\r\n")
        << ToServer(b"STARTTLS\r\n")
        >> Server(line + b"250 SIZE\r\n220 rea")
        << early(line)
        >> Server(b"dy\r\n")
        << ToClient(b"220 ready\r\n")
    )


@pytest.mark.parametrize("line", [*TEXTS, *GREETINGS, b"250 XUNKNOWN\r\n", b"250\r\n"], ids=repr)
def test_every_other_line_is_the_reply_to_starttls(line: bytes) -> None:
    for memory in (DestinationMemory(), seen()):
        book = greeted(memory=memory)
        book >> Client(EHLO) << ToServer(EHLO) >> Server(GOOD)
        assert book >> Wait(0.2) << ToClient(GOOD) if memory.went_on_at else book << ToClient(GOOD)
        rest = b"" if line[3:4] != b"-" else b"250 go on\r\n"
        assert (
            book >> Client(b"STARTTLS\r\n") << ToServer(b"STARTTLS\r\n") >> Server(line + rest) << ToClient(line + rest)
        )


@COMMANDS
@pytest.mark.parametrize("line", KEYWORDS, ids=repr)
def test_with_another_command_outstanding_a_known_keyword_ends_the_session(line: bytes, command: bytes) -> None:
    memory = DestinationMemory()
    assert (
        after_ehlo(memory=memory)
        >> Client(command)
        << ToServer(command)
        >> Server(line + b"250 2.0.0 Ok\r\n")
        << early(line)
        << Notice("421 4.4.2", CAUSE)
        << End("error", "server", CAUSE)
    )
    assert memory.goes_on(1000.0)


@COMMANDS
@pytest.mark.parametrize("line", [*TEXTS, *GREETINGS], ids=repr)
def test_the_answer_of_a_good_server_in_several_lines_is_not_touched(line: bytes, command: bytes) -> None:
    memory = DestinationMemory()
    reply = line + b"250-and more\r\n250 go on\r\n"
    assert after_ehlo(memory=memory) >> Client(command) << ToServer(command) >> Server(reply) << ToClient(reply)
    assert not memory.goes_on(1000.0), "nothing is held against it"


@COMMANDS
@pytest.mark.parametrize("line", TEXTS, ids=repr)
def test_of_a_server_that_was_seen_to_go_on_any_line_but_a_greeting_ends_it(line: bytes, command: bytes) -> None:
    assert (
        seen_to_go_on()
        >> Client(command)
        << ToServer(command)
        >> Server(line + b"250 2.0.0 Ok\r\n")
        << early(line)
        << Notice("421 4.4.2", CAUSE)
        << End("error", "server", CAUSE)
    )


@COMMANDS
@pytest.mark.parametrize("line", [*GREETINGS, b"250-2.0.0 Ok\r\n", b"250 XUNKNOWN\r\n"], ids=repr)
def test_what_is_a_reply_even_of_such_a_server_passes(line: bytes, command: bytes) -> None:
    reply = line + b"250 go on\r\n" if line[3:4] == b"-" else line
    assert seen_to_go_on() >> Client(command) << ToServer(command) >> Server(reply) << ToClient(reply)


def test_an_hour_later_it_is_a_good_server_again() -> None:
    book = seen_to_go_on()
    reply = b"250-Sender ok\r\n250 go on\r\n"
    for _ in range(13):
        (
            book
            >> Wait(290)
            >> Client(b"NOOP\r\n")
            << ToServer(b"NOOP\r\n")
            >> Server(b"250 ok\r\n")
            << ToClient(b"250 ok\r\n")
        )
    book >> Client(EHLO) << ToServer(EHLO) >> Server(GOOD) << ToClient(GOOD)
    assert book >> Client(b"RSET\r\n") << ToServer(b"RSET\r\n") >> Server(reply) << ToClient(reply)


@pytest.mark.parametrize("command", [b"NOOP\r\n", b"HELP\r\n"])
def test_help_is_an_answer_to_noop_and_help(command: bytes) -> None:
    for line in (b"250 HELP\r\n", b"250-HELP\r\n250 you\r\n"):
        assert after_ehlo() >> Client(command) << ToServer(command) >> Server(line) << ToClient(line)


@pytest.mark.parametrize(
    "sent", [b"MAIL FROM:<>\r\n", b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n", b"BDAT 0 LAST\r\n"]
)
@pytest.mark.parametrize("line", KEYWORDS, ids=repr)
def test_with_mail_let_through_the_session_ends_before_a_reply_is_shifted(line: bytes, sent: bytes) -> None:
    assert (
        after_ehlo()
        >> Client(sent)
        << ToServer(sent)
        << ReleaseClient()
        >> Server(line[:2])
        >> Server(line[2:] + b"250 2.1.0 Ok\r\n")
        << early(line)
        << Notice("421 4.4.2", CAUSE)
        << End("error", "server", CAUSE)
    )


@pytest.mark.parametrize(
    "reply",
    [b"250 OK\r\n", b"250 2.1.0 Ok\r\n", b"250-2.1.0 one\r\n250 2.1.0 two\r\n", b"250 ACCEPTED\r\n", b"550 no\r\n",
     b"250-Sender ok\r\n250 go on\r\n", b"250-mail.example.com\r\n250 ok\r\n",
     b"250\r\n", b"250 <a@b.example>... Sender ok\r\n", b"451-greylisted\r\n451 later\r\n"],
)  # fmt: skip
def test_a_reply_that_answers_mail_is_not_taken_for_one(reply: bytes) -> None:
    assert (
        after_ehlo()
        >> Client(b"MAIL FROM:<>\r\n")
        << ToServer(b"MAIL FROM:<>\r\n")
        << ReleaseClient()
        >> Server(reply)
        << ToClient(reply)
        << ReleaseServer(False)
    )


@pytest.mark.parametrize("command", [b"EXPN list\r\n", b"VRFY you\r\n", b"HELP\r\n"])
def test_replies_of_free_text_are_not_taken_for_late_lines(command: bytes) -> None:
    reply = b"250-You <you@example.com>\r\n250 Me <me@example.com>\r\n"
    assert after_ehlo() >> Client(command) << ToServer(command) >> Server(reply) << ToClient(reply)
    assert seen_to_go_on() >> Client(command) << ToServer(command) >> Server(reply) << ToClient(reply)
    line = b"250-8BITMIME\r\n"
    assert (
        after_ehlo()
        >> Client(command)
        << ToServer(command)
        >> Server(line)
        << early(line)
        << Notice("421 4.4.2", CAUSE)
        << End("error", "server", CAUSE)
    )


def test_a_late_line_that_promises_another_takes_that_along() -> None:
    assert after_ehlo() >> Server(b"250-DSN\r\n250 OK\r\n") << early(b"250-DSN\r\n")
    assert (
        after_ehlo()
        >> Server(b"250-DSN\r\n250-\r\n250 OK\r\n")
        << early(b"250-DSN\r\n")
        << Found("blank-line", (b"250-\r\n",), True)
    )
    assert (
        after_ehlo()
        >> Server(b"250-DSN\r\n")
        << early(b"250-DSN\r\n")
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
        >> Server(b"250 OK\r\n")
        << ToClient(b"250 OK\r\n")
    )


def test_lines_after_the_silence_are_of_a_server_that_goes_on() -> None:
    memory = DestinationMemory()
    book = greeted(memory=memory)
    unended = b"250-mail.example.com\r\n250-STARTTLS\r\n"
    ended = b"250-mail.example.com\r\n250 STARTTLS\r\n"
    assert (
        book
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(unended)
        >> Wait(15)
        << ToClient(ended)
        >> Server(b"250 XMORE\r\n")
        << Found("final-line-missing", (b"250 XMORE\r\n",), True)
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
    )
    assert memory.goes_on_slowly(1015.0)


@pytest.mark.parametrize("blank", [b"\r\n", b"\n", b" \r\n", b"250\r\n", b"250 \r\n"], ids=repr)
def test_a_blank_line_behind_the_reply_in_a_later_segment_is_removed(blank: bytes) -> None:
    memory = DestinationMemory()
    assert after_ehlo(memory=memory) >> Server(blank) << Found("blank-line", (blank,), True)
    assert not memory.goes_on(1000.0), "a blank line is no reason to wait at every EHLO"


def test_a_blank_line_before_the_answer_to_mail_is_removed_and_shifts_nothing() -> None:
    assert (
        after_ehlo()
        >> Client(b"MAIL FROM:<>\r\n")
        << ToServer(b"MAIL FROM:<>\r\n")
        << ReleaseClient()
        >> Server(b"\r\n250 ok\r\n")
        << Found("blank-line", (b"\r\n",), True)
        << ToClient(b"250 ok\r\n")
        << ReleaseServer(False)
    )


@pytest.mark.parametrize("line", [b"421 4.3.2 closing\r\n", b"421-4.3.2 closing\r\n", b"450 later\r\n"])
def test_a_421_is_never_removed(line: bytes) -> None:
    assert after_ehlo() >> Server(line) << ToClient(line)
    assert (
        after_ehlo()
        >> Server(b"421 closing\r\n")
        << ToClient(b"421 closing\r\n")
        >> ServerEnds()
        << End("server-closed", "server")
    )


def test_once_another_reply_has_come_no_line_is_late_any_more() -> None:
    assert (
        after_ehlo()
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
        >> Server(b"250 noop\r\n250-DSN\r\n")
        << ToClient(b"250 noop\r\n250-DSN\r\n")
    )
    assert after_ehlo() >> Server(b"451 hm\r\n250-DSN\r\n") << ToClient(b"451 hm\r\n250-DSN\r\n")


def test_a_refused_ehlo_has_no_late_lines() -> None:
    book = greeted()
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(b"502 no\r\n") << ToClient(b"502 no\r\n")
    assert book >> Server(b"250-DSN\r\n") << ToClient(b"250-DSN\r\n")


def test_any_number_of_late_lines_is_told_once() -> None:
    assert after_ehlo() >> Server(b"250-DSN\r\n" * 1000) << early(b"250-DSN\r\n")


def test_an_endless_late_line_ends_the_session() -> None:
    cause = "its EHLO reply went on without an end"
    assert (
        after_ehlo()
        >> Server(b"250-" + b"x" * 20000)
        << early(b"250-" + b"x" * 20000)
        << Notice("421 4.4.2", cause)
        << End("error", "server", cause)
    )
    assert (
        after_ehlo()
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
        >> Server(b"250-" + b"x" * 20000)
        << ToClient(b"250-" + b"x" * 20000)
    )
    assert (
        seen_to_go_on()
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
        >> Server(b"250-" + b"x" * 20000)
        << early(b"250-" + b"x" * 20000)
        << Notice("421 4.4.2", CAUSE)
        << End("error", "server", CAUSE)
    )


def test_modes_that_change_nothing_let_them_pass() -> None:
    observe = SessionPolicy(repair=RepairPolicy(mode="observe"))
    assert (
        after_ehlo(observe)
        >> Server(b"250-DSN\r\n")
        << Found("final-line-early", (b"250-DSN\r\n",), False)
        << ToClient(b"250-DSN\r\n")
    )
    off = SessionPolicy(repair=RepairPolicy(mode="off"))
    assert after_ehlo(off) >> Server(b"250-DSN\r\n") << ToClient(b"250-DSN\r\n")
    for policy in (observe, off):
        assert (
            after_ehlo(policy)
            >> Client(b"MAIL FROM:<>\r\n")
            << ToServer(b"MAIL FROM:<>\r\n")
            << ReleaseClient()
            << ReleaseServer(False)
        )


def test_the_second_of_two_ehlos_takes_what_was_late_for_the_first_into_its_reply() -> None:
    assert (
        after_ehlo()
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(b"250-DSN\r\n250 HELP\r\n")
        >> Server(GOOD)
        << ToClient(b"250-mail.example.com\r\n250-DSN\r\n250-HELP\r\n250-STARTTLS\r\n250 8BITMIME\r\n")
    )
