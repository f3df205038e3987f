"""README and docs/ say what is true: their tables are the code's, and what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import COMMANDS, OTHERS, RUN, blocks
from tests.pages import PAGES as NAMES
from tests.readme_tables import FAULTS, FINDINGS, with_faults, with_table

TOP = Path(__file__).resolve().parent.parent
README = TOP / "README.md"
ALL = [one for page in NAMES for one in blocks(page)]
PAGES = [README, *(TOP / name for name in ("SECURITY.md", "CONTRIBUTING.md")), *sorted((TOP / "docs").glob("*.md"))]


def test_the_table_of_findings_is_what_the_code_says() -> None:
    text = FINDINGS.read_text()
    assert with_table(text) == text, "python -m tests.readme_tables"


def test_the_table_of_faults_is_what_the_code_says() -> None:
    text = FAULTS.read_text()
    assert with_faults(text) == text, "python -m tests.readme_tables"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_heading_that_is_linked_exists(page: Path) -> None:
    missing = []
    for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]+))?\)", page.read_text()):
        target = page.parent / link if link else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            missing.append(f"{link}#{anchor}")
    assert missing == []


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings have."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    reached, new = {README}, [README]
    while new:
        page = new.pop()
        for link in re.findall(r"\]\(([^)#:]+\.md)", page.read_text()):
            target = (page.parent / link).resolve()
            if target not in reached and target.exists():
                reached.add(target)
                new.append(target)
    assert {page.name for page in PAGES} - {page.name for page in reached} == set()


def test_the_readme_is_short() -> None:
    assert len(README.read_bytes()) < 10_000


def test_every_test_that_the_security_page_names_exists() -> None:
    text = (README.parent / "SECURITY.md").read_text()
    named = set(re.findall(r"tests/[a-z_/]+(?:\.py)?", text))
    assert len(named) > 10
    assert {name for name in named if not (README.parent / name).exists()} == set()


def test_every_block_is_run_by_a_test_or_says_that_it_is_untried() -> None:
    asked = [one for one in ALL if one.language in COMMANDS]
    assert len(asked) > 20
    assert [one.key for one in asked if not one.untried and one.key not in RUN] == []
    assert {key for key in RUN if key not in {one.key for one in asked if not one.untried}} == set()


def test_every_other_block_says_what_it_is() -> None:
    assert [(one.page, one.language, one.text[:40]) for one in ALL if one.language not in COMMANDS | OTHERS] == []


@pytest.mark.parametrize("where", sorted(set(RUN.values())))
def test_whoever_runs_a_block_exists_and_reads_its_page(where: str) -> None:
    file, _, name = where.partition("::")
    text = (TOP / file).read_text()
    if not name:
        assert "tests/run" in text
        return
    assert f"def {name}(" in text
    for page in {page for (page, _), test in RUN.items() if test == where}:
        assert page in text, f"{file} does not take it from {page}"
