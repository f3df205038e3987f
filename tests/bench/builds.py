"""The builds of the proxy that are measured side by side, each with the interpreter that runs it.

`pure` is this tree, `compiled` a copy of it with the compiled modules, `before` the tree of an older commit.  They are
run by the distribution's Python where that is of the measuring one's version, since it is what packages run on, and is
mostly the faster; the compiled build is measured on the other one as well.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contenders import Build
from tests.loopback import TOP

DISTRIBUTIONS = "/usr/bin/python3"
TREE = TOP / "build" / "compiled-tree"


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter."""

    path: str
    version: str

    def __str__(self) -> str:
        return f"{self.version} ({'the distribution' if self.path == DISTRIBUTIONS else 'the environment'}'s)"


def about(path: str) -> Python:
    """Ask the interpreter."""
    command = [path, "-c", "import platform; print(platform.python_version())"]
    return Python(path, subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())


def pythons() -> list[Python]:
    """What the builds run on, and then what measures, if that is another."""
    measuring = about(sys.executable)
    found = [measuring]
    if shutil.which(DISTRIBUTIONS):
        distributions = about(DISTRIBUTIONS)
        if distributions.version.rpartition(".")[0] == measuring.version.rpartition(".")[0]:
            found.insert(0, distributions)
    return found


def compiled_tree() -> Path:
    """The compiled copy of this tree; what was compiled before and has not changed is not compiled again."""
    subprocess.run(
        [sys.executable, str(TOP / "config/packaging/compile.py"), str(TREE)], check=True, stdout=subprocess.DEVNULL
    )
    return TREE


def tree_of(commit: str, folder: Path) -> Path:
    """The tree of a commit, in a folder of its own."""
    tree = folder / "before"
    tree.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=TOP, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
    return tree


def builds(folder: Path, *, compiled: bool, before: str) -> list[Build]:
    """In the order of the table; the last one of the first interpreter is what the goals are for."""
    first, *other = pythons()
    found = [Build("before", first.path, tree_of(before, folder))] if before else []
    found.append(Build("pure", first.path, TOP))
    if compiled:
        tree = compiled_tree()
        found.append(Build("compiled", first.path, tree))
        found += [Build(f"compiled, Python {one.version}", one.path, tree) for one in other]
    return found
