"""What the server's lines are, one after the other."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.events import Found, ToClient
from proxy.smtp.session.parts.answers import Answers, Said
from proxy.smtp.session.parts.server import Server
from proxy.smtp.session.parts.talk import Talk
from proxy.smtp.session.parts.trust import Trust
from proxy.smtp.session.policy import SessionPolicy
from proxy.smtp.session.terms import MAX_REPLY_LINE, Reply

GOOD = b"250-mail.example.com\r\n250-STARTTLS\r\n250 8BITMIME\r\n"


class Heard:
    """Answers, and what they stand on."""

    def __init__(self, *owed: int, trusted: bool = True, mode: str = "repair", private: bool = False) -> None:
        self.talk = Talk(1000.0)
        self.server = Server()
        self.server.connected("mail.example.com", "192.0.2.1", 25, None, False)
        policy = SessionPolicy(repair=RepairPolicy(mode=mode))
        self.answers = Answers(policy, self.talk, self.server, Trust(trusted, ""))
        for kind in owed:
            self.talk.ask(kind, b"", private)

    def says(self, data: bytes) -> int:
        self.answers.lines.feed(data)
        return self.answers.read()

    @property
    def forwarded(self) -> bytes:
        return b"".join(action.data for action in self.talk.done() if isinstance(action, ToClient))


def test_each_reply_is_told_when_it_is_over_and_its_lines_are_forwarded() -> None:
    heard = Heard(Reply.BANNER, Reply.NOOP, Reply.HELP)
    assert heard.says(b"220 mail.example.com\r\n250 ok\r\n214-a\r\n214 b\r\n") == Said.REPLY
    for kind, code in ((Reply.BANNER, 220), (Reply.NOOP, 250), (Reply.HELP, 214)):
        over = heard.talk.first_is_over()
        assert (over.kind, heard.server.last_code) == (kind, code)
        said = heard.answers.read()
    assert said == Said.NOTHING
    assert heard.forwarded == b"220 mail.example.com\r\n250 ok\r\n214-a\r\n214 b\r\n"
    assert heard.server.banner == b"220 mail.example.com"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_ehlo_reply_is_held_however_it_is_cut(size: int) -> None:
    heard = Heard(Reply.EHLO)
    said = [heard.says(GOOD[at : at + size]) for at in range(0, len(GOOD), size)]
    assert said[-1] == Said.EHLO
    assert set(said[:-1]) <= {Said.NOTHING}
    assert (heard.forwarded, heard.answers.held.take()) == (b"", GOOD)


def test_the_replies_to_starttls_and_to_private_commands_are_held() -> None:
    for heard in (Heard(Reply.STARTTLS), Heard(Reply.HELO, private=True)):
        assert heard.says(b"250-a\r\n250 b\r\n") == Said.REPLY
        assert (heard.forwarded, heard.answers.held.take()) == (b"", b"250-a\r\n250 b\r\n")


def test_silence_ends_one() -> None:
    heard = Heard(Reply.EHLO)
    assert heard.says(b"250-mail.example.com\r\n250-DSN\r\n") == Said.NOTHING
    assert heard.answers.held.silent_until == 1015.0
    assert heard.answers.silence() == Said.EHLO_BY_SILENCE


def test_a_220_that_nobody_asked_for_is_refused_and_the_rest_forwarded() -> None:
    heard = Heard()
    assert heard.says(b"451 what\r\n") == Said.NOTHING
    assert heard.says(b"220 go\r\n") == Said.REFUSAL
    refusal = heard.answers.refusal
    assert refusal is not None
    assert (refusal.outcome, refusal.status, heard.forwarded) == ("injection", "4.7.0", b"451 what\r\n")


def test_the_first_line_that_is_not_read_is_the_last_that_is_looked_at() -> None:
    heard = Heard(Reply.UNREAD)
    assert heard.says(b"250-Sender\r\n250 ok\r\n") == Said.FIRST_UNREAD
    assert heard.answers.release() == b"250 ok\r\n"
    assert heard.forwarded == b"250-Sender\r\n"
    assert not heard.talk.owed


def test_late_lines_are_removed_and_told_of_once() -> None:
    heard = Heard()
    heard.answers.late.begin(after_silence=False)
    assert heard.says(b"250-DSN\r\n250 SIZE\r\n") == Said.NOTHING
    assert heard.talk.done() == [Found("final-line-early", (b"250-DSN\r\n",), True)]


@pytest.mark.parametrize("mode", ["repair", "observe", "off"])
def test_an_offer_to_a_stranger_is_one_in_every_mode(mode: str) -> None:
    for late in (False, True):
        heard = Heard(trusted=False, mode=mode)
        if late:
            heard.answers.late.begin(after_silence=False)
        assert heard.says(b"250-XCLIENT ADDR\r\n") == Said.STRANGER


def test_while_the_client_begins_tls_only_late_lines_may_come() -> None:
    heard = Heard()
    heard.answers.late.begin(after_silence=False)
    heard.answers.lines.feed(b"250-DSN\r\n250 SIZE\r\n")
    assert heard.answers.read_late() == Said.NOTHING
    heard.answers.lines.feed(b"220 go\r\n")
    assert heard.answers.read_late() == -1
    heard.answers.lines.feed(b"25")
    assert heard.answers.read_late() == -1
    heard = Heard(trusted=False)
    heard.answers.late.begin(after_silence=False)
    heard.answers.lines.feed(b"250-XCLIENT ADDR\r\n")
    assert heard.answers.read_late() == Said.STRANGER


def test_a_line_without_an_end_passes_in_pieces_and_its_reply_ends_with_it() -> None:
    heard = Heard(Reply.NOOP)
    piece = b"250 " + b"x" * MAX_REPLY_LINE
    assert heard.says(piece) == Said.NOTHING
    assert (heard.answers.inside_a_line, heard.answers.half_a_line) == (True, True)
    assert heard.says(b"y" * MAX_REPLY_LINE + b"\r\n") == Said.REPLY
    assert heard.forwarded == piece + b"y" * MAX_REPLY_LINE + b"\r\n"
    assert not heard.answers.inside_a_line


def test_what_was_held_when_the_server_went_is_dropped_but_not_a_refusal() -> None:
    for said, left in ((GOOD[:-5], b""), (b"550-no\r\n550 n", b"550-no\r\n550 n")):
        heard = Heard(Reply.EHLO)
        heard.says(said)
        assert heard.answers.cut_off() == left
        assert len(heard.answers.held) == 0


def test_nothing_is_left_of_a_server_that_is_given_up() -> None:
    heard = Heard(Reply.EHLO, Reply.NOOP)
    heard.says(GOOD[:30])
    heard.answers.late.begin(after_silence=True)
    heard.answers.forget()
    assert (len(heard.answers.lines), len(heard.answers.held), len(heard.talk.owed)) == (0, 0, 0)
    assert not heard.answers.late.possible
