"""docs/log.md: every event and every outcome that the program can tell is on it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from proxy.daemon.admin.figures.declarations import OUTCOMES

TOP = Path(__file__).parents[3]
PAGE = (TOP / "docs/log.md").read_text()
FIRST_COLUMN = " ".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `"))
TELLERS = {"emit": 1, "noticed": 1, "_emit": 2, "_rated": 2, "injected": 1, "_listen_admin": 0, "_line": 1}


def told() -> set[str]:
    """The events that the source names, where it tells one."""
    found: set[str] = set()
    for path in (TOP / "proxy").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in TELLERS:
                place = TELLERS[node.func.attr]
                if len(node.args) > place:
                    argument = node.args[place]
                    if isinstance(argument, ast.Constant) and re.fullmatch(r"[a-z-]+", str(argument.value)):
                        found.add(str(argument.value))
    return found


def test_every_event_is_on_the_page() -> None:
    events = told()
    assert {"session-start", "ehlo-findings", "session-end", "reload-failed", "log-lost", "admin-ready"} <= events
    named = set(re.findall(r"`([a-z-]+)`", FIRST_COLUMN))
    assert sorted(events - named) == []


def test_every_outcome_is_on_the_page() -> None:
    table = PAGE.partition("## Outcomes")[2].partition("## Events")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE) == list(OUTCOMES)
