"""The tables that are drawn from the code: `python -m tests.readme_tables` writes them.

`docs/findings.md` has the findings of the EHLO reply, `docs/faults.md` what goes wrong beside it.
"""

from __future__ import annotations

from pathlib import Path

from proxy.tools.explain import markdown_dialogue_table, markdown_table

TOP = Path(__file__).resolve().parent.parent
FINDINGS, FAULTS = TOP / "docs" / "findings.md", TOP / "docs" / "faults.md"


def _between(text: str, name: str, table: str) -> str:
    """`text` with the table between the markers of that name made anew.  Raises ValueError when they are not there."""
    marker = f"<!-- {name}: written by python -m tests.readme_tables -->"
    begin = text.index(marker) + len(marker)
    end = text.index(f"<!-- /{name} -->", begin)
    return f"{text[:begin]}\n{table.strip()}\n{text[end:]}"


def with_table(text: str) -> str:
    """The text of `docs/findings.md` with its table made anew."""
    return _between(text, "findings", markdown_table())


def with_faults(text: str) -> str:
    """The text of `docs/faults.md` with its table made anew."""
    return _between(text, "faults", markdown_dialogue_table())


if __name__ == "__main__":
    FINDINGS.write_text(with_table(FINDINGS.read_text()))
    FAULTS.write_text(with_faults(FAULTS.read_text()))
