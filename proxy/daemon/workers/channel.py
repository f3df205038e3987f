"""What the parent and a worker say to each other, over a socket pair that each worker is born with.

Down: the settings, `drain`, `end`.  Up: `ready` or `failed`, then, `SNAPSHOTS_A_SECOND` times a second, a snapshot of
what was counted, so that what the parent shows is whole, or `alive` where nothing changed.  Frames have a length in
front.  The settings are pickled: both ends are this program, and the descriptor has no name.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.protocol import Factory
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

SNAPSHOTS_A_SECOND: Final = 5
MAX_FRAME: Final = 64 * 1024 * 1024


class Channel(Int32StringReceiver):
    """One end; `heard` is called with each message, `lost` when the other process is gone."""

    MAX_LENGTH = MAX_FRAME

    def __init__(self, heard: Callable[[str, Any], None], lost: Callable[[], None]) -> None:
        self.heard = heard
        self.lost = lost

    def say(self, what: str, told: Any = None, *, settings: bool = False) -> None:
        """Send one message; `told` is JSON-able, or with `settings` whatever pickle takes."""
        if self.transport is None:
            return
        body = pickle.dumps(told) if settings else json.dumps(told).encode("ascii")
        send: Callable[[bytes], None] = self.sendString
        send(what.encode("ascii") + (b"!" if settings else b":") + body)

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
