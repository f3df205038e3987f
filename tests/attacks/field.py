"""Where one attack takes place: the port it goes to, how long it lasts, and what it is made of.

The attackers run in threads of the test's process, with a low priority: they stand for machines elsewhere, which would
take no processor time from the proxy's.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.scripted import Ended

if TYPE_CHECKING:
    from tests.bridge.parties import Keys
    from tests.certificates import Issued
    from tests.proxy_process import Running
    from tests.scripted import Peer

NICE = 10


class Field:
    """What the two sides of one attack share."""

    def __init__(self, keys: Keys, ours: Issued) -> None:
        self.keys = keys
        self.ours = ours  # what the proxy shows in bridge mode
        self.port = 0  # the proxy's
        self.until = 0.0
        self.hits = 0  # what was done of that which makes it an attack; without any it shows nothing
        self.running: Running | None = None

    def lasts(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds

    def going(self) -> bool:
        """Whether the attack still lasts."""
        return time.monotonic() < self.until

    def wait(self, seconds: float = 1e9) -> None:
        """So long, or until the attack is over."""
        ends_at = min(self.until, time.monotonic() + seconds)
        while (left := min(ends_at, self.until) - time.monotonic()) > 0:
            time.sleep(min(0.2, left))

    def pour(self, peer: Peer, data: bytes) -> int:
        """Send `data` again and again until the attack is over or the peer is gone; how much went."""
        sent = 0
        peer.sock.settimeout(0.1)
        while self.going():
            try:
                sent += peer.sock.send(data)
                self.hits += 1
            except TimeoutError:
                continue
            except OSError:
                break
        return sent

    def swallow(self, peer: Peer) -> int:
        """Read until the attack or the stream is over, keeping nothing; how much came."""
        got = 0
        peer.sock.settimeout(0.1)
        while self.going():
            try:
                data = peer.sock.recv(1 << 20)
            except TimeoutError:
                continue
            except OSError:
                break
            if not data:
                break
            got += len(data)
            self.hits += 1
        return got


Act = Callable[[Field], None]
Serve = Callable[[Field, "Peer"], None]


@dataclass(frozen=True)
class Attack:
    """`act`: one attacker, from connecting to its end; `at_once` of them.  `serve`: the server of its route."""

    act: Act
    serve: Serve | None = None
    at_once: int = 2
    again: bool = True  # an attacker whose session is over comes again while the attack lasts
    bridge: Mapping[str, Any] | None = None  # the route's `tls`, in bridge mode
    keys: Mapping[str, Any] = field(default_factory=dict)  # the route's other settings
    flood: tuple[str, ...] = ()  # of `tests.end_to_end.flood`, which is its own attacker and server
    names: Callable[[bytes], list[bytes]] | None = None  # what a name server says to a question
    destinations: int = 1
    descriptors: int = 0
    worst: bool = False  # one of those that held everybody, or nearly: it is in the normal run


def attacker(attack: Attack, ground: Field) -> None:
    """One thread of the attack."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
    while ground.going():
        try:
            attack.act(ground)
        except (OSError, EOFError, AssertionError, Ended):
            time.sleep(0.01)  # the proxy has had enough of it
        if not attack.again:
            return
