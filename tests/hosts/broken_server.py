"""A mail server that answers EHLO as the servers do that the proxy is for: STARTTLS in front of the greeting.

It runs in threads of the test's process, on sockets made on the host that the test has entered.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass, field

NAME = "mail.domain1.com"


@dataclass
class Session:
    """One connection, as the server sees it."""

    peer: str
    local: str
    tls: bool = False
    mails: list[bytes] = field(default_factory=list)
    header: bytes = b""
    ended: threading.Event = field(default_factory=threading.Event)


class BrokenServer:
    """Listens until it is closed.  `banner` None: accepts and says nothing."""

    def __init__(
        self,
        *addresses: tuple[str, int],
        context: ssl.SSLContext | None = None,
        banner: bytes | None = b"220 " + NAME.encode(),
    ) -> None:
        self.context = context
        self.banner = banner
        self.sessions: list[Session] = []
        self._sockets: set[socket.socket] = set()
        self._closed = False
        self._listeners = [
            socket.create_server(address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET, backlog=100)
            for address in addresses
        ]
        self._threads = [
            threading.Thread(target=self._accept, args=(listener,), daemon=True) for listener in self._listeners
        ]
        for thread in self._threads:
            thread.start()

    @property
    def mails(self) -> list[bytes]:
        return [mail for session in self.sessions for mail in session.mails]

    def close(self) -> None:
        self._closed = True
        for sock in [*self._listeners, *self._sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for listener in self._listeners:
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while not self._closed:
            try:
                sock, peer = listener.accept()
            except OSError:
                return
            session = Session(peer[0], sock.getsockname()[0])
            self.sessions.append(session)
            self._sockets.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock, session), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, session: Session) -> None:
        try:
            with contextlib.suppress(OSError, ValueError):
                if self.banner is None:
                    sock.recv(1)
                    return
                sock.sendall(self.banner + b" ESMTP Service ready\r\n")
                if self.banner.startswith(b"220"):
                    self._talk(sock, session)
        finally:
            session.ended.set()
            self._sockets.discard(sock)
            sock.close()

    def _talk(self, sock: socket.socket, session: Session) -> None:
        stream: socket.socket = sock
        lines = stream.makefile("rb")
        while line := lines.readline(4096):
            verb = line[:4].upper()
            if line.startswith(b"PROXY "):
                session.header = line
            if verb == b"EHLO":
                offers = [] if session.tls or self.context is None else [b"STARTTLS"]
                words = [*offers, NAME.encode(), b"8BITMIME", b"PIPELINING", b"DELIVERBY 300"]
                stream.sendall(b"".join(b"250-%s\r\n" % word for word in words[:-1]) + b"250 %s\r\n" % words[-1])
            elif line.upper().startswith(b"STARTTLS") and self.context is not None:
                stream.sendall(b"220 Ready to start TLS\r\n")
                lines.close()
                stream = self.context.wrap_socket(stream, server_side=True)
                self._sockets.add(stream)
                session.tls = True
                lines = stream.makefile("rb")
            elif verb == b"DATA":
                stream.sendall(b"354 go on\r\n")
                mail = b""
                while (part := lines.readline()) not in (b".\r\n", b""):
                    mail += part[1:] if part.startswith(b".") else part
                if part:
                    session.mails.append(mail)
                    stream.sendall(b"250 2.0.0 taken\r\n")
            elif verb == b"QUIT":
                stream.sendall(b"221 2.0.0 bye\r\n")
                break
            else:
                stream.sendall(b"250 2.0.0 ok\r\n")
        lines.close()
        if stream is not sock:
            self._sockets.discard(stream)
            stream.close()
