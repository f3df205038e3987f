"""A mail client that takes RFC 5321 at its word and TLS seriously: the sender in `demo`.

It skips the first line of an EHLO reply, since that is the greeting (RFC 5321 4.1.1.1), looks for STARTTLS in the
others, and sends nothing without TLS (as a Cisco ESA does with "Required", or Postfix with `encrypt`).  Inside TLS it
checks the server's certificate against the one certificate that it trusts, by name.  Blocking sockets, one message.
"""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass, field

from proxy.tools.dialogue import Spoken

TIMEOUT = 8.0  # seconds, for each answer
MAX_REPLY = 64 * 1024
MAX_LINE = 8 * 1024


@dataclass(slots=True)
class Attempt:
    """What was said, and what became of the message.  `tls` is the version, `peer` the server's certificate in DER."""

    dialogue: list[Spoken] = field(default_factory=list)
    sent: bool = False
    gave_up: bool = False  # by its own decision: no STARTTLS was seen
    reason: str = ""
    tls: str = ""
    peer: bytes = b""


class _Broken(Exception):
    """The conversation can't go on."""


class StrictClient:
    """Sends one message to one server.  `ca_pem` is the certificate that it trusts, `server_name` the name in it."""

    def __init__(self, host: str, port: int, server_name: str, ca_pem: str, name: str = "sender.example") -> None:
        self._where = (host, port)
        self._server_name = server_name
        self._ca_pem = ca_pem
        self._name = name
        self._buffer = b""
        self._begun = time.monotonic()
        self._attempt = Attempt()

    def send(self, sender: str, recipient: str, message: bytes) -> Attempt:
        """`message` has CRLF line ends, the last line's included.  Never raises for what the server does."""
        attempt = self._attempt
        try:
            with socket.create_connection(self._where, TIMEOUT) as sock:
                self._converse(sock, sender, recipient, message)
        except (_Broken, OSError) as error:  # ssl's errors are OSErrors
            attempt.reason = str(error)
        return attempt

    def _converse(self, sock: socket.socket, sender: str, recipient: str, message: bytes) -> None:
        attempt = self._attempt
        self._expect(sock, "220")
        keywords = self._ehlo(sock)
        if "STARTTLS" not in keywords:
            attempt.gave_up = True
            attempt.reason = "no STARTTLS among what the server offers"
            self._command(sock, "QUIT", "221")
            return
        self._command(sock, "STARTTLS", "220")
        if self._buffer:
            raise _Broken("bytes in clear behind the 220 to STARTTLS")
        context = ssl.create_default_context(cadata=self._ca_pem)
        with context.wrap_socket(sock, server_hostname=self._server_name) as inside:
            attempt.tls = inside.version() or ""
            attempt.peer = inside.getpeercert(binary_form=True) or b""
            self._note(f"encrypted from here on: {attempt.tls}")
            self._ehlo(inside)
            self._command(inside, f"MAIL FROM:<{sender}>", "250")
            self._command(inside, f"RCPT TO:<{recipient}>", "250")
            self._command(inside, "DATA", "354")
            inside.sendall((b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
            self._note(f"the letter, {len(message)} bytes, and a dot to end it", "client")
            self._expect(inside, "250")
            attempt.sent = True
            self._command(inside, "QUIT", "221")
            inside.unwrap()  # close_notify both ways: an end without it looks like an attack

    def _ehlo(self, sock: socket.socket) -> set[str]:
        """The keywords, without the first line."""
        lines = self._command(sock, f"EHLO {self._name}", "250")
        return {line[4:].split(" ")[0].upper() for line in lines[1:]}

    def _command(self, sock: socket.socket, line: str, code: str) -> list[str]:
        self._attempt.dialogue.append(Spoken(self._now(), "client", line))
        sock.sendall(line.encode("ascii") + b"\r\n")
        return self._expect(sock, code)

    def _expect(self, sock: socket.socket, code: str) -> list[str]:
        """The lines of the next reply, which must have this code."""
        lines: list[str] = []
        while sum(map(len, lines)) < MAX_REPLY:
            while b"\n" not in self._buffer:
                if len(self._buffer) > MAX_LINE:
                    raise _Broken("a line without an end")
                data = sock.recv(4096)
                if not data:
                    raise _Broken("the server closed the connection")
                self._buffer += data
            line, _, self._buffer = self._buffer.partition(b"\n")
            text = line.decode("latin-1").rstrip("\r")
            self._attempt.dialogue.append(Spoken(self._now(), "server", text))
            lines.append(text)
            if text[3:4] != "-":
                break
        if not lines[-1].startswith(code):
            raise _Broken(f"the server says: {lines[-1]}")
        return lines

    def _note(self, text: str, side: str = "proxy") -> None:
        self._attempt.dialogue.append(Spoken(self._now(), side, note=text))

    def _now(self) -> float:
        return time.monotonic() - self._begun
