r"""How a value stands in a line of the log: no peer can forge one with it.

In text a value that is empty or holds anything but letters, digits and `_.:/@+[]-` stands in double quotes, with `"` as
`\"`.  A list of such plain words is joined by commas; any other list is one quoted value whose items are parted by the
two characters `\n` (an EHLO reply reads as its lines).  In JSON lists are lists.  The values themselves are the same in
both: printable ASCII, a backslash doubled, and every other byte as `\xNN`, so neither a line end nor a terminal's
escape sequence gets through, not even after a JSON parser.

A value is *escaped* first (`value_of`), and cut; then it is quoted as the format wants it (`in_text`, `in_json`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Final

MAX_PEER_TEXT: Final = 200  # bytes of one value that a peer wrote

NOTHING: Final = '""'  # an empty value

_unplain = re.compile(r"[^A-Za-z0-9_.:/@+\[\]-]").search
_ESCAPES = {byte: f"\\x{byte:02x}" for byte in range(256) if not 32 <= byte < 127} | {92: "\\\\"}


class TooLong(Exception):
    """A value has to be cut."""


class Number:
    """A number or a boolean, as both formats print it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


Value = str | list[str] | Number
"""What is printed: text that is escaped already, a list of such, or a number."""


def escape(data: bytes) -> str:
    r"""`data` in printable ASCII: a backslash doubled, every other byte that is not printable as `\xNN`."""
    return data.decode("latin-1").translate(_ESCAPES)


def octets(text: str) -> bytes:
    """Text of ours that may quote a peer, as it is printed."""
    return text.encode("utf-8", "backslashreplace")


def of_peer(text: str) -> bytes:
    """Text whose characters are a peer's octets."""
    return text.encode("latin-1", "replace")


def value_of(value: object, max_text: int, key: str, cut: list[str]) -> Value:
    """Any value, escaped; `key` is added to `cut` when it is not whole."""
    if isinstance(value, bool):
        return Number("true" if value else "false")
    if isinstance(value, int):
        return Number(str(value))
    if isinstance(value, float):
        return Number(seconds_text(value))
    if isinstance(value, (list, tuple)):
        return [_text_of(item, max_text, key, cut) for item in value]
    return _text_of(value, max_text, key, cut)


def _text_of(value: object, max_text: int, key: str, cut: list[str]) -> str:
    if isinstance(value, (bytes, bytearray)):
        data, limit = bytes(value), MAX_PEER_TEXT
    else:
        data, limit = octets(str(value)), max_text
    if len(data) > limit and key not in cut:
        cut.append(key)
    return escape(data[:limit])


def in_text(value: Value) -> str:
    """The value as it stands behind `key=`."""
    if isinstance(value, str):
        return value if _is_plain(value) else _quoted(value)
    if isinstance(value, list):
        return ",".join(value) if value and all(map(_is_plain, value)) else _quoted("\\n".join(value))
    return value.text


def in_json(value: Value) -> str:
    """The value as it stands behind `"key":`."""
    if isinstance(value, str):
        return _json_string(value)
    if isinstance(value, list):
        return f"[{','.join(map(_json_string, value))}]"
    return value.text


def text_by(as_octets: Callable[[str], bytes]) -> tuple[Callable[[str], str], Callable[[str], str]]:
    """The same of text that is not escaped, in text and in JSON; `as_octets`: `octets` or `of_peer`.

    What is made raises `TooLong`.
    """

    def shown_in_text(text: str) -> str:
        if not text:
            return NOTHING
        return text if len(text) <= MAX_PEER_TEXT and _unplain(text) is None else _quoted(_whole(as_octets(text)))

    def shown_in_json(text: str) -> str:
        plain = len(text) <= MAX_PEER_TEXT and _unplain(text) is None
        return f'"{text}"' if plain else _json_string(_whole(as_octets(text)))

    return shown_in_text, shown_in_json


def _whole(data: bytes) -> str:
    if len(data) > MAX_PEER_TEXT:
        raise TooLong
    return escape(data)


def words_in_text(words: Sequence[str]) -> str:
    """A list of plain words, as it stands behind `key=`."""
    return ",".join(words) if words else NOTHING


def words_in_json(words: Sequence[str]) -> str:
    """The same for JSON."""
    return in_json(list(words))


def _is_plain(text: str) -> bool:
    return text != "" and _unplain(text) is None


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'


def _json_string(text: str) -> str:
    # `text` is printable ASCII, so these two are all that JSON wants escaped.
    return _quoted(text.replace("\\", "\\\\"))


def seconds_text(seconds: float) -> str:
    """Seconds to the millisecond, as both formats print them."""
    return format(seconds, ".3f")


def utc(seconds: float) -> str:
    """A Unix time in seconds as RFC 3339 in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def shorten(values: dict[str, Value], cut: list[str]) -> bool:
    """Halve the largest field, or drop the last one when all are small; false when nothing is left to take."""
    if not values:
        return False

    def size(key: str) -> int:
        value = values[key]
        if isinstance(value, list):
            return sum(map(len, value)) + 4 * len(value)
        return len(value) if isinstance(value, str) else 0

    largest = max(values, key=size)
    value = values[largest]
    if size(largest) < 32:
        values.popitem()
        return True
    if isinstance(value, list):
        values[largest] = [_half(value[0])] if len(value) == 1 else value[: len(value) // 2]
    elif isinstance(value, str):
        values[largest] = _half(value)
    if largest not in cut:
        cut.append(largest)
    return True


def _half(text: str) -> str:
    # Not through the middle of an escape, so that what is left still reads as what it was.
    return re.sub(r"(?<!\\)((?:\\\\)*)\\(?:x[0-9a-f]?)?$", r"\1", text[: len(text) // 2])
