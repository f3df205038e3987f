"""EHLO reply and policy in, repaired reply and findings out.  Pure functions.

Implements the reply to EHLO and LHLO of RFC 5321 4.1.1.1, and RFC 3207 4.2 for the one inside TLS:

    ehlo-ok-rsp = ( "250" SP Domain [ SP ehlo-greet ] CRLF )
                / ( "250-" Domain [ SP ehlo-greet ] CRLF
                    *( "250-" ehlo-line CRLF )
                       "250" SP ehlo-line CRLF )

A reply in which nothing has to be repaired comes out byte for byte; so does every reply without a 250 line (one of
2xx lines is read for what it offers), or with a 4xx or 5xx line.  A repaired reply is a well-formed multi-line reply
with every keyword and parameter that the server gave, in its order, and to repair it again changes nothing.  Which line
is wrong in which way is `reading.py`'s and `keywords.py`'s to find; `findings.py` says why.

Three things are done besides repairs.  `remove` and `add` of the policy are the operator's word, in mode `repair`
only, on good replies too.  `hide_starttls` and `offer_starttls` of the context are bridge mode's: STARTTLS is the
proxy's own affair there, so they hold in every mode.  And XCLIENT or XFORWARD from a server is always told, whatever
the mode, since that is about who is trusted and not about syntax.

The cost is linear in the octets.  Replies of up to 4 KiB are remembered, 1 MiB of them together: a server says the
same to every session.  Nothing is raised for anything that a server can send.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from proxy.smtp.lines import split_lines, without_end
from proxy.smtp.reply.ehlo import MAX_LINE, MAX_LINES, MAX_SIZE
from proxy.smtp.reply.ehlo_lines import CONTROLS, EhloLine
from proxy.smtp.reply.extensions import TRUSTING, cut
from proxy.smtp.reply.findings import Finding, finding
from proxy.smtp.reply.keywords import REPAIR, REPORT, STRICT, read_keyword, without_mechanisms
from proxy.smtp.reply.names import MAX_DOMAIN, banner_host, folded, made_greeting
from proxy.smtp.reply.reading import Note, Reading, is_judged, read_reply
from proxy.smtp.reply.replies import LENIENT_LINE

MAX_REMEMBERED = 4096  # octets of a reply that is remembered
MAX_MEMORY = 1024 * 1024  # bytes of all that is remembered; peers fill it
_STARTTLS = b"STARTTLS"
_AUTH = b"AUTH"
_ONE_MECHANISM = b"AUTH:"
_GOING_ON = ("final-line-early", "final-line-missing")
# RFC 3030 3: a message declared BINARYMIME can only go by BDAT
_DEPENDENTS = {b"CHUNKING": (b"BINARYMIME",)}


class RepairPolicy(NamedTuple):
    """What the operator wants: `[route.repair]` of the settings, in octets.

    mode       `repair`, `observe` (find, change nothing) or `off` (leave it unread but for XCLIENT)
    strict     what is only untidy is repaired too
    greeting   domain for a greeting that has to be made; empty: the banner's, else the destination's
    remove     keywords of the server's that are not shown; `AUTH` means `AUTH=` too, CHUNKING takes BINARYMIME along,
               and `AUTH:NTLM` is one mechanism
    add        lines that are always shown, behind the greeting, in place of one that `remove` names; but a mechanism
               that is removed goes from them too
    """

    mode: str = "repair"
    strict: bool = False
    greeting: bytes = b""
    remove: tuple[bytes, ...] = ()
    add: tuple[bytes, ...] = ()


class EhloContext(NamedTuple):
    """What is known of the session that the reply is part of.

    banner                first line of the server's 220, with or without its line end
    destination_name      the destination's host name, empty when it is configured by address
    destination_address   its address as text
    client_name           the argument of the client's EHLO: never greeted with
    inside_tls            the reply was read inside TLS (bridge mode)
    hide_starttls         bridge: the reply is shown without STARTTLS
    offer_starttls        bridge: STARTTLS is shown as the first keyword, whatever the server offers
    client_trusted        False: the server's offer of XCLIENT or XFORWARD is a finding
    """

    banner: bytes = b""
    destination_name: bytes = b""
    destination_address: bytes = b""
    client_name: bytes = b""
    inside_tls: bool = False
    hide_starttls: bool = False
    offer_starttls: bool = False
    client_trusted: bool = True


@dataclass(frozen=True, slots=True)
class RepairResult:
    """What to send, and what was found.

    reply           the reply for the client; the very octets that came in when `changed` is False
    findings        in the order of the lines, those of the whole reply first
    before, after   the lines as they came and as they go, without line ends
    refused         no 250 line, or a 4xx or 5xx line: not a reply that tells what the server can do.  One of several
                    2xx lines with other codes does, though it passes as it came
    keywords        of the lines that are shown behind the greeting, in capitals; empty when refused
    offered         the same of what the server sent
    offers_xclient  the server offers XCLIENT or XFORWARD to the address it sees
    last_code       of the last line that has one, 0 if none has
    goes_on         it went on behind its end, or had none: so may the next
    """

    reply: bytes
    changed: bool
    findings: tuple[Finding, ...]
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]
    refused: bool
    keywords: frozenset[bytes]
    offers_xclient: bool
    offered: frozenset[bytes] = frozenset()
    last_code: int = 0
    goes_on: bool = False


def repair_reply(
    raw: bytes,
    policy: RepairPolicy,
    context: EhloContext,
    unterminated: bool = False,
) -> RepairResult:
    """Judge one whole reply to EHLO and, as the policy says, repair it.

    `raw` is all that belongs to the reply, with its line ends.  `unterminated`: it was ended by silence; a reply
    without a final line is repaired without it too, and only the words of the finding differ.
    """
    if len(raw) > MAX_REMEMBERED:
        return _repair(raw, policy, context, unterminated)
    if len(context.banner) > MAX_DOMAIN or len(context.client_name) > MAX_DOMAIN:
        context = _cut(context)
    key = (raw, policy, context, unterminated)
    result = _memory.get(key)
    if result is None:
        result = _repair(raw, policy, context, unterminated)
        _memory.keep(key, result)
    return result


def _cut(context: EhloContext) -> EhloContext:
    """The banner and the client's name are the peers' and may be long: without what changes no reply."""
    client = context.client_name
    if len(client) > MAX_DOMAIN:
        client = b""  # no host is called so: it can't be the word that is not greeted with
    return context._replace(banner=b"220 " + (banner_host(context.banner) or b"ESMTP"), client_name=client)


class Memory:
    """Results by what they were made of, the last used ones, of `max_bytes` together; an estimate, on the large side.

    A server says the same to every session: to judge a reply of six lines takes 47 us, to find it again 0.7 us, which
    is a tenth of what a session costs.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._results: OrderedDict[Hashable, RepairResult] = OrderedDict()

    def get(self, key: Hashable) -> RepairResult | None:
        result = self._results.get(key)
        if result is not None:
            self._results.move_to_end(key)
        return result

    def keep(self, key: Hashable, result: RepairResult) -> None:
        self._results[key] = result
        self.bytes += _weight(result)
        while self.bytes > self.max_bytes:
            _, oldest = self._results.popitem(last=False)
            self.bytes -= _weight(oldest)


def _weight(result: RepairResult) -> int:
    """Bytes that a result takes with its key: its octets four times, each line and finding an object or two."""
    pieces = len(result.before) + len(result.after) + 2 * len(result.findings)
    return 2048 + 4 * len(result.reply) + 256 * pieces


_memory = Memory(MAX_MEMORY)


def _repair(raw: bytes, policy: RepairPolicy, context: EhloContext, unterminated: bool) -> RepairResult:
    host = banner_host(context.banner)
    pieces = split_lines(raw)
    before = tuple([without_end(piece) for piece in pieces])
    if len(pieces) > MAX_LINES or len(raw) > MAX_SIZE or max(map(len, pieces), default=0) > MAX_LINE:
        return _passed_too_long(raw, before, policy, context, host)
    lines = [EhloLine(piece, number, policy.strict) for number, piece in enumerate(pieces, 1)]
    notes: list[Note] = []
    offers = _note_trust(raw, lines, host, context.client_trusted, notes)
    last_code = _last_code(lines)
    if not is_judged(lines):
        offered = _offered_by_another_code(lines, host, context.inside_tls)
        findings = _findings(notes, policy)
        return RepairResult(raw, False, findings, before, before, not offered, offered, offers, offered, last_code)
    reading = read_reply(lines, host, policy.strict, context.inside_tls)
    if policy.mode != "off":
        notes += reading.notes
        if unterminated:
            notes = [_in_silence(note) for note in notes]
    offered = frozenset([keyword.name for keyword in reading.keywords])
    if policy.mode == "repair":
        reply, shown = _written(reading, policy, context, host)
    else:
        reply, shown = _with_starttls_changed(raw, lines, reading, offered, context)
    findings = _findings(notes, policy)
    goes_on = any(finding.id in _GOING_ON for finding in findings)
    after = before if reply == raw else tuple([without_end(line) for line in split_lines(reply)])
    return RepairResult(
        reply, reply != raw, findings, before, after, False, frozenset(shown), offers, offered, last_code, goes_on
    )


def _last_code(lines: Sequence[EhloLine]) -> int:
    return next((line.code for line in reversed(lines) if line.code), 0)


def _offered_by_another_code(lines: Sequence[EhloLine], host: bytes | None, inside_tls: bool) -> frozenset[bytes]:
    """What a reply of several 2xx lines offers, none of them 250: it passes, and half of the senders take it."""
    codes = [line.code for line in lines if line.code]
    if len(codes) < 2 or 250 in codes or min(codes) < 200 or max(codes) >= 300:
        return frozenset()
    return frozenset([keyword.name for keyword in read_reply(lines, host, False, inside_tls).keywords])


def _findings(notes: Iterable[Note], policy: RepairPolicy) -> tuple[Finding, ...]:
    """The notes as findings: by line, in the order in which they were made."""
    done = {REPAIR} if policy.mode == "repair" else set()
    if done and policy.strict:
        done.add(STRICT)
    ordered = sorted(notes, key=lambda note: note.line)
    return tuple([finding(note.id, note.line, note.done in done, note.said, note.peer) for note in ordered])


def _in_silence(note: Note) -> Note:
    return note._replace(said="silence after ") if note.id == "final-line-missing" else note


def _note_trust(raw: bytes, lines: Sequence[EhloLine], host: bytes | None, trusted: bool, notes: list[Note]) -> bool:
    """The server offers XCLIENT or XFORWARD.  Read as loosely as anybody might read it, but not in a host's name."""
    plain = raw.translate(None, CONTROLS).upper()
    if not any(keyword in plain for keyword in TRUSTING):
        return False
    offers = False
    for line in lines:
        if line.code < 400 and cut(line.word).upper() in TRUSTING:
            if host is not None and line.number == 1 and folded(line.word) == folded(host):
                continue
            offers = True
            if not trusted:
                notes.append(Note("xclient-offered", line.number, REPORT, "offered to a stranger: ", line.raw))
    return offers


def _passed_too_long(
    raw: bytes, before: tuple[bytes, ...], policy: RepairPolicy, context: EhloContext, host: bytes | None
) -> RepairResult:
    """A reply beyond the limits: the whole of it passes as it came."""
    lines = [EhloLine(piece, number) for number, piece in enumerate(before, 1)]
    notes: list[Note] = []
    offers = _note_trust(raw, lines, host, context.client_trusted, notes)
    if policy.mode != "off":
        said = f"{len(lines)} lines, {len(raw)} octets, the longest line {max(map(len, before))}"
        notes.append(Note("reply-too-long", 0, REPORT, said))
    refused = not any(line.code == 250 for line in lines) or any(line.code >= 400 for line in lines)
    return RepairResult(
        raw, False, _findings(notes, policy), before, before, refused, frozenset(), offers, last_code=_last_code(lines)
    )


def _written(
    reading: Reading, policy: RepairPolicy, context: EhloContext, host: bytes | None
) -> tuple[bytes, list[bytes]]:
    """The reply written anew, and the names of the keywords in it."""
    greeting = reading.greeting
    if greeting is None:
        greeting = made_greeting(
            policy.greeting, host, context.destination_name, context.destination_address, context.client_name
        )
    removed, mechanisms = _removed(policy.remove)
    own_starttls = context.inside_tls or context.hide_starttls or context.offer_starttls
    added = _added(policy.add, policy.strict) if policy.add else ()
    names: list[bytes] = []
    texts: list[bytes] = []
    for keyword in reading.keywords:
        name = keyword.name
        if name == _STARTTLS and (own_starttls or (policy.strict and name in names)):
            continue
        text = keyword.text
        if (name in removed or cut(name) in removed) and (
            name,
            text,
        ) not in added:  # what `add` says stays in its place
            continue
        if mechanisms and cut(name) == _AUTH:
            text = without_mechanisms(text, mechanisms)
            if not text:
                continue
        names.append(name)
        texts.append(text)
    first: list[bytes] = [greeting]
    if context.offer_starttls and not context.inside_tls and _STARTTLS not in removed:
        names.append(_STARTTLS)
        first.append(_STARTTLS)
    for name, text in added:
        if name in names or (name == _STARTTLS and own_starttls):
            continue
        if mechanisms and cut(name) == _AUTH:
            text = without_mechanisms(text, mechanisms)
        if text:
            names.append(name)
            first.append(text)
    texts = first + texts
    last = texts.pop()
    return b"".join([b"250-" + text + b"\r\n" for text in texts]) + b"250 " + last + b"\r\n", names


@lru_cache(maxsize=64)
def _removed(words: tuple[bytes, ...]) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """The operator's `remove`: keywords with those that are nothing without them, and mechanisms of AUTH."""
    keywords: set[bytes] = set()
    mechanisms: set[bytes] = set()
    for word in words:
        name = word.upper()
        if name.startswith(_ONE_MECHANISM):
            mechanisms.add(name.removeprefix(_ONE_MECHANISM))
        else:
            keywords.add(name)
            keywords.update(_DEPENDENTS.get(name, ()))
    return frozenset(keywords), frozenset(mechanisms)


@lru_cache(maxsize=64)
def _added(lines: tuple[bytes, ...], strict: bool) -> tuple[tuple[bytes, bytes], ...]:
    """The operator's lines as keyword and text, each as it would be repaired in a server's reply."""
    read = [EhloLine(b"250-" + line.strip() + b"\r\n", 1, strict) for line in lines if b"\n" not in line]
    keywords = [read_keyword(line, strict) for line in read if line.text]
    return tuple([(keyword.name, keyword.text) for keyword in keywords])


def _with_starttls_changed(
    raw: bytes, lines: Sequence[EhloLine], reading: Reading, offered: frozenset[bytes], context: EhloContext
) -> tuple[bytes, list[bytes]]:
    """The reply as it came but for STARTTLS, where bridge mode has its own."""
    offer = context.offer_starttls and not context.inside_tls
    if not (offer or (context.hide_starttls and _STARTTLS in offered)):
        return raw, list(offered)
    hidden = {
        number for number, keyword in zip(reading.numbers, reading.keywords, strict=True) if keyword.name == _STARTTLS
    }
    kept = [line for line in lines if line.number not in hidden]
    last = [line for line in lines if line.code][-1]
    if offer:
        first = next((at for at, line in enumerate(kept, 1) if line.code), 0)
        kept.insert(first, EhloLine(b"250-STARTTLS\r\n", 0))
    pieces = [line.raw for line in kept]
    if last.final:
        # the reply ends as before: the line that was the last may not be so any more, and another is
        for at, line in enumerate(kept):
            if line is last:
                pieces[at] = _separated(line.raw, b"-")
        end = max((at for at, line in enumerate(kept) if line.code), default=-1)
        if end >= 0:
            pieces[end] = _separated(pieces[end], b" ")
    names = [name for name in offered if name != _STARTTLS]
    return b"".join(pieces), [*names, _STARTTLS] if offer else names


def _separated(piece: bytes, separator: bytes) -> bytes:
    """The line with this separator behind its code; one whose separator is none at all stays."""
    match = LENIENT_LINE.match(piece)
    if match is None or (not match[3] and match[4].strip()):
        return piece
    return match[1] + match[2] + separator + match[4]
