"""The PROXY protocol, versions 1 and 2: who the client behind a load balancer is.  Read and written; pure.

`parse` looks at the beginning of a connection's bytes and says that it needs more, that they are a header and how long
it is, or that they are none.  It does not depend on how the bytes were cut.  `write` makes the header for the server.

The rules are HAProxy's (proxy-protocol.txt, sections 2.1 and 2.2).  A version 1 line is at most 107 bytes with its
CRLF, and `UNKNOWN` may be followed by anything.  In version 2 the command LOCAL (a health check of the balancer's own),
the address families unspecified and UNIX, and what is not a stream over TCP carry no client address: `local` is true
and the connection is the balancer's own.  TLVs are skipped, unread.  Both versions end where they say; what follows is
the client's.

Limits: `MAX_LINE` bytes of version 1; `MAX_HEADER` bytes of version 2, TLVs included (Linux and HAProxy send a few
hundred; HAProxy itself reads what fits one buffer).

Bytes that are no header are a value, `Bad`, not an exception.  `write` raises ValueError for what is no address.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass

from proxy.settings.values import unmapped

MAX_LINE = 107  # "worst case": 107 chars including the CRLF
MAX_HEADER = 16 + 4096

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_WORD = b"PROXY "

_LOCAL, _PROXY = 0x20, 0x21
_STREAM4, _STREAM6 = 0x11, 0x21
_ADDRESSES = {_STREAM4: 12, _STREAM6: 36}
_SPACE = {0x0: 0, 0x1: 12, 0x2: 36, 0x3: 216}  # what each address family takes

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class NeedMore:
    """The bytes so far are the beginning of a header."""


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header of `consumed` bytes.  With `local` there are no addresses: the peer speaks for itself."""

    source: Endpoint | None
    destination: Endpoint | None
    consumed: int
    local: bool


@dataclass(frozen=True, slots=True)
class Bad:
    """The bytes are no header."""

    reason: str


NEED_MORE = NeedMore()


def parse(buffer: bytes | bytearray | memoryview) -> NeedMore | Header | Bad:
    """Read the header at the beginning of `buffer`, which holds all that came so far."""
    start = bytes(buffer[: len(SIGNATURE)])
    if not start:
        return NEED_MORE
    if SIGNATURE.startswith(start):
        return _parse_binary(buffer) if len(start) == len(SIGNATURE) else NEED_MORE
    if _WORD.startswith(start[: len(_WORD)]):
        return _parse_line(bytes(buffer[:MAX_LINE]))
    return Bad("not a PROXY header")


def _parse_line(start: bytes) -> NeedMore | Header | Bad:
    """Version 1: "PROXY" SP ("TCP4" / "TCP6") SP source SP destination SP port SP port CRLF, or "PROXY UNKNOWN" ..."""
    end = start.find(b"\r\n")
    if end < 0:
        if b"\n" in start:
            return Bad("a PROXY line without CRLF")
        if len(start) >= MAX_LINE:
            return Bad(f"a PROXY line over {MAX_LINE} bytes")
        return NEED_MORE
    if b"\n" in start[:end]:
        return Bad("a PROXY line without CRLF")
    words = start[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return Header(None, None, end + 2, local=True)
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        return Bad("a PROXY line that is neither TCP4, TCP6 nor UNKNOWN")
    version = 4 if words[1] == b"TCP4" else 6
    source = _line_endpoint(words[2], words[4], version)
    destination = _line_endpoint(words[3], words[5], version)
    if source is None or destination is None:
        return Bad("a PROXY line with an address or port that is none")
    return Header(source, destination, end + 2, local=False)


def _line_endpoint(address: bytes, port: bytes, version: int) -> Endpoint | None:
    try:
        text = address.decode("ascii")
        found = ipaddress.IPv4Address(text) if version == 4 else ipaddress.IPv6Address(text)
    except ValueError:
        return None
    if "%" in text or not port.isdigit() or len(port) > 5 or (len(port) > 1 and port.startswith(b"0")):
        return None
    number = int(port)
    return (str(unmapped(found)), number) if number <= 65535 else None


def _parse_binary(buffer: bytes | bytearray | memoryview) -> NeedMore | Header | Bad:
    """Version 2: signature, version and command, family and protocol, length, addresses, TLVs."""
    if len(buffer) > 12:
        command = buffer[12]
        if command not in (_LOCAL, _PROXY):
            return Bad("a PROXY header of an unknown version or command")
    if len(buffer) < 16:
        return NEED_MORE
    family = buffer[13]
    length = int.from_bytes(buffer[14:16], "big")
    consumed = 16 + length
    if consumed > MAX_HEADER:
        return Bad(f"a PROXY header over {MAX_HEADER} bytes")
    if command == _PROXY and length < _SPACE.get(family >> 4, 0):
        return Bad("a PROXY header that is too short for its addresses")
    if len(buffer) < consumed:
        return NEED_MORE
    if command == _LOCAL or family not in _ADDRESSES:
        return Header(None, None, consumed, local=True)
    body = bytes(buffer[16 : 16 + _ADDRESSES[family]])
    if family == _STREAM4:
        source, destination, *ports = struct.unpack("!4s4sHH", body)
    else:
        source, destination, *ports = struct.unpack("!16s16sHH", body)
    return Header(
        (str(unmapped(ipaddress.ip_address(source))), ports[0]),
        (str(unmapped(ipaddress.ip_address(destination))), ports[1]),
        consumed,
        local=False,
    )


def write(version: int, source: Endpoint, destination: Endpoint) -> bytes:
    """The header, version 1 or 2, that tells a server the client's address (`source`) and the one that it came to.

    If one of them is IPv6, both are written as IPv6, an IPv4 one mapped."""
    addresses = [ipaddress.ip_address(host.partition("%")[0]) for host, _ in (source, destination)]
    if any(address.version == 6 for address in addresses):
        addresses = [
            ipaddress.IPv6Address(f"::ffff:{address}") if address.version == 4 else address for address in addresses
        ]
    six = addresses[0].version == 6
    ports = source[1], destination[1]
    if version == 1:
        family = "TCP6" if six else "TCP4"
        texts = [socket.inet_ntop(socket.AF_INET6 if six else socket.AF_INET, a.packed) for a in addresses]
        return f"PROXY {family} {texts[0]} {texts[1]} {ports[0]} {ports[1]}\r\n".encode("ascii")
    body = addresses[0].packed + addresses[1].packed + struct.pack("!HH", *ports)
    return SIGNATURE + struct.pack("!BBH", _PROXY, _STREAM6 if six else _STREAM4, len(body)) + body
