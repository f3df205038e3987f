"""One line of an EHLO reply, read kindly."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.ehlo_lines import EhloLine


@pytest.mark.parametrize(
    ("raw", "code", "word", "parameters", "odd", "final"),
    [
        (b"250-STARTTLS\r\n", 250, b"STARTTLS", b"", False, False),
        (b"250 SIZE 1000\r\n", 250, b"SIZE", b"1000", False, True),
        (b"250-mail.example.com Hello you\r\n", 250, b"mail.example.com", b"Hello you", False, False),
        (b"250\r\n", 250, b"", b"", False, True),
        (b"250\t\r\n", 250, b"", b"", False, True),
        (b"250-\r\n", 250, b"", b"", False, False),
        (b"250-  SIZE\t 1 \r\n", 250, b"SIZE", b"1", False, False),
        (b" .250-HELP\n", 250, b"HELP", b"", False, False),
        (b"250STARTTLS\r\n", 250, b"STARTTLS", b"", True, False),
        (b"250_STARTTLS\r\n", 250, b"STARTTLS", b"", True, False),
        (b"250:STARTTLS\r\n", 250, b"STARTTLS", b"", True, False),
        (b"250\t STARTTLS\r\n", 250, b"STARTTLS", b"", True, False),
        (b"250 -STARTTLS\r\n", 250, b"STARTTLS", b"", True, False),
        (b"250 - STARTTLS=1\r\n", 250, b"STARTTLS=1", b"", True, False),
        (b"250--mail.example.com\r\n", 250, b"mail.example.com", b"", True, False),
        (b"250 -foo\r\n", 250, b"-foo", b"", False, True),
        (b"250[192.0.2.1]\r\n", 250, b"[192.0.2.1]", b"", True, False),
        (b"250***\r\n", 250, b"***", b"", True, False),
        (b"2508BITMIME\r\n", 250, b"8BITMIME", b"", True, False),
        (b"2500 messages\r\n", 0, b"2500", b"messages", False, False),
        (b"220 x\r\n", 220, b"x", b"", False, True),
        (b"SIZE 5\r\n", 0, b"SIZE", b"5", False, False),
        (b". SIZE 5\r\n", 0, b"SIZE", b"5", False, False),
        (b"\r\n", 0, b"", b"", False, False),
        (b"\r250-ST\0ARTTLS\r\n", 250, b"STARTTLS", b"", False, False),
    ],
)
def test_where_the_code_is_and_which_word_comes_first(
    raw: bytes, code: int, word: bytes, parameters: bytes, odd: bool, final: bool
) -> None:
    line = EhloLine(raw)
    assert (line.code, line.word, line.parameters, line.odd, line.final) == (code, word, parameters, odd, final)


def test_strict_reading_takes_control_characters_and_8_bit_octets_out_first() -> None:
    line = EhloLine(b"250-F\x01O\xd6 \x7fbar\r\n", 3, strict=True)
    assert (line.number, line.word, line.text) == (3, b"FO?", b"FO? bar")


def test_a_greeting_is_written_with_the_nul_and_cr_that_it_came_with() -> None:
    assert EhloLine(b"250-mail.example.com he\0l\rlo\r\n").written == b"mail.example.com he\0l\rlo"
    assert EhloLine(b"250- \0mail.example.com\r\n").written == b"mail.example.com"
    assert EhloLine(b"250_mail.example.com\r\n").written == b"mail.example.com"
    assert EhloLine(b"2\x0050-mail.example.com\r\n").written == b"mail.example.com"
    assert EhloLine(b"25\r0-mail.example.com\r\n").written == b"mail.example.com"


def test_only_a_proper_separator_can_be_taken_at_its_word() -> None:
    for raw, word, odd in ((b"250 -SIZE: 5\r\n", b"-SIZE:", False), (b"250_SIZE: 5\r\n", b"SIZE:", True)):
        line = EhloLine(raw)
        assert (line.word, line.odd) == (b"SIZE:", True)
        line.take_literally()
        assert (line.word, line.odd) == (word, odd)


def test_what_is_odd_about_a_line() -> None:
    good = EhloLine(b"250-SIZE 5\r\n")
    assert (good.is_blank, good.has_blank_before, good.has_junk, good.has_whole_end) == (False, False, False, True)
    odd = EhloLine(b".250-\t \n")
    assert (odd.is_blank, odd.has_blank_before, odd.has_junk, odd.has_whole_end) == (True, True, True, False)
    assert not EhloLine(b".foo\r\n").has_junk
    assert odd.body == b".250-\t "
