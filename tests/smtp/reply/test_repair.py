"""EHLO reply and policy in, repaired reply and findings out."""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.smtp.lines import split_lines, without_end
from proxy.smtp.reply.ehlo_lines import EhloLine
from proxy.smtp.reply.extensions import KEYWORDS
from proxy.smtp.reply.reading import is_judged
from proxy.smtp.reply.repair import EhloContext, Memory, RepairPolicy, RepairResult, repair_reply

# the machine may be busy with something else

MAIL = EhloContext(banner=b"220 mail.example.com ESMTP\r\n")
GOOD_TEXTS = (b"STARTTLS", b"AUTH LOGIN", b"AUTH=LOGIN", b"8BITMIME")
GOOD = b"250-mail.example.com\r\n250-STARTTLS\r\n250-AUTH LOGIN\r\n250-AUTH=LOGIN\r\n250 8BITMIME\r\n"
CISCO = b"250-STARTTLS\r\n250-mail.example.com\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
WELL_FORMED = re.compile(rb"(?:250-[^\n]+\r\n)*250 [^\n]+\r\n")


def reply(*texts: bytes) -> bytes:
    return b"".join([b"250-" + text + b"\r\n" for text in texts[:-1]]) + b"250 " + texts[-1] + b"\r\n"


def repaired(raw: bytes, policy: RepairPolicy | None = None, context: EhloContext = MAIL) -> RepairResult:
    return repair_reply(raw, policy or RepairPolicy(), context)


def ids(result: RepairResult) -> list[str]:
    return [finding.id for finding in result.findings]


# -- one by one ------------------------------------------------------------------------------------------------------


def test_a_good_reply_is_the_very_octets_that_came_in() -> None:
    result = repaired(reply(b"mail.example.com at your service", b"SIZE 100", b"STARTTLS"))
    assert not result.changed
    assert result.findings == ()
    assert result.before == result.after == (b"250-mail.example.com at your service", b"250-SIZE 100", b"250 STARTTLS")
    assert result.keywords == result.offered == {b"SIZE", b"STARTTLS"}
    assert not result.refused
    assert not result.offers_xclient


def test_the_greeting_moves_to_the_front_and_nothing_else_moves() -> None:
    result = repaired(CISCO)
    assert result.reply == reply(b"mail.example.com", b"STARTTLS", b"PIPELINING", b"8BITMIME")
    assert result.changed
    assert result.before == tuple(without_end(line) for line in split_lines(CISCO))
    assert result.after[0] == b"250-mail.example.com"
    assert [(finding.id, finding.line, finding.repaired) for finding in result.findings] == [
        ("greeting-not-first", 2, True)
    ]


@pytest.mark.parametrize(
    ("raw", "after"),
    [
        (b"250 STARTTLS\r\n", reply(b"mail.example.com", b"STARTTLS")),
        (b"250\r\n", reply(b"mail.example.com")),
        (b"250-\r\n250 STARTTLS\r\n", reply(b"mail.example.com", b"STARTTLS")),
        (b"250-\r\n250-HELP\r\n250 mail.example.com hi\r\n", reply(b"mail.example.com hi", b"HELP")),
        (b"250-mail.example.com\r\n250-STARTTLS\r\n", reply(b"mail.example.com", b"STARTTLS")),
        (b"250-mail.example.com\r\n250-STARTTLS\r\n250", reply(b"mail.example.com", b"STARTTLS")),
        (b"250 mail.example.com\r\n250 HELP\r\n", reply(b"mail.example.com", b"HELP")),
        (b"250 mail.example.com\r\n250 \r\n\r\n", reply(b"mail.example.com")),
        (b"250-mail.example.com\n250 HELP", reply(b"mail.example.com", b"HELP")),
        (b"250_mail.example.com\r\n250\tHELP\r\n", reply(b"mail.example.com", b"HELP")),
        (b"250 -mail.example.com\r\n250 - HELP\r\n", reply(b"mail.example.com", b"HELP")),
        (b"2508BITMIME\r\n250mail.example.com\r\n", reply(b"mail.example.com", b"8BITMIME")),
        (b"250-mail.example.com\r\n250_XFOO\r\n250 HELP\r\n", reply(b"mail.example.com", b"HELP")),
        (b"250-mail.example.com\r\n250 -foo\r\n", reply(b"mail.example.com", b"-foo")),
        (b"251-mail.example.com\r\n354 HELP\r\n250-SIZE\r\n", b"251-mail.example.com\r\n354 HELP\r\n250-SIZE\r\n"),
        (b"251-mail.example.com\r\n250-SIZE\r\n354 HELP\r\n", reply(b"mail.example.com", b"SIZE", b"HELP")),
        (b"hello\r\nhelp\r\n250 mail.example.com\r\n", reply(b"mail.example.com", b"HELP")),
        (b"250-mail.example.com\r\n250 STARTTLS\r\nfoo\r\n", reply(b"mail.example.com", b"STARTTLS")),
        (b"250-mail.example.com\r\n2500 messages\r\n250 HELP\r\n", reply(b"mail.example.com", b"HELP")),
    ],
)
def test_the_result_is_one_well_formed_reply(raw: bytes, after: bytes) -> None:
    result = repaired(raw)
    assert result.reply == after
    assert result.changed is (raw != after)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"502 5.5.1 no\r\n",
        b"550-STARTTLS\r\n550-mail.example.com\r\n550 no\r\n",
        b"250-STARTTLS\n250-mail.example.com\r\n450 busy\r\n",
        b"220 mail.example.com ESMTP\r\n",
        b"220 mail.example.com ESMTP\r\n250-STARTTLS\r\n250 mail.example.com\r\n",
        b"free text\r\n",
    ],
)
@pytest.mark.parametrize("add", [(), (b"STARTTLS",)])
def test_a_reply_that_refuses_or_is_none_passes_untouched(raw: bytes, add: tuple[bytes, ...]) -> None:
    policy = RepairPolicy(add=add, strict=True)
    result = repaired(raw, policy, EhloContext(offer_starttls=True, hide_starttls=True))
    assert (result.reply, result.changed, result.findings, result.keywords) == (raw, False, (), frozenset())
    assert result.refused


@pytest.mark.parametrize(
    ("raw", "offered"),
    [
        (b"220-mail.example.com\r\n220-starttls\r\n220 SIZE 5\r\n", {b"STARTTLS", b"SIZE"}),
        (b"251-STARTTLS\r\n220-mail.example.com\r\n252 HELP\r\n", {b"STARTTLS", b"HELP"}),
        (b"220-mail.example.com\r\nfree text\r\n220 HELP\r\n", {b"HELP"}),
        (b"220 STARTTLS\r\n", set()),
        (b"220-mail.example.com\r\n354 STARTTLS\r\n", set()),
        (b"220-mail.example.com\r\n220-STARTTLS\r\n450 no\r\n", set()),
        (b"220 mail.example.com\r\n250 STARTTLS\r\n", set()),
    ],
)
def test_a_reply_of_other_2xx_lines_is_read_for_what_it_offers_and_passes(raw: bytes, offered: set[bytes]) -> None:
    for mode in ("repair", "observe", "off"):
        result = repaired(raw, RepairPolicy(mode, add=(b"XFOO",)), EhloContext(MAIL.banner, client_trusted=False))
        assert (result.reply, result.changed, result.findings, result.offered) == (raw, False, (), offered)
        assert result.keywords == offered
        assert result.refused is (not offered)


def test_the_made_greeting_takes_the_first_name_that_is_known() -> None:
    context = EhloContext(b"220 ESMTP\r\n", b"dest.example", b"192.0.2.1", b"client.example")
    assert repaired(b"250 STARTTLS\r\n", context=context).after[0] == b"250-dest.example"
    policy = RepairPolicy(greeting=b"set.example")
    assert repaired(b"250 STARTTLS\r\n", policy, context).after[0] == b"250-set.example"
    assert repaired(CISCO, policy).after[0] == b"250-mail.example.com", "it is for replies that have none"


# -- strict ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "strict", "found"),
    [
        (
            reply(b"mail.example.com ", b"AUTH  LOGIN PLAIN "),
            reply(b"mail.example.com", b"AUTH LOGIN PLAIN"),
            "space-invalid",
        ),
        (reply(b"mail.example.com\tHi", b"HELP"), reply(b"mail.example.com Hi", b"HELP"), "space-invalid"),
        (reply(b"mail.example.com h\0i", b"HELP"), reply(b"mail.example.com hi", b"HELP"), "control-character"),
        (reply(b"mail.example.com", b"XFOO \x1b\x7f1"), reply(b"mail.example.com", b"XFOO 1"), "control-character"),
        (reply(b"mail.example.com Gr\xfc\xdf", b"XFOO \xd6"), reply(b"mail.example.com Gr??", b"XFOO ?"), "non-ascii"),
        (
            reply(b"mail.example.com", b"STARTTLS", b"HELP", b"STARTTLS"),
            reply(b"mail.example.com", b"STARTTLS", b"HELP"),
            "keyword-duplicate",
        ),
    ],
)
def test_what_is_only_untidy_is_repaired_with_strict_alone(raw: bytes, strict: bytes, found: str) -> None:
    lenient = repaired(raw)
    assert (lenient.reply, lenient.changed) == (raw, False)
    assert set(ids(lenient)) == {found}
    tidy = repaired(raw, RepairPolicy(strict=True))
    assert tidy.reply == strict
    assert all(finding.repaired for finding in tidy.findings)
    assert set(ids(tidy)) == {found}


def test_strict_drops_no_keyword_but_a_second_starttls() -> None:
    raw = reply(b"mail.example.com", b"AUTH LOGIN", b"AUTH PLAIN", b"PIPE_CONNECT", b"SIZE 10M", b"XXXXXXXA")
    result = repaired(raw, RepairPolicy(strict=True))
    assert result.reply == raw
    assert ids(result) == ["keyword-duplicate", "keyword-invalid", "parameter-invalid", "keyword-masked"]


# -- observe, off ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["observe", "off"])
@pytest.mark.parametrize("raw", [GOOD, CISCO, b"250STARTTLS\n\n", b"250 XCLIENT NAME\r\n"])
def test_observed_or_off_nothing_is_changed(mode: str, raw: bytes) -> None:
    policy = RepairPolicy(mode=mode, strict=True, greeting=b"x.example", remove=(b"STARTTLS",), add=(b"XFOO",))
    result = repaired(raw, policy)
    assert (result.reply, result.changed, result.after) == (raw, False, result.before)
    assert not any(finding.repaired for finding in result.findings)
    assert mode == "observe" or result.findings == ()
    assert ids(result) == (ids(repaired(raw)) if mode == "observe" else [])


@pytest.mark.parametrize("mode", ["repair", "observe", "off"])
@pytest.mark.parametrize(
    ("line", "offers"),
    [
        (b"XCLIENT NAME ADDR", True),
        (b"xforward NAME", True),
        (b"XCL\0IENT", True),
        (b"XCLIENT=NAME", True),
        (b"X-XCLIENT", False),
        (b"SIZE", False),
    ],
)
def test_an_offer_of_xclient_is_told_in_every_mode(mode: str, line: bytes, offers: bool) -> None:
    raw = reply(b"mail.example.com", b"HELP", line)
    policy = RepairPolicy(mode=mode, remove=(b"XCLIENT", b"XFORWARD"))
    for trusted in (True, False):
        result = repaired(raw, policy, EhloContext(MAIL.banner, client_trusted=trusted))
        assert result.offers_xclient is offers
        assert ("xclient-offered" in ids(result)) is (offers and not trusted)


@pytest.mark.parametrize(
    ("raw", "banner", "offers"),
    [
        (b"250-xclient\r\n250 HELP\r\n", b"220 xclient ESMTP", False),
        (b"250-XCLIENT NAME\r\n250 HELP\r\n", b"220 mail.example.com", True),
        (b"250-mail.example.com loves XCLIENT\r\n250 HELP\r\n", b"", False),
        (b"250-mail.example.com\r\nXCLIENT NAME\r\n250 HELP\r\n", b"", True),
        (b"250-mail.example.com\r\n250-XCLIENT\r\n550 no\r\n", b"", True),
        (b"550 XCLIENT\r\n", b"", False),
        (b"250-XCLIENT\r\n" * 101, b"", True),
    ],
)
def test_xclient_is_read_as_loosely_as_anybody_might(raw: bytes, banner: bytes, offers: bool) -> None:
    assert repaired(raw, context=EhloContext(banner)).offers_xclient is offers


# -- the operator's word ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remove", "add", "after"),
    [
        ((b"8bitmime",), (), reply(b"mail.example.com", b"STARTTLS", b"AUTH LOGIN", b"AUTH=LOGIN")),
        ((b"AUTH",), (), reply(b"mail.example.com", b"STARTTLS", b"8BITMIME")),
        ((b"AUTH=",), (), reply(b"mail.example.com", b"STARTTLS", b"AUTH LOGIN", b"8BITMIME")),
        ((b"STARTTLS", b"AUTH", b"8BITMIME", b"NOSUCH"), (), reply(b"mail.example.com")),
        ((), (b"XFOO a b", b"size 5"), reply(b"mail.example.com", b"XFOO a b", b"SIZE 5", *GOOD_TEXTS)),
        ((), (b"SIZE 1", b"SIZE 2"), reply(b"mail.example.com", b"SIZE 1", *GOOD_TEXTS)),
        ((), (b"starttls", b" ", b"a\nb"), GOOD),
        ((b"XFOO",), (b"XFOO",), reply(b"mail.example.com", b"XFOO", *GOOD_TEXTS)),
        ((b"8BITMIME",), (b"8BITMIME x",), reply(b"mail.example.com", b"8BITMIME x", *GOOD_TEXTS[:3])),
        ((b"8BITMIME",), (b"XFOO",), reply(b"mail.example.com", b"XFOO", *GOOD_TEXTS[:3])),
    ],
)
def test_remove_and_add_apply_to_good_replies_too(
    remove: tuple[bytes, ...], add: tuple[bytes, ...], after: bytes
) -> None:
    result = repaired(GOOD, RepairPolicy(remove=remove, add=add))
    assert result.reply == after
    assert result.changed is (after != GOOD)
    assert ids(result) == ["keyword-invalid"], "neither is a finding"
    assert len(result.keywords) == len(result.after) - 1
    assert result.offered == {b"STARTTLS", b"AUTH", b"AUTH=", b"8BITMIME"}


@pytest.mark.parametrize(
    ("remove", "add", "texts", "after"),
    [
        ((b"AUTH:NTLM",), (), (b"AUTH PLAIN NTLM LOGIN",), (b"AUTH PLAIN LOGIN",)),
        ((b"auth:ntlm",), (), (b"AUTH ntlm  PLAIN",), (b"AUTH PLAIN",)),
        ((b"AUTH:NTLM",), (), (b"AUTH NTLM", b"AUTH=NTLM LOGIN", b"SIZE 5"), (b"AUTH=LOGIN", b"SIZE 5")),
        ((b"AUTH:NTLM",), (), (b"AUTH=LOGIN NTLM", b"AUTH:NTLM"), (b"AUTH=LOGIN",)),
        ((b"AUTH:NTLM", b"AUTH:LOGIN"), (), (b"AUTH NTLM LOGIN", b"AUTH=LOGIN", b"HELP"), (b"HELP",)),
        ((b"AUTH:NTLM",), (), (b"AUTH  NTLMV2 X-NTLM", b"X-EXPS NTLM"), (b"AUTH  NTLMV2 X-NTLM", b"X-EXPS NTLM")),
        ((b"AUTH:NTLM",), (), (b"AUTH", b"HELP"), (b"AUTH", b"HELP")),
        ((b"AUTH:NTLM",), (), (b"AUTH =NTLM", b"AUTH = NTLM PLAIN", b"AUTH= NTLM"), (b"AUTH = PLAIN",)),
        ((b"AUTH:NTLM",), (b"AUTH NTLM PLAIN", b"AUTH=NTLM"), (b"HELP",), (b"AUTH PLAIN", b"HELP")),
        ((b"CHUNKING",), (), (b"BINARYMIME", b"8BITMIME", b"CHUNKING"), (b"8BITMIME",)),
        ((b"chunking",), (b"BINARYMIME",), (b"SIZE 5", b"CHUNKING"), (b"BINARYMIME", b"SIZE 5")),
        ((b"SIZE",), (b"SIZE 52428800",), (b"HELP", b"SIZE 5"), (b"SIZE 52428800", b"HELP")),
        ((b"BINARYMIME",), (), (b"CHUNKING", b"BINARYMIME"), (b"CHUNKING",)),
    ],
)
def test_a_keyword_goes_with_what_is_nothing_without_it_and_a_mechanism_goes_alone(
    remove: tuple[bytes, ...], add: tuple[bytes, ...], texts: tuple[bytes, ...], after: tuple[bytes, ...]
) -> None:
    raw, policy = reply(b"mail.example.com", *texts), RepairPolicy(remove=remove, add=add)
    result = repaired(raw, policy)
    assert result.reply == reply(b"mail.example.com", *after)
    assert result.changed is (texts != after)
    assert result.keywords == {re.split(b"(?<=[=:])| ", text)[0] for text in after}
    assert repaired(result.reply, policy).reply == result.reply
    assert repaired(raw, policy._replace(mode="observe")).reply == raw
    refusal = b"421-" + raw[4:].replace(b"250", b"421")
    assert repaired(refusal, policy).reply == refusal


def test_an_added_starttls_is_skipped_inside_tls() -> None:
    policy = RepairPolicy(add=(b"STARTTLS", b"XFOO"))
    raw = reply(b"mail.example.com", b"XXXXXXXA")
    assert repaired(raw, policy).after[1] == b"250-STARTTLS"
    inside = EhloContext(MAIL.banner, inside_tls=True)
    assert repaired(raw, policy, inside).reply == reply(b"mail.example.com", b"XFOO", b"XXXXXXXA")


# -- bridge mode -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "hidden", "offered"),
    [
        (
            reply(b"mail.example.com", b"SIZE", b"STARTTLS"),
            reply(b"mail.example.com", b"SIZE"),
            reply(b"mail.example.com", b"STARTTLS", b"SIZE"),
        ),
        (
            reply(b"mail.example.com", b"STARTTLS", b"SIZE"),
            reply(b"mail.example.com", b"SIZE"),
            reply(b"mail.example.com", b"STARTTLS", b"SIZE"),
        ),
        (
            reply(b"mail.example.com", b"SIZE"),
            reply(b"mail.example.com", b"SIZE"),
            reply(b"mail.example.com", b"STARTTLS", b"SIZE"),
        ),
        (reply(b"mail.example.com"), reply(b"mail.example.com"), reply(b"mail.example.com", b"STARTTLS")),
        (reply(b"mail.example.com", b"STARTTLS"), reply(b"mail.example.com"), reply(b"mail.example.com", b"STARTTLS")),
    ],
)
@pytest.mark.parametrize("mode", ["repair", "observe", "off"])
def test_starttls_is_the_proxys_own_affair_in_every_mode(mode: str, raw: bytes, hidden: bytes, offered: bytes) -> None:
    policy = RepairPolicy(mode=mode)
    shown = repaired(raw, policy, EhloContext(MAIL.banner, hide_starttls=True))
    assert (shown.reply, shown.changed) == (hidden, hidden != raw)
    assert b"STARTTLS" not in shown.keywords
    assert (b"STARTTLS" in shown.offered) is (b"STARTTLS" in raw)
    for hide in (False, True):
        shown = repaired(raw, policy, EhloContext(MAIL.banner, hide_starttls=hide, offer_starttls=True))
        assert shown.reply == offered
        assert b"STARTTLS" in shown.keywords
    inside = EhloContext(MAIL.banner, inside_tls=True, hide_starttls=True, offer_starttls=True)
    assert repaired(raw, policy, inside).reply == hidden


def test_what_the_operator_removes_the_proxy_does_not_offer() -> None:
    policy = RepairPolicy(remove=(b"STARTTLS",), add=(b"STARTTLS",))
    context = EhloContext(MAIL.banner, offer_starttls=True)
    assert repaired(GOOD, policy, context).after[1] == b"250-AUTH LOGIN"


def test_inside_tls_starttls_is_removed() -> None:
    inside = EhloContext(MAIL.banner, inside_tls=True)
    result = repaired(reply(b"STARTTLS", b"mail.example.com", b"starttls=1"), context=inside)
    assert result.reply == reply(b"mail.example.com")
    assert ids(result) == ["starttls-inside-tls", "greeting-not-first", "starttls-inside-tls"]
    observed = repaired(GOOD, RepairPolicy(mode="observe"), inside)
    assert (observed.reply, observed.findings[0].id, observed.findings[0].repaired) == (
        GOOD,
        "starttls-inside-tls",
        False,
    )


@pytest.mark.parametrize(
    ("raw", "context", "after"),
    [
        # not ended: it stays so
        (b"250-mail.example.com\r\n250-STARTTLS\r\n", EhloContext(hide_starttls=True), b"250-mail.example.com\r\n"),
        (b"250-mail.example.com\r\n", EhloContext(offer_starttls=True), b"250-mail.example.com\r\n250-STARTTLS\r\n"),
        # ended by a bare code, or by no separator at all
        (b"250-a.example\r\n250-STARTTLS\r\n250\r\n", EhloContext(hide_starttls=True), b"250-a.example\r\n250 \r\n"),
        (b"250_a.example\r\n250 STARTTLS\r\n", EhloContext(hide_starttls=True), b"250_a.example\r\n"),
        (b"250\r\n", EhloContext(offer_starttls=True), b"250-\r\n250 STARTTLS\r\n"),
        # lines that are none
        (
            b"\r\n.250 a.example\r\n\r\n",
            EhloContext(offer_starttls=True),
            b"\r\n.250-a.example\r\n250 STARTTLS\r\n\r\n",
        ),
        (b"250 STARTTLS\r\n", EhloContext(hide_starttls=True), b""),
        (b"250 STARTTLS\r\n", EhloContext(offer_starttls=True), b"250 STARTTLS\r\n"),
        (b"2\x0050 a.example\r\n", EhloContext(offer_starttls=True), b"2\x0050 a.example\r\n250 STARTTLS\r\n"),
    ],
)
def test_observed_a_broken_reply_stays_broken_but_for_starttls(raw: bytes, context: EhloContext, after: bytes) -> None:
    assert repaired(raw, RepairPolicy(mode="observe"), context).reply == after


# -- the end, and the limits -----------------------------------------------------------------------------------------


def test_the_last_code_is_that_of_the_last_line_that_has_one() -> None:
    for raw, code in ((b"250-a\r\n421 b\r\nno code\r\n", 421), (b"no code\r\n", 0), (b"250-X\r\n" * 101, 250)):
        assert repair_reply(raw, RepairPolicy(), MAIL).last_code == code


def test_what_the_caller_knows_of_the_end_is_told() -> None:
    silent = repair_reply(b"250-mail.example.com\r\n", RepairPolicy(), MAIL, unterminated=True)
    assert [finding.message for finding in silent.findings] == ['silence after "250-mail.example.com"']
    assert silent.reply == b"250 mail.example.com\r\n"
    assert repair_reply(GOOD, RepairPolicy(mode="off"), MAIL, unterminated=True).findings == ()


@pytest.mark.parametrize(
    "raw",
    [
        b"250-STARTTLS\r\n" * 101,
        b"250-STARTTLS\r\n" + b"250-" + b"x" * (16 * 1024) + b"\r\n250 mail.example.com\r\n",
        (b"250-" + b"x" * 16000 + b"\r\n") * 5,
    ],
)
def test_a_reply_beyond_the_limits_passes_unrepaired(raw: bytes) -> None:
    policy = RepairPolicy(add=(b"XFOO",))
    result = repaired(raw, policy)
    assert (result.reply, result.changed, ids(result), result.refused) == (raw, False, ["reply-too-long"], False)
    assert repaired(raw, RepairPolicy(mode="off")).findings == ()
    assert repaired(raw + b"550 no\r\n", policy).refused


def test_a_reply_at_the_limits_is_repaired() -> None:
    assert repaired(b"250-HELP\r\n" * 99 + b"250 mail.example.com\r\n").after[0] == b"250-mail.example.com"
    raw = b"250-HELP\r\n" + b"250-mail.example.com " + b"x" * (16 * 1024 - 23) + b"\r\n250 SIZE\r\n"
    assert len(repaired(raw).after[0]) + 2 == 400


def test_replies_of_up_to_4_kib_are_remembered_and_longer_ones_are_not() -> None:
    assert repaired(CISCO) is repaired(bytes(bytearray(CISCO)))
    long = reply(b"mail.example.com", *(b"XFOO-%d" % number + b" " + b"x" * 400 for number in range(12)))
    assert repaired(long) is not repaired(long)
    assert repaired(long) == repaired(long)


def test_what_peers_make_it_remember_is_bounded_in_bytes() -> None:
    memory = Memory(100_000)
    kept = []
    for number in range(200):
        result = repaired(b"".join(b"250_%d.%d\xff\t\r\n" % (number, line) for line in range(number % 90 + 2)))
        memory.keep(number, result)
        kept.append(memory.bytes)
        assert memory.get(0 if number < 5 else number) is not None
    assert max(kept) <= 100_000
    assert memory.get(1) is None
    memory.keep("large", repaired(b"250-\xff \r\n" * 100))
    assert memory.bytes <= 100_000
    while kept and memory.bytes:
        memory.keep("larger", RepairResult(b"x" * 30_000, False, (), (), (), False, frozenset(), False))
        kept.pop()


def test_the_name_of_a_client_that_no_host_can_have_is_not_kept() -> None:
    first = repaired(CISCO, context=EhloContext(MAIL.banner, client_name=b"x" * 300))
    assert repaired(CISCO, context=EhloContext(MAIL.banner, client_name=b"y" * 4000)) is first
    assert repaired(CISCO, context=EhloContext(MAIL.banner + b" and more", client_name=b"y" * 400)) is first
    assert repaired(CISCO, context=EhloContext(MAIL.banner + b" and" * 99)) == first


# -- properties ------------------------------------------------------------------------------------------------------

_WORDS = st.sampled_from(
    [
        *sorted(KEYWORDS), b"starttls", b"StartTLS", b"START TLS", b"STARTTLS=1", b"STARTTLS:", b"STARTTLS foo",
        b"mail.example.com", b"MAIL.example.com. x", b"Hello", b"exch01 Hello [192.0.2.3]", b"[192.0.2.1]", b"", b" ",
        b"XXXXXXXA", b"AUTH=LOGIN PLAIN", b"auth=plain", b"size 10M", b"SIZE:", b"ST\0ARTTLS", b"START\x01TLS", b"OK",
        b"PIPE_CONNECT", b"-x", b"- help", b"relay.x.y", b"\xff\xfe", b"SIZE\t10", b"AUTH  A  B ", b"x" * 600,
        b"mail.example.com " + b"y " * 600, b"mail.example.com" + b" " * 1200, b"a" * 1300 + b".b", b"2.0.0 ok",
        b"mail.example.com" + b" " * 375 + b"\r" * 700 + b"z", b"XCLIENT NAME",
    ]
)  # fmt: skip
_CODES = st.sampled_from(
    [b"250"] * 8 + [b"220", b"251", b"", b".250", b" 250", b"354", b"2500", b"450", b"\x00250", b"2\r50"]
)
_SEPARATORS = st.sampled_from(
    [b"-"] * 6 + [b" "] * 4 + [b"", b"_", b"\t", b":", b" -", b"--", b"- ", b"  ", b" \t-", b"\0", b"***", b"\x01-"]
)
_ENDS = st.sampled_from([b"\r\n"] * 6 + [b"\n", b"\r\r\n", b" \r\n", b"\t\r\n", b"\n\r\n", b"\r"])
BROKEN = st.lists(st.tuples(_CODES, _SEPARATORS, _WORDS, _ENDS).map(b"".join), max_size=8).map(b"".join)
RAW = BROKEN | st.binary(max_size=200)
POLICIES = st.builds(
    RepairPolicy,
    mode=st.just("repair"),
    strict=st.booleans(),
    greeting=st.sampled_from([b"", b"set.example", b"help", b"gw"]),
    remove=st.sampled_from([(), (b"AUTH",), (b"starttls",), (b"SIZE", b"8BITMIME"), (b"AUTH:A", b"CHUNKING")]),
    add=st.sampled_from([(), (b"STARTTLS",), (b"starttls foo", b"X-FOO a"), (b"SIZE 5",), (b"AUTH  A ", b"START TLS")]),
)
CONTEXTS = st.builds(
    EhloContext,
    banner=st.sampled_from([b"", MAIL.banner, b"220 starttls x", b"220 ESMTP", b"220 help", b"220 exch01", b"220 -x"]),
    destination_name=st.sampled_from([b"", b"dest.example", b"single"]),
    destination_address=st.sampled_from([b"", b"192.0.2.1", b"2001:db8::1"]),
    client_name=st.sampled_from([b"", b"mail.example.com", b"[192.0.2.1]", b"dest.example"]),
    inside_tls=st.booleans(),
    hide_starttls=st.booleans(),
    offer_starttls=st.booleans(),
    client_trusted=st.booleans(),
)


@given(RAW, POLICIES, CONTEXTS)
def test_repairing_again_changes_nothing(raw: bytes, policy: RepairPolicy, context: EhloContext) -> None:
    once = repair_reply(raw, policy, context)
    again = repair_reply(once.reply, policy, context)
    assert again.reply == once.reply
    assert not again.changed
    assert not any(finding.repaired for finding in again.findings if finding.id != "starttls-inside-tls")


@given(RAW, st.booleans(), st.booleans(), CONTEXTS)
def test_a_judged_reply_comes_out_well_formed_and_changed_if_and_only_if_something_is_repaired(
    raw: bytes, strict: bool, early: bool, context: EhloContext
) -> None:
    plain = EhloContext(context.banner, context.destination_name, context.destination_address, context.client_name)
    result = repair_reply(raw, RepairPolicy(strict=strict), plain)
    assert result.changed is any(finding.repaired for finding in result.findings)
    assert result.changed or result.reply == raw
    judged = is_judged([EhloLine(line, 1, strict) for line in split_lines(raw)])
    assert WELL_FORMED.fullmatch(result.reply) if judged else result.refused or not result.changed
    observed = repair_reply(raw, RepairPolicy(mode="observe", strict=strict), plain)
    assert ids(observed) == ids(result)
    assert observed.reply == raw


def _shown(result: RepairResult) -> Counter[bytes]:
    return Counter(re.split(rb"[ \t]", line[4:].upper())[0] for line in result.after[1:])


@given(
    st.permutations([b"STARTTLS", b"SIZE 1", b"8BITMIME", b"AUTH A", b"AUTH B", b"XFOO", b"mail.example.com hi"]),
    st.lists(st.sampled_from([b"250-", b"250 ", b"250_", b".250-", b"251-", b"250", b"250- "]), min_size=7, max_size=7),
    st.sampled_from([b"\r\n", b"\n", b"\r\r\n"]),
)
def test_every_keyword_and_parameter_is_kept_in_the_servers_order(
    texts: list[bytes], heads: list[bytes], end: bytes
) -> None:
    heads = [b"250-" if text == b"XFOO" else head for text, head in zip(texts, heads, strict=True)]
    raw = b"".join(head + text + end for head, text in zip(heads, texts, strict=True))
    result = repaired(b"250-HELP\r\n" + raw)
    expected = [b"HELP", *(text for text in texts if text != b"mail.example.com hi")]
    assert [line[4:] for line in result.after] == [b"mail.example.com hi", *expected]
    assert _shown(result) == Counter(text.split(b" ")[0] for text in expected)


# RFC 5321 4.1.1.1: ehlo-ok-rsp, with keywords in capitals
_LABEL = st.from_regex(rb"[A-Za-z0-9]([A-Za-z0-9-]{0,8}[A-Za-z0-9])?", fullmatch=True)
_DOMAIN = st.lists(_LABEL, min_size=1, max_size=4).map(b".".join)
_GREET = st.just(b"") | st.from_regex(rb" [\x00-\x09\x0b\x0c\x0e-\x7f]{1,20}", fullmatch=True)
_PARAMETERS = st.lists(st.from_regex(rb"[!-~]{1,12}", fullmatch=True), max_size=3)
_UNKNOWN = st.from_regex(rb"[A-Z0-9][A-Z0-9-]{0,12}", fullmatch=True).filter(lambda word: word != b"STARTTLS")
_EHLO_LINE = st.tuples(_UNKNOWN, _PARAMETERS).map(lambda line: b" ".join([line[0], *line[1]])) | st.sampled_from(
    sorted(set(KEYWORDS) - {b"AUTH="})
)


@given(_DOMAIN, _GREET, st.lists(_EHLO_LINE.filter(lambda line: not line.startswith(b"START TLS")), max_size=8))
@example(b"help", b"", [b"STARTTLS"])
@example(b"mail.example.com", b" \0 \t STARTTLS", [b"STARTTLS"])
def test_a_reply_of_the_grammar_is_left_as_it_is(domain: bytes, greet: bytes, lines: list[bytes]) -> None:
    raw = reply(domain + greet, *lines)
    context = EhloContext(banner=b"220 " + domain + b" ESMTP\r\n")
    result = repair_reply(raw, RepairPolicy(), context)
    assert result.reply == raw, result.findings
    assert not any(finding.repaired for finding in result.findings)


@given(st.binary(max_size=400), POLICIES, CONTEXTS)
def test_no_octets_raise(raw: bytes, policy: RepairPolicy, context: EhloContext) -> None:
    for mode in ("repair", "observe", "off"):
        chosen = RepairPolicy(mode, policy.strict, policy.greeting, policy.remove, policy.add)
        assert isinstance(repair_reply(raw, chosen, context), RepairResult)


@pytest.mark.parametrize(
    "unit",
    [
        b"250-XFOO bar\r\n",
        b"250-" + b"x" * 8000 + b"\r\n",
        b"." * 3000,
        b"250-START" + b" " * 3000,
        b"[" * 3000,
        b"a." * 2000,
        b"250-x " + b"[1" * 2000 + b"\r\n",
        b"\r" * 3000 + b"\n",
        b"250 " + b"\t " * 2000 + b"\r\n",
    ],
)
def test_the_cost_is_linear_in_the_octets(unit: bytes) -> None:
    def seconds(size: int) -> float:
        raw = b"250-STARTTLS\r\n" + (unit * (size // len(unit) + 1))[:size] + b"\r\n250 mail.example.com\r\n"
        started = time.process_time()
        for _ in range(3):
            repaired(raw, RepairPolicy(strict=True))
        return time.process_time() - started

    seconds(5000)
    small, large = (min(seconds(size) for _ in range(3)) for size in (6_000, 60_000))
    assert large < small * 10 * 4 + 0.05, "ten times the octets, at most four times the cost an octet"


def test_lines_that_stand_for_removed_ones_keep_their_order_when_the_reply_is_repaired_again() -> None:
    policy = RepairPolicy(remove=(b"STARTTLS",), add=(b"AUTH A", b"START TLS"))
    first = repair_reply(b"250-mail.example\r\n250 STARTTLS X\r\n", policy, EhloContext()).reply
    assert repair_reply(first, policy, EhloContext()).reply == first
