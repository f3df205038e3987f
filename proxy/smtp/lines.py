"""Bytes in, whole lines out.

A line ends with LF; what stands before the LF is the reader's to judge.  RFC 5321 2.3.8 allows CRLF only and forbids
a bare CR or LF; peers in the field send a bare LF all the same, so LF ends a line here, and a lone CR ends none: to
read it as a line end is how smuggling starts.  A line comes out with its line end, byte for byte as it came in, so
that what is forwarded is what was received.

`LineBuffer` keeps the bytes of one direction.  It has no limit of its own: `max_line` is what `overlong` is measured
against (Postfix: line_length_limit 2048; RFC 5321 4.5.3.1.4 asks for 512), and the caller decides what an overlong
line is.  The cost is linear in the bytes however they are cut: every byte is searched once for LF and copied at most
three times, also when a peer sends one byte at a time.  What waits is held in one piece, so that many small ones cost
no more than their bytes.

Nothing is raised for anything that a peer can send.
"""

from __future__ import annotations


class LineBuffer:
    """The bytes of one direction that nobody has taken yet.

    `max_line` is in octets, line end included.
    """

    __slots__ = ("_chunk", "_more", "_part", "_start", "max_line", "size")

    def __init__(self, max_line: int) -> None:
        self.max_line = max_line
        self._part = bytearray()  # the unfinished line: holds no LF
        self._chunk = b""  # what is searched now, from _start on
        self._start = 0
        self._more: bytearray | None = None  # what came while _chunk was not used up; made when it is needed
        self.size = 0  # how many bytes are held, whole lines and the unfinished one

    def __len__(self) -> int:
        return self.size

    def feed(self, data: bytes) -> None:
        """Take in what the peer sent, cut anywhere."""
        if not data:
            return
        self.size += len(data)
        if self._start < len(self._chunk):
            if self._more is None:
                self._more = bytearray()
            self._more += data
        else:
            self._chunk = data
            self._start = 0

    def next(self) -> bytes | None:
        """The next whole line with its line end, or None when there is none yet."""
        chunk = self._chunk
        while chunk:
            start = self._start
            end = chunk.find(b"\n", start) + 1
            if end:
                line = chunk[start:end]
                self._start = end
                if self._part:
                    line = bytes(self._part) + line
                    self._part.clear()
                if end == len(chunk):
                    if self._more is not None:
                        self._next_chunk()
                    else:
                        self._chunk = b""
                        self._start = 0
                self.size -= len(line)
                return line
            self._part += chunk[start:] if start else chunk
            self._next_chunk()
            chunk = self._chunk
        return None

    def _next_chunk(self) -> None:
        self._chunk = bytes(self._more) if self._more else b""
        self._more = None
        self._start = 0

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished line stand at the end of what is held."""
        more = self._more
        behind = 0
        if more is not None:
            end = more.rfind(b"\n") + 1
            behind = len(more) - end
            if end:
                return behind
        end = max(self._chunk.rfind(b"\n") + 1, self._start)
        behind += len(self._chunk) - end
        if end > self._start:
            return behind
        return behind + len(self._part)

    @property
    def overlong(self) -> bool:
        """The unfinished line is longer than `max_line`: no line end will make it a good one."""
        return self.size > self.max_line and self.pending > self.max_line

    @property
    def whole(self) -> bytes:
        """All that is held, if that is one piece as it was fed, and whole lines; else `b""`.  Nothing is taken."""
        chunk = self._chunk
        if len(chunk) != self.size or self._start or chunk[-1:] != b"\n":
            return b""
        return chunk

    def take_pending(self) -> bytes:
        """All that is held, in order, whole lines too; nothing is held afterwards.

        For the letting go of a direction: what has not been read as lines is relayed as bytes.
        """
        if not self.size:
            return b""
        held = self._chunk[self._start :]
        if self._part:
            held = bytes(self._part) + held
            self._part.clear()
        if self._more is not None:
            held += bytes(self._more)
        self._chunk = b""
        self._start = 0
        self._more = None
        self.size = 0
        return held


def split_lines(raw: bytes) -> list[bytes]:
    """`raw` cut behind every LF; the last piece may have no line end.  Joined again it is `raw`."""
    pieces = raw.split(b"\n")
    last = pieces.pop()
    lines = [piece + b"\n" for piece in pieces]
    if last:
        lines.append(last)
    return lines


def without_end(line: bytes) -> bytes:
    """The line without its line end: LF and every CR in front of it."""
    if line.endswith(b"\r\n"):
        line = line[:-2]
    elif line.endswith(b"\n"):
        line = line[:-1]
    return line.rstrip(b"\r") if line.endswith(b"\r") else line


def ends_well(line: bytes) -> bool:
    """The line ends with exactly one CRLF (RFC 5321 2.3.8)."""
    return line.endswith(b"\r\n") and not line.endswith(b"\r\r\n")
