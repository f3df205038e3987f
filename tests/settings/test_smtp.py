"""Domains to greet with, keywords to hide and to add: RFC 5321's grammar."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.settings import smtp
from proxy.settings.problems import Unfit


def fault(read: Any, value: object) -> tuple[str, str | None]:
    with pytest.raises(Unfit) as caught:
        read(value)
    (one,) = caught.value.faults
    return one.expected, one.nearest


@pytest.mark.parametrize(
    "value",
    [
        "",
        "mail.domain1.com",
        "mail",
        "3com.example",
        "[192.0.2.1]",
        "[IPv6:2001:db8::1]",
        ".".join(["a" * 50] * 5),
    ],
)
def test_a_greeting_is_a_domain_or_an_address_literal(value: str) -> None:
    assert smtp.domain(value) == value


@pytest.mark.parametrize(
    ("value", "near"),
    [
        ("mail.domain1.com ESMTP", None),
        ("mail_1.domain1.com", None),
        ("-a.example", None),
        ("a.example.", None),
        ("a..b", None),
        ("a" * 64, None),
        (".".join(["a" * 50] * 6), None),
        ("mail.domain1.com\r\n250 X", None),
        ("192.0.2.1", "[192.0.2.1]"),
        ("2001:db8::1", "[IPv6:2001:db8::1]"),
        ("[2001:db8::1]", "[IPv6:2001:db8::1]"),
        ("[IPv6:192.0.2.1]", None),
        ("[IPv6:fe80::1%eth0]", None),
        ("[]", None),
        ("[tag:x]", None),
        (5, None),
    ],
)
def test_anything_else_is_no_greeting(value: object, near: str | None) -> None:
    assert fault(smtp.domain, value)[1] == near


def test_a_keyword_to_hide_comes_out_in_capitals() -> None:
    assert smtp.keyword("chunking") == "CHUNKING"
    assert smtp.keyword("AUTH=LOGIN") == "AUTH=LOGIN"
    assert smtp.keyword("PIPE_CONNECT") == "PIPE_CONNECT"


@pytest.mark.parametrize(
    ("value", "near"),
    [
        ("250-CHUNKING", "CHUNKING"),
        ("SIZE 100", "SIZE"),
        ("", None),
        (" ", None),
        ("-A", None),
        ("A" * 600, None),
        (5, None),
    ],
)
def test_anything_else_is_no_keyword(value: object, near: str | None) -> None:
    assert fault(smtp.keyword, value)[1] == near


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("STARTTLS", "STARTTLS"),
        ("starttls", "STARTTLS"),
        ("size 10240000", "SIZE 10240000"),
        ("AUTH PLAIN login", "AUTH PLAIN login"),
        ("X" * 506, "X" * 506),
    ],
)
def test_a_line_to_add_has_its_keyword_in_capitals(value: str, line: str) -> None:
    assert smtp.ehlo_line(value) == line


@pytest.mark.parametrize(
    "value",
    [
        "",
        "STARTTLS foo",
        "250 STARTTLS",
        "250-STARTTLS",
        "SIZE  1",
        "SIZE ",
        " SIZE",
        "AUTH=LOGIN",
        "X é",
        "X\tY",
        "X\r\n250 Y",
        "X" * 507,
        5,
    ],
)
def test_anything_else_is_no_line_to_add(value: object) -> None:
    assert fault(smtp.ehlo_line, value)


def test_the_reply_code_is_not_part_of_it() -> None:
    assert fault(smtp.ehlo_line, "250-SIZE 5") == ("the line without the reply code", "SIZE 5")


def test_a_clients_name_is_one_that_every_server_takes() -> None:
    for written in ("", "printer.domain1.com", "[192.0.2.10]"):
        assert smtp.client_name(written) == written
    for written in ("localhost", "192.0.2.10", "a_b.example"):
        with pytest.raises(Unfit):
            smtp.client_name(written)
