"""A reply line taken apart, strictly and kindly."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.smtp.reply.replies import code_of, ends_reply, is_refusal

# the machine may be busy with something else


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


def test_a_refusal_is_one_by_any_of_its_lines() -> None:
    assert is_refusal(b"250-mail.example.com\r\n450 busy\r\n")
    assert is_refusal(b"550-no\r\n550")
    assert not is_refusal(b"250-mail.example.com\r\n250 450\r\n")


@given(st.binary(max_size=40))
def test_any_octets_are_a_line(line: bytes) -> None:
    assert ends_reply(line) <= (code_of(line) != 0)
    assert code_of(line) == 0 or line[:3] == b"%d" % code_of(line)
