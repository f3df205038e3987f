"""The client: what it has said that waits, and by which name it greets.

Every byte of it is in `lines` until it goes on; `waiting` is one command that was taken from there and waits for the
server.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from proxy.smtp.lines import LineBuffer
from proxy.smtp.reply.names import MAX_DOMAIN, is_full_name
from proxy.smtp.session.commands import MAX_COMMAND, argument_of
from proxy.smtp.session.events import Found
from proxy.smtp.session.policy import SessionPolicy

_LINE_END: Final = b"\r\n"

_judged = lru_cache(maxsize=256)(is_full_name)  # 0.9 us a name; clients are few, or say few names


def _may_be_said(name: bytes) -> bool:
    return len(name) <= MAX_DOMAIN and _judged(name)  # so peers fill it with 64 KiB at the most


class Client:
    """What is known of the client."""

    __slots__ = ("closed", "finished", "greeted_ok", "greeting", "lines", "name", "released", "tls", "waiting")

    def __init__(self) -> None:
        self.lines = LineBuffer(MAX_COMMAND)
        self.waiting: bytes | None = None
        self.name = b""  # the argument of its last EHLO or HELO, as it said it
        self.greeting = b""  # its last EHLO or HELO line as it went on
        self.greeted_ok = False  # that was a HELO, and answered 2xx
        self.closed = False  # it has said its last; what it said before may still wait
        self.finished = False  # ... and all that has gone on, and the server was told; only replies may come
        self.released = False  # what it says is not read any more
        self.tls = False  # bridge: what it says comes out of TLS

    # -- its name ----------------------------------------------------------------------------------------------------

    def greets(self, line: bytes, policy: SessionPolicy) -> tuple[bytes, Found | None]:
        """An EHLO or HELO line as it goes on, and what is to be told of it."""
        self.name = argument_of(line)
        found: Found | None = None
        mode = policy.repair.mode
        if mode != "off" and not _may_be_said(self.name):
            before = line.rstrip(_LINE_END)
            repaired = policy.client_name != b"" and mode == "repair"
            if repaired:
                end = b"\r\n" if line.endswith(b"\r\n") else b"\n"
                line = line.split(None, 1)[0] + b" " + policy.client_name + end
            found = Found("client-name-invalid", (before,), repaired, (line.rstrip(_LINE_END),), "client")
        self.greeting = line
        self.greeted_ok = False
        return line, found

    def greeting_taken(self, code: int) -> None:
        """Its HELO was answered."""
        self.greeted_ok = 200 <= code < 300

    def in_tls(self) -> None:
        """TLS is up: what it said before counts no more (RFC 3207 4.2)."""
        self.tls = True
        self.name = self.greeting = b""
        self.greeted_ok = False

    # -- its commands ------------------------------------------------------------------------------------------------

    def waits_with(self, line: bytes) -> None:
        """This command waits until it is known what the server offers, or for the replies that are owed."""
        self.waiting = line

    def take_waiting(self) -> bytes:
        """It may go on."""
        line, self.waiting = self.waiting, None
        assert line is not None
        return line

    # -- its end -----------------------------------------------------------------------------------------------------

    def ended(self) -> None:
        """Nothing more comes."""
        self.closed = True

    def finish(self) -> None:
        """All that it said has gone on."""
        self.finished = True

    def release(self) -> None:
        """What follows is not read."""
        self.released = True
