"""A reply that is held: when it is over, and what is known of it by then."""

from __future__ import annotations

import pytest

from proxy.smtp.lines import LineBuffer, split_lines
from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.parts.held import (
    MORE,
    OVER,
    OVER_BY_SILENCE,
    TOO_LONG,
    Held,
    ends_in_no_doubt,
)
from proxy.smtp.session.policy import DestinationMemory, SessionPolicy
from proxy.smtp.session.terms import EHLO_WAIT, GOES_ON_AFTER, MAX_HELD

BANNER = b"220 mail.example.com"
GOOD = b"250-mail.example.com\r\n250-STARTTLS\r\n250 8BITMIME\r\n"
POLICY = SessionPolicy()


def added(raw: bytes) -> tuple[Held, int]:
    held = Held()
    said = MORE
    for line in split_lines(raw):
        said = held.add(line, BANNER)
    return held, said


@pytest.mark.parametrize(
    ("raw", "without_doubt"),
    [
        (GOOD, True),
        (GOOD + b"250 HELP\r\n", False),
        (GOOD[:-18], False),
        (b"250 mail.example.com\r\n", False),
        (b"250-STARTTLS\r\n250 HELP\r\n", False),
        (b"550-mail.example.com\r\n550 no\r\n", False),
        (b"250-mail.example.com\r\n" + b"250-X\r\n" * 100 + b"250 HELP\r\n", False),
    ],
)
def test_a_reply_whose_end_leaves_no_doubt_is_taken_at_once_and_no_other(raw: bytes, without_doubt: bool) -> None:
    assert ends_in_no_doubt(split_lines(raw), BANNER) is without_doubt
    lines = LineBuffer(16384)
    lines.feed(raw)
    held = Held()
    assert held.keep_whole(lines, BANNER) is without_doubt
    assert (len(lines), len(held)) == ((0, len(raw)) if without_doubt else (len(raw), 0))
    if without_doubt:
        line_by_line, _ = added(raw)
        assert line_by_line.turn_over(1.0, False, POLICY, DestinationMemory()) == OVER
        assert held.take() == line_by_line.take()


def test_what_is_unfinished_or_long_is_read_line_by_line() -> None:
    for pieces in ([GOOD[:9], GOOD[9:-1]], [GOOD, b"2"], [GOOD[:-1] + b" " * 4096 + b"\n"]):
        lines = LineBuffer(16384)
        for piece in pieces:
            lines.feed(piece)
        assert not Held().keep_whole(lines, BANNER)
        assert lines.take_pending() == b"".join(pieces)


@pytest.mark.parametrize("raw", [b"550 no\r\n", b"220 x\r\n", b"250-a\r\n550 no\r\n"])
def test_what_is_complete_in_itself_is_over_at_once(raw: bytes) -> None:
    assert added(raw)[1] == OVER


def test_too_many_lines_are_too_long() -> None:
    held, said = added(b"250-X\r\n" * 101)
    assert said == TOO_LONG
    assert held.take() == b"250-X\r\n" * 101


def test_the_turns_end_says_how_long_to_wait() -> None:
    def waits(
        raw: bytes, *, half: bool = False, mode: str = "repair", memory: DestinationMemory | None = None
    ) -> float:
        held, _ = added(raw)
        policy = SessionPolicy(repair=RepairPolicy(mode=mode))
        if held.turn_over(1000.0, half, policy, memory or DestinationMemory()) == OVER:
            return 0.0
        assert held.silent_until is not None
        return round(held.silent_until - 1000.0, 6)

    assert waits(GOOD) == 0.0
    assert waits(GOOD, half=True) == EHLO_WAIT
    assert waits(GOOD, memory=DestinationMemory(999.0)) == EHLO_WAIT
    assert waits(b"250 mail.example.com\r\n") == EHLO_WAIT
    assert waits(b"250 mail.example.com\r\n", mode="off", half=True) == 0.0
    assert waits(GOOD[:-18]) == POLICY.unterminated_after
    assert waits(GOOD[:-18], memory=DestinationMemory(999.0, 999.0)) == GOES_ON_AFTER


def test_silence_ends_what_was_well_begun() -> None:
    assert added(GOOD)[0].silence(False) == OVER
    assert added(GOOD[:-18])[0].silence(False) == OVER_BY_SILENCE
    assert added(GOOD[:-18])[0].silence(True) == MORE
    assert added(b"550-no\r\n")[0].silence(False) == MORE
    assert added(b"nothing\r\n")[0].silence(False) == MORE


def test_a_reply_that_is_nobodys_is_kept_up_to_a_limit() -> None:
    held = Held()
    line = b"220-" + b"x" * 996
    assert [held.keep(line) for _ in range(MAX_HELD // 1000 + 1)] == [True] * (MAX_HELD // 1000) + [False]
    assert not held.is_ehlo
    assert not held.is_whole
    held.take()
    assert held.keep(line), "what was taken counts no more"


def test_nothing_is_left_when_it_is_taken() -> None:
    held, _ = added(GOOD)
    held.turn_over(1.0, True, POLICY, DestinationMemory())
    assert (held.is_ehlo, held.is_whole) == (True, True)
    assert held.take() == GOOD
    assert (len(held), held.is_ehlo, held.silent_until, held.take()) == (0, False, None, b"")


def test_so_much_of_an_endless_line_is_part_of_it() -> None:
    held, _ = added(b"250-a\r\n")
    held.add_endless(b"250-xxx")
    assert held.take() == b"250-a\r\n250-xxx"
