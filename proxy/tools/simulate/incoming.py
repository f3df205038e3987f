"""One incoming message: MAIL, RCPT, then DATA or BDAT.  Pure, for the simulated server.

An `Envelope` takes the commands and gives their replies; behind DATA or BDAT it `awaits` octets and is given them.

DATA (RFC 5321 4.5.2): ends at CRLF . CRLF and at nothing else, so that no other line end can smuggle a message; the
dot in front of a line is undone, everything else is kept as it came.  BDAT (RFC 3030): so many octets, nothing undone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_MESSAGE = 128 * 1024 * 1024  # octets
MAX_RECIPIENTS = 1000  # Postfix's smtpd_recipient_limit

_PATH = re.compile(rb"(?:FROM|TO):\s*<([^>]*)>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mail:
    """One accepted message; addresses as Latin-1 text, `tls` the version's name or empty."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes
    tls: str
    helo: str
    client: str


class OutOfStep(Exception):
    """The client's fault, behind which octets of a message can't be told from commands; `reply` ends the session."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


class TooBig(OutOfStep):
    """The message is over `MAX_MESSAGE`."""

    def __init__(self) -> None:
        super().__init__(b"552 5.3.4 Message too big")


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


class Envelope:
    """What was said of one message so far: `mail` and `rcpt`, then `data`, or `bdat` for each chunk."""

    __slots__ = ("_message", "_whole", "recipients", "sender")

    def __init__(self) -> None:
        self.sender: bytes | None = None
        self.recipients: list[bytes] = []
        self._message: DottedMessage | ChunkedMessage | None = None
        self._whole = True  # the chunk that was announced

    def mail(self, argument: bytes) -> bytes:
        path = _PATH.match(argument)
        if path is None or self.sender is not None:
            return b"501 5.5.4 MAIL FROM:<address>, once a message"
        self.sender = path[1]
        return b"250 OK"

    def rcpt(self, argument: bytes) -> bytes:
        path = _PATH.match(argument)
        if path is None:
            return b"501 5.5.4 RCPT TO:<address>"
        if self.sender is None:
            return b"503 5.5.1 MAIL first"
        if len(self.recipients) >= MAX_RECIPIENTS:
            return b"452 4.5.3 Too many recipients"
        self.recipients.append(path[1])
        return b"250 OK"

    def data(self) -> bytes:
        if not self.recipients:
            return b"503 5.5.1 RCPT first"
        self._message = DottedMessage()
        return b"354 End the message with a dot on a line of its own"

    def bdat(self, argument: bytes) -> None:
        """A chunk follows.  Raises `OutOfStep`."""
        words = argument.upper().split()
        if not words or not words[0].isdigit() or words[1:] not in ([], [b"LAST"]):
            raise OutOfStep(b"501 5.5.4 BDAT size [LAST]")
        if not self.recipients:
            raise OutOfStep(b"503 5.5.1 RCPT first")
        if not isinstance(self._message, ChunkedMessage):
            self._message = ChunkedMessage()
        self._message.expect(int(words[0][:12]), words[1:] == [b"LAST"])
        self._whole = False

    @property
    def awaits(self) -> bool:
        """The octets that come next are the message's, not commands."""
        return isinstance(self._message, DottedMessage) or not self._whole

    def take(self, held: bytearray) -> bytes | None:
        """The message, when this was its end; what belongs to it is gone from `held`.  Raises `OutOfStep`."""
        assert self._message is not None
        data = self._message.take(held)
        self._whole = isinstance(self._message, ChunkedMessage) and self._message.chunk_is_whole
        return data
