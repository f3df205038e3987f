"""Reading an EHLO reply: when it is over, which line is the greeting, and what is no part of it.

`ReplyProgress` follows a reply line by line and says when it may leave; `find_greeting` says which line is the
greeting; `looks_like_ehlo_line` and `split_before_banner` know lines that are in the wrong place.  What is done
about a reply's faults is `repair.py`'s; when to wait, and for how long, is `session.py`'s.

Limits: 100 lines, 64 KiB, 16 KiB a line; beyond them a reply is passed unrepaired.  Real replies have 5 to 25 lines;
msmtp reads 50, Exim 4096 octets, sendmail and Postfix 2048 a line.

Nothing is raised for anything that a server can send.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.smtp.lines import split_lines
from proxy.smtp.reply.ehlo_lines import EhloLine
from proxy.smtp.reply.extensions import fits
from proxy.smtp.reply.findings import Finding, finding
from proxy.smtp.reply.greeting import GreetingDecision, decide
from proxy.smtp.reply.names import banner_host
from proxy.smtp.reply.replies import code_of

MAX_LINES = 100
MAX_SIZE = 64 * 1024  # octets of a whole reply
MAX_LINE = 16 * 1024  # octets of one line, line end included

# status-code of RFC 3463 2 at the head of a reply's text (RFC 2034 4): EHLO's reply never has one
_ENHANCED_STATUS = re.compile(rb"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")
_OK = (b"250-", b"250 ")
_AFTER_HOST = (b"\r\n", b" ")
_ONE_CAPITAL_WORD = re.compile(rb"[A-Z0-9][A-Z0-9-]*")


def find_greeting(lines: Sequence[bytes], banner: bytes) -> GreetingDecision:
    """Which of the raw reply lines is the greeting; `banner` is the first line of the server's 220.

    Lines that are no part of an EHLO reply (blank ones, free text without a code) are passed over.
    """
    read = [(index, EhloLine(raw)) for index, raw in enumerate(lines)]
    standing = [(index, line) for index, line in read if may_stand(line)]
    while len(standing) > 1 and standing[-1][1].is_blank:
        standing.pop()
    if not standing:
        return GreetingDecision(None, "no line has a code")
    decision = decide([line for _, line in standing], banner_host(banner))
    if decision.index is None:
        return decision
    return GreetingDecision(standing[decision.index][0], decision.reason)


def has_greeting(lines: Sequence[bytes], banner: bytes) -> bool:
    """One of the raw reply lines is the greeting: `find_greeting` without the reading, where a glance is enough.

    The glance saves 7 us of the some 100 that a session costs whose reply was not heard before.
    """
    host = banner_host(banner)
    if host is not None:
        own, end = host.lower(), 4 + len(host)
        for line in lines:
            if line[4:end].lower() == own and line[:4] in _OK and line.startswith(_AFTER_HOST, end):
                return True
    return find_greeting(lines, banner).index is not None


def may_stand(line: EhloLine) -> bool:
    """The line has a code, or is a known keyword that can get one."""
    return line.code != 0 or fits(line.word, line.parameters)


def looks_like_ehlo_line(line: bytes) -> bool:
    """This line, come when no EHLO reply is awaited, is most likely the rest of one.

    True for a known keyword with fitting parameters behind 250 or without a code; for any `250-` text that has no
    enhanced status code; for 250 and one word in capitals but OK.  A blank line and a bare code are none of these.
    """
    read = EhloLine(line)
    if read.is_blank:
        return False
    if fits(read.word, read.parameters):
        return read.code in (0, 250)
    if read.code != 250:
        return False
    if read.separator == b"-":
        return _ENHANCED_STATUS.match(read.text) is None
    return not read.parameters and read.word != b"OK" and _ONE_CAPITAL_WORD.fullmatch(read.word) is not None


def is_blank_line(line: bytes) -> bool:
    """There is nothing in the line but blanks, dots, NUL and line ends: it belongs to no reply."""
    read = EhloLine(line)
    return read.is_blank and not read.code


def line_before_banner(line: bytes) -> bool:
    """This line, come while the banner is awaited, answers nothing: a 250 line, or an empty one."""
    read = EhloLine(line)
    return read.code == 250 or (read.is_blank and not read.code)


@dataclass(frozen=True, slots=True)
class BeforeBanner:
    """`banner` is what is left, `removed` the lines in front of it as they came, `findings` one for each 250 line."""

    banner: bytes
    removed: tuple[bytes, ...]
    findings: tuple[Finding, ...]


def split_before_banner(raw: bytes, repair: bool = True) -> BeforeBanner:
    """Part the lines of an EHLO reply from the banner behind them.

    Without `repair` they are only found: `banner` is then `raw` itself, and `removed` is empty.  Where no line of
    another kind follows, nothing is in front of a banner yet, and `banner` is empty.
    """
    lines = split_lines(raw)
    removed: list[bytes] = []
    findings: list[Finding] = []
    for number, line in enumerate(lines, 1):
        if not line_before_banner(line):
            break
        removed.append(line)
        if not is_blank_line(line):
            findings.append(finding("line-before-banner", number, repair, "an EHLO line before the banner: ", line))
    if not findings or not repair:
        return BeforeBanner(raw, (), tuple(findings))
    return BeforeBanner(b"".join(lines[len(removed) :]), tuple(removed), tuple(findings))


class ReplyProgress:
    """An EHLO reply on its way in: one line at a time, and at any time what is known of its end.

    final_seen  a line that came ends the reply: what stands there now is a whole reply, although a server that wrote
                `250 ` too early may go on in the same turn, and then the end is where the turn ends
    settled     with `final_seen`: the reply may leave at once.  Otherwise more may come and 0.2 s are waited: it has
                one line only, no greeting so far, or no end but a line whose separator is none (`250_HELP`)
    ok_seen     a line with the code 250 was seen
    refused     a 4xx or 5xx line was seen
    too_long    one of the limits is passed: the reply passes as it is
    lines, size how much came so far, in lines and octets
    """

    __slots__ = (
        "_banner", "_coded", "_firm", "_first", "_greeted", "_looked", "_raw",
        "final_seen", "lines", "ok_seen", "refused", "size", "too_long",
    )  # fmt: skip

    def __init__(self, banner: bytes = b"") -> None:
        self._banner = banner
        self._raw: list[bytes] = []
        self._looked = 0  # from here on no greeting has been looked for
        self._first = b""  # the first line looked at that may stand in a reply
        self._greeted = False
        self._coded = 0  # lines with a code
        self._firm = False  # a final line was seen that is one by the grammar
        self.ok_seen = False
        self.final_seen = False
        self.refused = False
        self.too_long = False
        self.lines = 0
        self.size = 0

    def add(self, line: bytes) -> None:
        """Take in the next line, with its line end."""
        self._raw.append(line)
        self.lines += 1
        self.size += len(line)
        if self.lines > MAX_LINES or self.size > MAX_SIZE or len(line) > MAX_LINE:
            self.too_long = True
        # Nearly every line is one of these two: six lines take 2 us with them, 11 us without.
        if line[:4] == b"250-":
            self._coded += 1
            self.ok_seen = True
            self.final_seen = self._firm
            return
        if line[:4] == b"250 " and line[4:5].isalnum():
            self._coded += 1
            self.ok_seen = self.final_seen = self._firm = True
            return
        read = EhloLine(line)
        if not read.code:
            return
        self._coded += 1
        if read.code == 250:
            self.ok_seen = True
        elif read.code >= 400:
            self.refused = True
        self._firm = self._firm or read.final
        self.final_seen = self._firm or read.odd

    @property
    def settled(self) -> bool:
        """Nothing speaks for more lines behind the final one that was seen."""
        if not self._firm:
            return False
        if self.refused or not self.ok_seen:
            return True
        if self._coded < 2:
            return False
        if not self._greeted:
            # The first line that stands and what came since the last look are enough: so each line is looked at once.
            new = self._raw[self._looked :]
            self._greeted = has_greeting([self._first, *new] if self._first else new, self._banner)
            self._first = self._first or next((line for line in new if may_stand(EhloLine(line))), b"")
            self._looked = len(self._raw)
        return self._greeted

    def whole(self) -> bytes:
        """All lines so far, as they came."""
        return b"".join(self._raw)


__all__ = [
    "MAX_LINE", "MAX_LINES", "MAX_SIZE", "BeforeBanner", "GreetingDecision", "ReplyProgress", "code_of",
    "find_greeting", "has_greeting", "is_blank_line", "line_before_banner", "looks_like_ehlo_line", "may_stand",
    "split_before_banner",
]  # fmt: skip
