"""One keyword line of an EHLO reply: what is wrong with it, and how it should read.

Implements, for a line that is known not to be the greeting, `ehlo-line` of RFC 5321 4.1.1.1 and the keywords of
`extensions.py`.  A line without a fault reads as it came, octet for octet.  Of a line with faults only what a fault
names is changed: the case of a known keyword, what follows STARTTLS, blanks, NUL and lone CR; parameters stay as they
are, unknown keywords too (`PIPE_CONNECT`, `XVERP=Courier` and `8 BITMIME` are real and left alone).

Where the code and the separator stand, and whether two lines agree, is `repair.py`'s.  Nothing is raised.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from proxy.smtp.reply.ehlo_lines import CONTROLS, EhloLine
from proxy.smtp.reply.extensions import KEYWORDS, fits, known

REPAIR, STRICT, REPORT = "repair", "strict", "report"

# ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-"), RFC 5321 4.1.1.1
_EHLO_KEYWORD = re.compile(rb"[A-Za-z0-9][A-Za-z0-9-]*")
# Cisco's ASA and PIX overwrite a keyword in its length: `XXXXXXXA`, `XXXXXXXB`, `XXXB`; others all of it
_MASKED = re.compile(rb"X{3,}[A-Z]?")
_BROKEN_STARTTLS = re.compile(rb"(?:STARTTLS(?:[=:]|[ \t]+[^ \t])|START[ \t]+TLS(?:[ \t=:]|$)).*", re.I | re.DOTALL)
_OTHER_CONTROL = re.compile(rb"[\x01-\x08\x0a-\x0c\x0e-\x1f\x7f]")
NON_ASCII = re.compile(rb"[\x80-\xff]")
_BLANK_RUN = re.compile(rb"[ \t]+")
_UNTIDY_BLANKS = re.compile(rb"\t|  |[ \t]$")


def names_keyword(line: EhloLine) -> bool:
    """The line begins with a known keyword, or with a broken STARTTLS."""
    return known(line.word) is not None or _BROKEN_STARTTLS.match(line.text) is not None


class Fault(NamedTuple):
    """What is wrong, whether it is repaired (REPAIR, STRICT, REPORT), and what to say of it."""

    id: str
    done: str
    said: str


class Keyword(NamedTuple):
    """A keyword line read: its name in capitals, the text that it should have, and its faults."""

    name: bytes
    text: bytes
    faults: tuple[Fault, ...]


_CASE = Fault("keyword-case", REPAIR, "a known keyword not in capitals: ")
_MALFORMED = Fault("starttls-malformed", REPAIR, "STARTTLS takes no parameter: ")
_MASK = Fault("keyword-masked", REPORT, "a firewall has overwritten this keyword: ")
_INVALID = Fault("keyword-invalid", REPORT, "the first word is no EHLO keyword: ")
_PARAMETER = Fault("parameter-invalid", REPORT, "the parameters don't fit the keyword: ")
_BLANK_BEFORE = Fault("space-invalid", REPAIR, "blanks before the keyword: ")
_BLANK_STARTTLS = Fault("space-invalid", REPAIR, "blanks behind STARTTLS: ")
_BLANK_OTHER = Fault("space-invalid", STRICT, "doubled or trailing blanks, or a tab: ")
_NUL = Fault("control-character", REPAIR, "a NUL or a lone CR: ")
_CONTROL = Fault("control-character", STRICT, "a control character: ")
_EIGHT_BIT = Fault("non-ascii", STRICT, "an octet above 127: ")


def read_keyword(line: EhloLine, strict: bool) -> Keyword:
    """Judge a line that is not the greeting and not blank."""
    word = line.word
    upper = word.upper()
    if line.clean and word == upper:
        extension = KEYWORDS.get(upper)
        if extension is None:
            if upper[:3] == b"XXX" and _MASKED.fullmatch(upper):
                return Keyword(upper, line.text, (_MASK,))
            if upper != b"START":
                return Keyword(upper, line.text, ())
        elif not line.parameters:
            return Keyword(upper, line.text, ())
    if _BROKEN_STARTTLS.match(line.text):
        return Keyword(b"STARTTLS", b"STARTTLS", (_MALFORMED,))
    return _read_untidy(line, strict)


def without_mechanisms(text: bytes, gone: frozenset[bytes]) -> bytes:
    """An AUTH or `AUTH=` line without these SASL mechanisms (in capitals); empty when they were all there was.

    A line that names none of them stays as it is, octet for octet.
    """
    behind = text[len(b"AUTH") :].lstrip(b" \t=:")  # `AUTH =LOGIN` as well, which is neither form
    head, words = text[: len(text) - len(behind)], behind.split()
    left = [word for word in words if word.upper() not in gone]
    if len(left) == len(words):
        return text
    return head + b" ".join(left) if left else b""


def _read_untidy(line: EhloLine, strict: bool) -> Keyword:
    faults: list[Fault] = []
    word, text = line.word, line.text
    if not line.clean:
        text = _tidy_octets(line, strict, faults)
    extension = known(word)
    if extension is None:
        bare = word.translate(None, CONTROLS + bytes(range(128, 256)))
        if _MASKED.fullmatch(word):
            faults.append(_MASK)
        elif bare and not _EHLO_KEYWORD.fullmatch(bare):
            faults.append(_INVALID)
        return Keyword(word.upper(), text, tuple(faults))
    name = extension.keyword
    if not word.startswith(name):
        faults.append(_CASE)
        text = name + text[len(name) :]
    if name == b"AUTH=":
        faults.append(_INVALID)
    elif not fits(word, line.parameters):
        faults.append(_PARAMETER)
    return Keyword(name, text, tuple(faults))


def _tidy_octets(line: EhloLine, strict: bool, faults: list[Fault]) -> bytes:
    """The text of the line without what blanks, control characters and 8-bit octets have to be repaired in it."""
    text, body = line.text, line.body
    if b"\0" in body or b"\r" in body:
        faults.append(_NUL)
    elif _OTHER_CONTROL.search(body):
        faults.append(_CONTROL)
    if NON_ASCII.search(body):
        faults.append(_EIGHT_BIT)
    alone_starttls = line.word.upper() == b"STARTTLS" and not line.parameters
    if line.has_blank_before:
        faults.append(_BLANK_BEFORE)
    elif _UNTIDY_BLANKS.search(text):
        faults.append(_BLANK_STARTTLS if alone_starttls else _BLANK_OTHER)
    if alone_starttls:
        return line.word
    return _BLANK_RUN.sub(b" ", text).rstrip(b" ") if strict else text
