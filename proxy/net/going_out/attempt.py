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
from typing import TYPE_CHECKING, Final, Protocol

from proxy.net.going_out.transparent import bind_source

if TYPE_CHECKING:
    from proxy.net.going_out.destination import Server
    from proxy.net.going_out.dialer import Dialer

# Nothing that the destination did: no descriptors, no memory, no local port, no such source address, not permitted.
OUR_OWN = frozenset({
    errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EPERM,
})  # fmt: skip

# The connection was up before these came, so there may be a reply to read in front of them.
_CONNECTED = frozenset({0, errno.ECONNRESET, errno.EPIPE})

_INET: Final = int(socket.AF_INET)
_INET6: Final = int(socket.AF_INET6)
_STREAM: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_TCP: Final = socket.IPPROTO_TCP
_NODELAY: Final = socket.TCP_NODELAY
_IN_PROGRESS: Final = errno.EINPROGRESS
_FAILED: Final = select.EPOLLERR | select.EPOLLHUP
_DECIDED: Final = select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP


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


class Attempt:
    """A connection that is being made."""

    __slots__ = ("_dialer", "dial", "server", "sock", "started_at")

    def __init__(
        self, dial: Attempting, dialer: Dialer, server: Server, source: str, started_at: float, ends_at: float
    ) -> None:
        """`source` is the address to connect from, empty for any."""
        self.dial = dial
        self.server = server
        self._dialer = dialer
        self.started_at = started_at
        address = server.address
        self.sock = sock = socket.SocketType(_INET6 if ":" in address else _INET, _STREAM)
        try:
            sock.setsockopt(_TCP, _NODELAY, 1)
            if source:
                if (":" in source) != (":" in address):
                    raise OSError(errno.EAFNOSUPPORT, f"the source address {source} is of the other family")
                bind_source(sock, source, dialer.transparent)
            code = sock.connect_ex((address, server.port))
            if code != _IN_PROGRESS and code:
                raise OSError(code, reason_of(code))
            dialer.poller.add(sock.fileno(), self)
        except BaseException:
            sock.close()
            raise
        dialer.deadlines.at(ends_at, self)

    def close(self) -> None:
        """Give it up."""
        self._dialer.deadlines.cancel(self)
        self._dialer.poller.remove(self.sock.fileno())
        self.sock.close()

    def ready(self, mask: int) -> None:
        if not mask & _DECIDED:
            return
        code = 0
        if mask & _FAILED:
            code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code in _CONNECTED:
            self._dialer.deadlines.cancel(self)
            self.dial.attempt_won(self, mask)
        else:
            self.close()
            self.dial.attempt_failed(self, reason_of(code), code)

    def failed(self, error: BaseException) -> None:
        if self._dialer.poller.owner_of(self.sock.fileno()) is self:  # nobody took it over
            self.close()
        self.dial.failed(error)

    def deadline_passed(self, now: float) -> None:
        self.close()
        self.dial.attempt_failed(self, f"no connection within {now - self.started_at:.0f} s", errno.ETIMEDOUT)
