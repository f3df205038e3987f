"""One line of an EHLO reply, read as kindly as can be: where its code is, and which word comes first.

Implements `ehlo-line` of RFC 5321 4.1.1.1:

    ehlo-line    = ehlo-keyword *( SP ehlo-param )
    ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
    ehlo-param   = 1*(%d33-126)

and reads beyond it what servers send: blanks or dots before the code (`.250-STARTTLS`), a separator that is none
(`250_STARTTLS`, `250STARTTLS`, `250 -STARTTLS`), blanks before the first word, NUL and lone CR anywhere.  It says
what is odd about the line and judges nothing: whether the oddity is repaired depends on what the line is, and that
is known only when the greeting has been found.  `keywords.py` judges a keyword line, `greeting.py` finds the
greeting.

Every octet is looked at a fixed number of times.  Nothing is raised.
"""

from __future__ import annotations

import re

from proxy.smtp.lines import ends_well, without_end
from proxy.smtp.reply.extensions import cut, known
from proxy.smtp.reply.names import is_host
from proxy.smtp.reply.replies import LENIENT_LINE

# what most lines are: nothing to find in them but the keyword
_CLEAN_LINE = re.compile(rb"250([- ])([A-Za-z0-9][A-Za-z0-9-]*)(?: ([!-~]+(?: [!-~]+)*))?\r\n")
_FIRST_WORD = re.compile(rb"([^ \t]*)[ \t]*(.*)", re.DOTALL)
_BLANKS = b" \t"
_NOT_IN_A_LINE = b"\0\r"
# CTL of RFC 5234 without HTAB, which is a blank
CONTROLS = bytes(octet for octet in (*range(32), 127) if octet != 9)
_QUESTION_MARKS = bytes(octet if octet < 128 else 0x3F for octet in range(256))
# what may begin a word behind a code when no separator does
_WORD_STARTS = frozenset(b"[ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")


class EhloLine:
    """A line of an EHLO reply.  Not frozen, since there are many and they live for microseconds.

    number      1 for the reply's first line
    raw         as it came, with its line end
    clean       nothing is odd about it but, perhaps, its first word and parameters
    code        the reply code, 0 when there is none
    separator   `-`, a blank, or empty: a bare code, or something that is no separator (`odd`)
    odd         the separator is none; `text` begins where the first word may begin
    final       a sender takes this line for the last: a blank or nothing behind the code
    text        what follows the separator, from the first word on, without NUL and CR
    word        the first word of it, up to a blank
    parameters  the rest, without blanks around it
    literal     what follows the separator when it is taken at its word; None when there is no proper separator
    """

    __slots__ = (
        "clean", "code", "final", "literal", "number", "odd", "parameters", "raw", "separator", "text", "word",
    )  # fmt: skip

    def __init__(self, raw: bytes, number: int = 1, strict: bool = False) -> None:
        self.raw = raw
        self.number = number
        self.literal: bytes | None = None
        match = _CLEAN_LINE.fullmatch(raw)
        if match is not None:
            self.clean = True
            self.code = 250
            self.odd = False
            self.separator, self.word, parameters = match.groups()
            self.parameters = parameters or b""
            self.final = self.separator == b" "
            self.text = self.literal = raw[4:-2]
        else:
            self.clean = False
            self._read(strict)

    def _read(self, strict: bool) -> None:
        body = without_end(self.raw)
        if strict:
            body = body.translate(_QUESTION_MARKS, CONTROLS)
        else:
            body = body.translate(None, _NOT_IN_A_LINE)
        match = LENIENT_LINE.match(body)
        self.code = 0
        self.odd = False
        self.separator = b""
        self.final = False
        if match is None:
            self._take(body.lstrip(b" \t."))
            return
        _, code, self.separator, rest = match.groups()
        if self.separator:
            self.literal = rest
            text = rest.lstrip(_BLANKS)
            if text[:1] == b"-":
                # `250 -STARTTLS`: a blank and a dash between the code and a keyword, or a host
                behind = text.lstrip(b" \t-")
                word = _first_word(behind)
                if known(cut(word)) is not None or is_host(word):
                    self.odd = True
                    text = behind
        elif rest.strip(_BLANKS):
            self.odd = True
            text = rest
            if rest[0] not in _WORD_STARTS:
                # `250_STARTTLS`, `250:STARTTLS`, a tab; of `250***` all is text
                text = rest.lstrip(_NO_WORD) or rest.lstrip(_BLANKS)
            elif rest[:1].isdigit() and known(cut(_first_word(rest))) is None:
                # `2500 messages`: a number; but `2508BITMIME` is a code and a keyword
                self._take(body.lstrip(b" \t."))
                self.odd = False
                return
        else:
            text = b""
        self.code = int(code)
        self.final = not self.odd and self.separator != b"-"
        self._take(text)

    def _take(self, text: bytes) -> None:
        self.text = text
        match = _FIRST_WORD.match(text)
        assert match is not None
        self.word = match[1]
        self.parameters = match[2].rstrip(_BLANKS)

    def take_literally(self) -> None:
        """Read the line anew with the separator taken at its word, where it is a proper one (`250 -SIZE: 5`)."""
        if self.odd and self.literal is not None:
            self.odd = False
            self.final = self.separator == b" "
            self._take(self.literal.lstrip(_BLANKS))

    @property
    def is_blank(self) -> bool:
        """There is nothing behind the code, or nothing at all."""
        return not self.text

    @property
    def has_blank_before(self) -> bool:
        """Blanks stand between the separator and the first word."""
        return not self.odd and self.literal is not None and self.literal[:1] in (b" ", b"\t")

    @property
    def has_junk(self) -> bool:
        """Blanks or dots stand before the code."""
        return self.code != 0 and self.raw[:1] in (b" ", b"\t", b".")

    @property
    def has_whole_end(self) -> bool:
        """The line ends with one CRLF and no more."""
        return ends_well(self.raw)

    @property
    def body(self) -> bytes:
        """The line as it came, without its line end."""
        return without_end(self.raw)

    @property
    def written(self) -> bytes:
        """The text from the first word on with NUL and CR where they came, for a greeting that keeps them."""
        match = LENIENT_LINE.match(self.body)
        if self.odd or match is None or not match[3]:
            return self.text
        text = match[4]
        return text.lstrip(b" \t\r\0") if self.has_blank_before else text


_NO_WORD = bytes(octet for octet in range(256) if octet not in _WORD_STARTS)


def _first_word(text: bytes) -> bytes:
    match = _FIRST_WORD.match(text)
    assert match is not None
    return match[1]
