"""The matrix of findings and real senders: what is promised for each cell, and that docs/findings.md shows it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.smtp.reply.findings import CATALOGUE
from proxy.tools.simulate.replies import BROKEN
from tests.clients import postfix as postfixes
from tests.clients.lab import CURES
from tests.clients.matrix import FAULTS_BEGIN, POSTFIX, Table, cell, markdown, measure, read, versions, write
from tests.clients.senders import ALL
from tests.loopback import TOP

# Whom the proxy does not bring to TLS, and why.
PARTLY = {"line-too-long"}  # a greeting over 1000 octets is cut, which helps msmtp
ENDED = {"xclient-offered"}  # a stranger must not borrow the trust that the server has in the proxy: 421


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    senders = [sender for sender in ALL if not sender.missing()]
    with tempfile.TemporaryDirectory(prefix="ehlo-matrix-") as folder:
        yield measure(Path(folder), ["none", *BROKEN], senders, not postfixes.missing())


def test_no_message_ever_arrives_in_clear_or_changed(table: Table) -> None:
    assert {where: pair for where, pair in table.items() if not {*pair} <= {"TLS", "-"}} == {}


def test_whoever_needs_a_repair_that_is_made_sends_over_tls_through_the_proxy(table: Table) -> None:
    made = {finding for finding in BROKEN if CATALOGUE[finding].done == "repair"}
    assert len(made) > 10
    assert {where: pair for where, pair in table.items() if where[0] in made and pair[1] != "TLS"} == {}


def test_the_proxy_takes_tls_from_nobody_who_had_it(table: Table) -> None:
    lost = {where for where, pair in table.items() if pair == ("TLS", "-")}
    assert {finding for finding, _ in lost} <= ENDED


def test_what_is_not_repaired_is_as_without_the_proxy(table: Table) -> None:
    kept = {
        where: pair
        for where, pair in table.items()
        if where[0] not in ENDED | PARTLY
        and (where[0] == "none" or CATALOGUE[where[0]].done == "report")
        and pair[0] != pair[1]
    }
    assert kept == {}


def test_postfix_and_smtplib_are_helped_with_the_case_that_started_it(table: Table) -> None:
    if why := postfixes.missing():
        pytest.skip(why)
    assert table["greeting-not-first", POSTFIX] == table["greeting-not-first", "Python smtplib"] == ("-", "TLS")


def test_the_table_in_the_readme_is_what_was_measured(table: Table) -> None:
    """Cell by cell where the programs are those of that page; else only what comes through the proxy."""
    page = (TOP / "docs/findings.md").read_text()
    shown = read(page)
    measured = {where: cell(pair) for where, pair in table.items() if where in shown}
    if versions() not in page:
        measured = {where: value.split()[-1] for where, value in measured.items()}
        shown = {where: value.split()[-1] for where, value in shown.items()}
    assert {where: value for where, value in measured.items() if shown[where] != value} == {}
    assert {finding for finding, _ in shown} == {"none", *BROKEN}, "tests/run --matrix --write docs/findings.md"


def test_whoever_fails_against_a_fault_that_is_cured_sends_over_tls_through_the_proxy() -> None:
    senders = [sender for sender in ALL if not sender.missing()]
    with tempfile.TemporaryDirectory(prefix="ehlo-matrix-") as folder:
        table = measure(Path(folder), list(CURES), senders, not postfixes.missing())
    assert {where: pair for where, pair in table.items() if pair[1] != "TLS"} == {}
    stopped = {where for where, pair in table.items() if pair[0] == "-"}
    assert {fault for fault, _ in stopped} == {*CURES}, "each stops somebody who is not helped"
    page = (TOP / "docs" / "faults.md").read_text()
    shown = read(page, FAULTS_BEGIN)
    assert {fault for fault, _ in shown} == {*CURES}, "tests/run --matrix --faults --write docs/faults.md"
    if versions() in page:
        assert {where: cell(pair) for where, pair in table.items()} == shown


def test_a_table_that_is_written_reads_the_same(tmp_path: Path) -> None:
    made: Table = {("none", "curl"): ("TLS", "TLS"), ("none", "swaks"): ("-", "TLS")}
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- matrix: written by tests/run --matrix --write docs/findings.md -->\n"
        "old\n<!-- /matrix -->\nbehind\n"
    )
    write(page, markdown(made))
    assert read(page.read_text()) == {where: cell(pair) for where, pair in made.items()}
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("behind\n")
    page.write_text("no markers")
    with pytest.raises(ValueError, match="lacks the lines"):
        write(page, "")
