"""What is wrong, or unwise, in a configuration: the values that settings are judged with.

A `Problem` stops the program (`check` and `run` exit with 2) and is never alone: every reader goes on behind the first
one, so that an operator sees all of them at once.  A `Warning_` stops nothing; it says what is legal but unwise.

Everything that is shown comes from a file that somebody else may have written: it is cut and escaped here, so that one
problem is always one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MAX_SHOWN: Final = 120  # characters of a value in a message; the rest is cut
BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+\Z")  # TOML's unquoted-key


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
    """One thing that is wrong: `value` is what was found, None when nothing was; `key` is "" for the whole file."""

    file: str
    key: str
    value: object
    expected: str
    nearest: str | None = None

    def __str__(self) -> str:
        if not self.key:
            where = self.file
        elif self.value is None:
            where = f"{self.file}: {self.key} is missing"
        else:
            where = f"{self.file}: {self.key} = {shown(self.value)}"
        hint = "" if self.nearest is None else f" (did you mean {shown(self.nearest)[1:-1]}?)"
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
