"""One socket of a session: one end, whose far end is the client or the server.

What the bytes mean is not its business: until the session has let go of its direction it gives what it reads to the
`Carries` above it; after that it relays to its peer (`reading`).  What goes out is the `sender`'s.  Here is what the
poller and the deadlines call, how it is put into TLS, and how it is closed.

A close turns into a reset when the peer does not answer it.  A reset waits until the peer's kernel has confirmed all
that was sent before, or `abort`: it throws away what is on its way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.net.relay.reading import TOO_FAST, Closing, Reading
from proxy.net.relay.socket_ends import close_by_reset, unacknowledged

if TYPE_CHECKING:
    from proxy.net.tls.channel import TlsChannel

LOOK_AGAIN: Final = 0.02  # seconds between looks at what a peer that is to be reset has acknowledged
DISCARDED_AT_ONCE: Final = 16384
READS_A_TURN: Final = 16  # of that size, when all is thrown away
LOOK: Final = 65536  # bytes of what nobody takes any more, in one read, and ...
LOOKS_AT_MOST: Final = 128  # ... so many of them: 8 MiB, more than a socket holds


class Connection(Reading):
    """One end, with all of its life."""

    __slots__ = ()

    def __str__(self) -> str:
        """Whose callback it is, for the log of slow turns."""
        whose = str(self._carrier) if self._carrier is not None else "a session that is over"
        return f"{whose}, {self.side} side"

    def let_go(self) -> None:
        """What comes from here is relayed, unread."""
        self.relaying = True

    # -- what the deadlines and the sender call ----------------------------------------------------------------------

    def failed(self, error: BaseException) -> None:
        """A bug of ours in `ready`: end this session, loudly, and no other."""
        if self._carrier is not None:
            self._carrier.failed(error)
        self.abort()

    def deadline_passed(self, now: float) -> None:
        """The peer did not answer our close in time; or see again whether it can be reset without a loss; or go on
        reading a client that was too fast."""
        closing = self._closing
        if closing is None:
            self.resume(TOO_FAST)
        elif closing.resets and self.sender.pending is None and now < closing.abort_at:
            self._reset(closing)
        else:
            self.abort()

    def look_for_its_end(self) -> None:
        """The other side is gone for good, so nobody takes what has come from here; is there an end behind it?"""
        if self.ended or self.closed:
            return
        try:
            for _ in range(LOOKS_AT_MOST):
                data = self.sock.recv(LOOK)
                if not data:
                    self.ended = True
                    self.end_seen = not self.sender.reset_seen
                    return
                self.flow.came(data)
        except OSError:
            pass

    def _gone(self) -> None:
        """The peer had ended before; now it is gone altogether."""
        if self._carrier is None:
            self.abort()
        else:
            self._carrier.ended(self, True)

    # -- a handshake -------------------------------------------------------------------------------------------------

    def handshake_begins(self) -> None:
        """What comes is the handshake's from now on.  In a session that begins with TLS nothing may leave in clear."""
        self.securing = True
        if self.sender.pending is None:
            self.sender.hold_back()

    def clear_text_is_out(self) -> bool:
        """False while something that was said before has to leave first, in clear."""
        sender = self.sender
        if not sender.holds_back:
            if sender.flush():
                self._settle()
            if sender.pending is not None:
                return False
            sender.hold_back()
        return True

    def handshake_over(self, channel: TlsChannel | None) -> None:
        """Go on inside this, or, with None, forget what was meant for it."""
        self.securing = False
        self.channel = channel
        self.sender.handshake_over(channel)
        if channel is not None:
            self._may_read = True
            if self.sender.flush():
                self._settle()

    # -- our end -----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Nothing waits: do what was to come after."""
        closing = self._closing
        if closing is None:
            return
        if closing.resets:
            self._reset(closing)
        elif self.ended and self.sender.said_all:
            self.abort()

    def close(self, *, reset: bool, abort_after: float, clean: bool = True) -> None:
        """Send what waits, then close; a peer that does not answer within `abort_after` seconds is reset.

        `reset`: a reset instead of a close, once all is sent.
        """
        if self.closed:
            return
        sender = self.sender
        nothing_waits = sender.pending is None
        if nothing_waits and self.ended and self.channel is None and not reset:
            self.abort(reset=False)  # both have said their last: closing says it for us
            return
        closing = self._closing = Closing(self._deadlines.now() + abort_after, reset)
        self._carrier = None
        self.flow.give_pipe_back()
        self.relaying = False
        self.paused = 0
        if reset and nothing_waits:
            self._reset(closing)
            return
        if not reset:
            sender.finish(clean=clean)
        if sender.said_all and (self.ended or sender.broken):
            self.abort(reset=False)
            return
        self._deadlines.at(closing.abort_at, self)
        self._poller.soon(self)

    def _discard(self, closing: Closing) -> None:
        """We are done with this side: only its end is waited for.  One that goes on talking is reset."""
        try:
            for _ in range(READS_A_TURN):
                data = self.sock.recv(DISCARDED_AT_ONCE)
                if not data:
                    break
                if closing.goes_on(len(data)):
                    self.abort()
                    return
            else:
                self._poller.soon(self)
                return
        except BlockingIOError:
            return
        except OSError:
            self.sender.gone()
        self.ended = True
        if self.sender.said_all:
            self.abort()

    def _reset(self, closing: Closing) -> None:
        """Reset, but not before the peer's kernel has all that was sent: a reset throws away what is on its way."""
        if not self.sender.broken and unacknowledged(self.sock):
            self._deadlines.at(min(self._deadlines.now() + LOOK_AGAIN, closing.abort_at), self)
        else:
            self.abort(reset=True)

    def abort(self, *, reset: bool = True) -> None:
        """Close the socket now.  With `reset` the peer hears a reset unless it has ended by itself."""
        if self.closed:
            return
        self.closed = True
        self._carrier = None
        self._deadlines.cancel(self)
        if self.flow.pipe is not None:
            self.flow.give_pipe_back()
        if reset and not (self.ended and self.sender.fin_sent):
            close_by_reset(self.sock)
        fd = self.sock.fileno()
        if fd >= 0:
            self._poller.forget(fd)
        self.sender.forget()
        self.channel = None
        self.sock.close()
        self.part()
