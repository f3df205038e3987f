"""When an EHLO reply is over, and what is no part of it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.smtp.reply.ehlo import (
    ReplyProgress,
    has_greeting,
    is_blank_line,
    line_before_banner,
    looks_like_ehlo_line,
    split_before_banner,
)

# the machine may be busy with something else

MAIL = b"220 mail.example.com ESMTP\r\n"
HOST, TLS, HELP = b"250-mail.example.com\r\n", b"250-STARTTLS\r\n", b"250 HELP\r\n"


def progress(*lines: bytes, banner: bytes = MAIL) -> ReplyProgress:
    made = ReplyProgress(banner)
    for line in lines:
        made.add(line)
    return made


@pytest.mark.parametrize(
    ("why", "lines", "final_seen", "settled"),
    [
        ("nothing yet", (), False, False),
        ("a good reply", (HOST, TLS, HELP), True, True),
        ("more to come", (HOST, TLS), False, False),
        ("the greeting is not first", (TLS, HOST, HELP), True, True),
        ("no greeting so far", (TLS, HELP), True, False),
        ("one line", (b"250 mail.example.com\r\n",), True, False),
        ("one line and a blank one", (b"250 mail.example.com\r\n", b"\r\n"), True, False),
        ("a bare code ends", (HOST, b"250\r\n"), True, True),
        ("it goes on after a final line", (HOST, b"250 STARTTLS\r\n", b"250-8BITMIME\r\n"), True, True),
        ("and ends again", (HOST, b"250 STARTTLS\r\n", b"250-8BITMIME\r\n", HELP), True, True),
        ("every line is final", (b"250 mail.example.com\r\n", b"250 STARTTLS\r\n"), True, True),
        ("a separator that is none may end it", (HOST, b"250_HELP\r\n"), True, False),
        ("but does not when more comes", (HOST, b"250_STARTTLS\r\n", b"250-8BITMIME\r\n"), False, False),
        ("a keyword glued to the code may end it", (HOST, b"250STARTTLS\r\n"), True, False),
        ("a dash behind the blank may end it", (HOST, b"250 -STARTTLS\r\n"), True, False),
        ("junk before the code", (HOST, b" 250 HELP\r\n"), True, True),
        ("a line without a code ends nothing", (HOST, b"HELP\r\n"), False, False),
        ("nor takes an end back", (HOST, HELP, b"\r\n"), True, True),
        ("a refusal", (b"502 5.5.1 no\r\n",), True, True),
        ("a refusal of many lines", (b"550-STARTTLS\r\n", b"550 no\r\n"), True, True),
        ("a refusal goes on", (b"550-STARTTLS\r\n",), False, False),
        ("a refusal at the end", (TLS, b"550 no\r\n"), True, True),
        ("a lone 220", (b"220 mail.example.com ESMTP\r\n",), True, True),
        ("the last line has another code", (HOST, b"220 HELP\r\n"), True, True),
    ],
)
def test_when_a_reply_may_leave(why: str, lines: tuple[bytes, ...], final_seen: bool, settled: bool) -> None:
    made = progress(*lines)
    assert made.final_seen is final_seen
    assert made.settled is settled
    assert made.whole() == b"".join(lines)
    assert (made.lines, made.size) == (len(lines), len(made.whole()))


def test_a_greeting_that_comes_later_settles_the_reply() -> None:
    made = progress(TLS, HELP)
    assert not made.settled
    made.add(b"250 SIZE\r\n")
    assert not made.settled
    made.add(b"250 relay.example.com\r\n")
    assert made.settled
    assert made.settled


def test_a_refusal_is_told() -> None:
    assert progress(b"421 4.3.2 closing\r\n").refused
    assert progress(TLS, b"550-no\r\n").refused
    assert not progress(TLS, b"354 what\r\n").refused


@pytest.mark.parametrize(
    ("lines", "too_long"),
    [
        ((TLS,) * 100, False),
        ((TLS,) * 101, True),
        ((b"250-" + b"x" * (16 * 1024 - 6) + b"\r\n",) * 4, False),
        ((b"250-" + b"x" * (16 * 1024 - 6) + b"\r\n",) * 4 + (b"\n",), True),
        ((b"250-" + b"x" * (16 * 1024 - 5) + b"\r\n",), True),
    ],
)
def test_a_reply_beyond_the_limits_is_too_long(lines: tuple[bytes, ...], too_long: bool) -> None:
    assert progress(*lines).too_long is too_long


@pytest.mark.parametrize(
    ("line", "looks"),
    [
        (b"250 HELP\r\n", True),
        (b"250-SIZE 100\r\n", True),
        (b"250 help\r\n", True),
        (b"250-anything at all\r\n", True),
        (b"250-2.1.0 Sender ok\r\n", False),
        (b"250 2.1.0 Sender ok\r\n", False),
        (b"250 XFOO\r\n", True),
        (b"250_STARTTLS\r\n", True),
        (b"SIZE\r\n", True),
        (b"250 OK\r\n", False),
        (b"250 Ok\r\n", False),
        (b"250 ok, go on\r\n", False),
        (b"250 XFOO bar\r\n", False),
        (b"250\r\n", False),
        (b"250-\r\n", False),
        (b"\r\n", False),
        (b"421 HELP\r\n", False),
        (b"220 STARTTLS\r\n", False),
        (b"354 go ahead\r\n", False),
        (b"free text\r\n", False),
    ],
)
def test_what_is_most_likely_a_late_ehlo_line(line: bytes, looks: bool) -> None:
    assert looks_like_ehlo_line(line) is looks


@pytest.mark.parametrize(
    ("line", "blank", "before"),
    [
        (b"\r\n", True, True),
        (b" \0\n", True, True),
        (b"250\r\n", False, True),
        (b"250-STARTTLS\r\n", False, True),
        (b"220 mail.example.com\r\n", False, False),
        (b"421 busy\r\n", False, False),
        (b"hello\r\n", False, False),
    ],
)
def test_what_answers_nothing_in_front_of_a_banner(line: bytes, blank: bool, before: bool) -> None:
    assert is_blank_line(line) is blank
    assert line_before_banner(line) is before


def test_ehlo_lines_in_front_of_the_banner_are_parted_from_it() -> None:
    parted = split_before_banner(b"250-STARTTLS\r\n\r\n250 HELP\r\n220-mail.example.com\r\n220 ready\r\n")
    assert parted.banner == b"220-mail.example.com\r\n220 ready\r\n"
    assert parted.removed == (b"250-STARTTLS\r\n", b"\r\n", b"250 HELP\r\n")
    assert [(finding.id, finding.line, finding.repaired) for finding in parted.findings] == [
        ("line-before-banner", 1, True),
        ("line-before-banner", 3, True),
    ]


def test_without_repair_they_are_only_found() -> None:
    raw = b"250 HELP\r\n220 mail.example.com\r\n"
    parted = split_before_banner(raw, repair=False)
    assert (parted.banner, parted.removed) == (raw, ())
    assert [finding.repaired for finding in parted.findings] == [False]


@pytest.mark.parametrize("raw", [b"220 mail.example.com\r\n", b"\r\n220 mail.example.com\r\n", b"421 busy\r\n", b""])
def test_a_banner_with_no_ehlo_line_before_it_stays_as_it_is(raw: bytes) -> None:
    parted = split_before_banner(raw)
    assert (parted.banner, parted.removed, parted.findings) == (raw, (), ())


def test_a_banner_that_has_not_come_is_empty() -> None:
    assert split_before_banner(b"250 HELP\r\n").banner == b""


def test_a_glance_for_the_greeting_agrees_with_the_reading() -> None:
    lines = [b"250-HELP\r\n", b"250-SIZE\r250-HELP\r\n", b"2500size\r\n"]
    assert not has_greeting(lines, b"220 size")
    assert has_greeting([*lines, b"250-Size Hi\r\n"], b"220 size")


@example([b"", TLS, HELP, b"200\x01"])
@given(st.lists(st.sampled_from([HOST, TLS, HELP, b"\r\n", b"550 no\r\n", b"250_SIZE\r\n"]) | st.binary(max_size=12)))
def test_any_lines_can_be_followed(lines: list[bytes]) -> None:
    made = ReplyProgress(MAIL)
    for line in lines:
        made.add(line)
        assert made.final_seen or not made.settled
        assert made.settled == progress(*lines[: made.lines]).settled, "to ask early changes nothing"
