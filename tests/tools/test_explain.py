"""`ehlo-proxy explain`: the catalogue, one finding at length, and the README's table."""

from __future__ import annotations

import io

import pytest

from proxy.smtp.faults import DIALOGUE, LAB, FindingKind
from proxy.smtp.reply.findings import CATALOGUE
from proxy.tools.explain import all_text, explain_all, explain_one, one_text, repaired_example
from tests.readme_tables import markdown_dialogue_table, markdown_table

EXAMPLE_CHANGES = {kind.id for kind in CATALOGUE.values() if kind.done == "repair"} | {"line-too-long"}


def test_the_catalogue_has_one_line_a_finding() -> None:
    out = io.StringIO()
    assert explain_all(out) == 0
    lines = out.getvalue().splitlines()
    assert out.getvalue() == all_text() + "\n"
    assert [line.split()[:2] for line in lines[: len(CATALOGUE)]] == [
        [kind.id, kind.done] for kind in CATALOGUE.values()
    ]


@pytest.mark.parametrize("id_", CATALOGUE)
def test_one_finding_is_told_at_length(id_: str) -> None:
    out = io.StringIO()
    assert explain_one(id_, out) == 0
    text = out.getvalue()
    assert text == one_text(id_) + "\n"
    kind = CATALOGUE[id_]
    told = " ".join(text.split())
    for said in (kind.claim, kind.clause, kind.breaks, kind.how, kind.wrong_when):
        assert " ".join(said.split()) in told
    for head in ("Example", "Who breaks:", "What is done:", "When a repair would be wrong:"):
        assert head in text
    assert text.isascii()
    assert "\r" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert len(text.splitlines()) < 60
    assert ("What the proxy sends" in text) is (id_ in EXAMPLE_CHANGES)


@pytest.mark.parametrize("kind", [*DIALOGUE.values(), *LAB.values()], ids=lambda kind: kind.id)
def test_a_fault_beside_the_reply_is_told_with_its_source_who_meets_it_and_what_cures_it(kind: FindingKind) -> None:
    out = io.StringIO()
    assert explain_one(kind.id, out) == 0
    told = " ".join(out.getvalue().split())
    for said in (kind.claim, kind.clause, kind.source, kind.breaks, kind.how, kind.wrong_when):
        assert said
        assert " ".join(said.split()) in told
    for head in ("Example, ", "Source: ", "Who meets it: ", "What cures it: ", "When that would be wrong: "):
        assert head in out.getvalue()
    assert f"ehlo-proxy simulate --fault {kind.id}" in told
    assert out.getvalue().isascii()
    assert max(map(len, out.getvalue().splitlines())) <= 100
    assert f"\n{kind.id}  " in all_text()


def test_the_second_table_for_the_readme_has_a_row_a_fault() -> None:
    rows = markdown_dialogue_table().splitlines()
    assert [row.split("`")[1] for row in rows[2:]] == list(DIALOGUE)
    assert all(row.startswith("| ") and row.endswith(" |") and row.count(" | ") == 3 for row in (rows[0], *rows[2:]))


def test_line_ends_that_are_wrong_and_octets_that_do_not_print_are_written_out() -> None:
    assert "    250-STARTTLS\\x0a\n" in one_text("line-end-invalid")
    assert "    250-START\\x00TLS\n" in one_text("control-character")


def test_long_examples_are_cut() -> None:
    assert "... (102 lines)\n    250 8BITMIME" in one_text("reply-too-long")
    assert "xxx ...\n" in one_text("line-too-long")


def test_an_unknown_id_is_told_with_the_nearest() -> None:
    for id_, hint in (
        ("greeting-first", "did you mean greeting-not-first?"),
        ("\x1b[2J", "'\\\\x1b[2J'"),
        ("", "listed"),
    ):
        out, err = io.StringIO(), io.StringIO()
        assert explain_one(id_, out, err) == 2
        assert out.getvalue() == ""
        assert hint in err.getvalue()
        assert err.getvalue().isprintable() or err.getvalue()[:-1].isprintable()


def test_to_the_terminal_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain_all() == 0
    assert explain_one("blank-line") == 0
    assert explain_one("nothing-like-it") == 2
    captured = capsys.readouterr()
    assert captured.out == f"{all_text()}\n{one_text('blank-line')}\n"
    assert "nothing-like-it" in captured.err


def test_the_table_for_the_readme_has_a_row_a_finding() -> None:
    rows = markdown_table().splitlines()
    assert len(rows) == len(CATALOGUE) + 2
    assert all(row.startswith("| ") and row.endswith(" |") and row.count(" | ") == 3 for row in (rows[0], *rows[2:]))
    assert [row.split("`")[1] for row in rows[2:]] == list(CATALOGUE)


def test_what_the_proxy_sends_is_the_example_repaired() -> None:
    good = b"250-mail.example.com\r\n250-STARTTLS\r\n250 8BITMIME\r\n"
    assert repaired_example(CATALOGUE["separator-invalid"]) == good
    assert repaired_example(CATALOGUE["line-before-banner"]) == b"220 mail.example.com ESMTP\r\n"
    assert repaired_example(CATALOGUE["starttls-inside-tls"]) == b"250-mail.example.com\r\n250 8BITMIME\r\n"
