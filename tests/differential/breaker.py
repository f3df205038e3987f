"""A relay that breaks one thing and nothing else: STARTTLS goes in front of the greeting of an EHLO reply in clear.

It stands in front of a real server, so that this server answers EHLO as those do that the proxy is for.
"""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress

from tests.scripted import LIMIT, Peer

_REPLY = re.compile(rb"(?m)^(250-\S+\r\n)((?:250-.*\r\n)*?)(250-STARTTLS\r\n)")

_LAST = re.compile(rb"(?m)^\d{3}(?: .*)?\n")


def broken(data: bytes) -> bytes:
    """Whatever EHLO replies are in the bytes, with STARTTLS first."""
    return _REPLY.sub(rb"\3\1\2", data)


class Breaker:
    """A script for `ScriptedServer`: relays to a port until both sides have ended."""

    def __init__(self, port: int) -> None:
        self.port = port

    def __call__(self, peer: Peer) -> None:
        with socket.create_connection(("127.0.0.1", self.port), LIMIT) as server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._relay, args=(server, peer.sock, True))
            back.start()
            self._relay(peer.sock, server, False)
            back.join(LIMIT * 2)

    @staticmethod
    def _relay(source: socket.socket, to: socket.socket, breaks: bool) -> None:
        held = b""  # of a reply that is not whole yet
        with suppress(OSError):
            while data := source.recv(262144):
                breaks = breaks and data[:1] not in b"\x14\x15\x16\x17"
                held += data
                end = len(held)
                if breaks:  # up to the last line that ends a reply
                    ends = [found.end() for found in _LAST.finditer(held)]
                    end = ends[-1] if ends else 0
                to.sendall(broken(held[:end]) if breaks else held[:end])
                held = held[end:]
            to.sendall(held)
        with suppress(OSError):
            to.shutdown(socket.SHUT_WR)
