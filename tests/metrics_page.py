"""Writes the tables of docs/metrics.md anew from the declarations: `python -m tests.metrics_page`."""

from __future__ import annotations

import re
from pathlib import Path

from proxy.daemon.admin.figures.declarations import METRICS

PAGE = Path(__file__).parent.parent / "docs/metrics.md"


def table() -> str:
    """All metrics as a table in Markdown, for `docs/metrics.md`."""
    rows = ["| metric | type | labels | says |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{name}`" for name, _values in metric.labels) or "–"
        rows.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.text} |")
    return "\n".join(rows) + "\n"


def values_of_labels() -> str:
    """The closed sets of label values as a table in Markdown; the findings have `explain` and the README."""
    rows = ["| label | of | values |", "|---|---|---|"]
    for metric in METRICS:
        for name, values in metric.labels:
            if values and name != "finding":
                told = ", ".join(f"`{value}`" for value in values)
                rows.append(f"| `{name}` | `{metric.name}` | {told} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    text = PAGE.read_text()
    for name, made in (("metrics", table()), ("labels", values_of_labels())):
        pattern = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, made=made: f"{match[1]}{made}{match[2]}", text)  # type: ignore[misc]  # a default of its own
        assert count == 1, name
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
