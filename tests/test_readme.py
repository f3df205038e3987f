"""The README says what is true: its table of findings is the code's, and what it links to is there."""

from __future__ import annotations

import re

from tests.readme_tables import FAULTS, README, with_faults, with_table


def test_the_table_of_findings_is_what_the_code_says() -> None:
    text = README.read_text()
    assert with_table(text) == text, "python -m tests.readme_tables"


def test_the_table_of_faults_is_what_the_code_says() -> None:
    text = FAULTS.read_text()
    assert with_faults(text) == text, "python -m tests.readme_tables"


def test_every_file_that_is_linked_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    missing = [link for link in links if not (README.parent / link).exists()]
    assert len(links) > 5
    assert missing == []


def test_every_heading_that_is_linked_exists() -> None:
    text = README.read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    anchors = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert anchors
    assert anchors <= headings


def test_every_test_that_the_security_page_names_exists() -> None:
    text = (README.parent / "SECURITY.md").read_text()
    named = set(re.findall(r"tests/[a-z_/]+(?:\.py)?", text))
    assert len(named) > 10
    assert {name for name in named if not (README.parent / name).exists()} == set()
