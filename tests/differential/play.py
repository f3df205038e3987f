"""Plays one script against one port and keeps what the client sees, to be compared with what it sees elsewhere.

A script is a tuple of steps: bytes to send; `Pieces` to send one by one; `TLS`, a handshake when the last reply was
220 (else the script ends there); `FIN`, a half-close.  A script that does not end by QUIT or FIN ends by a FIN.

A first run (`alone`) awaits silence behind each step, since nobody can know how many replies a server gives to what it
does not understand.  A second run (`like`) awaits behind each step as many lines as came the first time, or as should
have come (`Seen.repaired`), so that a slow machine makes no difference.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

LIMIT = 15.0  # seconds for anything that is due
QUIET = 0.15  # seconds without a byte, after which a reply is taken for whole
DUE = 3.0  # ... and within which the first byte of a reply comes that must come
STAYS = 1.5  # seconds after which a server that does not end is taken to stay
OPEN = "stays open"
READ = frozenset(b"EHLO LHLO HELO NOOP RSET HELP VRFY EXPN QUIT STARTTLS".split())  # what the proxy reads


class Mark:
    """A step that is no bytes."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


class Pieces(tuple[bytes, ...]):
    """Sent one by one, each in a segment of its own."""

    __slots__ = ()


TLS = Mark("TLS")
FIN = Mark("FIN")
Step = bytes | Pieces | Mark
Script = tuple[Step, ...]


@dataclass
class Seen:
    """What the client saw: the bytes behind each step, how often a TLS session began, how the server ended."""

    parts: list[bytes] = field(default_factory=list)
    handshakes: int = 0
    ending: str = ""
    ended_in: int = -1  # the part in which the server ended

    @property
    def text(self) -> bytes:
        return b"".join(self.parts)

    def repaired(self, script: Script, before: bytes, after: bytes) -> Seen:
        """What the client should see when the proxy puts the one for the other until it lets go."""
        last = next((number for number, step in enumerate(script, 1) if lets_go(step)), len(script))
        parts = [part.replace(before, after) if n <= last else part for n, part in enumerate(self.parts)]
        return replace(self, parts=parts)

    def same_for_all(self) -> tuple[bytes, int, str]:
        """Without what differs from session to session: the names that servers give to mails."""
        return re.sub(rb"(queued as )\w+", rb"\1...", self.text), self.handshakes, self.ending


class Player:
    """One client."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.context = context
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.seen = Seen()

    def play(self, script: Script, first: Seen | None) -> Seen:
        try:
            self._receive(first, True)  # the banner
            for step in script:
                if self.seen.ending:
                    break
                if step is TLS and not re.search(rb"(?m)^220 .*\n\Z", self.seen.parts[-1]):
                    break
                self._do(step)
                self._receive(first, _is_answered(step))
            if not self.seen.ending and FIN not in script and not _quits(script):
                self._do(FIN)
            self._rest(STAYS if first is None or first.ending == OPEN else LIMIT)
        finally:
            self.sock.close()
        return self.seen

    def _do(self, step: Step) -> None:
        # The server may have had enough: then what it said before is to be read all the same.
        with suppress(ConnectionError, ssl.SSLError):
            if step is FIN:
                self._finish()
            elif step is TLS:
                self.sock = self.context.wrap_socket(self.sock, suppress_ragged_eofs=False)
                self.seen.handshakes += 1
            elif isinstance(step, bytes):
                self.sock.sendall(step)
            else:
                assert isinstance(step, Pieces)
                for piece in step:
                    self.sock.sendall(piece)
                    time.sleep(0.005)

    def _finish(self) -> None:
        if isinstance(self.sock, ssl.SSLSocket):  # a FIN without close_notify: senders do that
            socket.socket.shutdown(self.sock, socket.SHUT_WR)
        else:
            self.sock.shutdown(socket.SHUT_WR)

    def _receive(self, first: Seen | None, due: bool) -> None:
        """What comes behind a step; `due`: something does."""
        number = len(self.seen.parts)
        got = bytearray()
        wanted = first.parts[number].count(b"\n") if first is not None and number < len(first.parts) else 0
        ends = first is not None and first.ended_in == number
        until = time.monotonic() + LIMIT
        while first is None or ends or got.count(b"\n") < wanted:
            left = until - time.monotonic() if first is not None else DUE if due and not got else QUIET
            if left <= 0 or not self._some(got, left):
                break
        if self.seen.ending:
            self.seen.ended_in = number
        self.seen.parts.append(bytes(got))

    def _some(self, got: bytearray, seconds: float) -> bool:
        """Receive something; false at the end or after so long."""
        self.sock.settimeout(seconds)
        try:
            data = self.sock.recv(65536)
        except TimeoutError:
            return False
        except ssl.SSLEOFError:
            self.seen.ending = "fin"
            return False
        except (ConnectionError, ssl.SSLError):
            self.seen.ending = "reset"
            return False
        finally:
            self.sock.settimeout(LIMIT)
        if not data:
            self.seen.ending = "close_notify" if isinstance(self.sock, ssl.SSLSocket) else "fin"
            return False
        got += data
        return True

    def _rest(self, seconds: float) -> None:
        got = bytearray()
        until = time.monotonic() + seconds
        while not self.seen.ending and (left := until - time.monotonic()) > 0:
            self._some(got, left)
        self.seen.ending = self.seen.ending or OPEN
        self.seen.parts.append(bytes(got))


def lets_go(step: Step) -> bool:
    """Does the proxy let go at a line of it?"""
    if isinstance(step, Mark):
        return step is TLS
    lines = b"".join(step) if isinstance(step, Pieces) else step
    return any(b"".join(line.split()[:1]).upper() not in READ for line in lines.splitlines())


def _is_answered(step: Step) -> bool:
    """Is it one command that every server answers at once?"""
    verb = b"".join(step.split()[:1]).upper() if isinstance(step, bytes) and step.endswith(b"\n") else b""
    return verb in READ or verb in (b"MAIL", b"RCPT")


def _quits(script: Sequence[Step]) -> bool:
    return any(isinstance(step, bytes) and re.search(rb"(?im)^quit\b", step) for step in script)


def marked(script: Script, mark: bytes) -> Script:
    """With another word in place of `@`: by its sender a server's mail is known."""
    return tuple(step.replace(b"@@", mark) if isinstance(step, bytes) else step for step in script)


def alone(port: int, script: Script, context: ssl.SSLContext) -> Seen:
    return Player(port, context).play(script, None)


def like(first: Seen, port: int, script: Script, context: ssl.SSLContext) -> Seen:
    return Player(port, context).play(script, first)
