r"""The log: one event a line, as text or as JSON, that no peer can forge.

Text is `EVENT session=… key=value …`, with the time (RFC 3339, UTC) and the level in front, but not for the journal,
which has its own of both.  A value that is empty or holds anything but letters, digits and `_.:/@+[]-`
stands in double quotes, with `"` as `\"`.  A list of such plain words is joined by commas; any other list is one
quoted value whose items are parted by the two characters `\n` (an EHLO reply reads as its lines).  JSON has the same
keys, plus `time` (RFC 3339, UTC), `level` and `event`; its lists are lists.  The values themselves are the same in
both: printable ASCII, a backslash doubled, and every other byte as `\xNN`, so neither a line end nor a terminal's
escape sequence gets through, not even after a JSON parser.

What is cut says so: peer text is cut at 200 bytes, an event at 8 KiB, and the key `cut` then names the fields that
are not whole.  A peer can't pretend to that, for it is a key and not a mark in the text.

`EventLog` formats and sends on; what to tell, and when, is `proxy.daemon.reports`' business, and how the line gets
out without waiting is `proxy.daemon.log.writer`'s.  The functions below it are the events of the service itself.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence

from proxy.daemon.log.writer import MAX_LINE, LineWriter

LEVELS = ("debug", "info", "warning", "error")
_PRIORITY = {"debug": b"<7>", "info": b"<6>", "warning": b"<4>", "error": b"<3>"}  # sd-daemon(3)

MAX_PEER_TEXT = 200  # bytes of one value that a peer wrote
_MAX_PART = 6000  # of a list that is told in several events

ROUTE_SUMS = (
    "mode", "listen", "sessions_open", "sessions_limit", "sessions_total", "refused_total", "failed_total", "tls_total",
)  # fmt: skip

_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+\[\]-]+")
_ESCAPES = {byte: f"\\x{byte:02x}" for byte in range(256) if not 32 <= byte < 127} | {92: "\\\\"}


def escape(data: bytes) -> str:
    r"""`data` in printable ASCII: a backslash doubled, every other byte that is not printable as `\xNN`."""
    if data.isascii() and data.isalnum():
        return data.decode("ascii")
    return data.decode("latin-1").translate(_ESCAPES)


def is_plain(text: str) -> bool:
    """Whether it needs no quotes: at least one letter, digit or one of `_.:/@+[]-`, and nothing else."""
    return (text.isalnum() and text.isascii()) or _PLAIN.fullmatch(text) is not None


def quoted(text: str) -> str:
    """`text`, escaped already, as it stands behind `key=`."""
    if is_plain(text):
        return text
    return '"' + text.replace('"', '\\"') + '"'


def _json_string(text: str) -> str:
    # `text` is printable ASCII, so these two are all that JSON wants escaped.
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def seconds_text(seconds: float) -> str:
    """Seconds to the millisecond, as both formats print them."""
    return format(seconds, ".3f")


def utc(seconds: float) -> str:
    """A Unix time in seconds as RFC 3339 in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class EventLog:
    """Formats events of at least `level` and gives each line, its LF included, to `write`.

    `journal` puts systemd's level prefix in front (`<4>`), which the journal takes off again; `stderr_is_journal`
    tells when that is right.  `max_line` is the bound of one line in bytes, 8 KiB at most.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        *,
        format: str = "text",
        level: str = "info",
        journal: bool = False,
        max_line: int = MAX_LINE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.write = write
        self.journal = journal
        self._max_line = min(max_line, MAX_LINE)
        self._clock = clock
        self._second = -1
        self._second_text = ""
        self.json = False
        self.debug_on = False
        self._levels: frozenset[str] = frozenset()
        self.configure(format, level)
        if isinstance(write, LineWriter):
            write.tell_lost_as(self._lost_line)

    def configure(self, format: str, level: str) -> None:
        """Take another format (`text`, `json`) or level, at a reload."""
        if format not in ("text", "json") or level not in LEVELS:
            raise ValueError(f"no such log format or level: {format!r}, {level!r}")
        self.json = format == "json"
        self._levels = frozenset(LEVELS[LEVELS.index(level) :])
        self.debug_on = "debug" in self._levels

    def emit(self, level: str, event: str, fields: Mapping[str, object], *, max_text: int = MAX_PEER_TEXT) -> None:
        """Write one event; a field that is None is left out.

        Values are bytes (a peer's: cut at 200 bytes), str (cut at `max_text` bytes), numbers, booleans, and lists
        of bytes or str.  Never raises for a value.
        """
        if level not in self._levels:
            return
        cut: list[str] = []
        parts: list[str] = []
        is_json = self.json
        for key, value in fields.items():
            if value is None:
                continue
            # Nearly all values are plain words, or empty: for them this is all that is done (2 µs less a session).
            if isinstance(value, str) and not value:
                parts.append(f'"{key}":""' if is_json else f'{key}=""')
            elif isinstance(value, str) and len(value) <= max_text and is_plain(value):
                parts.append(f'"{key}":"{value}"' if is_json else f"{key}={value}")
            elif isinstance(value, (list, tuple)):
                shown = [_value(item, max_text, key, cut) for item in value]
                parts.append(_json_part(key, shown) if is_json else f"{key}={_text_list(shown)}")
            elif isinstance(value, (int, float)):
                parts.append(f'"{key}":{_value(value)}' if is_json else f"{key}={_value(value)}")
            else:
                text = _value(value, max_text, key, cut)
                parts.append(_json_part(key, text) if is_json else f"{key}={quoted(text)}")
        line = self._whole(level, event, parts, cut)
        if len(line) > self._max_line:
            line = self._fitting(level, event, fields, max_text, cut)
        self.write(line)

    def _fitting(self, level: str, event: str, fields: Mapping[str, object], max_text: int, cut: list[str]) -> bytes:
        """The same line with its largest fields cut until it is no longer than a line may be."""
        values: dict[str, str | list[str]] = {}
        for key, value in fields.items():
            if isinstance(value, (list, tuple)):
                values[key] = [_value(item, max_text) for item in value]
            elif value is not None:
                values[key] = _value(value, max_text)
        numbers = frozenset(key for key, value in fields.items() if isinstance(value, (int, float)) and key in values)
        line = self._line(level, event, values, numbers, cut)
        while len(line) > self._max_line and _shorten(values, cut):
            line = self._line(level, event, values, numbers, cut)
        if len(line) > self._max_line:  # only with hundreds of fields
            line = line[: self._max_line - 1] + b"\n"
        return line

    def time_text(self) -> str:
        """The time of day, RFC 3339 in UTC, to the millisecond."""
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = utc(second)[:-1]
        return f"{self._second_text}.{str(int((now - second) * 1000)).zfill(3)}Z"

    @property
    def lines_lost(self) -> int:
        """How many lines of this process never got out."""
        return self.write.lost_total if isinstance(self.write, LineWriter) else 0

    def _lost_line(self, count: int) -> bytes:
        return self._line("warning", "log-lost", {"lines": str(count)}, frozenset({"lines"}), [])

    def _line(
        self,
        level: str,
        event: str,
        values: Mapping[str, str | list[str]],
        numbers: frozenset[str],
        cut: list[str],
    ) -> bytes:
        if self.json:
            parts = [f'"{key}":{value}' if key in numbers else _json_part(key, value) for key, value in values.items()]
        else:
            parts = [
                f"{key}={_text_list(value) if isinstance(value, list) else quoted(value)}"
                for key, value in values.items()
            ]
        return self._whole(level, event, parts, cut)

    def _whole(self, level: str, event: str, parts: Sequence[str], cut: Sequence[str]) -> bytes:
        """The line made of its parts, as the format and the reader of stderr want it."""
        if self.json:
            head = f'{{"time":"{self.time_text()}","level":"{level}","event":"{event}"'
            last = f',"cut":[{",".join(map(_json_string, cut))}]}}' if cut else "}"
            text = ",".join((head, *parts)) + last
        else:
            text = " ".join((event, *parts, "cut=" + _text_list(cut))) if cut else " ".join((event, *parts))
            if not self.journal:
                text = f"{self.time_text()} {level} {text}"
        line = text.encode("ascii", "replace") + b"\n"
        return _PRIORITY[level] + line if self.journal else line


def _json_part(key: str, value: str | list[str]) -> str:
    if isinstance(value, list):
        return f"{_json_string(key)}:[{','.join(map(_json_string, value))}]"
    return f"{_json_string(key)}:{_json_string(value)}"


def _value(value: object, max_text: int = MAX_PEER_TEXT, key: str = "", cut: list[str] | None = None) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return seconds_text(value)
    if isinstance(value, (bytes, bytearray)):
        data, limit = bytes(value), MAX_PEER_TEXT
    else:
        data, limit = str(value).encode("utf-8", "backslashreplace"), max_text
    if len(data) > limit:
        data = data[:limit]
        if cut is not None and key not in cut:
            cut.append(key)
    return escape(data)


def _text_list(items: Sequence[str]) -> str:
    if items and all(is_plain(item) for item in items):
        return ",".join(items)
    return '"' + "\\n".join(items).replace('"', '\\"') + '"'


def _shorten(values: dict[str, str | list[str]], cut: list[str]) -> bool:
    """Halve the largest field, or drop the last one when all are small; false when nothing is left to take."""
    if not values:
        return False

    def size(key: str) -> int:
        value = values[key]
        return sum(map(len, value)) + 4 * len(value) if isinstance(value, list) else len(value)

    largest = max(values, key=size)
    value = values[largest]
    if size(largest) < 32:
        values.popitem()
        return True
    if isinstance(value, list) and len(value) == 1:
        values[largest] = [_half(value[0])]
    elif isinstance(value, list):
        values[largest] = value[: len(value) // 2]
    else:
        values[largest] = _half(value)
    if largest not in cut:
        cut.append(largest)
    return True


def _half(text: str) -> str:
    # Not through the middle of an escape, so that what is left still reads as what it was.
    return re.sub(r"(?<!\\)((?:\\\\)*)\\(?:x[0-9a-f]?)?$", r"\1", text[: len(text) // 2])


def stderr_is_journal(fd: int = 2, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `fd` is the journal's stream (systemd.exec(5), JOURNAL_STREAM), where level prefixes are understood."""
    try:
        told = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{told.st_dev}:{told.st_ino}"


# The service's own events.  None of them has a session.


def ready(log: EventLog, listen: Sequence[str], routes: Sequence[str], workers: int, version: str) -> None:
    """All is bound; `listen` are the addresses with the ports that were got."""
    fields = {"listen": list(listen), "routes": list(routes), "workers": workers, "version": version}
    log.emit("info", "ready", fields)


def reload(log: EventLog, listen: Sequence[str], routes: Sequence[str]) -> None:
    """The file was read again and new sessions go by it."""
    log.emit("info", "reload", {"listen": list(listen), "routes": list(routes)})


def reload_failed(log: EventLog, errors: Sequence[str]) -> None:
    """The file was read again and nothing changed; every error is told, in several events if one is too small."""
    parts: list[list[str]] = [[]]
    size = 0
    for error in errors:
        length = len(escape(error[:1000].encode("utf-8", "backslashreplace"))) + 4
        if parts[-1] and size + length > _MAX_PART:
            parts.append([])
            size = 0
        parts[-1].append(error)
        size += length
    for number, part in enumerate(parts, 1):
        told = f"{number}/{len(parts)}" if len(parts) > 1 else None
        log.emit("warning", "reload-failed", {"errors": part, "part": told}, max_text=1000)


def drain(log: EventLog, sessions: int, timeout: float) -> None:
    """The listeners are closed; `sessions` are left and have at most `timeout` seconds."""
    log.emit("info", "drain", {"sessions": sessions, "timeout": timeout})


def stopped(log: EventLog, seconds: float, sessions_cut: int = 0) -> None:
    """The last event; `seconds` since the start, `sessions_cut` ended by us because their time was up."""
    log.emit("info", "stopped", {"seconds": seconds, "sessions_cut": sessions_cut})


def status(log: EventLog, told: Mapping[str, object]) -> None:
    """SIGUSR1: what `/status.json` holds, one line for the service, one a route, one a destination."""
    log.emit("info", "status", {key: told.get(key) for key in ("version", "started", "workers", "draining")})
    routes = told.get("routes")
    for route in routes if isinstance(routes, list) else []:
        sums = {key: route[key] for key in ROUTE_SUMS}
        log.emit("info", "status-route", {"route": route["name"], **sums})
        for destination in route["destinations"]:
            kept = ("name", "address", "up", "since", "reason", "findings", "certificate_not_after")
            fields = {key: destination[key] for key in kept}
            log.emit("info", "status-destination", {"route": route["name"], **fields})
