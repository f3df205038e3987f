"""One socket of a session: `ClientConnection` talks to the client, `ServerConnection` to the server.

This is the receiving half; sending and ending are `outgoing`'s.  What the bytes mean is not its business: until the
session has let go of its direction it gives what it reads to the `Carrier`; after that it relays to its peer by
`relay`, or in the kernel by `splice`.

The socket is registered once, edge-triggered (see `poller`), so every reason not to read on is remembered: `paused`
says why, `may_read` that there is something.

Nobody holds the others.  What the session reads comes in pieces of at most `PIECE` bytes; a turn ends after `TURN`
seconds; and a peer that has said `MANY_LINES` lines gets small pieces, each in a turn that comes when all who want less
have had theirs (`Poller.later`).  A line costs the session some 1.5 us, so a piece of 512 bytes at most 1 ms.  Of a
client's commands `FREE_COMMANDS` are free (Postfix: smtpd_junk_command_limit); what is beyond is read at 500 a second.
"""

from __future__ import annotations

import select
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy.net.relay import inside_tls, relay
from proxy.net.relay.outgoing import TOO_FAST, Outgoing
from proxy.net.relay.socket_ends import has_left

if TYPE_CHECKING:
    from proxy.net.carrier.carrier import Carrier

PIECE: Final = 4096  # bytes that the session is given at once: more than nearly every EHLO reply
SMALL_PIECE: Final = 512
MANY_LINES: Final = 200
TURN: Final = 0.002  # seconds
FREE_COMMANDS: Final = 100
A_COMMAND: Final = 0.002  # seconds that each one beyond costs
WORTH_A_PAUSE: Final = 0.05  # seconds; less is added up

DISCARDED_AT_ONCE: Final = 16384
READS_A_TURN: Final = 16  # of that size, when all is thrown away
MAX_DISCARDED: Final = 1048576  # bytes of a peer that goes on talking after we have closed

LOOKS_AT_MOST: Final = 128  # reads of what nobody takes any more: 8 MiB, more than a socket holds
_SCRATCH: Final = bytearray(65536)

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
            if self.pending is not None or self.fin_wanted or (self.channel is not None and self.channel.unsent):
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
        """The peer did not answer our close in time; or see again whether it can be reset without a loss; or go on
        reading a client that was too fast."""
        if not self.closing:
            self.resume(TOO_FAST)
        elif self.reset_wanted and self.pending is None and now < self.abort_at:
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
        if self.has_to_queue():
            return
        carrier = self.carrier
        assert carrier is not None
        ends_at = monotonic() + TURN
        while True:
            size = self.piece
            try:
                data = self.sock.recv(size)
            except BlockingIOError:
                self.may_read = False
                return
            except OSError:
                self.finished(True)
                return
            if not data:
                self.finished(self.broken)
                return
            now = monotonic()
            self.received(carrier, data, now)
            if self.closed or self.closing:
                return
            if self.paused or self.securing:
                self.may_read = True
                return
            if self.relaying or self.channel is not None:
                self.may_read = True
                self.poller.soon(self)
                return
            # Without a mask (`soon`) an end may have been told while nothing was read: only EAGAIN says that all is in.
            if len(data) < size and mask and not mask & _ENDINGS:
                self.may_read = False
                return
            if now >= ends_at or size == SMALL_PIECE:
                break
        self.turn_over()

    # -- fairness ----------------------------------------------------------------------------------------------------

    @property
    def piece(self) -> int:
        """How many bytes the session is given at once."""
        return PIECE if self.lines < MANY_LINES else SMALL_PIECE

    def has_to_queue(self) -> bool:
        """Whether this peer has said so much that it has to wait for its turn; then it is told again."""
        if self.lines < MANY_LINES:
            return False
        self.queued = not self.queued
        if self.queued:
            self.may_read = True
            self.poller.later(self)
        return self.queued

    def turn_over(self) -> None:
        """There is more to read: in the next turn, behind all who want less."""
        self.may_read = True
        self.queued = True
        self.poller.later(self)

    def slow_down(self, commands: int, now: float) -> None:
        """The client has said so many commands beyond the free ones: it has to pay for them in time."""
        self.free_at = max(self.free_at, now) + commands * A_COMMAND
        if self.free_at - now > WORTH_A_PAUSE and not (self.relaying or self.closing or self.securing):
            self.pause(TOO_FAST)
            self.deadlines.at(self.free_at, self)

    def received(self, carrier: Carrier, data: bytes, now: float) -> None:
        """Bytes of a direction that the session reads."""
        raise TypeError("a ClientConnection or a ServerConnection")

    def finished(self, reset: bool) -> None:
        """Nothing more will come: `reset` when the peer is gone altogether, be it before or after an end of its own."""
        self.ended = True
        self.end_seen = not reset or (self.broken and not self.reset_seen)
        self.may_read = False
        carrier = self.carrier
        if self.closing or carrier is None:
            self.abort()
        else:
            carrier.ended(self, reset)

    def look_for_its_end(self) -> None:
        """The other side is gone for good, so nobody takes what still comes from here; was there an end behind it?"""
        if self.ended or self.closed or not has_left(self.sock):
            return
        try:
            for _ in range(LOOKS_AT_MOST):
                count = self.sock.recv_into(_SCRATCH)
                self.moved += count
                if not count:
                    self.ended = True
                    self.end_seen = not self.reset_seen
                    return
        except OSError:
            pass

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
                data = self.sock.recv(DISCARDED_AT_ONCE)
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

    def received(self, carrier: Carrier, data: bytes, now: float) -> None:
        carrier.client_data(data, now)
        lines = data.count(b"\n")
        self.lines += lines
        if self.lines > FREE_COMMANDS:
            self.slow_down(min(lines, self.lines - FREE_COMMANDS), now)


class ServerConnection(Connection):
    """Talks to the server."""

    __slots__ = ()

    def received(self, carrier: Carrier, data: bytes, now: float) -> None:
        carrier.server_data(data, now)
        self.lines += data.count(b"\n")
