"""What the parent and a worker say to each other, over a socket pair that each worker is born with.

Down: `serve` and `settings`, each with the listening sockets that go with them, `drain`, `leave`, `end`.  Up: `ready`
or `failed`, `took` for each later `settings` (with what was wrong with it), `stopped`, and once a second at least a
snapshot of what was counted, so that what the parent shows is whole.  Frames have a length in front; descriptors go
along with the bytes (unix(7), SCM_RIGHTS) and are there before their message is whole.  The settings are pickled: both
ends are this program, and the descriptor has no name.
"""

from __future__ import annotations

import json
import pickle
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IFileDescriptorReceiver
from twisted.internet.protocol import Factory
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

MAX_FRAME: Final = 64 * 1024 * 1024


@implementer(IFileDescriptorReceiver)
class Channel(Int32StringReceiver):
    """One end; `heard` is called with each message, `lost` when the other process is gone."""

    MAX_LENGTH = MAX_FRAME

    def __init__(self, heard: Callable[[str, Any], None], lost: Callable[[], None]) -> None:
        self.heard = heard
        self.lost = lost
        self._received: deque[int] = deque()

    def say(self, what: str, told: Any = None, *, settings: bool = False, descriptors: Sequence[int] = ()) -> None:
        """Send one message; `told` is JSON-able, or with `settings` whatever pickle takes.

        `descriptors`, fewer than the message has bytes, must stay open until the other end has answered.
        """
        if self.transport is None:
            return
        body = pickle.dumps(told) if settings else json.dumps(told).encode("ascii")
        for descriptor in descriptors:
            self.transport.sendFileDescriptor(descriptor)  # type: ignore[attr-defined]  # of a UNIX socket
        send: Callable[[bytes], None] = self.sendString
        send(what.encode("ascii") + (b"!" if settings else b":") + body)

    def take(self, count: int) -> list[int]:
        """The next descriptors that came with the messages; the caller's to close."""
        return [self._received.popleft() for _ in range(count)]

    def fileDescriptorReceived(self, descriptor: int) -> None:
        self._received.append(descriptor)

    def stringReceived(self, string: bytes) -> None:
        for at, byte in enumerate(string):
            if byte in b":!":
                body = string[at + 1 :]
                told = pickle.loads(body) if byte == ord("!") else json.loads(body)  # noqa: S301  # our own process
                self.heard(string[:at].decode("ascii"), told)
                return

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]  # as in Twisted
        self.lost()


def adopt(reactor: Any, descriptor: int, channel: Channel) -> None:
    """Speak over an inherited socket.  `descriptor` is copied; the caller closes its own."""
    import socket

    class Once(Factory):
        noisy = False

        def buildProtocol(self, addr: object) -> Channel:
            return channel

    reactor.adoptStreamConnection(descriptor, socket.AF_UNIX, Once())
