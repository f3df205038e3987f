"""A line that comes when the EHLO reply was taken for over: the rest of that reply, or a reply of its own?

A wrong answer costs a mail either way.  Taken for a reply, a late line shifts every reply behind it, and a mail could
be taken for accepted that was not.  Taken for a late line, the answer of a good server ends a good session: `MAIL` is
answered with `250-Sender ok` and `250 go on` by some.  So evidence is asked for, the more the later it is:

* nothing is outstanding: the line answers nothing, so all that can stand in an EHLO reply is late;
* STARTTLS is: only a known keyword with parameters that fit it; every other line is its reply;
* another command is: the same, but for HELP behind NOOP or HELP, where it is a reply.  Of a server that was seen to
  go on within the last hour also any `250-` line of free text, unless it is a second greeting (as to a repeated HELO)
  or what EXPN, VRFY and HELP list.

A reply with an enhanced status code is never one (RFC 2034 4: EHLO's reply has none), and neither is any code but 250.
An empty line answers nothing, wherever it comes; a bare `250` only where nothing is outstanding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from proxy.smtp.reply.ehlo import is_blank_line, looks_like_ehlo_line
from proxy.smtp.reply.ehlo_lines import CONTROLS, EhloLine
from proxy.smtp.reply.extensions import TRUSTING, fits
from proxy.smtp.reply.greeting import reads_as_greeting
from proxy.smtp.reply.names import banner_host, folded, is_host
from proxy.smtp.reply.repair import EhloContext, RepairPolicy, repair_reply
from proxy.smtp.reply.replies import code_of
from proxy.smtp.session.policy import DestinationMemory
from proxy.smtp.session.terms import Reply

MAX_RECALLED: Final = 512  # octets of a line that may be late; the same "250 2.1.0 Ok" follows most EHLO replies

_MAY_SAY_HELP: Final = (Reply.NOOP, Reply.HELP)
_FREE_TEXT: Final = (Reply.STARTTLS, Reply.HELP, Reply.LISTING)
_UNREAD: Final = RepairPolicy(mode="off")
_NOTHING_KNOWN: Final = EhloContext()


class Verdict:
    """What such a line is."""

    REPLY: Final = 0
    LATE: Final = 1
    BLANK: Final = 2  # nothing at all, right behind the reply: removed, and no sign of more to come
    OFFER: Final = 3  # of XCLIENT or XFORWARD, to a client that must not see it


class LateLines:
    """Whether such a line may come now, and what is known of the EHLO reply before it."""

    __slots__ = ("_after_silence", "_promised", "possible")

    def __init__(self) -> None:
        self.possible = False  # an EHLO reply has ended, no other reply line has come since

    def begin(self, *, after_silence: bool) -> None:
        """An EHLO reply was taken for over, by a silence or not."""
        self.possible = True
        self._promised = False  # the last late line promised another
        self._after_silence = after_silence

    def end(self) -> None:
        """Another reply has begun, or one that ends for certain."""
        self.possible = False

    def judge(
        self, line: bytes, kind: int | None, banner: bytes, memory: DestinationMemory, now: float, may_see: bool
    ) -> int:
        """What this line is, which came before any other reply line since the EHLO reply.

        kind      the reply that is owed, if any
        banner    the banner's code and first word
        memory    whether this server was seen to go on after the end of a reply; it learns of a late line
        may_see   the client may see an offer
        """
        shape = _shape(line)
        if shape.offers and not may_see:
            return Verdict.OFFER
        if shape.blank or (shape.bare and kind is None):
            return Verdict.BLANK
        if kind is None:
            late = bool(shape.keyword) or shape.listed or shape.worded or (self._promised and code_of(line) == 250)
        elif shape.keyword:
            late = shape.keyword != b"HELP" or kind not in _MAY_SAY_HELP
        else:
            late = shape.listed and kind not in _FREE_TEXT and memory.goes_on(now) and not _greets(shape, line, banner)
        if not late:
            return Verdict.REPLY
        self._promised = line[3:4] == b"-"
        memory.saw_going_on(now, after_silence=self._after_silence)
        return Verdict.LATE

    @property
    def finding(self) -> str:
        """What a late line makes of the EHLO reply before it."""
        return "final-line-missing" if self._after_silence else "final-line-early"


class _Shape(NamedTuple):
    """What speaks for a line being the rest of an EHLO reply."""

    offers: bool = False  # XCLIENT or XFORWARD
    blank: bool = False
    bare: bool = False  # 250 and nothing behind it
    keyword: bytes = b""  # a known one, in capitals, with parameters that fit
    listed: bool = False  # `250-` and free text
    worded: bool = False  # 250 and one unknown word in capitals
    greets: bool = False  # it begins with a host, or reads as a greeting


def offers_trust(line: bytes) -> bool:
    """Whether this line of an EHLO reply offers XCLIENT or XFORWARD."""
    return _shape(line).offers


def _greets(shape: _Shape, line: bytes, banner: bytes) -> bool:
    host = banner_host(banner)
    return shape.greets or (host is not None and folded(EhloLine(line).word) == folded(host))


def _read(line: bytes) -> _Shape:
    plain = line.translate(None, CONTROLS).upper()
    named = any(keyword in plain for keyword in TRUSTING)
    offers = named and repair_reply(line, _UNREAD, _NOTHING_KNOWN).offers_xclient
    if is_blank_line(line):
        return _Shape(offers, blank=True)
    read = EhloLine(line)
    if read.is_blank or not looks_like_ehlo_line(line):
        return _Shape(offers, bare=read.is_blank and read.code == 250)
    if fits(read.word, read.parameters):
        return _Shape(offers, keyword=read.word.upper())
    listed = read.separator == b"-"
    return _Shape(offers, listed=listed, worded=not listed, greets=is_host(read.word) or reads_as_greeting(read))


_recalled = lru_cache(maxsize=256)(_read)


def _shape(line: bytes) -> _Shape:
    return _recalled(line) if len(line) <= MAX_RECALLED else _read(line)
