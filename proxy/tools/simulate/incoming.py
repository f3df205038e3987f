"""One incoming message, by DATA or by BDAT: pure, for the simulated server.

DATA (RFC 5321 4.5.2): ends at CRLF . CRLF and at nothing else, so that no other line end can smuggle a message; the
dot in front of a line is undone, everything else is kept as it came.  BDAT (RFC 3030): so many octets, nothing undone.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_MESSAGE = 128 * 1024 * 1024  # octets


@dataclass(frozen=True, slots=True)
class Mail:
    """One accepted message; addresses as Latin-1 text, `tls` the version's name or empty."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes
    tls: str
    helo: str
    client: str


class TooBig(Exception):
    """The message is over `MAX_MESSAGE`: the client's fault; the session can't go on."""


class DottedMessage:
    """A message behind DATA.  `take` is given the same buffer each time, with more at its end."""

    __slots__ = ("_searched",)

    def __init__(self) -> None:
        self._searched = 0

    def take(self, held: bytearray) -> bytes | None:
        """The message, its dots undone, once it is whole; it and its end are then gone from `held`.  Else None.

        Raises `TooBig`.
        """
        if held.startswith(b".\r\n"):
            del held[:3]
            return b""
        at = held.find(b"\r\n.\r\n", max(0, self._searched - 4))
        if at < 0:
            self._searched = len(held)
            if len(held) > MAX_MESSAGE:
                raise TooBig
            return None
        message = bytes(held[: at + 2])
        del held[: at + 5]
        return (b"\r\n" + message).replace(b"\r\n.", b"\r\n")[2:]


class ChunkedMessage:
    """A message in BDAT chunks: `expect` a chunk, then `take` from the buffer until it is there."""

    __slots__ = ("_data", "_last", "_left")

    def __init__(self) -> None:
        self._data = bytearray()
        self._left = 0
        self._last = False

    def expect(self, size: int, last: bool) -> None:
        """A chunk of `size` octets follows.  Raises `TooBig`."""
        if len(self._data) + size > MAX_MESSAGE:
            raise TooBig
        self._left, self._last = size, last

    def take(self, held: bytearray) -> bytes | None:
        """What of the chunk is in `held` moves here.  The message, when that was the end of the last chunk."""
        part = held[: self._left]
        del held[: self._left]
        self._data += part
        self._left -= len(part)
        return bytes(self._data) if self._last and not self._left else None

    @property
    def chunk_is_whole(self) -> bool:
        return self._left == 0
