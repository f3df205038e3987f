"""SMTP peers that do exactly what a test says: which bytes, when, and how they end.

A script is a function of one `Peer`, run in a thread of its own for each connection of a `ScriptedServer`; the client's
side is a `Peer` in the test itself:

    def script(peer: Peer) -> None:
        peer.send(b"220 mail.example ESMTP\\r\\n")
        assert peer.line() == b"EHLO a\\r\\n"
        peer.reset()

    with ScriptedServer(script) as server, proxy(server.port) as running, connect(running.port) as client:
        assert client.reply() == b"220 mail.example ESMTP\\r\\n"

A script that returns closes its connection.  One that fails an assertion fails the test when the server is left.  A
peer that ends where bytes were due raises `Ended`, which ends a server's script quietly.  Everything has a time limit.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

LIMIT = 10.0  # seconds for anything that is due
BANNER = b"220 mail.example ESMTP ready\r\n"
GOOD = b"250-mail.example\r\n250-SIZE 10240000\r\n250-STARTTLS\r\n250 HELP\r\n"
BROKEN = b"250-STARTTLS\r\n250-mail.example\r\n250-SIZE 10240000\r\n250 HELP\r\n"  # the product's reason

T = TypeVar("T")


class Ended(Exception):
    """The other side ended before what was due came; `got` is what came, `reset` how it ended."""

    def __init__(self, got: bytes, reset: bool) -> None:
        super().__init__(f"ended by {'a reset' if reset else 'FIN'} behind {got[-200:]!r}")
        self.got = got
        self.reset = reset


class Peer:
    """One end of a connection; blocking, with a limit."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()
        self.ended = ""  # how the other side ended: fin, reset
        self.sock.settimeout(LIMIT)
        with suppress(OSError):
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- sending -----------------------------------------------------------------------------------------------------

    def send(self, *pieces: bytes, gap: float = 0.02) -> Peer:
        """Send each piece as a segment of its own, `gap` seconds apart."""
        for number, piece in enumerate(pieces):
            if number:
                time.sleep(gap)
            self.sock.sendall(piece)
        return self

    def say(self, command: bytes) -> bytes:
        """A command and its reply."""
        self.send(command + b"\r\n")
        return self.reply()

    def finish(self) -> None:
        """Half-close."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """End by a reset, whatever was sent before."""
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    # -- receiving ---------------------------------------------------------------------------------------------------

    def _more(self, until: float) -> bool:
        """Receive something; false at the end of the stream.  TimeoutError when it is late."""
        left = until - time.monotonic()
        if left <= 0 or self.ended:
            if self.ended:
                return False
            raise TimeoutError(f"nothing more came behind {bytes(self.buffer[-200:])!r}")
        self.sock.settimeout(left)
        try:
            data = self.sock.recv(262144)
        except TimeoutError:
            raise TimeoutError(f"nothing more came behind {bytes(self.buffer[-200:])!r}") from None
        except (ConnectionError, ssl.SSLError):
            self.ended = "reset"
            return False
        finally:
            with suppress(OSError):
                self.sock.settimeout(LIMIT)
        if not data:
            self.ended = "fin"
            return False
        self.buffer += data
        return True

    def _take(self, size: int) -> bytes:
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def take(self, size: int, seconds: float = LIMIT) -> bytes:
        """Exactly so many bytes."""
        until = time.monotonic() + seconds
        while len(self.buffer) < size:
            if not self._more(until):
                raise Ended(bytes(self.buffer), self.ended == "reset")
        return self._take(size)

    def line(self, seconds: float = LIMIT) -> bytes:
        """Up to the next LF."""
        until = time.monotonic() + seconds
        while (end := self.buffer.find(b"\n")) < 0:
            if not self._more(until):
                raise Ended(bytes(self.buffer), self.ended == "reset")
        return self._take(end + 1)

    def reply(self, seconds: float = LIMIT) -> bytes:
        """Lines up to the first that has no hyphen behind its code."""
        got = b""
        while True:
            line = self.line(seconds)
            got += line
            if line[3:4] != b"-":
                return got

    def until(self, end: bytes, seconds: float = LIMIT) -> bytes:
        """Everything up to `end` and with it."""
        until = time.monotonic() + seconds
        while (at := self.buffer.find(end)) < 0:
            if not self._more(until):
                raise Ended(bytes(self.buffer), self.ended == "reset")
        return self._take(at + len(end))

    def rest(self, seconds: float = LIMIT) -> bytes:
        """All up to the end of the stream; `ended` then says which end that was."""
        until = time.monotonic() + seconds
        while self._more(until):
            pass
        return self._take(len(self.buffer))

    def now(self, seconds: float = 0.15) -> bytes:
        """What comes within that time, the end of the stream or not."""
        until = time.monotonic() + seconds
        with suppress(TimeoutError):
            while self._more(until):
                pass
        return self._take(len(self.buffer))

    def drain_to(self, seconds: float = LIMIT) -> str:
        """Throw away what comes; how the stream ended: fin or reset."""
        self.rest(seconds)
        return self.ended

    def start_tls(self, context: ssl.SSLContext, *, server: bool, name: str | None = None) -> None:
        """The handshake, in blocking mode."""
        assert not self.buffer
        self.sock = context.wrap_socket(self.sock, server_side=server, server_hostname=name)


def connect(port: int, *, host: str = "127.0.0.1", source: str = "", receive_buffer: int = 0) -> Peer:
    """A client."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(LIMIT)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    if source:
        sock.bind((source, 0))
    try:
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return Peer(sock)


Script = Callable[[Peer], None]


class ScriptedServer:
    """Runs `script` with each connection.  `script` may be replaced between connections."""

    def __init__(self, script: Script, *, host: str = "127.0.0.1", port: int = 0, receive_buffer: int = 0) -> None:
        self.script = script
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.listener.bind((host, port))
        self.listener.listen(4096)
        self.port: int = self.listener.getsockname()[1]
        self.connections = 0
        self.failures: list[BaseException] = []
        self._peers: list[Peer] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.stop()
        if self.failures and kind is None:
            raise self.failures[0]

    def stop(self) -> None:
        """Accept no more, and end every connection by a reset."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(LIMIT)
        with self._lock:
            for peer in self._peers:
                with suppress(OSError):
                    peer.sock.shutdown(socket.SHUT_RDWR)

    def settle(self, seconds: float = LIMIT) -> None:
        """Until every script is over."""
        until = time.monotonic() + seconds
        while self._peers:
            assert time.monotonic() < until, "a script goes on"
            time.sleep(0.002)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            peer = Peer(sock)
            with self._lock:
                self.connections += 1
                self._peers.append(peer)
            threading.Thread(target=self._run, args=(peer, self.script), daemon=True).start()

    def _run(self, peer: Peer, script: Script) -> None:
        try:
            script(peer)
        except (Ended, ConnectionError, ssl.SSLError):
            pass
        except OSError as error:
            if peer.sock.fileno() >= 0:
                self.failures.append(error)
        except BaseException as error:
            self.failures.append(error)
        finally:
            peer.close()
            with self._lock:
                self._peers.remove(peer)


# -- ordinary scripts --------------------------------------------------------------------------------------------------


class Mailbox:
    """A server that takes mail as RFC 5321 says, and keeps it.

    `reply` is what it answers to EHLO, `answers` what to other commands than it knows, by their first four letters.
    """

    def __init__(
        self,
        reply: bytes = BROKEN,
        *,
        banner: bytes = BANNER,
        tls: ssl.SSLContext | None = None,
        after_dot: float = 0.0,
        answers: Mapping[bytes, bytes] | None = None,
    ) -> None:
        self.reply = reply
        self.answers = answers or {}
        self.banner = banner
        self.tls = tls
        self.after_dot = after_dot  # seconds between the dot and its 250
        self.mails: list[bytes] = []
        self.commands: list[bytes] = []
        self.heard: list[bytes] = []  # the same, all of one connection together

    def __call__(self, peer: Peer) -> None:
        number = len(self.heard)
        self.heard.append(b"")
        peer.send(self.banner)
        while True:
            line = peer.line()
            self.commands.append(line)
            self.heard[number] += line
            verb = line[:4].upper()
            if verb in (b"EHLO", b"LHLO"):
                peer.send(self.reply)
            elif verb == b"DATA":
                peer.send(b"354 go on\r\n")
                data = peer.until(b"\r\n.\r\n")
                time.sleep(self.after_dot)
                self.mails.append(data)
                peer.send(b"250 2.0.0 taken\r\n")
            elif verb == b"QUIT":
                peer.send(b"221 bye\r\n")
                return
            elif verb == b"STAR" and self.tls is not None:
                peer.send(b"220 go ahead\r\n")
                peer.start_tls(self.tls, server=True)
            else:
                peer.send(self.answers.get(verb, b"250 2.1.0 well\r\n"))


def nameless(said: bytes) -> bytes:
    """What the proxy said without the session's id, that stands at the end of each line of its own."""
    return re.sub(rb" \[[0-9a-z]{12}\]\r\n", b"\r\n", said)


def greet(client: Peer, name: bytes = b"client.example") -> bytes:
    """Banner and EHLO; the EHLO reply."""
    assert client.reply()[:4] == b"220 "
    return client.say(b"EHLO " + name)


def begin_message(client: Peer) -> None:
    """MAIL, RCPT and DATA, one after the other."""
    assert client.say(b"MAIL FROM:<a@example.org>")[:3] == b"250"
    assert client.say(b"RCPT TO:<b@example.org>")[:3] == b"250"
    assert client.say(b"DATA")[:3] == b"354"


def send_mail(client: Peer, message: bytes = b"Subject: hi\r\n\r\nhello") -> bytes:
    """A whole mail on a new connection, QUIT included; the reply to the dot."""
    greet(client)
    begin_message(client)
    client.send(message + b"\r\n.\r\n")
    reply = client.reply()
    assert client.say(b"QUIT")[:3] == b"221"
    assert client.rest() == b""
    return reply


# -- many at a time ----------------------------------------------------------------------------------------------------


def together(calls: Iterable[Callable[[], T]], at_once: int = 64) -> list[T]:
    """What each call gives; they run side by side, so that their waits cost no more than the longest of them.

    Where one fails, or the test's time is over, nobody waits for the others.
    """
    pool = ThreadPoolExecutor(at_once)
    try:
        return [future.result() for future in [pool.submit(call) for call in calls]]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def servers(scripts: Sequence[Script]) -> Iterator[list[ScriptedServer]]:
    """A server for each script."""
    made = [ScriptedServer(script) for script in scripts]
    for server in made:
        server.__enter__()
    try:
        yield made
    finally:
        for server in made:
            server.stop()
    for server in made:
        if server.failures:
            raise server.failures[0]


def readable(sock: socket.socket, seconds: float = 0.0) -> bool:
    """Whether something, an end included, waits there."""
    return bool(select.select([sock], [], [], seconds)[0])
