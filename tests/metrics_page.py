"""Writes the tables of docs/metrics.md anew from the declarations: `python -m tests.metrics_page`."""

from __future__ import annotations

import re
from pathlib import Path

from proxy.daemon.admin.figures.declarations import table, values_of_labels

PAGE = Path(__file__).parent.parent / "docs/metrics.md"


def main() -> None:
    text = PAGE.read_text()
    for name, made in (("metrics", table()), ("labels", values_of_labels())):
        pattern = re.compile(rf"(<!-- {name}: .*? -->\n).*?(<!-- end -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, made=made: f"{match[1]}{made}{match[2]}", text)  # type: ignore[misc]  # a default of its own
        assert count == 1, name
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
