"""The log: one event a line, as text or as JSON, that no peer can forge.

Text is `EVENT session=… key=value …`, with the time (RFC 3339, UTC) and the level in front, but not for the journal,
which has its own of both.  JSON has the same keys, plus `time`, `level` and `event`.  How a value stands behind its key
is `proxy.daemon.log.values`'.

What is cut says so: peer text is cut at 200 bytes, an event at 8 KiB, and the key `cut` then names the fields that
are not whole.  A peer can't pretend to that, for it is a key and not a mark in the text.

`EventLog` formats and sends on; what to tell, and when, is `proxy.daemon.reports`' business, and how the line gets
out without waiting is `proxy.daemon.log.writer`'s.  The functions below it are the events of the service itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from proxy.daemon.log.forms import Formed
from proxy.daemon.log.values import (
    MAX_PEER_TEXT,
    Number,
    TooLong,
    Value,
    escape,
    in_json,
    in_text,
    octets,
    shorten,
    utc,
    value_of,
)
from proxy.daemon.log.writer import MAX_LINE, LineWriter

LEVELS = ("debug", "info", "warning", "error")
_PRIORITY = {"debug": b"<7>", "info": b"<6>", "warning": b"<4>", "error": b"<3>"}  # sd-daemon(3)

_MAX_PART = 6000  # of a list that is told in several events

ROUTE_SUMS = (
    "mode", "listen", "sessions_open", "sessions_limit", "sessions_total", "refused_total", "failed_total", "tls_total",
)  # fmt: skip


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
        self._in_second = ""  # this second, with a place for the thousandths
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

    def emit(
        self, level: str, event: str, fields: Mapping[str, object] | Formed, *, max_text: int = MAX_PEER_TEXT
    ) -> None:
        """Write one event; a field that is None is left out.

        Values are bytes (a peer's: cut at 200 bytes), str (cut at `max_text` bytes), numbers, booleans, and lists
        of bytes or str.  Never raises for a value.  An event that has a form is the same line, written in one step
        where nothing has to be cut.
        """
        if level not in self._levels:
            return
        if isinstance(fields, tuple):
            form, told = fields
            try:
                line = self._whole(level, event, form.line(told, self.json))
                if len(line) <= self._max_line:
                    self.write(line)
                    return
            except TooLong:
                pass
            fields = form.fields(told)
        cut: list[str] = []
        values = {key: value_of(value, max_text, key, cut) for key, value in fields.items() if value is not None}
        line = self._line(level, event, values, cut)
        while len(line) > self._max_line and shorten(values, cut):
            line = self._line(level, event, values, cut)
        if len(line) > self._max_line:  # only with hundreds of fields
            line = line[: self._max_line - 1] + b"\n"
        self.write(line)

    def time_text(self) -> str:
        """The time of day, RFC 3339 in UTC, to the millisecond."""
        now = self._clock()
        past = now - self._second
        if not 0 <= past < 1:
            self._second = int(now)
            self._in_second = utc(now)[:-1] + ".%03dZ"
            past = now - self._second
        return self._in_second % (past * 1000)

    @property
    def lines_lost(self) -> int:
        """How many lines of this process never got out."""
        return self.write.lost_total if isinstance(self.write, LineWriter) else 0

    def _lost_line(self, count: int) -> bytes:
        return self._line("warning", "log-lost", {"lines": Number(str(count))}, [])

    def _line(self, level: str, event: str, values: Mapping[str, Value], cut: list[str]) -> bytes:
        told = {**values, "cut": cut} if cut else values
        if self.json:
            return self._whole(level, event, "".join([f',"{key}":{in_json(value)}' for key, value in told.items()]))
        return self._whole(level, event, "".join([f" {key}={in_text(value)}" for key, value in told.items()]))

    def _whole(self, level: str, event: str, fields: str) -> bytes:
        """The line, as the format and the reader of stderr want it."""
        if self.json:
            text = f'{{"time":"{self.time_text()}","level":"{level}","event":"{event}"{fields}}}\n'
        elif self.journal:
            text = f"{event}{fields}\n"
        else:
            text = f"{self.time_text()} {level} {event}{fields}\n"
        line = text.encode("ascii", "replace")
        return _PRIORITY[level] + line if self.journal else line


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
        length = len(escape(octets(error[:1000]))) + 4
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
