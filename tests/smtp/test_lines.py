"""Bytes in, whole lines out: whatever the cut, and in linear time."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.smtp.lines import LineBuffer, ends_well, split_lines, without_end

# the machine may be busy with something else

STREAM = st.lists(
    st.sampled_from([b"250-a", b"\r\n", b"\n", b"\r", b"", b"\0", b"x" * 40]) | st.binary(max_size=5), max_size=30
).map(b"".join)


def all_lines(buffer: LineBuffer) -> list[bytes]:
    lines = []
    while (line := buffer.next()) is not None:
        lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("stream", "lines", "rest"),
    [
        (b"", [], b""),
        (b"250 ok\r\n", [b"250 ok\r\n"], b""),
        (b"a\nb\r\nc", [b"a\n", b"b\r\n"], b"c"),
        (b"a\rb\r\n", [b"a\rb\r\n"], b""),
        (b"\n\n", [b"\n", b"\n"], b""),
        (b"a\r", [], b"a\r"),
    ],
)
def test_lf_ends_a_line_and_a_lone_cr_does_not(stream: bytes, lines: list[bytes], rest: bytes) -> None:
    buffer = LineBuffer(512)
    buffer.feed(stream)
    assert all_lines(buffer) == lines
    assert buffer.pending == len(rest) == len(buffer)
    assert buffer.take_pending() == rest


@given(STREAM, st.lists(st.integers(1, 30), max_size=40), st.lists(st.booleans(), min_size=1, max_size=8))
def test_the_lines_do_not_depend_on_the_cut_nor_on_when_they_are_asked_for(
    stream: bytes, cuts: list[int], asks: list[bool]
) -> None:
    buffer = LineBuffer(512)
    lines: list[bytes] = []
    fed = at = 0
    for number, cut in enumerate([*cuts, len(stream)]):
        buffer.feed(stream[at : at + cut])
        fed = min(len(stream), at + cut)
        at += cut
        if asks[number % len(asks)]:
            lines += all_lines(buffer)
        held = stream[sum(map(len, lines)) : fed]
        assert len(buffer) == len(held)
        assert buffer.pending == len(held) - (held.rfind(b"\n") + 1)
    lines += all_lines(buffer)
    assert lines == [piece + b"\n" for piece in stream.split(b"\n")[:-1]]
    assert b"".join(lines) + buffer.take_pending() == stream


def test_all_that_is_held_can_be_taken_in_order() -> None:
    buffer = LineBuffer(512)
    buffer.feed(b"one\r\ntw")
    assert buffer.next() == b"one\r\n"
    assert buffer.next() is None
    buffer.feed(b"o\r\nthree\r\nfo")
    buffer.feed(b"ur")
    assert buffer.take_pending() == b"two\r\nthree\r\nfour"
    assert (len(buffer), buffer.pending, buffer.next(), buffer.take_pending()) == (0, 0, None, b"")


def test_an_unfinished_line_over_the_limit_is_overlong() -> None:
    buffer = LineBuffer(8)
    buffer.feed(b"12345678")
    assert not buffer.overlong
    buffer.feed(b"9")
    assert buffer.overlong
    buffer.feed(b"\r\n")
    assert not buffer.overlong, "a whole line is the caller's to measure"
    assert buffer.next() == b"123456789\r\n"


def test_what_is_held_makes_neither_a_byte_nor_a_line_dear() -> None:
    def seconds(size: int) -> float:
        buffer = LineBuffer(512)
        started = time.process_time()
        for _ in range(size):
            buffer.feed(b"x")
            buffer.next()
        buffer.feed(b"\n" * size)
        assert len(all_lines(buffer)) == size
        return time.process_time() - started

    seconds(1000)
    small, large = (min(seconds(size) for _ in range(3)) for size in (4_000, 64_000))
    assert large < small * 16 * 6 + 0.05, "with all that callers hold a byte costs at most six times as much"


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\r\n\nb\r\r\nc\r", [b"a\r\n", b"\n", b"b\r\r\n", b"c\r"]),
    ],
)
def test_split_lines_keeps_every_byte(raw: bytes, lines: list[bytes]) -> None:
    assert split_lines(raw) == lines


@pytest.mark.parametrize(
    ("line", "body", "well"),
    [
        (b"a\r\n", b"a", True),
        (b"a\n", b"a", False),
        (b"a\r\r\n", b"a", False),
        (b"a\r", b"a", False),
        (b"a", b"a", False),
        (b"\r\n", b"", True),
        (b"a\rb\r\n", b"a\rb", True),
        (b"", b"", False),
    ],
)
def test_one_crlf_ends_a_line_well(line: bytes, body: bytes, well: bool) -> None:
    assert without_end(line) == body
    assert ends_well(line) is well


def test_small_pieces_that_wait_cost_little_more_than_their_bytes() -> None:
    buffer = LineBuffer(4096)
    buffer.feed(b"NOOP\r\nNOOP\r\n")
    buffer.next()  # what follows waits behind the second line
    tracemalloc.start()
    for _ in range(32768):
        buffer.feed(bytes(bytearray(b"xx")))
    held, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(buffer) == 65536 + 6
    assert held < 80 * 1024
    assert buffer.pending == 65536
    assert buffer.next() == b"NOOP\r\n"
    assert buffer.next() is None
    assert buffer.take_pending() == b"xx" * 32768
