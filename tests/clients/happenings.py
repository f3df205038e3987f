"""What can happen to a session with a real sender, as scripts of the server, and as a cutter of the client's network.

`HAPPENINGS` are all of them, `serve` is the server to which one happens, and `Cutter` stands between a sender and the
proxy, carries bytes, and is gone by FIN or by reset when the server says that the moment has come.  The server tells
what it saw of the handshake itself, so that what the log says can be held against it.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.scripted import BANNER, BROKEN, Peer

TLS_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CLEAR = "clear"


@dataclass(frozen=True, slots=True)
class Happening:
    """`certificate`: the kind that the server shows.  `at`: what the client says when somebody is lost: its `EHLO`, its
    TLS `hello`, or in the middle of a `message`.  `lost`, `how`: who, by fin, reset, or a silence that `lost` ends."""

    name: str
    certificate: str = "good"
    at: str = ""
    lost: str = ""
    how: str = ""

    @property
    def versions(self) -> tuple[str, ...]:
        return (CLEAR,) if self.at == "EHLO" else tuple(TLS_VERSIONS)


HAPPENINGS = (
    Happening("delivered"),
    Happening("refused by the server"),
    Happening("authority not trusted", certificate="unknown-ca"),
    Happening("certificate of another name", certificate="wrong-name"),
    Happening("hello unanswered, client gives up", at="hello", lost="client", how="silence"),
    Happening("hello unanswered, idle time-out", at="hello", lost="proxy", how="silence"),
    *(Happening(f"server lost at the hello, {how}", at="hello", lost="server", how=how) for how in ("fin", "reset")),
    *(
        Happening(f"{lost} lost in the message, {how}", at="message", lost=lost, how=how)
        for lost in ("server", "client")
        for how in ("fin", "reset")
    ),
    *(
        Happening(f"{lost} lost at EHLO, {how}", at="EHLO", lost=lost, how=how)
        for lost in ("server", "client")
        for how in ("fin", "reset")
    ),
)


@dataclass(slots=True)
class Seen:
    """What the server saw of one session: the client's name, and the TLS version once the handshake was through."""

    name: str = ""
    secured: str = ""
    refused: bool = False  # a client that shakes hands and then says nothing has refused what it was shown


def serve(
    peer: Peer, what: Happening, context: ssl.SSLContext, told: Callable[[Seen], object], cut: Callable[[str], object]
) -> None:
    """One session.  `told` gets what was seen; `cut` is called with the client's name when it is to be lost."""
    seen = Seen()
    try:
        _serve(peer, what, context, seen, cut)
    finally:
        told(seen)


def _lose(peer: Peer, what: Happening, name: str, cut: Callable[[str], object]) -> None:
    if what.lost == "server":
        if what.how == "reset":
            peer.reset()
            return
        peer.finish()
    elif what.how != "silence":
        cut(name)
    with suppress(OSError):
        peer.drain_to(20)


def _serve(peer: Peer, what: Happening, context: ssl.SSLContext, seen: Seen, cut: Callable[[str], object]) -> None:
    peer.send(BANNER)
    while True:
        line = peer.line()
        verb = line[:4].upper()
        if verb == b"EHLO":
            seen.name = line[5:].strip().decode("latin-1")
            seen.refused = False
            # posttls-finger sends no message: EHLO inside TLS is its middle.
            if what.at == "EHLO" and what.lost == "client":
                cut(seen.name)
                time.sleep(0.2)  # the server does not know, and answers
            elif what.at == "EHLO" or (what.at == "message" and seen.secured and seen.name.startswith("posttls")):
                _lose(peer, what, seen.name, cut)
                return
            peer.send(BROKEN if not seen.secured else BROKEN.replace(b"250-STARTTLS\r\n", b""))
        elif verb == b"STAR":
            peer.send(b"220 go ahead\r\n")
            if what.at == "hello":
                peer.take(5)
                peer.now(0.1)
                _lose(peer, what, seen.name, cut)
                return
            peer.start_tls(context, server=True)
            assert isinstance(peer.sock, ssl.SSLSocket)
            seen.secured = peer.sock.version() or ""
            seen.refused = True
        elif verb == b"RCPT" and what.name == "refused by the server":
            peer.send(b"550 5.1.1 no such user\r\n")
        elif verb == b"DATA":
            peer.send(b"354 go on\r\n")
            if what.at == "message":
                peer.until(b"\n")
                _lose(peer, what, seen.name, cut)
                return
            peer.until(b"\r\n.\r\n")
            peer.send(b"250 2.0.0 taken\r\n")
        elif verb == b"QUIT":
            peer.send(b"221 bye\r\n")
            return
        else:
            peer.send(b"250 2.1.0 well\r\n")
        seen.refused = seen.refused and verb == b"STAR"


class Cutter:
    """The network of one client: a port that leads to the proxy's until `cut` is called."""

    def __init__(self, port: int, how: str) -> None:
        self.how = how
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        self._wake.send(b"x")

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        self._thread.join(10)
        for sock in (self._listener, self._wake, self._woken):
            sock.close()

    def _run(self) -> None:
        with suppress(OSError):
            near, _ = self._listener.accept()
            with near, socket.create_connection(("127.0.0.1", self._to), 10) as far:
                with suppress(OSError):
                    self._carry(near, far)
                self._end(far)
                _reset(near)

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        while other:
            ready, _, _ = select.select([*other, self._woken], [], [])
            for one in ready:
                if one is self._woken:
                    return
                if data := one.recv(65536):
                    other[one].sendall(data)
                else:
                    other.pop(one).shutdown(socket.SHUT_WR)

    def _end(self, far: socket.socket) -> None:
        if self.how == "reset":
            _reset(far)
            return
        far.shutdown(socket.SHUT_WR)
        far.settimeout(10)
        while far.recv(65536):
            pass


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
