"""What a line is that comes when the EHLO reply was taken for over."""

from __future__ import annotations

import pytest

from proxy.smtp.session.parts.late import LateLines, Verdict, offers_trust
from proxy.smtp.session.policy import DestinationMemory
from proxy.smtp.session.terms import Reply

BANNER = b"220 mail.example.com"
NOW = 1000.0


def judged(line: bytes, kind: int | None = None, *, goes_on: bool = False, may_see: bool = True) -> int:
    late = LateLines()
    late.begin(after_silence=False)
    return late.judge(line, kind, BANNER, DestinationMemory(NOW if goes_on else None), NOW, may_see)


@pytest.mark.parametrize(
    ("line", "kind", "verdict"),
    [
        (b"250-STARTTLS\r\n", None, Verdict.LATE),
        (b"250 XUNKNOWN\r\n", None, Verdict.LATE),
        (b"250-free text\r\n", None, Verdict.LATE),
        (b"250 free text\r\n", None, Verdict.REPLY),
        (b"250 OK\r\n", None, Verdict.REPLY),
        (b"421 closing\r\n", None, Verdict.REPLY),
        (b"\r\n", Reply.NOOP, Verdict.BLANK),
        (b"250\r\n", None, Verdict.BLANK),
        (b"250\r\n", Reply.NOOP, Verdict.REPLY),
        (b"250 SIZE 100\r\n", Reply.STARTTLS, Verdict.LATE),
        (b"250-SIZE 100\r\n", Reply.OTHER, Verdict.LATE),
        (b"250 HELP\r\n", Reply.NOOP, Verdict.REPLY),
        (b"250 HELP\r\n", Reply.OTHER, Verdict.LATE),
        (b"250-Sender ok\r\n", Reply.UNREAD, Verdict.REPLY),
    ],
)
def test_the_later_the_more_evidence_is_asked_for(line: bytes, kind: int | None, verdict: int) -> None:
    assert judged(line, kind) == verdict


@pytest.mark.parametrize(
    ("line", "kind", "verdict"),
    [
        (b"250-Sender ok\r\n", Reply.UNREAD, Verdict.LATE),
        (b"250-mail.example.com again\r\n", Reply.HELO, Verdict.REPLY),
        (b"250-user list\r\n", Reply.LISTING, Verdict.REPLY),
        (b"250-2.1.0 Sender ok\r\n", Reply.UNREAD, Verdict.REPLY),
    ],
)
def test_of_a_server_that_was_seen_to_go_on_less_is_needed(line: bytes, kind: int, verdict: int) -> None:
    assert judged(line, kind, goes_on=True) == verdict


def test_an_offer_is_one_before_it_is_anything_else() -> None:
    assert judged(b"250-XCLIENT ADDR\r\n", may_see=False) == Verdict.OFFER
    assert judged(b"250-XCLIENT ADDR\r\n") == Verdict.LATE
    assert offers_trust(b"250-XFORWARD NAME\r\n")
    assert not offers_trust(b"250-SIZE " + b"1" * 600 + b"\r\n")


def test_a_line_that_promises_another_is_believed() -> None:
    late = LateLines()
    memory = DestinationMemory()
    late.begin(after_silence=False)
    assert late.judge(b"250 free text\r\n", None, BANNER, memory, NOW, True) == Verdict.REPLY
    assert late.judge(b"250-one\r\n", None, BANNER, memory, NOW, True) == Verdict.LATE
    assert late.judge(b"250 free text\r\n", None, BANNER, memory, NOW, True) == Verdict.LATE
    assert late.judge(b"250 free text\r\n", None, BANNER, memory, NOW, True) == Verdict.REPLY


@pytest.mark.parametrize("after_silence", [False, True])
def test_the_memory_learns_of_a_late_line_and_of_no_other(after_silence: bool) -> None:
    late = LateLines()
    memory = DestinationMemory()
    late.begin(after_silence=after_silence)
    assert late.finding == ("final-line-missing" if after_silence else "final-line-early")
    late.judge(b"\r\n", None, BANNER, memory, NOW, True)
    late.judge(b"250 2.0.0 ok\r\n", Reply.NOOP, BANNER, memory, NOW, True)
    assert not memory.goes_on(NOW)
    late.judge(b"250 DSN\r\n", None, BANNER, memory, NOW, True)
    assert (memory.goes_on(NOW), memory.goes_on_slowly(NOW)) == (True, after_silence)


def test_it_is_over_when_another_reply_has_come() -> None:
    late = LateLines()
    assert not late.possible
    late.begin(after_silence=False)
    assert late.possible
    late.end()
    assert not late.possible
