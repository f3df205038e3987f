"""Which line of an EHLO reply is the greeting?

RFC 5321 4.1.1.1 makes it the first:

    ehlo-ok-rsp = ( "250-" Domain [ SP ehlo-greet ] CRLF *( "250-" ehlo-line CRLF ) "250" SP ehlo-line CRLF ) / ...

Servers put a keyword there (`250-STARTTLS`, then `250-mail.domain1.com`), or nothing.  Others greet with a word that
looks like a keyword and is none: Coremail with `mail`, containers with `4e119dd77b0c`, go-smtp with `Hello`,
EventMachine with `Ok`.  And hosts are called `help`, `size` and `starttls`.  To move such a line down would take the
greeting away and, for the last, make up an offer of TLS.  So an unknown word in the first place is the greeting, and
a known one only gives its place up when nothing speaks for a host of that name: a wrong repair is worse than none.

A greeting's text is never read for keywords (`250-mx.example loves STARTTLS`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.smtp.reply.ehlo_lines import EhloLine
from proxy.smtp.reply.extensions import KEYWORDS, cut, fits, known
from proxy.smtp.reply.names import folded, is_host, is_single_label


@dataclass(frozen=True, slots=True)
class GreetingDecision:
    """`index` of the greeting among the lines, None when there is none; `reason` is for a person."""

    index: int | None
    reason: str


MAX_GREETING = 1000  # octets of the line: msmtp fails from 1024 on
CUT_GREETING = 400  # octets of the line: far from the 511 that PHPMailer reads at a time

_FIRST = GreetingDecision(0, "the first line begins with no known keyword")
_BANNER_FIRST = GreetingDecision(0, "the first line begins with the banner's host name")


# Words that servers greet with, in the place of the host or behind it.  `Ok` and `EHLO` stand at the end of real
# replies as keywords and are only salutations in the first place.
_SALUTATIONS = frozenset((b"hello", b"hi", b"welcome", b"greetings", b"pleased", b"nice", b"good"))
_FIRST_PLACE = _SALUTATIONS | {b"ok", b"okay", b"ehlo", b"helo", b"my", b"requested"}
_SECOND_WORDS = _SALUTATIONS | {b"greets", b"ehlo", b"helo", b"at", b"is", b"esmtp", b"smtp", b"says", b"offers", b"-"}
_LITERAL_INSIDE = re.compile(rb"(?:^|[ \t(])\[[0-9A-Fa-f:.]{3,}\]")


def decide(lines: Sequence[EhloLine], host: bytes | None) -> GreetingDecision:
    """Find the greeting among the lines of a reply, of which there is at least one; `host` is the banner's host name.

    The lines are those that have a code, or are to get one.  An empty line can be the first only.
    """
    first = lines[0]
    own = folded(host) if host else None
    if own and folded(first.word) == own:
        return _BANNER_FIRST
    if first.is_blank:
        why = "the first line is empty"
    elif first.word.upper() not in KEYWORDS and b"=" not in first.word and b":" not in first.word:
        return _FIRST
    elif fits(first.word, first.parameters) or _is_cut_to_keyword(first):
        why = "the first line is a keyword"
    elif own and known(cut(first.word)) and any(_names(line, own) for line in lines[1:]):
        why = "the first line is a keyword with something behind it"
    else:
        return _FIRST
    for index, line in enumerate(lines):
        if own and index and folded(line.word) == own:
            return GreetingDecision(index, why + ", and this one begins with the banner's host name")
    for index, line in enumerate(lines):
        if index and is_host(line.word):
            return GreetingDecision(index, why + ", and this is the first that begins with a domain or an address")
    for index, line in enumerate(lines):
        if index and reads_as_greeting(line):
            return GreetingDecision(index, why + ", and this is the first that reads as a greeting")
    return GreetingDecision(None, why + ", and no line begins with a host or reads as a greeting")


def is_too_long(line: EhloLine) -> bool:
    """A greeting of this line is to be cut: as it came, or as it would go with its separator put right."""
    return max(len(line.body) + 2, len(line.text) + 6) > MAX_GREETING


def cut_to_length(text: bytes) -> bytes:
    """What is shown of the text of a greeting that is too long."""
    return text[: CUT_GREETING - len(b"250-\r\n")].rstrip(b" \t\r")


def _is_cut_to_keyword(line: EhloLine) -> bool:
    """What is left of so long a line would be a keyword: then it is none that can greet."""
    if not is_too_long(line):
        return False
    left = EhloLine(b"250-" + cut_to_length(line.text) + b"\r\n")
    return fits(left.word, left.parameters)


def _names(line: EhloLine, own: bytes) -> bool:
    """The line begins with the banner's host name, and is no keyword's although the host is called like one."""
    return folded(line.word) == own and not fits(line.word, line.parameters)


def reads_as_greeting(line: EhloLine) -> bool:
    """The line is no keyword's and speaks as greetings do: `exch01 Hello [192.0.2.3]`, `Hello client.example`."""
    if line.is_blank or fits(line.word, line.parameters):
        return False
    if line.word.lower().rstrip(b",.!") in _SALUTATIONS:
        return True
    return is_single_label(line.word) and _is_spoken_behind(line.parameters)


def _is_spoken_behind(parameters: bytes) -> bool:
    second = parameters.replace(b"\t", b" ").partition(b" ")[0].lower().rstrip(b",.!;")
    return second in _SECOND_WORDS or _LITERAL_INSIDE.search(parameters) is not None


def begins_with_domain(line: EhloLine, host: bytes | None) -> bool:
    """The greeting begins with a domain or a literal, as RFC 5321 4.1.1.1 asks.

    A single label is a domain by the grammar, and so is `Hello`.  It is taken for one when the banner says so, or
    when it stands alone or before a salutation, and is none itself.
    """
    word = line.word
    if (is_host(word) and word[-1:] != b".") or (host and folded(word) == folded(host)):
        return True
    if not is_single_label(word) or word.lower() in _FIRST_PLACE:
        return False
    return not line.parameters or _is_spoken_behind(line.parameters)
