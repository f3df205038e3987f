"""Dialogues as a person reads them: client on the left, server on the right, with times; for `replay` and `demo`.

A row is a line that one side said.  Where the proxy repaired a reply, the right column has the lines that the server
sent and the left one those that the client was shown, beside each other, `<~~` between those that differ:

    seconds  client                                 server
      0.000                                     <-- 220 mail.domain1.com ESMTP
      0.001  EHLO esa.com                       -->
      0.002  250-mail.domain1.com               <~~ 250-STARTTLS
             250 STARTTLS                       <~~ 250 mail.domain1.com

Whatever a peer said is shown in printable ASCII: it can't move the cursor, forge a row or change colours.  Colour is
only for a terminal, and never where `NO_COLOR` is set; nothing is told by colour alone.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

MIN_WIDTH, DEFAULT_WIDTH, MAX_WIDTH = 60, 100, 140  # columns
TIME_WIDTH = 9
MARK_WIDTH = 5
MARKS = {"client": " --> ", "server": " <-- ", "same": " <-- ", "repaired": " <~~ "}


@dataclass(frozen=True, slots=True)
class Spoken:
    """One line of a side (`client`, `server`), or what is told of the session (`proxy`); `at` in seconds.

    For a repair `before` and `after` are the lines of the reply and `findings` the ids.
    """

    at: float
    side: str
    line: str = ""
    note: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Style:
    """Turns words into coloured words, or leaves them alone."""

    colour: bool = False

    def __call__(self, kind: str, text: str) -> str:
        code = {"bold": "1", "dim": "2", "good": "32", "bad": "31", "changed": "33", "client": "36"}.get(kind)
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code and text.strip() else text


def style_for(stream: TextIO) -> Style:
    """Colour on a terminal, unless `NO_COLOR` is set or the terminal is dumb."""
    return Style(stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb")


def width_for(stream: TextIO) -> int:
    """Columns to fill on `stream`."""
    columns = shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns if stream.isatty() else DEFAULT_WIDTH
    return max(MIN_WIDTH, min(MAX_WIDTH, columns))


def printable(text: str) -> str:
    """`text` with everything but printable ASCII as `\\xNN`, as in the log, or `\\uNNNN`."""
    if text.isascii() and text.isprintable():
        return text
    escaped = text.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(letter if " " <= letter <= "~" else f"\\x{ord(letter):02x}" for letter in escaped)


def line_text(line: str) -> str:
    """A line without its CRLF, printable; any other line end, and blanks at the end, are shown: they are faults."""
    text = line.removesuffix("\r\n")
    bare = text.rstrip(" ")
    return printable(bare) + "\\x20" * (len(text) - len(bare))


def wrapped(text: str, width: int, indent: str = "  ") -> list[str]:
    """`text` in lines of at most `width`, broken at blanks where there are some."""
    if len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)


def columns(left: Sequence[str], right: Sequence[str], width: int) -> Iterable[tuple[str, str]]:
    """Two lists of lines as pairs, the left one padded to `width`."""
    for number in range(max(len(left), len(right))):
        yield (
            (left[number] if number < len(left) else "").ljust(width),
            right[number] if number < len(right) else "",
        )


@dataclass(slots=True)
class Dialogue:
    """Renders `Spoken` lines.  `claim` gives the words for a finding's id."""

    width: int = DEFAULT_WIDTH
    style: Style = field(default_factory=Style)
    claim: Callable[[str], str] = str
    _rows: list[tuple[str, str, str, str]] = field(default_factory=list)  # time, kind, left, right
    _last_time: str = ""

    def render(self, spoken: Iterable[Spoken]) -> list[str]:
        """The whole dialogue, a list of lines for the screen."""
        self._rows, self._last_time = [], ""
        for each in spoken:
            if each.side == "proxy" and (each.before or each.after):
                self._repair(each)
            elif each.side == "proxy":
                self._row(each.at, "told", each.note, "")
            else:
                text = line_text(each.line)
                if each.note:
                    text = f"{text} ({printable(each.note)})" if text else f"({printable(each.note)})"
                self._row(each.at, each.side, *((text, "") if each.side == "client" else ("", text)))
        half = self._half
        head = "seconds".rjust(TIME_WIDTH - 2) + "  " + "client".ljust(half + MARK_WIDTH) + "server"
        return [self.style("bold", head), *self._lines(half)]

    @property
    def _half(self) -> int:
        return (self.width - TIME_WIDTH - MARK_WIDTH) // 2

    def _row(self, at: float, kind: str, left: str, right: str) -> None:
        time = f"{at:.3f}"
        self._rows.append(("" if time == self._last_time else time, kind, left, right))
        self._last_time = time

    def _repair(self, repair: Spoken) -> None:
        """The reply that was just shown becomes a pair: what the server sent, what the client was shown."""
        before = [line_text(line) for line in repair.before]
        count = len(before)
        if count and [row[3] for row in self._rows[-count:] if row[1] == "server"] == before:
            first_time = self._rows[-count][0]
            del self._rows[-count:]
        else:
            self._row(repair.at, "told", "", "")
            first_time = self._rows.pop()[0]
        after = [line_text(line) for line in repair.after]
        for number in range(max(len(before), len(after))):
            left = after[number] if number < len(after) else ""
            right = before[number] if number < len(before) else ""
            self._rows.append((first_time if number == 0 else "", "same" if left == right else "repaired", left, right))
        for finding in repair.findings:
            claim = self.claim(finding)
            text = printable(finding) if claim in ("", finding) else f"{printable(finding)}: {claim}"
            self._rows.append(("", "told", f"repaired: {text}", ""))

    def _lines(self, half: int) -> Iterable[str]:
        style = self.style
        for time, kind, left, right in self._rows:
            start = time.rjust(TIME_WIDTH - 2) + "  "
            if kind == "told":
                for number, text in enumerate(wrapped(printable(left), self.width - TIME_WIDTH - 2)):
                    yield style("dim", start) + style("changed", ("  " if number else "* ") + text)
                    start = " " * TIME_WIDTH
                continue
            mark = MARKS[kind]
            for one, other in columns(wrapped(left, half), wrapped(right, half), half):
                one = style({"repaired": "good", "client": "client"}.get(kind, ""), one)
                other = style("bad", other) if kind == "repaired" else other
                yield (style("dim", start) + one + style("dim", mark) + other).rstrip()
                start, mark = " " * TIME_WIDTH, " " * MARK_WIDTH
