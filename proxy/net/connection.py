"""One socket of a session: `ClientConnection` talks to the client, `ServerConnection` to the server.

What it does: reads when there is something to read, sends at once what it is given and keeps what the kernel does not
take, stops its peer's reading when that is too much, half-closes, closes, and turns a close that is not answered into
a reset.  What the bytes mean is not its business: until the session has let go of its direction it gives what it reads
to the `Carrier`; after that it relays to its peer by `relay.pump`, or in the kernel by `splice`.

The socket is registered once, edge-triggered (see `poller`), so every reason not to read on is remembered: `paused`
says why, `may_read` that there is something.  What the session reads in one turn is `READ_SIZE`, what it discards
`READS_A_TURN` times as much, so that one fast sender does not keep the others waiting.

Nothing here calls back from a write: an error while sending is noted and comes out where all errors do, in the next
read, after everything that the peer had sent before it.  So a reply that was followed by a reset is still delivered;
and a reset is passed on when the other side's kernel has confirmed all that was sent before, or after `abort`.

Limits: `MAX_PENDING` bytes wait in user space for a socket that does not take them; beyond it the other side is not
read (HAProxy holds two buffers of 16 KiB, Postfix's proxies one of 4).
"""

from __future__ import annotations

import select
import socket
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy.net import inside_tls, relay
from proxy.net.socket_ends import close_by_reset, unacknowledged
from proxy.net.tls_problem import TlsProblem

if TYPE_CHECKING:
    from proxy.net.carrier import Carrier
    from proxy.net.deadlines import Deadlines
    from proxy.net.poller import Poller
    from proxy.net.splice import Pipe
    from proxy.net.tls import TlsChannel

READ_SIZE: Final = 16384  # also what the session reads in one turn: a flood of short lines costs some 10 ms
READS_A_TURN: Final = 16
MAX_DISCARDED: Final = 1048576  # bytes of a peer that goes on talking after we have closed
MAX_PENDING: Final = 65536
LOOK_AGAIN: Final = 0.02  # seconds between looks at what a peer that is to be reset has acknowledged

PEER_FULL: Final = 1  # reasons for `paused`: the peer's socket does not take what it was given
SESSION_FULL: Final = 2  # the session holds as much of the client's as it wants to

_ENDINGS: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_READABLE: Final = select.EPOLLIN | _ENDINGS
_WRITABLE: Final = select.EPOLLOUT
_DATA: Final = select.EPOLLIN | select.EPOLLOUT


class Connection:
    """One end.  `carrier` is told what comes in; `peer` is the other end once there is one."""

    __slots__ = (
        "abort_at", "broken", "carrier", "channel", "clean", "closed", "closing", "deadlines", "discarded", "ended",
        "fin_sent", "fin_wanted", "holds_back", "may_read", "moved", "paused", "peer", "pending", "pipe", "poller",
        "relaying", "reset_wanted", "securing", "sock",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, carrier: Carrier, poller: Poller, deadlines: Deadlines) -> None:
        self.sock = sock
        self.carrier: Carrier | None = carrier
        self.poller = poller
        self.deadlines = deadlines
        self.peer: Connection | None = None
        self.channel: TlsChannel | None = None
        self.pending: bytearray | None = None  # what the socket did not take yet
        self.pipe: Pipe | None = None  # the kernel's buffer of this direction, for a long relay
        self.moved = 0  # bytes relayed from here
        self.paused = 0
        self.may_read = False
        self.relaying = False
        self.ended = False  # nothing more will come from here
        self.broken = False  # nothing can be sent here any more
        self.securing = False  # a TLS handshake is under way: what comes in is the handshake's alone
        self.holds_back = False  # ... and what is written waits for it
        self.clean = True  # our end of TLS is one with close_notify
        self.fin_wanted = False
        self.fin_sent = False
        self.reset_wanted = False
        self.abort_at = 0.0  # when closing turns into a reset
        self.closing = False
        self.closed = False
        self.discarded = 0  # bytes that came after we had closed

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
        if (mask & _READABLE or not mask) and not self.closed:
            if self.ended:
                if self.broken or mask & select.EPOLLERR:
                    self._gone()
            elif self.relaying and not self.paused and self.channel is None:
                relay.pump(self, mask)
            else:
                self.read(mask)

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
            inside_tls.read(self)
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

    def pause(self, why: int) -> None:
        """Read no more for this reason, until `resume` is called with it."""
        self.paused |= why

    def resume(self, why: int) -> None:
        """That reason is gone."""
        if self.paused & why:
            self.paused &= ~why
            if (
                not self.paused
                and (self.may_read or self.channel is not None or self.pipe is not None)
                and not self.closed
            ):
                self.poller.soon(self)

    # -- writing -----------------------------------------------------------------------------------------------------

    def write(self, data: bytes | memoryview) -> None:
        """Send at once; what does not go is kept and sent when it can be."""
        if self.pending is not None:
            self.pending += data
        elif self.holds_back:
            self.pending = bytearray(data)
        elif self.broken or self.fin_sent or self.closed:
            return
        else:
            try:
                sent = self.sock.send(data) if self.channel is None else self.channel.send(data)
            except BlockingIOError:
                sent = 0
            except (OSError, TlsProblem):
                self._unsendable()
                return
            if sent == len(data):
                return
            self.pending = bytearray(data[sent:])
        if len(self.pending) > MAX_PENDING and self.peer is not None:
            self.peer.pause(PEER_FULL)

    def _unsendable(self) -> None:
        """The peer is gone, or its TLS is; what it said before is still to be read."""
        self.broken = True
        self.pending = None
        if self.peer is not None:
            self.peer.resume(PEER_FULL)
        self.may_read = True
        self.poller.soon(self)

    def flush(self) -> None:
        """Send what waits, then what was to follow it."""
        pending = self.pending
        if self.holds_back:
            return
        if pending is not None:
            try:
                sent = self.sock.send(pending) if self.channel is None else self.channel.send(pending)
            except BlockingIOError:
                return
            except (OSError, TlsProblem):
                self._unsendable()
                return
            if sent < len(pending):
                del pending[:sent]
                if len(pending) <= MAX_PENDING // 2 and self.peer is not None:
                    self.peer.resume(PEER_FULL)
                return
            self.pending = None
            if self.peer is not None:
                self.peer.resume(PEER_FULL)
        self._settle()

    def _settle(self) -> None:
        """Nothing waits: do what was to come after."""
        if self.fin_wanted and not self.fin_sent:
            self._send_fin()
        if self.reset_wanted:
            self._reset()
        elif self.closing and self.ended and self._said_all:
            self.abort()

    @property
    def _said_all(self) -> bool:
        """Nothing waits to be sent, a close_notify included."""
        return self.broken or (self.pending is None and (self.fin_sent or not self.fin_wanted))

    def _send_fin(self) -> None:
        if self.broken:
            self.fin_sent = True
            return
        try:
            if self.channel is not None and self.clean and not self.channel.shutdown():
                return  # no room for the close_notify: again when there is
            self.fin_sent = True
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.broken = True

    @property
    def end_was_clean(self) -> bool:
        """False when this side's TLS ended without a close_notify: the other side's then ends so, too."""
        return self.channel is None or not self.ended or self.channel.clean_end

    # -- ending ------------------------------------------------------------------------------------------------------

    def finish(self, *, clean: bool = True) -> None:
        """Half-close once all is sent: FIN, and a close_notify before it if `clean`."""
        self.fin_wanted = True
        self.clean = clean
        if self.pending is None and not self.fin_sent:
            self._send_fin()

    def close(self, *, reset: bool, abort_after: float, clean: bool = True) -> None:
        """Send what waits, then close; a peer that does not answer within `abort_after` seconds is reset.

        `reset`: a reset instead of a close, once all is sent.
        """
        if self.closed:
            return
        self.closing = True
        self.carrier = None
        if self.pipe is not None:
            self.pipe.give_back()
            self.pipe = None
        self.relaying = False
        self.paused = 0
        self.reset_wanted = reset
        self.abort_at = self.deadlines.now() + abort_after
        if self.pending is None:
            if reset:
                self._reset()
                return
            if self.ended and self.channel is None:
                self.abort(reset=False)  # both have said their last: closing says it for us
                return
        if not reset:
            self.finish(clean=clean)
        if self._said_all and (self.ended or self.broken):
            self.abort(reset=False)
            return
        self.deadlines.at(self.abort_at, self)
        self.poller.soon(self)

    def _reset(self) -> None:
        """Reset, but not before the peer's kernel has all that was sent: a reset throws away what is on its way."""
        if not self.broken and unacknowledged(self.sock):
            self.deadlines.at(min(self.deadlines.now() + LOOK_AGAIN, self.abort_at), self)
        else:
            self.abort(reset=True)

    def abort(self, *, reset: bool = True) -> None:
        """Close the socket now.  With `reset` the peer hears a reset unless it has ended by itself."""
        if self.closed:
            return
        self.closed = True
        self.closing = True
        self.carrier = None
        self.deadlines.cancel(self)
        if self.pipe is not None:
            self.pipe.give_back()
            self.pipe = None
        if reset and not (self.ended and self.fin_sent):
            close_by_reset(self.sock)
        fd = self.sock.fileno()
        if fd >= 0:
            self.poller.forget(fd)
        self.pending = None
        self.channel = None
        self.sock.close()
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.peer = None

    @property
    def waiting(self) -> int:
        """Bytes that wait here for the socket."""
        return 0 if self.pending is None else len(self.pending)


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
