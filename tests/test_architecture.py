"""docs/architecture.md stays true: every file and every function that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PAGE = (TOP / "docs/architecture.md").read_text()
FILE = r"`((?:net|smtp|daemon|settings|tools)/[\w/]+\.py)`"
FOLLOWED = re.findall(FILE + r"((?:\s+(?:and\s+)?`[\w.]+`)+)", PAGE)
NAMED = sorted({(file, name) for file, names in FOLLOWED for name in re.findall(r"`([\w.]+)`", names)})


def test_it_names_the_functions_of_both_walks() -> None:
    assert len(NAMED) > 15


@pytest.mark.parametrize("file", sorted(set(re.findall(FILE, PAGE))))
def test_every_file_that_it_names_is_there(file: str) -> None:
    assert (TOP / "proxy" / file).exists()


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_function_that_it_names_is_there(file: str, name: str) -> None:
    tree = ast.parse((TOP / "proxy" / file).read_text())
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    place: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef = tree
    for part in name.split("."):
        found = [one for one in place.body if isinstance(one, kinds) and one.name == part]
        assert found, f"{name} is not in proxy/{file}"
        place = found[0]


def test_every_room_is_drawn() -> None:
    rooms = {path.parent.relative_to(TOP / "proxy").as_posix() for path in (TOP / "proxy").rglob("__init__.py")}
    drawn = PAGE[PAGE.index("```text\ncli") : PAGE.index("smtp/reply/  ")] + "smtp/reply/"
    missing = {room for room in rooms - {"."} if f"{room.rpartition('/')[2]}/" not in drawn}
    assert missing <= {"smtp", "net", "admin", "daemon/admin/figures", "smtp/session/parts"}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:config|docs|tests)/[\w./-]+\.\w+)`", PAGE))))
def test_every_other_file_that_it_names_is_there(path: str) -> None:
    assert (TOP / path).exists()
