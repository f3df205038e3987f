"""The PROXY header: every split gives the same, nothing but a header passes, and what we write we read."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.net.coming_in.proxy_header import (
    MAX_HEADER,
    MAX_LINE,
    SIGNATURE,
    Bad,
    Header,
    NeedMore,
    parse,
    write,
)


def binary(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


V4 = (
    ipaddress.ip_address("192.0.2.7").packed
    + ipaddress.ip_address("198.51.100.1").packed
    + struct.pack("!HH", 4000, 25)
)
V6 = (
    ipaddress.ip_address("2001:db8::7").packed
    + ipaddress.ip_address("2001:db8::1").packed
    + struct.pack("!HH", 4000, 25)
)
FOUR = (("192.0.2.7", 4000), ("198.51.100.1", 25))
SIX = (("2001:db8::7", 4000), ("2001:db8::1", 25))

GOOD = [
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 25\r\n", *FOUR),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4000 25\r\n", *SIX),
    (b"PROXY TCP6 2001:0DB8:0:0::7 2001:db8::1 4000 25\r\n", *SIX),
    (b"PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 4000 25\r\n", *FOUR),
    (b"PROXY TCP4 192.0.2.7 198.51.100.1 0 65535\r\n", ("192.0.2.7", 0), ("198.51.100.1", 65535)),
    (
        b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
        *[("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)] * 2,
    ),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN ffff::1 whatever 1 2 3\r\n", None, None),
    (b"PROXY UNKNOWN" + b" " * (MAX_LINE - 15) + b"\r\n", None, None),
    (binary(0x21, 0x11, V4), *FOUR),
    (binary(0x21, 0x21, V6), *SIX),
    (binary(0x21, 0x11, V4 + b"\x04\0\x03abc" + b"\x20\0\x05\x01\0\0\0\0"), *FOUR),
    (binary(0x21, 0x11, V4 + bytes(MAX_HEADER - 28)), *FOUR),
    (binary(0x20, 0x00, b""), None, None),
    (binary(0x20, 0x11, V4), None, None),
    (binary(0x21, 0x00, b""), None, None),
    (binary(0x21, 0x12, V4), None, None),  # a datagram
    (binary(0x21, 0x31, bytes(216)), None, None),  # UNIX
    (binary(0x20, 0x00, bytes(37)), None, None),
]


@pytest.mark.parametrize(("header", "source", "destination"), GOOD)
def test_a_header_is_read_whatever_the_segments(
    header: bytes, source: tuple[str, int] | None, destination: tuple[str, int] | None
) -> None:
    expected = Header(source, destination, len(header), local=source is None)
    assert parse(header) == expected
    assert parse(header + b"EHLO client.example\r\n") == expected
    for cut in range(len(header)):
        assert parse(header[:cut]) == NeedMore(), cut
    assert parse(memoryview(header)) == parse(bytearray(header)) == expected


@pytest.mark.parametrize(
    "bad",
    [
        b"EHLO client.example\r\n",
        b"P\r\n",
        b"PROXY\r\n",
        b"PROXYTCP4",
        b"proxy TCP4 192.0.2.7 198.51.100.1 4000 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 25\n",
        b"PROXY  TCP4 192.0.2.7 198.51.100.1 4000 25\r\n",
        b"PROXY TCP5 192.0.2.7 198.51.100.1 4000 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4000\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 25 \r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 65536\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 -1\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 04000 25\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 \xb2\r\n",
        b"PROXY TCP4 192.0.2.07 198.51.100.1 4000 25\r\n",
        b"PROXY TCP4 192.0.2 198.51.100.1 4000 25\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 4000 25\r\n",
        b"PROXY TCP6 192.0.2.7 198.51.100.1 4000 25\r\n",
        b"PROXY TCP6 fe80::1%eth0 2001:db8::1 4000 25\r\n",
        b"PROXY TCP4 192.0.2.7\xff 198.51.100.1 4000 25\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY UNKNOWN" + b" " * (MAX_LINE - 14) + b"\r\n",
        b"PROXY " + b"x" * MAX_LINE,
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\r\nEHLO",
        binary(0x11, 0x11, V4),
        binary(0x22, 0x11, V4),
        binary(0x21, 0x11, V4[:-1]),
        binary(0x21, 0x21, V6[:-1]),
        binary(0x21, 0x21, V4),
        binary(0x21, 0x31, bytes(215)),
        binary(0x21, 0x11, V4, 0xFFFF),
        binary(0x20, 0x00, b"", MAX_HEADER),
    ],
)
def test_what_is_no_header_is_bad_whatever_the_segments(bad: bytes) -> None:
    assert isinstance(parse(bad), Bad)
    seen_bad = False
    for cut in range(len(bad) + 1):
        result = parse(bad[:cut])
        assert not isinstance(result, Header)
        assert isinstance(result, Bad) or not seen_bad  # once bad, never good again
        seen_bad = isinstance(result, Bad)


def test_a_header_that_is_never_whole_is_bad_in_bounded_space() -> None:
    assert parse(b"PROXY " + b"1" * (MAX_LINE - 7)) == NeedMore()
    assert isinstance(parse(b"PROXY " + b"1" * (MAX_LINE - 6)), Bad)


@pytest.mark.parametrize(
    ("version", "source", "destination", "header"),
    [
        (1, *FOUR, b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 25\r\n"),
        (1, *SIX, b"PROXY TCP6 2001:db8::7 2001:db8::1 4000 25\r\n"),
        (1, SIX[0], FOUR[1], b"PROXY TCP6 2001:db8::7 ::ffff:198.51.100.1 4000 25\r\n"),
        (1, ("fe80::1%eth0", 1), ("fe80::2%3", 2), b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"),
        (2, *FOUR, binary(0x21, 0x11, V4)),
        (2, *SIX, binary(0x21, 0x21, V6)),
        (2, FOUR[0], SIX[1], binary(0x21, 0x21, bytes(10) + b"\xff\xff" + V4[:4] + V6[16:])),
    ],
)
def test_what_is_written(version: int, source: tuple[str, int], destination: tuple[str, int], header: bytes) -> None:
    assert write(version, source, destination) == header


endpoints = st.tuples(st.ip_addresses().map(str), st.integers(0, 65535))


@given(st.sampled_from([1, 2]), endpoints, endpoints)
@settings(max_examples=150)
def test_what_we_write_we_read(version: int, source: tuple[str, int], destination: tuple[str, int]) -> None:
    def plain(endpoint: tuple[str, int]) -> tuple[str, int]:
        address = ipaddress.ip_address(endpoint[0])
        return str(getattr(address, "ipv4_mapped", None) or address), endpoint[1]

    header = write(version, source, destination)
    assert parse(header + b"x") == Header(plain(source), plain(destination), len(header), local=False)


@given(st.binary(max_size=60), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0"]))
@settings(max_examples=300)
def test_no_bytes_raise(tail: bytes, head: bytes) -> None:
    result = parse(head + tail)
    if isinstance(result, Header):
        assert result.consumed <= len(head + tail)
