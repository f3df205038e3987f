"""Hosts: in a banner, at the head of a greeting, and of a greeting that is made."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.names import (
    as_literal,
    banner_host,
    is_address_literal,
    is_dotted_domain,
    is_full_name,
    is_single_label,
    made_greeting,
)


@pytest.mark.parametrize(
    "word",
    [
        b"mail.example.com",
        b"MAIL.example.COM.",
        b"1.example",
        b"a-b.c-d",
        b"size.does.matter.af.MIL",
        b"x." * 120 + b"y",
    ],
)
def test_a_dotted_domain(word: bytes) -> None:
    assert is_dotted_domain(word)


@pytest.mark.parametrize(
    "word",
    [
        b"",
        b".",
        b"mail",
        b"mail..com",
        b".com",
        b"-a.com",
        b"a-.com",
        b"mail_1.example",
        b"2.0.0",
        b"5.1.1",
        b"x." * 130 + b"y",
    ],
)
def test_no_dotted_domain(word: bytes) -> None:
    assert not is_dotted_domain(word)


@pytest.mark.parametrize(
    "word", [b"[192.0.2.1]", b"[IPv6:2001:db8::1]", b"[ipv6:::1]", b"[2001:db8::1]", b"[x-tag:content]"]
)
def test_an_address_literal(word: bytes) -> None:
    assert is_address_literal(word)


@pytest.mark.parametrize(
    "word", [b"", b"[]", b"[192.0.2]", b"192.0.2.1", b"[192.0.2.1", b"[hello]", b"[IPv6:" + b"1" * 260 + b"]"]
)
def test_no_address_literal(word: bytes) -> None:
    assert not is_address_literal(word)


def test_a_single_label_is_at_most_a_domain_long() -> None:
    assert is_single_label(b"MAIL01")
    assert not is_single_label(b"x" * 256)
    assert not is_single_label(b"mail.example")


@pytest.mark.parametrize(
    ("banner", "host"),
    [
        (b"220 mail.domain1.com ESMTP Service ready\r\n", b"mail.domain1.com"),
        (b"220-mail.example.com ESMTP\r\n220 second line\r\n", b"mail.example.com"),
        (b"220 mail.example.com", b"mail.example.com"),
        (b"220 HELP ESMTP\r\n", b"HELP"),
        (b"220 " + b"x" * 255 + b" ESMTP\r\n", b"x" * 255),
        (b"220 " + b"x" * 256 + b" ESMTP\r\n", None),
        (b"220 " + b"x" * 5000, None),
        (b"220  DP-3510\r\n", b"DP-3510"),
        (b"220host WebShield SMTP V4.5\r\n", b"host"),
        (b"220 ESMTP Ready\r\n", None),
        (b"220   ESMTP Service (Lotus Domino)\r\n", None),
        (b"220 smtp ready\r\n", None),
        (b"220 ****\r\n", b"****"),
        (b"220\r\n", None),
        (b"220 \r\nmail.example.com\r\n", None),
        (b"220 ...\r\n", None),
        (b"", None),
        (b"mail.example.com ESMTP\r\n", b"mail.example.com"),
        (b"554 Blocked - see https://example\r\n", b"Blocked"),
    ],
)
def test_the_host_of_a_banner_is_its_first_word_but_never_esmtp(banner: bytes, host: bytes | None) -> None:
    assert banner_host(banner) == host


@pytest.mark.parametrize(
    ("address", "literal"),
    [
        (b"192.0.2.1", b"[192.0.2.1]"),
        (b"2001:db8::1", b"[IPv6:2001:db8::1]"),
        (b"fe80::1%eth0", b"[IPv6:fe80::1]"),
        (b"", b""),
    ],
)
def test_an_address_becomes_a_literal(address: bytes, literal: bytes) -> None:
    assert as_literal(address) == literal


@pytest.mark.parametrize(
    ("setting", "host", "name", "address", "client", "made"),
    [
        (b"set.example", b"mail.example.com", b"dest.example", b"192.0.2.1", b"", b"set.example"),
        (b"[192.0.2.9]", None, b"", b"", b"", b"[192.0.2.9]"),
        (b"gateway", None, b"", b"", b"", b"gateway"),
        (b"", b"mail.example.com", b"dest.example", b"192.0.2.1", b"", b"mail.example.com"),
        (b"", b"[192.0.2.7]", b"dest.example", b"192.0.2.1", b"", b"[192.0.2.7]"),
        (b"", b"mta", b"dest.example", b"192.0.2.1", b"", b"dest.example"),
        (b"", b"****", b"", b"192.0.2.1", b"", b"[192.0.2.1]"),
        (b"", None, b"single", b"2001:db8::1", b"", b"[IPv6:2001:db8::1]"),
        (b"", b"x." * 200 + b"com", b"dest.example", b"", b"", b"dest.example"),
        (b"", b"MAIL.example.com", b"dest.example", b"192.0.2.1", b"mail.EXAMPLE.com.", b"dest.example"),
        (b"set.example", b"", b"dest.example", b"192.0.2.1", b"SET.example", b"dest.example"),
        (b"", b"a.example", b"a.example", b"192.0.2.1", b"a.example", b"[192.0.2.1]"),
        (b"", None, b"", b"192.0.2.1", b"[192.0.2.1]", b"unknown.invalid"),
        (b"HELP", b"mail.example.com", b"", b"", b"", b"mail.example.com"),
        (b"two words", b"mail.example.com", b"", b"", b"", b"mail.example.com"),
        (b"", None, b"", b"", b"", b"unknown.invalid"),
    ],
)
def test_a_greeting_is_made_of_the_first_good_name_but_never_of_the_clients_own(
    setting: bytes, host: bytes | None, name: bytes, address: bytes, client: bytes, made: bytes
) -> None:
    assert made_greeting(setting, host, name, address, client) == made


@pytest.mark.parametrize(
    "name",
    [
        b"a.example",
        b"A-1.b2.example",
        b"1.2.example",
        b"[192.0.2.1]",
        b"[IPv6:2001:db8::1]",
        b"[ipv6:::1]",
        b"x." * 120 + b"de",
    ],
)
def test_a_domain_with_a_dot_or_a_literal_is_a_full_name(name: bytes) -> None:
    assert is_full_name(name)


@pytest.mark.parametrize(
    "name",
    [
        b"", b"localhost", b"a_b.example", b"a.example.", b".a", b"a..b", b"-a.example", b"192.0.2.1", b"2001:db8::1",
        b"[fe80::1%eth0]", b"[IPv6:fe80::1%eth0]", b"[2001:db8::1]", b"[IPv6:192.0.2.1]", b"[999.0.0.1]", b"[]", b"[",
        b"[x:y]", b"a.example b", b"\xe4.example", b"x" * 64 + b".example", b"x." * 127 + b"de", b"[\xb2.0.0.1]",
    ],
    ids=repr,
)  # fmt: skip
def test_nothing_else_is_a_full_name(name: bytes) -> None:
    assert not is_full_name(name)
