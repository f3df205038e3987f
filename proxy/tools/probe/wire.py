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
from typing import Any

from proxy.net.tls.channel import TlsChannel
from proxy.net.tls.problem import TlsProblem
from proxy.smtp.lines import LineBuffer
from proxy.smtp.reply.ehlo import MAX_LINE, ReplyProgress, line_before_banner
from proxy.smtp.reply.replies import code_of, ends_reply

SILENCE = 0.2  # seconds, as a session waits
UNTERMINATED_AFTER = 15.0  # seconds of silence after a `250-` line that mean that the reply is over
GOODBYE = 1.0  # seconds to wait for the 221
MAX_REPLY = 1024 * 1024  # bytes of one reply
MAX_ADDRESSES = 8  # that are tried
MAX_SHOWN = 120  # characters of what a server said instead
RECV = 16 * 1024
BEHIND = 0.1  # seconds in which bytes behind the 220 to STARTTLS are waited for
TICK = 0.5  # seconds between two words of progress


class NoAnswer(Exception):
    """The network, or the server, prevented an answer.

    `kind`: `silence`, `end` (FIN), `reset`, of a handshake `alert` or `no-tls`, else `other`.
    """

    def __init__(self, reason: str, kind: str = "other") -> None:
        super().__init__(reason)
        self.kind = kind


def no_progress() -> None:
    """For those who watch nobody wait."""


@dataclass(frozen=True, slots=True)
class EhloHeard:
    """An EHLO reply as it came.  `unterminated`: it had no final line, and silence ended it."""

    raw: bytes
    unterminated: bool


def addresses(host: str, port: int) -> list[str]:
    """Every address of `host` that can be connected to, in the order of this host's policy, at most `MAX_ADDRESSES`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise NoAnswer(f"{host} is not found: {reason}") from None
    return list(dict.fromkeys(_textual(each[4]) for each in found))[:MAX_ADDRESSES]


def _textual(address: tuple[Any, ...]) -> str:
    """With the interface of a link-local address, which getaddrinfo gives apart."""
    text, scope = str(address[0]), address[3] if len(address) == 4 else 0
    return f"{text}%{scope}" if scope and "%" not in text else text


def connect(address: str, port: int, timeout: float, source: str = "") -> socket.socket:
    """A non-blocking connection to one address within `timeout` seconds; from `source`, if one is given."""
    try:
        sock = socket.create_connection((address, port), timeout, (source, 0) if source else None)
    except TimeoutError:
        raise NoAnswer(
            f"can't connect to port {port} of {address}: no answer within {timeout:g} s", "silence"
        ) from None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NoAnswer(f"can't connect to port {port} of {address}: {reason}", "unreachable") from None
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Wire:
    """The conversation.  `timeout` is for each answer, seconds."""

    def __init__(self, sock: socket.socket, timeout: float, progress: Callable[[], None] = no_progress) -> None:
        self._sock = sock
        self._timeout = timeout
        self._progress = progress
        self._channel: TlsChannel | None = None
        self._lines = LineBuffer(MAX_LINE)
        self._ended = False
        self._spoiled = False  # a handshake was begun and not ended
        self.heard_at = (
            0.0  # when the last bytes came: behind a reply more is waited for, which is none of the server's
        )

    @property
    def sock(self) -> socket.socket:
        return self._sock

    def goodbye(self) -> None:
        """QUIT, a short wait for the answer, and the end of the connection; no QUIT in a handshake.  Never raises."""
        if not self._spoiled:
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
                    raise NoAnswer("the server takes nothing any more", "silence")
        except (OSError, TlsProblem) as error:
            raise NoAnswer(f"the connection broke: {_reason(error)}", _kind(error)) from None

    def banner(self) -> bytes:
        """All lines up to the banner's last, those in front of it included, as they came.

        `NoAnswer` quotes what is no SMTP at its first line: an SSH server's, a web server's.
        """
        return self._reply("the banner", line_before_banner, smtp=False)

    def reply(self, to: str) -> bytes:
        """One reply, as it came; `to` says to what, for the error."""
        return self._reply(to, lambda line: False)

    def _reply(self, to: str, answers_nothing: Callable[[bytes], bool], smtp: bool = True) -> bytes:
        raw = b""
        deadline = time.monotonic() + self._timeout
        while len(raw) < MAX_REPLY:
            line = self._line(deadline)
            if line is None:
                raise self._cut_off(to, raw)
            raw += line
            if not smtp and not code_of(line) and not answers_nothing(line):
                raise NoAnswer(f"this is no SMTP server; it says {shown(line)}")
            smtp = True
            if ends_reply(line) and not answers_nothing(line):
                return raw
        raise NoAnswer(f"{to}: a reply without an end")

    def ehlo_reply(self, banner: bytes) -> EhloHeard:
        """The reply to the EHLO that was just said; `banner` is the server's 220 line."""
        progress = ReplyProgress(banner)
        deadline = time.monotonic() + self._timeout
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
                raise self._cut_off("the EHLO reply", raw)
            rest = self._lines.take_pending()
            return EhloHeard(raw + rest, True)
        return EhloHeard(raw, False)

    def behind(self) -> bytes:
        """What the server has sent behind its last reply; a moment is waited for it."""
        self._wait(time.monotonic() + BEHIND)
        more = self._receive()
        if more:
            self._lines.feed(more)
        elif more == b"":
            self._ended = True
        return self._lines.take_pending() if len(self._lines) else b""

    def start_tls(self, channel: TlsChannel, timeout: float) -> None:
        """The handshake, on this wire's socket; what follows is inside TLS.  `NoAnswer` says why it failed, and how."""
        deadline = time.monotonic() + timeout
        self._spoiled = True
        try:
            while not channel.handshake():
                if not self._wait(deadline, select.POLLOUT if channel.unsent else select.POLLIN):
                    raise NoAnswer(f"no answer to the ClientHello within {timeout:g} s", "silence")
        except TlsProblem as problem:
            raise NoAnswer(problem.reason, _kind(problem)) from None
        self._spoiled = False
        self._channel = channel
        self._lines = LineBuffer(MAX_LINE)

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
            data = self._channel.recv(RECV) if self._channel is not None else self._sock.recv(RECV)
            if data:
                self.heard_at = time.monotonic()
            return data
        except BlockingIOError:
            return None
        except (OSError, TlsProblem) as error:
            raise NoAnswer(f"the connection broke: {_reason(error)}", _kind(error)) from None

    def _wait(self, deadline: float, events: int = select.POLLIN) -> bool:
        """Until the socket may have changed; False when the deadline has passed."""
        poll = select.poll()
        poll.register(self._sock, events)
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(min(left, TICK) * 1000 + 1):
                return True
            self._progress()
        return False

    def _cut_off(self, what: str, raw: bytes) -> NoAnswer:
        rest = raw + self._lines.take_pending()
        got = f"; what came is {shown(rest)}" if rest else ""
        if self._ended:
            return NoAnswer(f"the server closed the connection instead of {what}{got}", "end")
        if rest:
            return NoAnswer(f"no end of {what} within {self._timeout:g} s{got}", "silence")
        return NoAnswer(f"no answer within {self._timeout:g} s: {what} did not come", "silence")


def shown(octets: bytes) -> str:
    """What a server sent, quoted in printable ASCII and cut."""
    text = octets.decode("latin-1").rstrip("\r\n")
    cut = text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
    return repr(cut.encode("ascii", "backslashreplace").decode("ascii"))


def _reason(error: OSError | TlsProblem) -> str:
    return error.reason if isinstance(error, TlsProblem) else error.strerror or str(error)


def _kind(error: OSError | TlsProblem) -> str:
    """How a connection broke, by the words where there are only words."""
    if isinstance(error, OSError):
        return "reset" if isinstance(error, ConnectionError) else "other"
    if "did not answer with TLS" in error.reason:
        return "no-tls"
    if "closed the connection" in error.reason:
        return "end"
    return "reset" if "was lost" in error.reason else "alert"
