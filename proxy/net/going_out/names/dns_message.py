"""DNS messages as bytes: a question written, an answer read (RFC 1035 4).  Pure; nothing here waits or raises.

An answer is judged by its header and its question, compared as octets, before anything else of it is looked at, so
that bytes with a wrong number cost nothing.  What follows is bounded: names of at most 255 octets (RFC 1035 2.3.4),
compression pointers that lead backwards only (4.1.4: "a prior occurrence"), `MAX_RECORDS` records.  What does not fit
ends the reading; what was read before it is given back.

Why not a library: twisted.names reads a message to its end before it looks at the number, does not compare the
question, and logs what it can't read, so that anybody can write our log; dnspython, a dependency for these hundred
lines, also judges only what it has read whole.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

A: Final = 1  # RFC 1035 3.2.2
CNAME: Final = 5
MX: Final = 15
AAAA: Final = 28  # RFC 3596 2.1
TLSA: Final = 52  # RFC 6698 7.1
NO_ERROR: Final = 0  # RFC 1035 4.1.1, RCODE
NO_SUCH_NAME: Final = 3
FAILURES: Final = {1: "FORMERR", 2: "SERVFAIL", 4: "NOTIMP", 5: "REFUSED"}

MAX_DATAGRAM: Final = 512  # octets; RFC 1035 4.2.1: what is sent to one who has not asked for more (no EDNS here)
MAX_NAME: Final = 255  # octets
MAX_RECORDS: Final = 100  # of an answer; a real one has some twenty
_HEADER: Final = 12
_INTERNET: Final = 1
_IS_ANSWER, _TRUNCATED, _RECURSION_WANTED, _AUTHENTIC = 0x8000, 0x0200, 0x0100, 0x0020


@dataclass(frozen=True, slots=True)
class DnsRecord:
    """One record of class IN.  `owner` and `name` are in small letters without the last dot.

    `name` is the host of a CNAME or an MX (with its `preference`), or the address of an A or AAAA; `data` is the whole
    RDATA as it came.
    """

    owner: str
    kind: int
    ttl: int
    data: bytes
    name: str = ""
    preference: int = 0


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """What a name server said.  `authentic`: it claims to have validated it by DNSSEC (RFC 4035 3.2.3)."""

    code: int
    truncated: bool
    authentic: bool
    records: tuple[DnsRecord, ...]


def question(number: int, name: str, kind: int, *, authentic: bool = False) -> bytes:
    """A question for the records of one kind of a host name, with recursion wanted.

    `authentic`: the answer shall say whether it was validated (RFC 6840 5.7).  Raises ValueError for a name that no
    message can hold: ASCII, labels of 1 to 63 octets, 255 in all.
    """
    flags = _RECURSION_WANTED | (_AUTHENTIC if authentic else 0)
    header = b"".join(part.to_bytes(2, "big") for part in (number, flags, 1, 0, 0, 0))
    return header + _packed(name) + kind.to_bytes(2, "big") + _INTERNET.to_bytes(2, "big")


def read_answer(data: bytes, asked: bytes) -> DnsAnswer | None:
    """The answer to the question `asked` (the bytes of `question`), or None where these bytes are no answer to it."""
    behind = len(asked)
    if len(data) < behind or data[:2] != asked[:2] or data[4:6] != asked[4:6]:
        return None
    flags = int.from_bytes(data[2:4], "big")
    if not flags & _IS_ANSWER or data[_HEADER:behind].lower() != asked[_HEADER:].lower():
        return None
    count = min(int.from_bytes(data[6:8], "big"), MAX_RECORDS)
    records: list[DnsRecord] = []
    at = behind
    for _ in range(count):
        found = _record(data, at)
        if found is None:
            break
        record, at = found
        if record is not None:
            records.append(record)
    return DnsAnswer(flags & 15, bool(flags & _TRUNCATED), bool(flags & _AUTHENTIC), tuple(records))


def _record(data: bytes, at: int) -> tuple[DnsRecord | None, int] | None:
    """The record at this place, None for one of another class, and the place behind it."""
    owner = _name(data, at)
    if owner is None:
        return None
    text, at = owner
    head, at = data[at : at + 10], at + 10
    size = int.from_bytes(head[8:10], "big")
    if len(head) < 10 or at + size > len(data):
        return None
    kind = int.from_bytes(head[:2], "big")
    rdata = data[at : at + size]
    name, preference = "", 0
    if kind == A and size == 4:
        name = socket.inet_ntop(socket.AF_INET, rdata)
    elif kind == AAAA and size == 16:
        name = socket.inet_ntop(socket.AF_INET6, rdata)
    elif kind in (CNAME, MX) and size >= 1:
        skipped = 2 if kind == MX else 0
        preference = int.from_bytes(rdata[:skipped], "big")
        target = _name(data, at + skipped)
        if target is None:
            return None
        name = target[0]
    if int.from_bytes(head[2:4], "big") != _INTERNET:
        return None, at + size
    ttl = int.from_bytes(head[4:8], "big")
    return DnsRecord(text, kind, ttl if ttl < 1 << 31 else 0, rdata, name, preference), at + size  # RFC 2181 8


def _name(data: bytes, at: int) -> tuple[str, int] | None:
    """The name at this place and the place behind it; None for what is none.

    What is not ASCII, and a dot inside a label, become something that no host name has.
    """
    labels: list[bytes] = []
    octets = 1
    behind = -1
    lowest = at  # a pointer has to lead below every place where this name was read so far
    while at < len(data):
        length = data[at]
        if length >= 0xC0:
            if at + 1 >= len(data):
                return None
            if behind < 0:
                behind = at + 2
            at = (length & 0x3F) << 8 | data[at + 1]
            if at >= lowest:
                return None
            lowest = at
        elif length > 63:
            return None
        elif not length:
            text = b".".join(label.replace(b".", b"\xff") for label in labels).decode("ascii", "replace").lower()
            return text, at + 1 if behind < 0 else behind
        else:
            octets += length + 1
            if octets > MAX_NAME or at + 1 + length > len(data):
                return None
            labels.append(data[at + 1 : at + 1 + length])
            at += 1 + length
    return None


def _packed(name: str) -> bytes:
    packed = bytearray()
    for label in name.rstrip(".").encode("ascii").split(b"."):
        if not 0 < len(label) < 64:
            raise ValueError(f"{name!r} has a label of {len(label)} octets")
        packed.append(len(label))
        packed += label
    packed.append(0)
    if len(packed) > MAX_NAME:
        raise ValueError(f"{name!r} is longer than {MAX_NAME} octets")
    return bytes(packed)
