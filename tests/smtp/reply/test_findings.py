"""The catalogue holds to itself: every example gives its finding and no other."""

from __future__ import annotations

import re

import pytest

from proxy.smtp.faults import DIALOGUE
from proxy.smtp.reply.ehlo import split_before_banner
from proxy.smtp.reply.findings import BANNER, CATALOGUE, FINDINGS, Finding, finding, quoted
from proxy.smtp.reply.repair import EhloContext, RepairPolicy, repair_reply

TABLE = {
    "greeting-not-first": "repair", "greeting-missing": "repair", "greeting-empty": "repair",
    "greeting-not-domain": "report", "line-before-banner": "repair", "final-line-missing": "repair",
    "final-line-early": "repair", "final-line-empty": "repair", "separator-invalid": "repair",
    "code-mismatch": "repair", "code-missing": "repair", "leading-junk": "repair", "line-end-invalid": "repair",
    "control-character": "repair", "blank-line": "repair", "space-invalid": "repair", "keyword-case": "repair",
    "starttls-malformed": "repair", "keyword-masked": "report", "keyword-duplicate": "report",
    "keyword-invalid": "report", "parameter-invalid": "report", "non-ascii": "strict", "line-too-long": "report",
    "xclient-offered": "report", "starttls-inside-tls": "repair", "reply-too-long": "report",
}  # fmt: skip
CUT_THOUGH_REPORTED = {"line-too-long"}  # a greeting over 1000 octets, which its example has


def found(id_: str, policy: RepairPolicy) -> tuple[Finding, ...]:
    kind = CATALOGUE[id_]
    if kind.where == "banner":
        return split_before_banner(kind.example, policy.mode == "repair").findings
    context = EhloContext(banner=BANNER, inside_tls=kind.where == "tls", client_trusted=False)
    return repair_reply(kind.example, policy, context).findings


def test_the_catalogue_is_the_table_in_its_order() -> None:
    assert {id_: kind.done for id_, kind in CATALOGUE.items()} == TABLE
    assert list(CATALOGUE) == list(TABLE)


@pytest.mark.parametrize("id_", CATALOGUE)
def test_every_example_gives_its_finding_and_no_other(id_: str) -> None:
    findings = found(id_, RepairPolicy())
    assert {each.id for each in findings} == {id_}
    repaired = TABLE[id_] == "repair" or id_ in CUT_THOUGH_REPORTED
    assert {each.repaired for each in findings} == {repaired}
    assert {each.clause for each in findings} == {CATALOGUE[id_].clause}
    assert all(each.message and "\n" not in each.message for each in findings)


@pytest.mark.parametrize("id_", CATALOGUE)
def test_observed_it_is_the_same_and_nothing_is_repaired(id_: str) -> None:
    findings, observed = found(id_, RepairPolicy()), found(id_, RepairPolicy(mode="observe"))
    assert [(each.id, each.line, each.message) for each in observed] == [
        (each.id, each.line, each.message) for each in findings
    ]
    assert not any(each.repaired for each in observed)


@pytest.mark.parametrize("id_", CATALOGUE)
def test_every_entry_says_all_that_a_person_asks(id_: str) -> None:
    kind = CATALOGUE[id_]
    assert kind.id == id_
    for text in (kind.claim, kind.clause, kind.breaks, kind.how, kind.wrong_when):
        assert text
        assert not re.search(r"  |\n", text)
    assert kind.example.endswith((b"\r\n", b"\n"))
    assert kind.where in ("clear", "tls", "banner")


@pytest.mark.parametrize(
    ("texts", "line", "told"),
    [
        ((b"250-mail.example.com", b"250-SMTPUTF8", b"250 HELP"), 2, "SMTPUTF8 is offered without 8BITMIME"),
        ((b"250-mail.example.com", b"250-HELP", b"250 binarymime"), 3, "BINARYMIME is offered without CHUNKING"),
        ((b"250-mail.example.com", b"250-SMTPUTF8", b"250 8bitmime"), 0, ""),
        ((b"250-mail.example.com", b"250-CHUNKING", b"250 BINARYMIME"), 0, ""),
        ((b"250-mail.example.com SMTPUTF8", b"250 HELP"), 0, ""),
        ((b"250-mail.example.com", b"550 SMTPUTF8"), 0, ""),
    ],
)
def test_a_keyword_that_is_nothing_without_another_is_told_and_left(
    texts: tuple[bytes, ...], line: int, told: str
) -> None:
    raw = b"".join(text + b"\r\n" for text in texts)
    for mode in ("repair", "observe"):
        result = repair_reply(raw, RepairPolicy(mode), EhloContext(banner=BANNER))
        found = [each for each in result.findings if each.id == "keyword-incomplete"]
        clause = "RFC 6531 3.1, RFC 3030 3"
        assert found == ([Finding("keyword-incomplete", line, False, told, clause)] if told else [])
    kind = DIALOGUE["keyword-incomplete"]
    assert [each.id for each in repair_reply(kind.example, RepairPolicy(), EhloContext(BANNER)).findings] == [kind.id]


def test_the_second_table_is_the_contracts_in_its_order() -> None:
    assert list(DIALOGUE) == [
        "ehlo-refused", "ehlo-repeat-refused", "starttls-refused", "starttls-reply-code", "starttls-not-steady",
        "hello-unanswered", "tls-outdated", "banner-multiline", "keyword-incomplete", "client-name-invalid",
    ]  # fmt: skip
    assert {kind.done for kind in DIALOGUE.values()} == {"report"}
    assert not CATALOGUE.keys() & DIALOGUE.keys()
    assert FINDINGS == CATALOGUE | DIALOGUE
    assert finding("hello-unanswered", 0, False, "1555 octets").clause == DIALOGUE["hello-unanswered"].clause


def test_a_peer_is_quoted_on_one_line_and_cut() -> None:
    assert quoted(b"250-x\xff\0y\r\n") == '"250-xÿ\0y"'
    assert len(quoted(b"x" * 100)) == 62
    assert quoted(b"x" * 100).endswith('..."')


def test_a_finding_has_the_clause_of_the_catalogue() -> None:
    assert finding("blank-line", 2, True, "an empty line") == Finding(
        "blank-line", 2, True, "an empty line", "RFC 5321 4.2"
    )
