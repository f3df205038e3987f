"""From a parsed TOML document to frozen dataclasses, collecting every problem on the way.

A setting is declared once, as a field of its table's dataclass, with `setting` (or `table` for a table inside a table):
the reader that checks it, its default as the file would write it, and its meaning.  Everything else is derived: what
keys exist, what is nearest to a misspelt one, what `config/ehlo-proxy.toml` has to say.

A value that can't be taken is reported and its default stands in for it, so that the rules across keys can still be
tried; `Reading.spoilt` tells them which keys not to judge.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from proxy.settings.problems import Problem, Unfit, key_path, nearest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Key:
    """One key: how it is read, its default as written in TOML, what it means, and whether it is a path."""

    read: Callable[[object], object]
    default: object
    meaning: str
    path: bool


def setting(read: Callable[[object], T], default: object, meaning: str, *, path: bool = False) -> T:
    """Declare a setting. `path`: a relative one is taken from the directory of the file that says it."""
    value: T = field(default=read(default), metadata={"key": Key(read, default, meaning, path)})
    return value


def table(kind: Callable[[], T]) -> T:
    """Declare a table inside a table; all its keys have defaults."""
    value: T = field(default=kind(), metadata={"table": kind})
    return value


def declared(kind: type[Any]) -> Iterator[tuple[str, Key]]:
    """Every key of a table's dataclass, with its path below the table: `mode`, `repair.mode` and so on."""
    for one in fields(kind):
        if "key" in one.metadata:
            yield one.name, one.metadata["key"]
        elif "table" in one.metadata:
            yield from ((f"{one.name}.{path}", found) for path, found in declared(one.metadata["table"]))


class Reading:
    """One file being read: its problems so far."""

    def __init__(self, file: str, everywhere: Mapping[str, type[Any]]) -> None:
        """`everywhere`: the tables of the document by their name, to find where a misplaced key belongs."""
        self.file = file
        self.everywhere = everywhere
        self.problems: list[Problem] = []
        self.unread: set[str] = set()  # keys whose value is not what the operator wrote

    def report(self, where: str, value: object, expected: str, near: str | None = None) -> None:
        """One more problem."""
        self.problems.append(Problem(self.file, where, value, expected, near))

    def spoilt(self, *keys: str) -> bool:
        """Does a default stand in for one of these keys, or for a table around it?"""
        return any(one == unread or one.startswith(unread + ".") for one in keys for unread in self.unread)

    def table(self, kind: Callable[..., T], raw: object, where: str) -> T:
        """Read one table into its dataclass. Problems are collected; the defaults stand in."""
        if not isinstance(raw, dict):
            self.report(where, raw, "a table of keys")
            self.unread.add(where)
            return kind()
        known: dict[str, Field[Any]] = {
            one.name: one
            for one in fields(kind)  # type: ignore[arg-type]  # every table is a dataclass
            if "key" in one.metadata or "table" in one.metadata
        }
        values: dict[str, object] = {}
        for name, value in raw.items():
            path = key_path(where, name)
            one = known.get(name)
            if one is None:
                near = self.meant(name, known, where)
                self.report(path, value, "a known key", near)
                self.unread.add(key_path(where, near or ""))
            elif "table" in one.metadata:
                values[name] = self.table(one.metadata["table"], value, path)
            else:
                self._value(one.metadata["key"], value, path, values, name)
        return kind(**values)

    def _value(self, declared_key: Key, value: object, path: str, values: dict[str, object], name: str) -> None:
        try:
            read = declared_key.read(value)
        except Unfit as problem:
            self.unread.add(path)
            for fault in problem.faults:
                self.report(path + fault.where, fault.value, fault.expected, fault.nearest)
            return
        if declared_key.path and isinstance(read, str) and read:
            read = os.path.join(os.path.dirname(self.file), read)
        values[name] = read

    def meant(self, name: str, known: Mapping[str, object], where: str = "") -> str | None:
        """The key or table that a misplaced or misspelt one was probably meant to be; `where`: the table around it."""
        homes = [
            path
            for title, kind in self.everywhere.items()
            for path in dict.fromkeys(part for key, _ in declared(kind) for part in _ways(f"{title}.{key}"))
            if path.rpartition(".")[2] == name
        ]
        near = [path for path in homes if path.startswith(where.partition("[")[0] + ".")]
        return " or ".join(near or homes) or nearest(name, known) or nearest(name, self.everywhere)


def _ways(path: str) -> Iterator[str]:
    """`route.tls.mode`, and the tables on the way to it: `route.tls`."""
    while "." in path:
        yield path
        path = path.rpartition(".")[0]
