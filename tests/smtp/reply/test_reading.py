"""A whole reply, read: which replies are judged, and one note of its kind a line."""

from __future__ import annotations

import pytest

from proxy.smtp.lines import split_lines
from proxy.smtp.reply.ehlo_lines import EhloLine
from proxy.smtp.reply.reading import Reading, is_judged, read_reply


def lines(raw: bytes) -> list[EhloLine]:
    return [EhloLine(line, number) for number, line in enumerate(split_lines(raw), 1)]


def read(raw: bytes, host: bytes | None = b"mail.example.com", inside_tls: bool = False) -> Reading:
    return read_reply(lines(raw), host, False, inside_tls)


def notes(reading: Reading) -> list[tuple[int, str]]:
    return sorted((note.line, note.id) for note in reading.notes)


@pytest.mark.parametrize(
    ("raw", "judged"),
    [
        (b"250 mail.example.com\r\n", True),
        (b"220-mail.example.com\r\n250 HELP\r\n", True),
        (b"250-mail.example.com\r\n354 HELP\r\n", True),
        (b"free text\r\n250 HELP\r\n", True),
        (b"220 mail.example.com ESMTP\r\n250-mail.example.com\r\n250 HELP\r\n", False),
        (b"\r\n251\r\n250 HELP\r\n", False),
        (b"502 no\r\n", False),
        (b"250-mail.example.com\r\n550 no\r\n", False),
        (b"250-mail.example.com\r\n450-busy\r\n250 HELP\r\n", False),
        (b"220 mail.example.com\r\n", False),
        (b"free text\r\n", False),
        (b"2500 messages\r\n", False),
        (b"", False),
    ],
)
def test_a_reply_is_judged_when_a_line_says_250_and_none_refuses(raw: bytes, judged: bool) -> None:
    assert is_judged(lines(raw)) is judged


def test_the_greeting_and_the_keywords_come_in_the_servers_order_with_their_lines() -> None:
    reading = read(b"250-STARTTLS\r\n\r\n250-mail.example.com hi\r\n250-xfoo a\r\n250 SIZE 5\r\n")
    assert reading.greeting == b"mail.example.com hi"
    assert [(keyword.name, keyword.text) for keyword in reading.keywords] == [
        (b"STARTTLS", b"STARTTLS"),
        (b"XFOO", b"xfoo a"),
        (b"SIZE", b"SIZE 5"),
    ]
    assert reading.numbers == [1, 4, 5]
    assert notes(reading) == [(2, "blank-line"), (3, "greeting-not-first")]


@pytest.mark.parametrize(
    ("why", "raw", "expected"),
    [
        ("greeting-empty before blank-line", b"250-\r\n250 STARTTLS\r\n", [(1, "greeting-empty")]),
        ("an empty line in front of the greeting", b"250-\r\n250 mail.example.com\r\n", [(1, "greeting-empty")]),
        ("alone it is the greeting", b"250\r\n", [(1, "greeting-empty")]),
        (
            "final-line-empty before blank-line",
            b"250-mail.example.com\r\n250-\r\n250 \r\n\r\n",
            [(2, "blank-line"), (3, "final-line-empty"), (4, "blank-line")],
        ),
        ("a dash is no end", b"250-mail.example.com\r\n250-\r\n", [(2, "blank-line"), (2, "final-line-missing")]),
        (
            "starttls-malformed before all else on its line",
            b"250-mail.example.com\r\n250-HELP\r\n250-STARTTLS\r\n250  starttls \0=1\xff" + b"x" * 600 + b"\r\n",
            [(4, "starttls-malformed")],
        ),
        (
            "but what is around the text is of another kind",
            b"250-mail.example.com\r\n.220-START TLS\n250 HELP\r\n",
            [(2, "code-mismatch"), (2, "leading-junk"), (2, "line-end-invalid"), (2, "starttls-malformed")],
        ),
        (
            "a bad separator is no early end",
            b"250-mail.example.com\r\n250_STARTTLS\r\n250 HELP\r\n",
            [(2, "separator-invalid")],
        ),
        ("nor a missing one", b"250-mail.example.com\r\n250:HELP\r\n", [(2, "separator-invalid")]),
        (
            "a separator before no keyword is no code",
            b"250-mail.example.com\r\n250_XFOO\r\n250 HELP\r\n",
            [(2, "code-missing")],
        ),
        (
            "a dash behind the blank is text where no keyword and no greeting is",
            b"250-mail.example.com\r\n250 -relay.example.com\r\n",
            [(2, "keyword-invalid")],
        ),
        (
            "a greeting may have any separator",
            b"250Hello\r\n250 HELP\r\n",
            [(1, "greeting-not-domain"), (1, "separator-invalid")],
        ),
        (
            "all lines are final",
            b"250 mail.example.com\r\n250 SIZE\r\n250 HELP\r\n",
            [(1, "final-line-early"), (2, "final-line-early")],
        ),
        ("an early end and no other", b"250 mail.example.com\r\n250-SIZE\r\n", [(1, "final-line-early")]),
        (
            "a keyword without a code may be the last",
            b"250-mail.example.com\r\nSIZE 5\r\n",
            [(1, "final-line-missing"), (2, "code-missing")],
        ),
        ("twice the same", b"250-mail.example.com\r\n250-AUTH A\r\n250 AUTH B\r\n", [(3, "keyword-duplicate")]),
        ("AUTH= is not AUTH", b"250-mail.example.com\r\n250-AUTH A\r\n250 AUTH=A\r\n", [(3, "keyword-invalid")]),
        ("a long keyword line", b"250-mail.example.com\r\n250 XFOO " + b"x" * 502 + b"\r\n", [(2, "line-too-long")]),
        ("512 octets are not long", b"250-mail.example.com\r\n250 XFOO " + b"x" * 501 + b"\r\n", []),
        ("nor without their CR", b"250-mail.example.com\r\n250 XFOO " + b"x" * 501 + b"\n", [(2, "line-end-invalid")]),
    ],
)
def test_one_line_has_one_note_of_its_kind(why: str, raw: bytes, expected: list[tuple[int, str]]) -> None:
    assert notes(read(raw)) == expected


def test_inside_tls_starttls_is_one_note_whatever_its_shape() -> None:
    raw = b"250-mail.example.com\r\n250- starttls=1\r\n250 STARTTLS\r\n"
    assert notes(read(raw, inside_tls=True)) == [(2, "starttls-inside-tls"), (3, "starttls-inside-tls")]


@pytest.mark.parametrize(
    ("raw", "greeting", "expected"),
    [
        (b"250-mail.example.com  two  blanks\t \r\n", b"mail.example.com  two  blanks\t ", []),
        (b"250- mail.example.com\r\n", b"mail.example.com", ["space-invalid"]),
        (b"250-mail.example.com \r\n", b"mail.example.com ", ["space-invalid"]),
        (b"250-mail.example.com\tHi\r\n", b"mail.example.com\tHi", ["space-invalid"]),
        (b"250-mail.example.com h\0i\r\n", b"mail.example.com h\0i", ["control-character"]),
        (b"250-mail.example.com Gr\xfc\xdf\r\n", b"mail.example.com Gr\xfc\xdf", ["non-ascii"]),
        (b"250-mail.example.com " + b"x" * 973 + b"\r\n", b"mail.example.com " + b"x" * 973, ["line-too-long"]),
        (b"250-mail.example.com " + b"x" * 978 + b"\r\n", b"mail.example.com " + b"x" * 377, ["line-too-long"]),
        (
            b"250-mail.example.com " + b"x" * 376 + b"\r" * 700 + b"x\r\n",
            b"mail.example.com " + b"x" * 376,
            ["control-character", "line-too-long"],
        ),
    ],
)
def test_a_greeting_is_free_text(raw: bytes, greeting: bytes, expected: list[str]) -> None:
    reading = read(raw + b"250 HELP\r\n")
    assert reading.greeting == greeting
    assert [note.id for note in reading.notes] == expected


@pytest.mark.parametrize(
    ("raw", "greeting", "done"),
    [
        (b"250-mail.example.com h\0i\r\n", b"mail.example.com h\0i", "strict"),
        (b"2\x0050-mail.example.com\r\n", b"mail.example.com", "repair"),
        (b"250- \0mail.example.com\r\n", b"mail.example.com", "repair"),
    ],
)
def test_a_nul_is_removed_from_in_front_of_a_greeting_only(raw: bytes, greeting: bytes, done: str) -> None:
    reading = read(raw + b"250 HELP\r\n")
    assert reading.greeting == greeting
    assert [note.done for note in reading.notes if note.id == "control-character"] == [done]


def test_a_greeting_without_any_oddity_may_still_be_long() -> None:
    raw = b"250-mail " + b"x" * 600 + b"\r\n250 HELP\r\n"
    assert notes(read(raw, b"mail")) == [(1, "line-too-long")]
