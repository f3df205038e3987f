"""The sending half of a connection: what is sent to one socket, what waits for it, and how it ends.

What is given to `write` is sent at once; what the kernel does not take is kept, and the other side is not read while
that is too much.  Then the half-close (FIN, and a close_notify before it where there is TLS), the close, which turns
into a reset when the peer does not answer it, and the reset that waits until what was sent has arrived.

Nothing here calls back from a write: an error while sending is noted and comes out where all errors do, in the next
read, after everything that the peer had sent before it.  So a reply that was followed by a reset is still delivered;
and a reset is passed on when the other side's kernel has confirmed all that was sent before, or after `abort`.

Limits: `MAX_PENDING` bytes wait in user space for a socket that does not take them; beyond it the other side is not
read (HAProxy holds two buffers of 16 KiB, Postfix's proxies one of 4).
"""

from __future__ import annotations

import errno
import socket
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from proxy.net.relay.socket_ends import close_by_reset, unacknowledged
from proxy.net.tls.problem import TlsProblem

if TYPE_CHECKING:
    from proxy.net.carrier.carrier import Carrier
    from proxy.net.relay.connection import Connection
    from proxy.net.relay.splice import Pipe
    from proxy.net.tls.channel import TlsChannel
    from proxy.net.waiting.deadlines import Deadlines
    from proxy.net.waiting.poller import Poller

MAX_PENDING: Final = 65536
LOOK_AGAIN: Final = 0.02  # seconds between looks at what a peer that is to be reset has acknowledged

PEER_FULL: Final = 1  # reasons for `paused`: the peer's socket does not take what it was given
SESSION_FULL: Final = 2  # the session holds as much of the client's as it wants to
TOO_FAST: Final = 4  # more commands came than anybody needs before a mail


class Outgoing(ABC):
    """One end of a session, with all that is known of it; `peer` is the other end once there is one."""

    __slots__ = (
        "abort_at", "broken", "carrier", "channel", "clean", "closed", "closing", "deadlines", "discarded", "end_seen",
        "ended", "fin_sent", "fin_wanted", "free_at", "holds_back", "lines", "may_read", "moved", "paused", "peer",
        "pending", "pipe", "poller", "queued", "relaying", "reset_seen", "reset_wanted", "securing", "sock",
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
        self.lines = 0  # that the session has read from here
        self.free_at = 0.0  # when the commands beyond FREE_COMMANDS are paid for
        self.queued = False  # waits for a turn behind all who want less
        self.relaying = False
        self.ended = False  # nothing more will come from here
        self.end_seen = False  # ... and it was an end: a FIN, whatever followed it
        self.reset_seen = False  # a write said that the peer has reset, without an end before
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

    # -- what the receiving half does --------------------------------------------------------------------------------

    @abstractmethod
    def ready(self, mask: int) -> None:
        """Something may be possible now (`poller.Watched`)."""

    @abstractmethod
    def failed(self, error: BaseException) -> None:
        """A bug of ours in `ready`."""

    @abstractmethod
    def deadline_passed(self, now: float) -> None:
        """What `close` or `_reset` has set (`deadlines.Timed`)."""

    # -- flow control ------------------------------------------------------------------------------------------------

    def pause(self, why: int) -> None:
        """Read no more for this reason, until `resume` is called with it."""
        self.paused |= why

    def resume(self, why: int) -> None:
        """That reason is gone."""
        if self.paused & why:
            self.paused &= ~why
            may_come = self.may_read or self.channel is not None or self.pipe is not None
            if may_come and not self.paused and not self.closed:
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
            except (OSError, TlsProblem) as error:
                self.unsendable(error)
                return
            if sent == len(data):
                return
            self.pending = bytearray(data[sent:])
        if len(self.pending) > MAX_PENDING and self.peer is not None:
            self.peer.pause(PEER_FULL)

    def unsendable(self, error: Exception) -> None:
        """The peer is gone, or its TLS is; what it said before is still to be read.

        Linux tells a reset that came behind a FIN as EPIPE, one without as ECONNRESET, and to one call only: the next
        `recv` gives an end in both cases.
        """
        self.broken = True
        self.reset_seen = not (isinstance(error, OSError) and error.errno == errno.EPIPE)
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
            except (OSError, TlsProblem) as error:
                self.unsendable(error)
                return
            if sent < len(pending):
                del pending[:sent]
                if len(pending) <= MAX_PENDING // 2 and self.peer is not None:
                    self.peer.resume(PEER_FULL)
                return
            self.pending = None
            if self.peer is not None:
                self.peer.resume(PEER_FULL)
        elif self.channel is not None:
            try:
                self.channel.flush()  # what TLS itself has to say
            except OSError as error:
                self.unsendable(error)
                return
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

    # -- the handshake (`proxy.net.tls.secure.Secured`) ----------------------------------------------------------------

    def handshake_begins(self) -> None:
        """What comes in is the handshake's; in a session that begins with TLS nothing leaves in clear."""
        self.securing = True
        self.holds_back = self.pending is None

    def clear_text_is_out(self) -> bool:
        """Whether all that was written before has left."""
        if not self.holds_back:
            self.flush()
            self.holds_back = self.pending is None
        return self.holds_back

    def handshake_over(self, channel: TlsChannel | None) -> None:
        """Read and write through `channel` from now on; without one, what waited for it is dropped."""
        self.securing = self.holds_back = False
        if channel is None:
            self.pending = None
        else:
            self.channel = channel
            self.may_read = True
            self.flush()

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
