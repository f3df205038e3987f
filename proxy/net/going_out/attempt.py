"""One attempt to connect one address: a non-blocking socket, its deadline, and what came of it.

`Attempt` raises OSError from its constructor when the kernel refuses at once (no route, no descriptors, no such source
address), with nothing left open.  Afterwards exactly one of its dial's `attempt_won` and `attempt_failed` is called,
from a turn of the poller or of the deadlines, unless it is closed before.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from typing import TYPE_CHECKING, Protocol

from proxy.net.going_out.transparent import bind_source

if TYPE_CHECKING:
    from proxy.net.going_out.destination import Server
    from proxy.net.waiting.deadlines import Deadlines
    from proxy.net.waiting.poller import Poller

# Nothing that the destination did: no descriptors, no memory, no local port, no such source address, not permitted.
OUR_OWN = frozenset({
    errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EPERM,
})  # fmt: skip

# The connection was up before these came, so there may be a reply to read in front of them.
_CONNECTED = frozenset({0, errno.ECONNRESET, errno.EPIPE})

_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_FAILED = select.EPOLLERR | select.EPOLLHUP
_DECIDED = select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP


class Attempting(Protocol):
    """Who made the attempt."""

    def attempt_won(self, attempt: Attempt, mask: int) -> None:
        """`attempt.sock` is connected and still registered in the poller."""

    def attempt_failed(self, attempt: Attempt, reason: str, code: int) -> None:
        """It is closed.  `code` is the errno."""

    def failed(self, error: BaseException) -> None:
        """A bug of ours."""


def reason_of(code: int) -> str:
    """An errno in a few words."""
    text = os.strerror(code)
    return text[:1].lower() + text[1:]


def family_of(address: str) -> int:
    """AF_INET or AF_INET6 of a textual address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Attempt:
    """A connection that is being made."""

    __slots__ = ("_deadlines", "_poller", "dial", "ends_at", "server", "sock", "started_at")

    def __init__(
        self,
        dial: Attempting,
        server: Server,
        poller: Poller,
        deadlines: Deadlines,
        started_at: float,
        ends_at: float,
        source: str,
        transparent: bool,
    ) -> None:
        """`source` is the address to connect from, empty for any; `transparent` when it is not this host's."""
        self.dial = dial
        self.server = server
        self._poller = poller
        self._deadlines = deadlines
        self.started_at = started_at
        self.ends_at = ends_at
        address = server.address
        self.sock = sock = socket.SocketType(family_of(address), _STREAM)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source:
                if (":" in source) != (":" in address):
                    raise OSError(errno.EAFNOSUPPORT, f"the source address {source} is of the other family")
                bind_source(sock, source, transparent)
            code = sock.connect_ex((address, server.port))
            if code and code != errno.EINPROGRESS:
                raise OSError(code, reason_of(code))
            poller.add(sock.fileno(), self)
        except BaseException:
            sock.close()
            raise
        deadlines.at(ends_at, self)

    def close(self) -> None:
        """Give it up."""
        self._deadlines.cancel(self)
        self._poller.remove(self.sock.fileno())
        self.sock.close()

    def ready(self, mask: int) -> None:
        if not mask & _DECIDED:
            return
        code = 0
        if mask & _FAILED:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code in _CONNECTED:
            self._deadlines.cancel(self)
            self.dial.attempt_won(self, mask)
        else:
            self.close()
            self.dial.attempt_failed(self, reason_of(code), code)

    def failed(self, error: BaseException) -> None:
        if self._poller.owner_of(self.sock.fileno()) is self:  # nobody took it over
            self.close()
        self.dial.failed(error)

    def deadline_passed(self, now: float) -> None:
        self.close()
        self.dial.attempt_failed(self, f"no connection within {now - self.started_at:.0f} s", errno.ETIMEDOUT)
