"""One value of the configuration file: truths, numbers, durations, words and lists, or an `Unfit` that says why not.

A reader is a function of one argument, the value as tomllib gives it (so `bool`, `int`, `float`, `str`, `list`, `dict`,
or a date), and returns what the program works with.  Readers look at nothing but the value: no file, no address of this
host, no other key.  Those judgements are `settings.rules` and `settings.files`.  Addresses and names are read in
`settings.values`, what is shown to SMTP's peers in `settings.smtp`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

from proxy.settings.problems import Fault, Unfit, nearest, unfit

T = TypeVar("T")
Reader = Callable[[object], T]

MAX_SECONDS: Final = 365 * 86400.0  # nothing here waits for a year; a larger number is a mistake
UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|d)\Z")


def boolean(value: object) -> bool:
    """`true` or `false`."""
    if not isinstance(value, bool):
        word = value.lower() if isinstance(value, str) else ""
        raise unfit(value, "true or false, without quotes", word if word in ("true", "false") else None)
    return value


def whole(low: int, high: int = 2**53) -> Reader[int]:
    """A reader of whole numbers from `low` to `high`."""
    span = f"a whole number of at least {low}" if high == 2**53 else f"a whole number from {low} to {high}"

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            digits = isinstance(value, str) and re.match(r"[0-9]{1,15}\Z", value) and low <= int(value) <= high
            raise unfit(value, span, str(value) if digits else None)
        return value

    return read


port = whole(1, 65535)


def workers(value: object) -> int:
    """A number of processes, at least 1; 0 stands for "auto", one a core."""
    if value == "auto":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024:
        near = None
        if isinstance(value, str):
            near = value if value.isdigit() and 1 <= int(value[:5]) <= 1024 else "auto"
        raise unfit(value, 'a whole number from 1 to 1024, or "auto"', near)
    return value


def security_level(value: object) -> str | int:
    """ "default", or OpenSSL's level 0, 1 or 2."""
    if value == "default" or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2):
        return value
    raise unfit(value, '"default", 0, 1 or 2', value if isinstance(value, str) and value in ("0", "1", "2") else None)


def permissions(value: object) -> str:
    """The permissions of a file in octal, as text: "0660"."""
    if not isinstance(value, str) or not re.match(r"0?[0-7]{3}\Z", value):
        near = f"0{value:o}" if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777 else None
        raise unfit(value, 'permissions in octal, as text, such as "0660"', near)
    return value


def duration(value: object) -> float:
    """Seconds, zero included, from a number or a string such as "250ms", "15s", "5m", "1h", "1d"."""
    expected = 'seconds, or a string such as "250ms", "15s", "5m", "1h", "1d"'
    seconds = -1.0
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if 0 <= value <= MAX_SECONDS:  # false for nan
            seconds = float(value)
        else:
            expected += f", from 0 to {MAX_SECONDS:.0f} seconds"
    elif isinstance(value, str) and (match := DURATION.match(value)):
        seconds = float(match[1]) * UNITS[match[2]]
        if seconds > MAX_SECONDS:
            seconds, expected = -1.0, f"at most a year; {expected}"
    if seconds < 0:
        raise unfit(value, expected)
    return seconds


def span(value: object) -> float:
    """A duration that is more than nothing: a time-out of zero would end every session."""
    seconds = duration(value)
    if seconds <= 0:
        raise unfit(value, 'more than 0 seconds, such as "5m"')
    return seconds


def text(value: object) -> str:
    """A string without control characters."""
    if not isinstance(value, str):
        raise unfit(value, "a string in quotes")
    if not value.isprintable():
        raise unfit(value, "a string without control characters")
    return value


def name(value: object) -> str:
    """What a route is called in logs and metrics: letters, digits, `.`, `_` and `-`, at most 64."""
    written = text(value)
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", written):
        raise unfit(
            value,
            "a name of 1 to 64 letters, digits, dots, hyphens and underscores",
            re.sub(r"[^A-Za-z0-9._-]+", "-", written).strip("-._")[:64] or None,
        )
    return written


def choice(*words: str) -> Reader[str]:
    """A reader of one word out of `words`, exactly as written here."""
    listed = (
        " or ".join(f'"{word}"' for word in words)
        if len(words) < 3
        else (", ".join(f'"{word}"' for word in words[:-1]) + f' or "{words[-1]}"')
    )

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise unfit(value, listed, nearest(str(value)[:40], words) if isinstance(value, (str, float)) else None)
        return value

    return read


def listed(
    read: Reader[T], what: str, *, lone: bool = False, repeats: Callable[[T], bool] = lambda item: False
) -> Reader[tuple[T, ...]]:
    """A reader of a list of what `read` reads, each once, but for what `repeats` is true of.

    With `lone`, a single string counts as a list of one.
    """

    def read_list(value: object) -> tuple[T, ...]:
        if lone and isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise unfit(value, f"a list of {what}, in square brackets")
        first_place: dict[T, int] = {}
        items: list[T] = []
        faults: list[Fault] = []
        for index, item in enumerate(value):
            try:
                one = read(item)
            except Unfit as problem:
                faults += [Fault(f"[{index}]{f.where}", f.value, f.expected, f.nearest) for f in problem.faults]
                continue
            items.append(one)
            first = first_place.setdefault(one, index)
            if first != index and not repeats(one):
                faults.append(Fault(f"[{index}]", item, f"each only once; it is also in place [{first}]"))
        if faults:
            raise Unfit(*faults)
        return tuple(items)

    return read_list


def pin(value: object) -> str:
    """`sha256:` and the base64 of the 32 bytes of a hash of a SubjectPublicKeyInfo."""
    import base64

    written = text(value)
    near = None
    if written.startswith("sha256//"):  # as curl writes it
        near = "sha256:" + written[8:]
    scheme, _, encoded = written.partition(":")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except ValueError:
        digest = b""
    if scheme != "sha256" or len(digest) != 32 or base64.b64encode(digest).decode() != encoded:
        raise unfit(value, '"sha256:" and the base64 of the SHA-256 of the public key (44 characters)', near)
    return written
