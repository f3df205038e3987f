"""A reply line taken apart, strictly and kindly."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.smtp.reply.replies import ReplyLine, code_of, ends_reply, parse_line

# the machine may be busy with something else
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("line", "code", "ends"),
    [
        (b"250 ok\r\n", 250, True),
        (b"250-ok\r\n", 250, False),
        (b"250\r\n", 250, True),
        (b"250\n", 250, True),
        (b"250", 250, True),
        (b"250_ok\r\n", 250, True),
        (b"250\tok\r\n", 250, True),
        (b"421 4.3.2 closing\r\n", 421, True),
        (b"599-x\r\n", 599, False),
        (b"299 x\r\n", 299, True),
        (b"2500 messages\r\n", 0, False),
        (b"199 x\r\n", 0, False),
        (b"600 x\r\n", 0, False),
        (b" 250 ok\r\n", 0, False),
        (b"STARTTLS\r\n", 0, False),
        (b"25", 0, False),
        (b"\r\n", 0, False),
        (b"", 0, False),
    ],
)
def test_the_first_four_octets_tell_the_code_and_the_end(line: bytes, code: int, ends: bool) -> None:
    assert code_of(line) == code
    assert ends_reply(line) is ends


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (b"250-STARTTLS\r\n", ReplyLine(250, b"-", b"STARTTLS", False)),
        (b"250 HELP\r\n", ReplyLine(250, b" ", b"HELP", True)),
        (b"250\r\n", ReplyLine(250, b"", b"", True)),
        (b"250-\r\n", ReplyLine(250, b"-", b"", False)),
        (b"250_STARTTLS\r\n", ReplyLine(250, b"", b"_STARTTLS", True)),
        (b" .250-STARTTLS\r\n", ReplyLine(250, b"-", b"STARTTLS", False, b" .")),
        (b"250-STARTTLS\n", ReplyLine(250, b"-", b"STARTTLS", False, b"", False)),
        (b"250-STARTTLS\r\r\n", ReplyLine(250, b"-", b"STARTTLS", False, b"", False)),
        (b"250-a\rb\r\n", ReplyLine(250, b"-", b"a\rb", False)),
        (b"STARTTLS\r\n", ReplyLine(None, b"", b"STARTTLS", False)),
        (b"\r\n", ReplyLine(None, b"", b"", False)),
    ],
)
def test_parse_line_sees_what_a_kind_reader_sees(line: bytes, parsed: ReplyLine) -> None:
    assert parse_line(line) == parsed


@UNHURRIED
@given(st.binary(max_size=40))
def test_any_octets_are_a_line(line: bytes) -> None:
    parsed = parse_line(line)
    if parsed.code is not None:
        whole = parsed.junk + str(parsed.code).encode() + parsed.separator + parsed.text
        assert line.rstrip(b"\n").startswith(whole)
    assert ends_reply(line) in (True, False)
