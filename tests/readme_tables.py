"""The tables that are drawn from the code: `python -m tests.readme_tables` writes them.

`docs/findings.md` has the findings of the EHLO reply, `docs/faults.md` what goes wrong beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from proxy.smtp.faults import DIALOGUE
from proxy.smtp.reply.findings import CATALOGUE
from tests.net.tls.limits import LIMITS

TOP = Path(__file__).resolve().parent.parent
FINDINGS, FAULTS = TOP / "docs" / "findings.md", TOP / "docs" / "faults.md"


def markdown_table() -> str:
    """The findings of the EHLO reply."""
    return _table(
        ("finding", "what the server did", "who breaks on it", "what is done"),
        (
            (f"`{kind.id}`", f"{kind.claim} ({kind.clause})", kind.breaks, f"**{kind.done}.** {kind.how}")
            for kind in CATALOGUE.values()
        ),
    )


def markdown_dialogue_table() -> str:
    """What goes wrong beside it."""
    return _table(
        ("finding", "what is wrong", "who meets it", "what cures it"),
        ((f"`{kind.id}`", f"{kind.claim} ({kind.clause})", kind.breaks, kind.how) for kind in DIALOGUE.values()),
    )


def markdown_limits_table() -> str:
    """What OpenSSL can't be made to do."""
    return _table(
        ("what can't be", "what is said then", "what follows"),
        ((one.what, f"`{one.refusal}`", one.follows) for one in LIMITS),
    )


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


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
    """The text of `docs/faults.md` with its tables made anew."""
    return _between(_between(text, "faults", markdown_dialogue_table()), "limits", markdown_limits_table())


if __name__ == "__main__":
    FINDINGS.write_text(with_table(FINDINGS.read_text()))
    FAULTS.write_text(with_faults(FAULTS.read_text()))
