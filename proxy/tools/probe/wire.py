"""A blocking SMTP conversation for `probe`: lines out, replies in, with the waits of a session, then TLS.

No reactor: one socket, one thing at a time, every wait with an end.  Replies are read as a session reads them (see
`proxy.smtp.reply.ehlo`), but for one thing: after the final line of any EHLO reply 0.2 s of silence are waited for, so
that lines which come too late are seen as well.

Raises `NoAnswer` when the network or the server prevents an answer, with a sentence for a person.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from proxy.net.tls.channel import TlsChannel, TlsProblem
from proxy.smtp.lines import LineBuffer
from proxy.smtp.reply.ehlo import MAX_LINE, ReplyProgress, line_before_banner
from proxy.smtp.reply.replies import code_of, ends_reply

SILENCE = 0.2  # seconds, as a session waits
UNTERMINATED_AFTER = 15.0  # seconds of silence after a `250-` line that mean that the reply is over
GOODBYE = 1.0  # seconds to wait for the 221
MAX_REPLY = 1024 * 1024  # bytes of one reply
MAX_ADDRESSES = 8  # that are tried
RECV = 16 * 1024


class NoAnswer(Exception):
    """The network, or the server, prevented an answer."""


@dataclass(frozen=True, slots=True)
class EhloHeard:
    """An EHLO reply as it came.  `unterminated`: it had no final line, and silence ended it."""

    raw: bytes
    unterminated: bool
    seconds: float


def connect(host: str, port: int, timeout: float) -> socket.socket:
    """A connection to the first address of `host` that takes one; each is given `timeout` seconds."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise NoAnswer(f"{host} is not found: {reason}") from None
    reasons: list[str] = []
    for family, kind, protocol, _, address in found[:MAX_ADDRESSES]:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a host without IPv6
            reasons.append(f"{address[0]}: {error.strerror}")
            continue
        sock.settimeout(timeout)
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            reasons.append(f"{address[0]}: {error.strerror or 'no answer'}")
            continue
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    raise NoAnswer(f"can't connect to port {port} of {host}: {'; '.join(reasons)}")


class Wire:
    """The conversation.  `timeout` is for each answer, seconds."""

    def __init__(self, sock: socket.socket, timeout: float) -> None:
        self._sock = sock
        self._timeout = timeout
        self._channel: TlsChannel | None = None
        self._lines = LineBuffer(MAX_LINE)
        self._ended = False

    def goodbye(self) -> None:
        """QUIT, a short wait for the answer, and the end of the connection.  Never raises."""
        try:
            self.say(b"QUIT")
            self._timeout = min(self._timeout, GOODBYE)
            self.reply("QUIT")
        except NoAnswer:
            pass  # nobody is left to be told
        if self._channel is not None:
            self._channel.shutdown()
        self._sock.close()

    def say(self, line: bytes) -> None:
        """Send one command; the line end is added."""
        rest = line + b"\r\n"
        deadline = time.monotonic() + self._timeout
        try:
            while rest:
                if self._channel is None:
                    try:
                        sent = self._sock.send(rest)
                    except BlockingIOError:
                        sent = 0
                else:
                    sent = self._channel.send(rest)
                rest = rest[sent:]
                if rest and not self._wait(deadline, select.POLLIN | select.POLLOUT):
                    raise NoAnswer("the server takes nothing any more")
        except (OSError, TlsProblem) as error:
            raise NoAnswer(f"the connection broke: {error}") from None

    def banner(self) -> bytes:
        """All lines up to the banner's last, those in front of it included, as they came."""
        return self._reply("the banner", line_before_banner)

    def reply(self, to: str) -> bytes:
        """One reply, as it came; `to` says to what, for the error."""
        return self._reply(to, lambda line: False)

    def _reply(self, to: str, answers_nothing: Callable[[bytes], bool]) -> bytes:
        raw = b""
        deadline = time.monotonic() + self._timeout
        while len(raw) < MAX_REPLY:
            line = self._line(deadline)
            if line is None:
                raise NoAnswer(self._cut_off(to, raw))
            raw += line
            if ends_reply(line) and not answers_nothing(line):
                return raw
        raise NoAnswer(f"{to}: a reply without an end")

    def ehlo_reply(self, banner: bytes) -> EhloHeard:
        """The reply to the EHLO that was just said; `banner` is the server's 220 line."""
        begun = time.monotonic()
        progress = ReplyProgress(banner)
        deadline = begun + self._timeout
        any_250 = False
        patience = min(UNTERMINATED_AFTER, self._timeout)
        while progress.size < MAX_REPLY:
            if progress.final_seen and (progress.refused or not any_250):
                break  # a refusal, or `220 ...`: complete in itself
            wait = SILENCE if progress.final_seen else patience if progress.lines else self._timeout
            line = self._line(min(deadline + patience, time.monotonic() + wait))
            if line is None:
                break
            if progress.final_seen and code_of(line) >= 400:
                break  # another reply: the server says goodbye
            any_250 = any_250 or code_of(line.lstrip(b" \t.")) == 250
            progress.add(line)
        raw = progress.whole()
        if not progress.final_seen:
            if self._ended or not progress.lines:
                raise NoAnswer(self._cut_off("the EHLO reply", raw))
            rest = self._lines.take_pending()
            return EhloHeard(raw + rest, True, time.monotonic() - begun)
        return EhloHeard(raw, False, time.monotonic() - begun)

    def start_tls(self, channel: TlsChannel) -> None:
        """The handshake, on this wire's socket; what follows is inside TLS.  `NoAnswer` says why it failed."""
        behind = len(self._lines)
        if behind:
            raise NoAnswer(f"the server sent {behind} bytes behind its 220 to STARTTLS; no sender may go on")
        deadline = time.monotonic() + self._timeout
        try:
            while not channel.handshake():
                if not self._wait(deadline, select.POLLOUT if channel.unsent else select.POLLIN):
                    raise NoAnswer("the TLS handshake does not end")
        except TlsProblem as problem:
            raise NoAnswer(f"the TLS handshake failed: {problem.reason}") from None
        self._channel = channel

    # ------------------------------------------------------------------ bytes

    def _line(self, deadline: float) -> bytes | None:
        """The next whole line; None at the deadline or the end."""
        while True:
            line = self._lines.next()
            if line is not None:
                return line
            if self._ended or len(self._lines) > MAX_REPLY:
                return None
            data = self._receive()
            if data is None:
                if not self._wait(deadline):
                    return None
            elif data:
                self._lines.feed(data)
            else:
                self._ended = True

    def _receive(self) -> bytes | None:
        """Bytes; empty at the end; None when there are none yet."""
        try:
            if self._channel is not None:
                return self._channel.recv(RECV)
            return self._sock.recv(RECV)
        except BlockingIOError:
            return None
        except (OSError, TlsProblem) as error:
            raise NoAnswer(f"the connection broke: {error}") from None

    def _wait(self, deadline: float, events: int = select.POLLIN) -> bool:
        """Until the socket may have changed; False when the deadline has passed."""
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        poll = select.poll()
        poll.register(self._sock, events)
        return bool(poll.poll(left * 1000 + 1))

    def _cut_off(self, what: str, raw: bytes) -> str:
        got = f" after {len(raw)} bytes of it" if raw else ""
        if self._ended:
            return f"the server closed the connection instead of {what}{got}"
        return f"no end of {what}{got}" if raw else f"no answer within {self._timeout:g} s: {what} did not come"
