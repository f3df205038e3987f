"""One socket of a session: `ClientConnection` talks to the client, `ServerConnection` to the server.

This is the receiving half; sending and ending are `outgoing`'s.  What the bytes mean is not its business: until the
session has let go of its direction it gives what it reads to the `Carrier`; after that it relays to its peer by
`relay`, or in the kernel by `splice`.

The socket is registered once, edge-triggered (see `poller`), so every reason not to read on is remembered: `paused`
says why, `may_read` that there is something.  Reading stops after `READ_SIZE` bytes a turn, so that one fast sender
does not keep the others waiting.
"""

from __future__ import annotations

import select
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy.net.relay import inside_tls, relay
from proxy.net.relay.outgoing import Outgoing

if TYPE_CHECKING:
    from proxy.net.carrier.carrier import Carrier

READ_SIZE: Final = 16384  # also what the session reads in one turn: a flood of short lines costs some 10 ms
READS_A_TURN: Final = 16  # of that size, when all is thrown away
MAX_DISCARDED: Final = 1048576  # bytes of a peer that goes on talking after we have closed

_ENDINGS: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_READABLE: Final = select.EPOLLIN | _ENDINGS
_WRITABLE: Final = select.EPOLLOUT
_DATA: Final = select.EPOLLIN | select.EPOLLOUT


class Connection(Outgoing):
    """One end.  `carrier` is told what comes in."""

    __slots__ = ()

    def __str__(self) -> str:
        """Whose callback it is, for the log of slow turns."""
        story = self.carrier.story if self.carrier is not None else None
        session = f"session {story.id} of route {story.route}" if story is not None else "a session that is over"
        return f"{session}, {'client' if isinstance(self, ClientConnection) else 'server'} side"

    # -- what the poller and the deadlines call ----------------------------------------------------------------------

    def ready(self, mask: int) -> None:
        """Something may be possible now."""
        if self.relaying and (mask == _DATA or mask == select.EPOLLIN) and relay.passed(self):
            return
        if self.closed or self.securing:
            return
        if mask & _WRITABLE:
            if self.pending is not None or self.fin_wanted:
                self.flush()
            if self.peer is not None and self.peer.pipe is not None:
                self.peer.read(0)
        if (mask & _READABLE or not mask or self._read_waits_for_room()) and not self.closed:
            if self.ended:
                if self.broken or mask & select.EPOLLERR:
                    self._gone()
            elif self.relaying and not self.paused and self.channel is None:
                relay.pump(self, mask)
            else:
                self.read(mask)

    def _read_waits_for_room(self) -> bool:
        """Whether OpenSSL has to write before it can read on: an answer to a KeyUpdate, RFC 8446 4.6.3."""
        return self.channel is not None and self.channel.connection.want_write()

    def failed(self, error: BaseException) -> None:
        """A bug of ours in `ready`: end this session, loudly, and no other."""
        if self.carrier is not None:
            self.carrier.failed(error)
        self.abort()

    def deadline_passed(self, now: float) -> None:
        """The peer did not answer our close in time; or see again whether it can be reset without a loss."""
        if self.reset_wanted and self.pending is None and now < self.abort_at:
            self._reset()
        else:
            self.abort()

    # -- reading -----------------------------------------------------------------------------------------------------

    def read(self, mask: int) -> None:
        """Take what is there, give it to the carrier or relay it."""
        if self.ended:
            return
        if self.closing:
            self._discard()
            return
        if self.paused:
            self.may_read = True
            return
        if self.channel is not None:
            inside_tls.read(self, mask)
            return
        if self.relaying:
            relay.pump(self, mask)
            return
        carrier = self.carrier
        assert carrier is not None
        taken = 0
        while taken < READ_SIZE:
            try:
                data = self.sock.recv(READ_SIZE)
            except BlockingIOError:
                self.may_read = False
                return
            except OSError:
                self.finished(True)
                return
            if not data:
                self.finished(self.broken)
                return
            self.received(carrier, data)
            if self.closed or self.closing:
                return
            if self.paused or self.securing:
                self.may_read = True
                return
            if self.relaying or self.channel is not None:
                self.may_read = True
                self.poller.soon(self)
                return
            taken += len(data)
            # Without a mask (`soon`) an end may have been told while nothing was read: only EAGAIN says that all is in.
            if len(data) < READ_SIZE and mask and not mask & _ENDINGS:
                self.may_read = False
                return
        self.may_read = True
        self.poller.soon(self)

    def received(self, carrier: Carrier, data: bytes) -> None:
        """Bytes of a direction that the session reads."""
        raise TypeError("a ClientConnection or a ServerConnection")

    def finished(self, reset: bool) -> None:
        """Nothing more will come."""
        self.ended = True
        self.may_read = False
        carrier = self.carrier
        if self.closing or carrier is None:
            self.abort()
        else:
            carrier.ended(self, reset)

    def _gone(self) -> None:
        """The peer had ended before; now it is gone altogether."""
        self.broken = True
        if self.carrier is None:
            self.abort()
        else:
            self.carrier.ended(self, True)

    def _discard(self) -> None:
        """We are done with this side: only its end is waited for.  One that goes on talking is reset."""
        try:
            for _ in range(READS_A_TURN):
                data = self.sock.recv(READ_SIZE)
                if not data:
                    break
                self.discarded += len(data)
            else:
                if self.discarded > MAX_DISCARDED:
                    self.abort()
                else:
                    self.poller.soon(self)
                return
        except BlockingIOError:
            return
        except OSError:
            self.broken = True
        self.ended = True
        if self._said_all:
            self.abort()


class ClientConnection(Connection):
    """Talks to the client."""

    __slots__ = ()

    def received(self, carrier: Carrier, data: bytes) -> None:
        carrier.client_data(data, monotonic())


class ServerConnection(Connection):
    """Talks to the server."""

    __slots__ = ()

    def received(self, carrier: Carrier, data: bytes) -> None:
        carrier.server_data(data, monotonic())
