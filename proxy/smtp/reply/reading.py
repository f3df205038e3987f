"""A whole EHLO reply, read: the greeting, the keyword lines, and what is wrong with them.

What is found is told as notes, each with the way in which it is dealt with (`repair`, `strict`, `report`); whether
that is done is the policy's to say, and `repair.py` writes the reply.  So a reply is judged alike whether it is
repaired or only observed.

Only a reply that is to be judged comes here: one of its lines has the code 250 and none a 4xx or 5xx code.
One line, one note of its kind: `greeting-empty` and `final-line-empty` go before `blank-line`, and the two
`starttls-...` before all else that could be said of the text of their line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from proxy.smtp.reply.ehlo_lines import CONTROLS, EhloLine
from proxy.smtp.reply.extensions import fits
from proxy.smtp.reply.greeting import begins_with_domain, cut_to_length, decide, is_too_long
from proxy.smtp.reply.keywords import NON_ASCII, REPAIR, REPORT, STRICT, Keyword, names_keyword, read_keyword

# a keyword that says nothing without another: RFC 6531 3.1, RFC 3030 3
_NEEDS = ((b"SMTPUTF8", b"8BITMIME"), (b"BINARYMIME", b"CHUNKING"))
MAX_REPLY_LINE = 512  # octets, RFC 5321 4.5.3.1.5


class Note(NamedTuple):
    """A finding before the policy has had its say; `line` is 0 for the whole reply, `peer` is to be quoted."""

    id: str
    line: int
    done: str
    said: str
    peer: bytes | None = None


class Reading(NamedTuple):
    """What a reply says: the greeting's text, None when there is none; its keywords in order, and their lines."""

    greeting: bytes | None
    keywords: list[Keyword]
    numbers: list[int]
    notes: list[Note]


def is_judged(lines: Sequence[EhloLine]) -> bool:
    """The reply is one that EHLO's rules apply to: a 250 line, no 4xx or 5xx, no other reply in front.

    A final line with another code, in front of every 250 line, ends a reply of its own: servers that repeat their
    banner (`220 mail.example.com ESMTP`, then `250-mail.example.com`) have answered EHLO with that.
    """
    seen = False
    for line in lines:
        if line.code == 250:
            seen = True
        elif line.code >= 400 or (line.code and line.final and not seen):
            return False
    return seen


def read_reply(lines: Sequence[EhloLine], host: bytes | None, strict: bool, inside_tls: bool) -> Reading:
    """Read a reply for which `is_judged` is true; `host` is the banner's host name."""
    notes: list[Note] = []
    kept = _standing(lines, notes)
    index = decide(kept, host).index
    greeting: bytes | None = None
    keywords: list[Keyword] = []
    numbers: list[int] = []
    read: list[EhloLine] = []
    seen: set[bytes] = set()
    for place, line in enumerate(kept):
        if place == index:
            if keywords:
                notes.append(
                    Note("greeting-not-first", line.number, REPAIR, "the greeting stands behind keywords: ", line.raw)
                )
            greeting = _read_greeting(line, host, strict, notes)
        elif not line.text:
            pass  # the empty first line: `greeting-empty` is noted, and the line is not missed
        elif line.odd and not names_keyword(line) and not _taken_literally(line):
            notes.append(Note("code-missing", line.number, REPAIR, "no separator and no known keyword: ", line.raw))
            continue
        else:
            keyword = read_keyword(line, strict)
            keywords.append(_note_keyword(line, keyword, seen, inside_tls, notes))
            numbers.append(line.number)
        if not line.clean:
            _note_frame(line, notes)
        read.append(line)
    if index is None and not kept[0].is_blank:
        notes.append(Note("greeting-missing", 0, REPAIR, "no line is a greeting, the first is ", kept[0].raw))
    for needing, needed in _NEEDS:
        if needing in seen and needed not in seen:
            number = next(number for number, keyword in zip(numbers, keywords, strict=True) if keyword.name == needing)
            said = f"{needing.decode()} is offered without {needed.decode()}"
            notes.append(Note("keyword-incomplete", number, REPORT, said))
    _note_ends(lines, read, notes)
    return Reading(greeting, keywords, numbers, notes)


def _standing(lines: Sequence[EhloLine], notes: list[Note]) -> list[EhloLine]:
    """The lines that are part of the reply; of the empty ones only the first, when it has a code."""
    kept: list[EhloLine] = []
    for line in lines:
        if line.code:
            kept.append(line)
        elif not line.text:
            notes.append(Note("blank-line", line.number, REPAIR, "an empty line"))
        elif fits(line.word, line.parameters):
            notes.append(Note("code-missing", line.number, REPAIR, "a keyword without a code: ", line.raw))
            kept.append(line)
        else:
            notes.append(Note("code-missing", line.number, REPAIR, "a line without a code: ", line.raw))
    first, last = kept[0], kept[-1]
    if not last.text and last.final and last is not first:
        notes.append(Note("final-line-empty", last.number, REPAIR, "the last line is empty: ", last.raw))
        kept.pop()
    if not first.text:
        notes.append(Note("greeting-empty", first.number, REPAIR, "the first line is empty: ", first.raw))
    standing = [first]
    for line in kept[1:]:
        if line.text:
            standing.append(line)
        else:
            notes.append(Note("blank-line", line.number, REPAIR, "a code with nothing behind it: ", line.raw))
    return standing


def _taken_literally(line: EhloLine) -> bool:
    """`250 -relay.example.com` is odd only where a greeting is looked for; as a keyword line it may stay."""
    line.take_literally()
    return not line.odd


def _note_keyword(line: EhloLine, keyword: Keyword, seen: set[bytes], inside_tls: bool, notes: list[Note]) -> Keyword:
    name = keyword.name
    if name == b"STARTTLS" and inside_tls:
        notes.append(Note("starttls-inside-tls", line.number, REPAIR, "STARTTLS is offered inside TLS: ", line.raw))
        return keyword
    for fault in keyword.faults:
        notes.append(Note(fault.id, line.number, fault.done, fault.said, line.raw))
    malformed = name == b"STARTTLS" and keyword.faults and keyword.faults[0].id == "starttls-malformed"
    if name in seen and not malformed:
        done = STRICT if name == b"STARTTLS" else REPORT
        notes.append(Note("keyword-duplicate", line.number, done, "the keyword stands there already: ", line.raw))
    seen.add(name)
    if len(line.raw) > MAX_REPLY_LINE - 2 and not malformed:
        _note_length(line, REPORT, notes)
    return keyword


def _note_length(line: EhloLine, done: str, notes: list[Note]) -> None:
    size = len(line.body) + 2
    if size > MAX_REPLY_LINE:
        notes.append(Note("line-too-long", line.number, done, f"a line of {size} octets: ", line.raw))


def _note_frame(line: EhloLine, notes: list[Note]) -> None:
    """What is wrong around the text: line end, junk, code, separator."""
    number = line.number
    if not line.has_whole_end:
        notes.append(Note("line-end-invalid", number, REPAIR, "the line does not end with CRLF: ", line.raw))
    if line.has_junk:
        notes.append(Note("leading-junk", number, REPAIR, "blanks or dots before the code: ", line.raw))
    if line.code and line.code != 250:
        notes.append(Note("code-mismatch", number, REPAIR, "another code among 250 lines: ", line.raw))
    if line.odd:
        notes.append(Note("separator-invalid", number, REPAIR, "neither a dash nor a blank: ", line.raw))


def _note_ends(lines: Sequence[EhloLine], read: Sequence[EhloLine], notes: list[Note]) -> None:
    """Where the reply ends, by its own separators, and where it does end."""
    for line in read[:-1]:
        if line.final:
            notes.append(
                Note("final-line-early", line.number, REPAIR, "more lines come after the final one: ", line.raw)
            )
    coded = [line for line in lines if line.code]
    if not coded[-1].odd and not any(line.final for line in coded):
        notes.append(
            Note("final-line-missing", coded[-1].number, REPAIR, "the last line promises another: ", coded[-1].raw)
        )


def _read_greeting(line: EhloLine, host: bytes | None, strict: bool, notes: list[Note]) -> bytes:
    """Judge the greeting; its text is what it should read, without the code."""
    number = line.number
    if not begins_with_domain(line, host):
        notes.append(Note("greeting-not-domain", number, REPORT, "no domain comes first: ", line.raw))
    if line.clean and len(line.raw) <= MAX_REPLY_LINE:
        return line.text
    text = line.text if strict else line.written
    body = line.body
    if any(octet in CONTROLS for octet in body):
        # a NUL before the text goes with whatever else is put right there
        done = REPAIR if _odd_octets(text) < _odd_octets(body) else STRICT
        notes.append(Note("control-character", number, done, "a control character in the greeting: ", line.raw))
    if NON_ASCII.search(body):
        notes.append(Note("non-ascii", number, STRICT, "an octet above 127: ", line.raw))
    behind = line.text[len(line.word) :]
    if line.has_blank_before:
        notes.append(Note("space-invalid", number, REPAIR, "blanks before the greeting: ", line.raw))
    elif behind and (not line.parameters or behind[:1] == b"\t"):
        notes.append(Note("space-invalid", number, STRICT, "a trailing blank, or a tab for a blank: ", line.raw))
    if strict and behind:
        text = line.word + b" " + behind[1:] if line.parameters else line.word
    if is_too_long(line):
        _note_length(line, REPAIR, notes)
        return cut_to_length(text)
    _note_length(line, REPORT, notes)
    return text


def _odd_octets(octets: bytes) -> int:
    return octets.count(b"\0") + octets.count(b"\r")
