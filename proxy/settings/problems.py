"""What is wrong, or unwise, in a configuration, and in which line: the values that settings are judged with.

A `Problem` stops the program (`check` and `run` exit with 2) and is never alone: every reader goes on behind the first
one, so that an operator sees all of them at once.  A `Warning_` stops nothing; it says what is legal but unwise.

Everything that is shown comes from a file that somebody else may have written: it is cut and escaped here, so that one
problem is always one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

MAX_SHOWN: Final = 120  # characters of a value in a message; the rest is cut
BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+\Z")  # TOML's unquoted-key

MAX_DEPTH: Final = 16  # of a key whose line is kept; what lies deeper has the line of what is around it
_BLANK: Final = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_KEY: Final = re.compile(r"""[ \t]*(?:([A-Za-z0-9_-]+)|"((?:[^"\\\n]|\\.)*)"|'([^'\n]*)')[ \t]*""")
_HEADER: Final = re.compile(r"\[(\[)?")
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN: Final = re.compile(r"[^\"'\[\]{}#\n]+")


def shown(value: object) -> str:
    """The value as TOML would write it, near enough to be recognised: one printable line of at most `MAX_SHOWN`."""
    import json  # only somebody with a problem pays for it

    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):  # an integer of more than 4300 digits, or lists in lists in lists
        return "(too large to be shown)"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 4] + " ..."


def key_path(where: str, name: str) -> str:
    """`route[0].tls.mode`; a name that TOML would have to quote is quoted and cut, so that no key can forge a line."""
    written = name if BARE_KEY.match(name) and len(name) <= MAX_SHOWN else shown(name)
    return f"{where}.{written}" if where else written


def nearest(word: str, among: Iterable[str]) -> str | None:
    """The one of `among` that `word` was probably meant to be; None when nothing is near."""
    import difflib

    candidates = {one.lower(): one for one in among}
    found = difflib.get_close_matches(word.lower()[:100], candidates, n=1, cutoff=0.6)
    return candidates[found[0]] if found else None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: `value` is what was found, None when nothing was; `key` is "" for the whole file.

    `file` has the line behind a colon where one is known, `route` the name of the route that the key is in.
    """

    file: str
    key: str
    value: object
    expected: str
    nearest: str | None = None
    route: str = ""

    def __str__(self) -> str:
        where = f"{self.file}: route {shown(self.route)}" if self.route else self.file
        if self.key and self.value is None:
            where = f"{where}: {self.key} is missing"
        elif self.key:
            where = f"{where}: {self.key} = {shown(self.value)}"
        near = "" if self.nearest is None else shown(self.nearest)[1:-1]
        if near and near == shown(self.value):  # 1.1 where "1.1" is meant
            near = f'"{near}", in quotes'
        hint = near and f" (did you mean {near}?)"
        return f"{where}: expected {self.expected}{hint}"


@dataclass(frozen=True, slots=True)
class Warning_:
    """Something legal that an operator should know about."""

    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}"


class SettingsError(Exception):
    """The configuration can't be used. `problems` has everything that was found, in the order of the file's tables."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault inside one value: `where` is "" or the place in a list, such as `[2]`."""

    where: str
    value: object
    expected: str
    nearest: str | None = None


class Unfit(Exception):
    """Raised by the readers of `settings.plain`: a value that can't be taken, with every fault in it."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__(faults)
        self.faults = faults


def unfit(value: object, expected: str, near: str | None = None) -> Unfit:
    """An `Unfit` with one fault, about the whole value."""
    return Unfit(Fault("", value, expected, near))


def key_lines(text: str) -> dict[str, int]:
    """Each key path (`route[0].tls.mode`, `route[0].tls`) of a TOML text, with the line where it first stands.

    tomllib does not tell.  For a text that it has read without a complaint: headers, keys, strings and brackets are
    followed, each character is looked at once; what can't be followed is left out, and nothing is raised.
    """
    found: dict[str, int] = {}
    counts: dict[str, int] = {}  # tables of each array of tables so far
    table = ""
    at = line = 0
    seen = 0  # up to where lines were counted

    def line_of(place: int) -> int:
        nonlocal line, seen
        line += text.count("\n", seen, place)
        seen = place
        return line + 1

    while True:
        blank = _BLANK.match(text, at)
        at = blank.end() if blank else at
        if at >= len(text):
            return found
        header = _HEADER.match(text, at)
        begin = header.end() if header else at
        names, end = _dotted(text, begin)
        if not names:
            return found
        here = line_of(at)
        if header:
            table = _enter(names, counts, new=bool(header[1]))
            found.setdefault(table, here)
            at = text.find("\n", end)
            if at < 0:
                return found
        else:
            path = table
            for name in names:
                path = key_path(path, name)
                found.setdefault(path, here)
            at = _behind_value(text, end)


def line_in(lines: Mapping[str, int], path: str) -> int:
    """The line of this key, else of what is around it (a list's item, a table's missing key); 0 for nothing known."""
    while path:
        if path in lines:
            return lines[path]
        path = path[: max(path.rfind("."), path.rfind("["))] if "." in path or "[" in path else ""
    return 0


def _dotted(text: str, at: int) -> tuple[list[str], int]:
    """The parts of a dotted key, and the place behind it."""
    names: list[str] = []
    while found := _KEY.match(text, at):
        if len(names) < MAX_DEPTH:
            names.append(next(part for part in found.groups() if part is not None))
        at = found.end()
        if text[at : at + 1] != ".":
            break
        at += 1
    return names, at


def _enter(names: list[str], counts: dict[str, int], *, new: bool) -> str:
    """The path of the table that a header opens; parts of it that are arrays of tables mean their last one."""
    path = ""
    for place, name in enumerate(names):
        path = key_path(path, name)
        if new and place == len(names) - 1:
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path = f"{path}[{counts[path] - 1}]"
    return path


def _behind_value(text: str, at: int) -> int:
    """The end of the line on which a value ends: a newline outside of strings and brackets."""
    depth = 0
    while at < len(text):
        character = text[at]
        if character == "\n" and depth <= 0:
            return at
        if character in "\"'":
            string = _STRING.match(text, at)
            at = string.end() if string else at + 1
        elif character == "#":
            newline = text.find("\n", at)
            at = newline if newline >= 0 else len(text)
        elif character in "[{":
            depth, at = depth + 1, at + 1
        elif character in "]}":
            depth, at = depth - 1, at + 1
        else:
            plain = _PLAIN.match(text, at)
            at = plain.end() if plain else at + 1
    return at
