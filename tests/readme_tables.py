"""The README's table of findings, drawn from the code: `python -m tests.readme_tables` writes it."""

from __future__ import annotations

from pathlib import Path

from proxy.tools.explain import markdown_table

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN = "<!-- findings: written by python -m tests.readme_tables -->"
END = "<!-- /findings -->"


def with_table(text: str) -> str:
    """`text` with the table between the markers made anew.  Raises ValueError when they are not there."""
    begin = text.index(BEGIN) + len(BEGIN)
    end = text.index(END, begin)
    return f"{text[:begin]}\n{markdown_table().strip()}\n{text[end:]}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
