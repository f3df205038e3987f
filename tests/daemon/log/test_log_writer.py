"""A log that is not read costs lines, never the time of the process that writes it."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from proxy.daemon.log import writer as log_writer
from proxy.daemon.log.writer import MAX_LINE, PIPE_BUF, LineWriter


def read_all(fd: int) -> bytes:
    os.set_blocking(fd, False)
    data = b""
    try:
        while piece := os.read(fd, 65536):
            data += piece
    except BlockingIOError:
        pass
    return data


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            pass


@pytest.fixture(params=["pipe", "pipe of another user", "socket", "terminal"])
def slow_reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Something that stops taking lines: its reading end, its writing end."""
    if request.param == "socket":
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with one, other:
            yield one.fileno(), other.fileno()
        return
    if request.param == "terminal":
        reader, writer = os.openpty()
        import tty

        tty.setraw(writer)
    else:
        reader, writer = os.pipe()
    if "another" in request.param:
        true_open = os.open

        def refuse(path: str, *args: int) -> int:
            if path.startswith("/proc/self/fd/"):
                raise PermissionError
            return true_open(path, *args)

        monkeypatch.setattr(log_writer.os, "open", refuse)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_lines_arrive_in_order(slow_reader: tuple[int, int]) -> None:
    reader, fd = slow_reader
    writer = LineWriter(fd)
    for number in range(20):
        writer(b"line %d\n" % number)
    assert read_all(reader) == b"".join(b"line %d\n" % number for number in range(20))
    writer.close()


def test_a_reader_that_does_not_read_stops_nobody_and_the_loss_is_told(slow_reader: tuple[int, int]) -> None:
    reader, fd = slow_reader
    writer = LineWriter(fd, max_backlog=20000)
    begun = time.monotonic()
    sent = [b"%05d " % number + b"x" * 94 + b"\n" for number in range(20000)]
    for line in sent:
        writer(line)
    assert time.monotonic() - begun < 5
    assert writer.lost > 0
    assert writer.held <= 20000
    lost = writer.lost
    got = b""
    for _ in range(10000):
        piece = read_all(reader)
        got += piece
        if writer.flush() and not piece:
            break
    writer(b"after\n")
    got += read_all(reader)
    lines = got.splitlines(keepends=True)
    arrived = [line for line in lines[:-1] if not line.startswith(b"log-lost")]
    told = [int(line.rpartition(b"=")[2]) for line in lines if line.startswith(b"log-lost")]
    assert lines[-1] == b"after\n"
    # A terminal takes a little more now and then, so lines may be lost before others that are not; none is twice.
    assert arrived == sorted(set(arrived))
    assert set(arrived) <= set(sent)
    assert sum(told) == lost == len(sent) - len(arrived)
    assert writer.lost == 0
    assert writer.lost_total == lost
    writer.close()


def test_the_last_lines_are_whole_where_the_reader_is_slow(slow_reader: tuple[int, int]) -> None:
    reader, fd = slow_reader
    writer = LineWriter(fd)
    sent = [b"%05d " % number + b"x" * 94 + b"\n" for number in range(2000)]
    for line in sent:
        writer(line)
    assert writer.held
    got: list[bytes] = []

    def read() -> None:
        while sum(map(len, got)) < 2000 * 101:
            got.append(os.read(reader, 4096))
            time.sleep(0.001)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    writer.close()
    thread.join(5)
    assert b"".join(got).replace(b"\r\n", b"\n") == b"".join(sent)


def test_a_reader_that_does_not_read_keeps_nobody_from_ending(slow_reader: tuple[int, int]) -> None:
    _reader, fd = slow_reader
    writer = LineWriter(fd)
    while not writer.held:
        writer(b"x" * 99 + b"\n")
    begun = time.monotonic()
    writer.close()
    assert 0.4 < time.monotonic() - begun < 3


def test_the_shared_description_keeps_its_blocking_mode(slow_reader: tuple[int, int]) -> None:
    _reader, fd = slow_reader
    before = fcntl.fcntl(fd, fcntl.F_GETFL)
    writer = LineWriter(fd)
    writer(b"line\n")
    assert fcntl.fcntl(fd, fcntl.F_GETFL) == before
    assert os.get_blocking(fd)
    writer.close()
    assert os.get_blocking(fd)


def test_what_was_held_back_is_written_when_the_clock_says_so(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    calls: list[tuple[float, Callable[[], object]]] = []
    writer = LineWriter(fd, later=lambda seconds, call: calls.append((seconds, call)))
    while not writer.held:
        writer(b"x" * 999 + b"\n")
    writer(b"last\n")
    assert len(calls) == 1
    (seconds, retry) = calls.pop()
    assert 0 < seconds <= 1
    retry()
    assert len(calls) == 1, "nothing was read: tried again"
    got = read_all(reader)
    calls.pop()[1]()
    assert not calls
    assert (got + read_all(reader)).endswith(b"\nlast\n")
    writer.close()


def test_closing_cancels_the_retry(pipe: tuple[int, int]) -> None:
    class Call:
        cancelled = False

        def cancel(self) -> None:
            self.cancelled = True

    call = Call()
    writer = LineWriter(pipe[1], later=lambda seconds, retry: call)
    while not writer.held:
        writer(b"x" * 999 + b"\n")
    writer.close()
    assert call.cancelled


def test_a_reader_that_is_gone_counts_as_lost(slow_reader: tuple[int, int]) -> None:
    reader, fd = slow_reader
    writer = LineWriter(fd)
    # Close the reading end by putting something else in its place, so that the fixture has something to close.
    with tempfile.TemporaryFile() as other:
        os.dup2(other.fileno(), reader)
    writer(b"line\n")
    writer(b"line\n")
    assert writer.lost == 2
    writer.close()


def test_a_closed_descriptor_counts_as_lost() -> None:
    reader, fd = os.pipe()
    os.close(reader)
    os.close(fd)
    writer = LineWriter(fd)
    writer(b"line\n")
    assert writer.lost == 1
    writer.close()


def test_each_line_of_a_turn_counts_when_its_piece_is_lost() -> None:
    reader, fd = os.pipe()
    writer = LineWriter(fd)
    at_end: list[Callable[[], object]] = []
    writer.gather(lambda call: at_end.append(call) is None)
    os.close(reader)
    for number in range(200):
        writer(b"%03d " % number + b"x" * 95 + b"\n")
    (write_the_last,) = at_end
    write_the_last()
    assert writer.lost == writer.lost_total == 200
    os.close(fd)
    writer.close()


def test_a_file_takes_everything_behind_what_it_has() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"before\n")
        file.flush()
        writer = LineWriter(file.fileno())
        writer(b"line\n")
        writer.close()
        file.seek(0)
        assert file.read() == b"before\nline\n"


def test_lines_of_several_processes_on_one_pipe_are_kept_to_what_a_pipe_keeps_whole(pipe: tuple[int, int]) -> None:
    alone, shared = LineWriter(pipe[1]), LineWriter(pipe[1], shared=True)
    assert alone.max_line == MAX_LINE
    assert shared.max_line == PIPE_BUF
    alone.close()
    shared.close()


def test_a_line_that_was_begun_is_finished_before_the_next(pipe: tuple[int, int]) -> None:
    reader, fd = pipe
    writer = LineWriter(fd)
    long = b"y" * (MAX_LINE - 1) + b"\n"
    while not writer.held:
        writer(long)
    writer(b"next\n")
    got = b""
    while not writer.flush():
        got += os.read(reader, 3000)
    got += read_all(reader)
    lines = got.splitlines(keepends=True)
    assert set(lines[:-1]) == {long}
    assert lines[-1] == b"next\n"
    writer.close()
