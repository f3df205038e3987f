"""Bytes in, whole lines out.

A line ends with LF; what stands before the LF is the reader's to judge.  RFC 5321 2.3.8 allows CRLF only and forbids
a bare CR or LF; peers in the field send a bare LF all the same, so LF ends a line here, and a lone CR ends none: to
read it as a line end is how smuggling starts.  A line comes out with its line end, byte for byte as it came in, so
that what is forwarded is what was received.

`LineBuffer` keeps the bytes of one direction, in one piece.  It has no limit of its own: `max_line` is what `overlong`
is measured against (Postfix: line_length_limit 2048; RFC 5321 4.5.3.1.4 asks for 512), and the caller decides what an
overlong line is.  To feed it and to take a line copies what else is held, which mostly is nothing; with the 64 KiB that
callers hold at the most it adds 1 us to a call.

Nothing is raised for anything that a peer can send.
"""

from __future__ import annotations


class LineBuffer:
    """The bytes of one direction that nobody has taken yet: `held`, in the order in which they came.

    `max_line` is in octets, line end included.
    """

    __slots__ = ("held", "max_line")

    def __init__(self, max_line: int) -> None:
        self.max_line = max_line
        self.held = b""

    def __len__(self) -> int:
        return len(self.held)

    def feed(self, data: bytes) -> None:
        """Take in what the peer sent, cut anywhere."""
        self.held += data

    def next(self) -> bytes | None:
        """The next whole line with its line end, or None when there is none yet."""
        held = self.held
        end = held.find(b"\n") + 1
        if not end:
            return None
        self.held = held[end:]
        return held[:end]

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished line stand at the end of what is held."""
        return len(self.held) - self.held.rfind(b"\n") - 1

    @property
    def overlong(self) -> bool:
        """The unfinished line is longer than `max_line`: no line end will make it a good one."""
        return len(self.held) > self.max_line and self.pending > self.max_line

    def take_pending(self) -> bytes:
        """All that is held, in order, whole lines too; nothing is held afterwards.

        For the letting go of a direction: what has not been read as lines is relayed as bytes.
        """
        held, self.held = self.held, b""
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
