"""The letting go: at the first command that is not read, byte for byte from there on, each direction by itself."""

from __future__ import annotations

import pytest

from proxy.smtp.session.commands import MAX_COMMAND
from proxy.smtp.session.events import End, FinishServer, ReleaseClient, ReleaseServer, ToClient, ToServer
from tests.playbook import EHLO, GOOD, Client, ClientEnds, Server, ServerEnds, Wait, after_ehlo, greeted

# All that is known to end a message for one server or another, and to go on for the rest.
ENDS_OF_DATA = [
    b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r", b"\r\n.\n", b"\n\n.\r\n", b"\r\n\x00.\r\n", b"\r\n.\x00\r\n",
    b"\r\n.\r\x00\n", b"\r\r\n.\r\r\n", b"\r\n.\r\r\n", b"\x00\r\n.\r\n", b"\r\n.\r\n",
]  # fmt: skip
SMUGGLED = b"MAIL FROM:<evil@example.net>\r\nRCPT TO:<you@example.com>\r\nDATA\r\n250 ok\r\n220 ready\r\nSTARTTLS\r\n"

UNREAD = [
    b"MAIL FROM:<>\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"BDAT 10 LAST\r\n", b"DATA\r\n", b"ETRN example.com\r\n", b"\r\n",
    b"\n", b"XEXCH50 2 2\r\n", b"EHLO\r\r\n", b"EH\0LO x\r\n", b"NOOP\rQUIT\r\n", b"NOOP \0\r\n", b"STARTTLSX\r\n",
    b"STARTTLS\0\r\n", b"\xff\xfe\r\n", b"EHLO " + b"x" * MAX_COMMAND + b"\r\n", b"GET / HTTP/1.1\r\n",
    b"Q\xc3\x9cIT\r\n",
]  # fmt: skip


@pytest.mark.parametrize("line", UNREAD, ids=lambda line: repr(line[:20]))
def test_a_command_that_is_not_read_lets_go_of_both_directions(line: bytes) -> None:
    assert (
        greeted()
        >> Client(line)
        << ToServer(line)
        << ReleaseClient()
        << ReleaseServer(False)
        >> Client(b"STARTTLS\r\nEHLO x\r\n")
        << ToServer(b"STARTTLS\r\nEHLO x\r\n")
        >> Server(b"220 no injection here\r\n")
        << ToClient(b"220 no injection here\r\n")
    )


def test_behind_an_ehlo_reply_one_reply_line_more_is_looked_at() -> None:
    assert (
        after_ehlo()
        >> Client(b"MAIL FROM:<>\r\n")
        << ToServer(b"MAIL FROM:<>\r\n")
        << ReleaseClient()
        >> Server(b"250 2.1")
        >> Server(b".0 Ok\r\n25")
        << ToClient(b"250 2.1.0 Ok\r\n25")
        << ReleaseServer(False)
    )


@pytest.mark.parametrize("end", ENDS_OF_DATA, ids=repr)
def test_every_end_of_data_is_passed_on_exactly_cut_at_every_place(end: bytes) -> None:
    message = b"MAIL FROM:<a@example.com>\r\nDATA\r\nSubject: x\r\n\r\n" + end + SMUGGLED
    for cut in range(len(message) + 1):
        book = after_ehlo()
        pieces = [message[:cut], message[cut:]]
        sent = b"".join(
            action.data
            for piece in pieces
            for action in book.player.happens(Client(piece))
            if isinstance(action, ToServer)
        )
        assert sent == message
        answer = b"250 2.1.0 Ok\r\n354 go on\r\n" + SMUGGLED
        assert book >> Server(answer) << ToClient(answer) << ReleaseServer(False)


@pytest.mark.parametrize("end", ENDS_OF_DATA, ids=repr)
def test_a_message_byte_by_byte_is_exact(end: bytes) -> None:
    message = b"MAIL FROM:<a@example.com>\r\nDATA\r\n" + end + SMUGGLED
    book = after_ehlo()
    sent = b"".join(
        action.data
        for byte in message
        for action in book.player.happens(Client(bytes([byte])))
        if isinstance(action, ToServer)
    )
    assert sent == message


def test_bdat_with_smtp_inside_and_every_byte_there_is_passes_unread() -> None:
    chunk = SMUGGLED + bytes(range(256)) + b"\r\n.\r\n"
    data = b"MAIL FROM:<>\r\nRCPT TO:<you@example.com>\r\nBDAT %d LAST\r\n" % len(chunk) + chunk
    assert after_ehlo() >> Client(data) << ToServer(data) << ReleaseClient()


def test_the_servers_direction_is_let_go_behind_the_replies_that_are_owed() -> None:
    both = b"NOOP\r\nRSET\r\n"
    book = greeted()
    assert (
        book
        >> Client(both + b"MAIL FROM:<>\r\n")
        << ToServer(both + b"MAIL FROM:<>\r\n")
        << ReleaseClient()
        >> Server(b"250 noop\r\n")
        << ToClient(b"250 noop\r\n")
        >> Server(b"250-rset\r\n250 rset\r\n250 sender")
        << ToClient(b"250-rset\r\n250 rset\r\n250 sender")
        << ReleaseServer(False)
    )


def test_ehlo_with_mail_behind_it_is_repaired_and_then_let_go() -> None:
    assert (
        greeted()
        >> Client(EHLO + b"MAIL FROM:<>\r\nRCPT T")
        << ToServer(EHLO)
        >> Client(b"O:<you@example.com>\r\n")
        >> Server(b"250-STARTTLS\r\n250-mail.example.com\r\n250 PIPELINING\r\n")
        << ToClient(b"250-mail.example.com\r\n250-STARTTLS\r\n250 PIPELINING\r\n")
        << ToServer(b"MAIL FROM:<>\r\nRCPT TO:<you@example.com>\r\n")
        << ReleaseClient()
        >> Server(b"250 ok\r\n")
        << ToClient(b"250 ok\r\n")
        << ReleaseServer(False)
    )


def test_a_command_line_without_an_end_is_an_unknown_command() -> None:
    assert (
        greeted()
        >> Client(b"x" * MAX_COMMAND)
        >> Client(b"x")
        << ToServer(b"x" * (MAX_COMMAND + 1))
        << ReleaseClient()
        << ReleaseServer(False)
    )


def test_nothing_of_a_released_session_asks_for_time() -> None:
    book = greeted()
    assert (
        book >> Client(b"MAIL FROM:<>\r\n") << ToServer(b"MAIL FROM:<>\r\n") << ReleaseClient() << ReleaseServer(False)
    )
    assert book.waits_for is None
    assert book >> Wait(100000)


def test_while_the_server_still_owes_the_answer_to_mail_no_time_is_asked_for() -> None:
    book = after_ehlo()
    assert book >> Client(b"MAIL FROM:<>\r\n") << ToServer(b"MAIL FROM:<>\r\n") << ReleaseClient()
    assert book.waits_for is None, "the relay's idle time-out rules"


def test_ends_after_the_letting_go_are_passed_on() -> None:
    book = greeted()
    assert (
        book >> Client(b"MAIL FROM:<>\r\n") << ToServer(b"MAIL FROM:<>\r\n") << ReleaseClient() << ReleaseServer(False)
    )
    assert book >> ClientEnds() << FinishServer() >> ServerEnds() << End("server-closed", "server")


def test_an_end_that_came_before_the_letting_go_is_passed_on_with_it() -> None:
    assert (
        greeted()
        >> Client(EHLO + b"MAIL FROM:<>\r\n")
        << ToServer(EHLO)
        >> ClientEnds()
        >> Server(GOOD)
        << ToClient(GOOD)
        << ToServer(b"MAIL FROM:<>\r\n")
        << ReleaseClient()
        << FinishServer()
    )
