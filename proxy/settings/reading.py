"""From a parsed TOML document to frozen dataclasses, collecting every problem on the way.

A setting is declared once, as a field of its table's dataclass, with `setting` (or `table` for a table inside a table):
the reader that checks it, its default as the file would write it, and its meaning.  Everything else is derived: what
keys exist, what is nearest to a misspelt one, what `config/ehlo-proxy.toml` has to say.

A value that can't be taken is reported and its default stands in for it, so that the rules across keys can still be
tried; `Reading.spoilt` tells them which keys not to judge.
"""

from __future__ import annotations

import json
import os.path
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from proxy.settings.problems import Problem, Unfit, key_path, line_in, nearest

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

    def __init__(
        self,
        file: str,
        everywhere: Mapping[str, type[Any]],
        lines: Mapping[str, int] | None = None,
        routes: Sequence[str] = (),
    ) -> None:
        """`everywhere`: the tables of the document by their name, to find where a misplaced key belongs.

        `lines`: of `key_lines`; `routes`: the names of the routes, in order, as far as they have one."""
        self.file = file
        self.everywhere = everywhere
        self._lines = lines or {}
        self._routes = routes
        self.problems: list[Problem] = []
        self.unread: set[str] = set()  # keys whose value is not what the operator wrote

    def report(self, where: str, value: object, expected: str, near: str | None = None) -> None:
        """One more problem."""
        self.problems.append(Problem(self.place(where), where, value, expected, near, self.route(where)))

    def place(self, where: str) -> str:
        """The file, and the line that this key stands in, or the table around it: `FILE:12`."""
        line = line_in(self._lines, where)
        return f"{self.file}:{line}" if line else self.file

    def route(self, where: str) -> str:
        """The name of the route that this key is in; "" for one without a name, and outside of routes."""
        found = re.match(r"route\[(\d+)\]", where)
        return self._routes[int(found[1])] if found and int(found[1]) < len(self._routes) else ""

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


def as_toml(whole: Any, tables: Mapping[str, type[Any]]) -> str:
    """What is in force, as TOML that reads as the same settings again: every key of every table, defaults included.

    Paths are whole, so that it means the same in any directory.
    `whole` has an attribute for each title of `tables`, a list of tables by its plural (`routes`).
    """
    lines: list[str] = []
    for title, kind in tables.items():
        several = getattr(whole, f"{title}s", None)
        for one in (getattr(whole, title),) if several is None else several:
            lines += ["", f"[{title}]" if several is None else f"[[{title}]]"]
            inner = ""
            for path, key in declared(kind):
                table_path, _, name = path.rpartition(".")
                if table_path != inner:
                    inner = table_path
                    lines += ["", f"[{title}.{inner}]"]
                value: object = one
                for part in path.split("."):
                    value = getattr(value, part)
                lines.append(f"{name} = {_as_written(value, key)}")
    return "\n".join(lines[1:]) + "\n"


def _as_written(value: object, key: Key) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return '""'
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_as_written(one, key) for one in value)}]"
    if isinstance(value, float):
        return f"{value:g}" if value == float(f"{value:g}") else repr(value)
    if isinstance(value, int):
        return '"auto"' if value == 0 and _takes_auto(key) else str(value)
    written = str(value)
    return json.dumps(os.path.abspath(written) if key.path and written else written, ensure_ascii=False)


def _takes_auto(key: Key) -> bool:
    try:
        return key.read("auto") == 0
    except Unfit:
        return False
