"""A client's line: which verbs are read, in which spellings, and what is never guessed at."""

from __future__ import annotations

import pytest

from proxy.smtp.session.commands import BEFORE_TLS, MAX_COMMAND, READ, argument_of, verb_of


@pytest.mark.parametrize("verb", sorted(READ))
def test_a_verb_that_is_read_is_found_in_every_spelling_that_servers_take(verb: bytes) -> None:
    for spelt in (verb, verb.lower(), verb.capitalize()):
        for end in (b"\r\n", b"\n", b" \r\n", b"\t\n", b" x\r\n", b"\tx y\n", b" \xff\r\n", b"\x0bx\r\n"):
            assert verb_of(spelt + end) == verb
            assert verb_of(b" \t" + spelt + end) == verb


@pytest.mark.parametrize(
    "line",
    [
        b"\r\n", b"\n", b" \r\n", b"\r\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<a@b.c>\r\n", b"DATA\r\n", b"BDAT 1\r\n",
        b"AUTH LOGIN\r\n", b"ETRN x\r\n", b"TURN\r\n", b"XEXCH50 1 2\r\n", b"XEHLO\r\n", b"EHLOX x\r\n", b"EHLO:x\r\n",
        b"STARTTLSX\r\n", b"STARTTLS;\r\n", b"START TLS\r\n", b"\xe9HLO x\r\n", b"EHLO\x00\r\n", b"EH\x00LO\r\n",
        b"NOOP\rQUIT\r\n", b"NOOP\r\r\n", b"\rNOOP\r\n", b"NOOP \rx\n", b"NOOP x\r\r\n", b".\r\n", b"250 EHLO\r\n",
    ],
    ids=repr,
)  # fmt: skip
def test_every_other_line_is_an_unknown_command(line: bytes) -> None:
    assert verb_of(line) == b""


def test_a_line_of_the_greatest_length_is_read_and_one_octet_more_is_not() -> None:
    line = b"NOOP " + b"x" * (MAX_COMMAND - 7) + b"\r\n"
    assert len(line) == MAX_COMMAND
    assert verb_of(line) == b"NOOP"
    assert verb_of(b"NOOP x" + line[5:]) == b""


@pytest.mark.parametrize(
    ("line", "argument"),
    [
        (b"EHLO client.example\r\n", b"client.example"),
        (b" ehlo\t [192.0.2.1]  \n", b"[192.0.2.1]"),
        (b"EHLO two words\r\n", b"two words"),
        (b"EHLO\r\n", b""),
        (b"EHLO  \r\n", b""),
        (b"\r\n", b""),
    ],
)
def test_the_argument_is_what_stands_behind_the_verb(line: bytes, argument: bytes) -> None:
    assert argument_of(line) == argument


def test_before_tls_only_verbs_that_are_read_are_allowed_and_none_that_carries_mail() -> None:
    assert BEFORE_TLS < READ
    assert not BEFORE_TLS & {b"XCLIENT", b"XFORWARD", b"VRFY", b"EXPN", b"HELP"}
