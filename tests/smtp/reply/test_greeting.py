"""Which line is the greeting: one table."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.ehlo import find_greeting, has_greeting
from proxy.smtp.reply.ehlo_lines import EhloLine
from proxy.smtp.reply.greeting import begins_with_domain, reads_as_greeting

MAIL = b"220 mail.example.com ESMTP\r\n"


def reply(*texts: bytes) -> list[bytes]:
    return [b"250-" + text + b"\r\n" for text in texts[:-1]] + [b"250 " + texts[-1] + b"\r\n"]


@pytest.mark.parametrize(
    ("why", "banner", "texts", "index"),
    [
        ("a good reply", MAIL, (b"mail.example.com", b"STARTTLS"), 0),
        ("one line", MAIL, (b"mail.example.com Hello client.example",), 0),
        ("one line, no host at all", b"220 ESMTP service ready\r\n", (b"ok",), 0),
        ("one line, a keyword", MAIL, (b"STARTTLS",), None),
        ("one line, and the host is called so", b"220 starttls ESMTP\r\n", (b"starttls",), 0),
        ("a keyword first", MAIL, (b"STARTTLS", b"mail.example.com", b"8BITMIME"), 1),
        ("a keyword in lower case first", MAIL, (b"starttls", b"mail.example.com"), 1),
        ("a keyword with fitting parameters first", MAIL, (b"SIZE 1000", b"mail.example.com"), 1),
        ("AUTH= first", MAIL, (b"AUTH=LOGIN PLAIN", b"mail.example.com"), 1),
        ("the greeting comes last", MAIL, (b"STARTTLS", b"8BITMIME", b"mail.example.com"), 2),
        ("no greeting", MAIL, (b"STARTTLS", b"8BITMIME"), None),
        ("no greeting, unknown keywords behind", MAIL, (b"STARTTLS", b"XFOO", b"exch01"), None),
        # hosts that are called like a keyword
        ("host help, and the banner says so", b"220 HELP ESMTP\r\n", (b"help Hello", b"STARTTLS"), 0),
        ("host help alone", b"220 help\r\n", (b"HELP", b"mail.example.com"), 0),
        ("host size, its text fits no SIZE", MAIL, (b"size Hello client.example [192.0.2.1]", b"STARTTLS"), 0),
        ("host starttls, and the banner says so", b"220 starttls ESMTP\r\n", (b"starttls", b"8BITMIME"), 0),
        ("host starttls, but the banner names another", MAIL, (b"starttls", b"8BITMIME"), None),
        ("a name that begins with a keyword", MAIL, (b"size.does.matter.af.MIL offers", b"8BITMIME"), 0),
        # a known keyword with something behind it gives way to the banner's host only
        ("a broken keyword, the host behind it", MAIL, (b"STARTTLS foo", b"mail.example.com"), 1),
        ("a keyword with =, the host behind it", MAIL, (b"STARTTLS=1", b"MAIL.EXAMPLE.COM."), 1),
        ("a keyword with :, the host behind it", MAIL, (b"SIZE: 5", b"mail.example.com Hello"), 1),
        ("a broken keyword, another host behind it", MAIL, (b"STARTTLS foo", b"mx.example.com"), 0),
        ("a word with =, no keyword", MAIL, (b"X=1", b"mail.example.com"), 0),
        ("host starttls: its keyword is no greeting", b"220 starttls x\r\n", (b"SIZE: 5", b"STARTTLS"), 0),
        # single labels, and words that are no host
        ("Coremail", b"220 163.com Anti-spam GT\r\n", (b"mail", b"STARTTLS"), 0),
        ("a container", b"220 Mailgun Influx ready\r\n", (b"4e119dd77b0c", b"STARTTLS"), 0),
        ("an upper-case label", b"220 ESMTP Ready\r\n", (b"MAIL01 Hello [192.0.2.4]", b"SIZE"), 0),
        ("a salutation", b"220 localhost ESMTP\r\n", (b"Hello client.example.org", b"PIPELINING"), 0),
        ("a sentence", MAIL, (b"Requested mail action okay, completed.", b"STARTTLS"), 0),
        ("a firewall's stars", MAIL, (b"XXXXXXXA", b"mail.example.com"), 0),
        ("a split STARTTLS is an unknown word", MAIL, (b"START TLS", b"mail.example.com"), 0),
        ("a greeting that mentions a keyword", MAIL, (b"mx.example loves STARTTLS", b"8BITMIME"), 0),
        ("a greeting that is all keywords", MAIL, (b"mail.example.com STARTTLS SIZE 100",), 0),
        # empty greetings
        ("empty, nothing else", MAIL, (b"", b"STARTTLS"), None),
        ("empty, the host behind it", MAIL, (b"", b"mail.example.com", b"STARTTLS"), 1),
        ("empty, the host behind a keyword", MAIL, (b" ", b"STARTTLS", b"mail.example.com"), 2),
        ("nothing but an empty line", MAIL, (b"",), None),
        ("so long that its cut is a keyword", MAIL, (b"HELP" + b" " * 1000 + b"x", b"mail.example.com"), 1),
        ("as long, and its cut is none", b"220 x\r\n", (b"HELP " + b"x" * 1000, b"STARTTLS"), 0),
        # which of the later lines
        ("the banner's host before another", MAIL, (b"HELP", b"relay.example.com", b"mail.example.com"), 2),
        ("the first of two hosts", b"220 ESMTP\r\n", (b"HELP", b"a.example", b"b.example"), 1),
        ("the banner's single label", b"220 exch01 ready\r\n", (b"HELP", b"a.example", b"EXCH01"), 2),
        ("a banner host that differs", b"220 w12.lu.se\r\n", (b"STARTTLS", b"w10.lu.se Hello [46.59.111.153]"), 1),
        ("an address literal", b"220 ****\r\n", (b"STARTTLS", b"[192.0.2.1] ready"), 1),
        ("an IPv6 literal", b"220 ****\r\n", (b"STARTTLS", b"[IPv6:2001:db8::1]"), 1),
        ("a host before a salutation", b"220 x\r\n", (b"STARTTLS", b"exch01 Hello [192.0.2.3]", b"a.example"), 2),
        ("a line that reads as a greeting", b"220 x\r\n", (b"STARTTLS", b"XFOO", b"exch01 Hello [192.0.2.3]"), 2),
        ("a salutation further down", b"220 x\r\n", (b"STARTTLS", b"Hello client.example"), 1),
        ("a pseudo-keyword is no greeting", b"220 x\r\n", (b"STARTTLS", b"OK"), None),
        ("an enhanced status code is no host", b"220 x\r\n", (b"STARTTLS", b"2.0.0 fine"), None),
        # banners without a host name
        ("no banner", b"", (b"STARTTLS", b"mail.example.com"), 1),
        ("a masked banner", b"220 *****\r\n", (b"STARTTLS", b"mail.example.com"), 1),
        ("ESMTP is no host", b"220 ESMTP ready\r\n", (b"HELP", b"ESMTP"), None),
    ],
)  # fmt: skip
def test_which_line_is_the_greeting(why: str, banner: bytes, texts: tuple[bytes, ...], index: int | None) -> None:
    lines = reply(*texts)
    decision = find_greeting(lines, banner)
    assert decision.index == index, decision.reason
    assert decision.reason
    assert has_greeting(lines, banner) is (index is not None)


@pytest.mark.parametrize(
    ("lines", "index"),
    [
        ([b"\r\n", b"250-STARTTLS\r\n", b"free text\r\n", b"250 mail.example.com\r\n"], 3),
        ([b"free text\r\n", b"\r\n"], None),
        ([], None),
        ([b"STARTTLS\r\n", b"250 mail.example.com\r\n"], 1),
        ([b"250 mail.example.com\r\n", b"250 \r\n"], 0),
        ([b"250STARTTLS\r\n", b"250_mail.example.com\r\n"], 1),
        ([b"250-STARTTLS\r\n", b"250 -mail.example.com\r\n"], 1),
        ([b".250-STARTTLS\n", b" 250-mail.example.com\n"], 1),
    ],
)
def test_lines_that_are_no_part_of_the_reply_are_passed_over(lines: list[bytes], index: int | None) -> None:
    assert find_greeting(lines, MAIL).index == index


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        (b"exch01 Hello [192.0.2.3]", True),
        (b"exch01 Hello,", True),
        (b"exch01\tgreets you", True),
        (b"notes01 x ([192.0.2.40]), pleased", True),
        (b"Hello", True),
        (b"Welcome!", True),
        (b"exch01", False),
        (b"XFOO bar", False),
        (b"X_FOO Hello", False),
        (b"HELP", False),
        (b"", False),
    ],
)
def test_what_reads_as_a_greeting(text: bytes, reads: bool) -> None:
    assert reads_as_greeting(EhloLine(b"250-" + text + b"\r\n")) is reads


@pytest.mark.parametrize(
    ("text", "host", "domain"),
    [
        (b"mail.example.com Hello", None, True),
        (b"[192.0.2.1]", None, True),
        (b"metagross", b"METAGROSS", True),
        (b"MAIL01 Hello [192.0.2.4]", None, True),
        (b"mail", b"163.com", True),
        (b"hostname Pleased to meet you", None, True),
        (b"mail.example.com. Hello", None, False),
        (b"mail.example.com. Hello", b"mail.example.com", True),
        (b"Hello", None, False),
        (b"Hello client.example.org", None, False),
        (b"Ok EventMachine SMTP Server", None, False),
        (b"Requested mail action okay, completed.", None, False),
        (b"Nice to meet you.", None, False),
        (b"dark matter", None, False),
        (b"mail_1", None, False),
    ],
)
def test_what_begins_with_a_domain(text: bytes, host: bytes | None, domain: bool) -> None:
    assert begins_with_domain(EhloLine(b"250-" + text + b"\r\n"), host) is domain
