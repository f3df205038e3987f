"""The receiving half of a connection: what comes goes to the session, or unread to the other end.

The socket is registered once, edge-triggered (see `poller`), so every reason not to read on is remembered: `paused`
says why, `_may_read` that there is something.  A turn is bounded (`pace`); who has more waits behind those who want
less.

Inside TLS (bridge mode) the channel gives one record at a time and may hold bytes for which no event will come, so it
is read until it has nothing; an end may be one without close_notify, which the carrier passes on as such.  A fault
there (a damaged record, an alert) is taken for a reset: nothing that comes behind it can be believed.

What a socket knows of its end is exact.  Behind a FIN Linux gives an end to every read, also when a reset followed; a
reset alone is ECONNRESET to one call, and an end to each later one: so an error that a write was told, or that stood
in an event, is remembered by the `Sender`.
"""

from __future__ import annotations

import select
import socket
from abc import ABC, abstractmethod
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from proxy.net.relay.pace import FREE_COMMANDS, PIECE, TURN, Pace
from proxy.net.relay.relay import ALL, END, RESET, TOO_MUCH, Flow
from proxy.net.relay.sender import Sender
from proxy.net.relay.socket_ends import error_of
from proxy.net.tls.problem import TlsProblem

if TYPE_CHECKING:
    from proxy.net.tls.channel import TlsChannel
    from proxy.net.waiting.deadlines import Deadlines
    from proxy.net.waiting.poller import Poller

PEER_FULL: Final = 1  # reasons for `paused`: the peer's socket does not take what it was given
SESSION_FULL: Final = 2  # the session holds as much of the client's as it wants to
TOO_FAST: Final = 4  # more commands came than anybody needs before a mail

MAX_RECORD: Final = 16384  # plaintext of one record, RFC 8446 5.1; OpenSSL never gives more at once
RECORDS_A_TURN: Final = 64  # then others have their turn: 1 MiB

MAX_DISCARDED: Final = 1048576  # bytes of a peer that goes on talking after we have closed

_ERROR: Final = select.EPOLLERR
_WRITABLE: Final = select.EPOLLOUT
_ENDINGS: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Carries(Protocol):
    """Who owns both connections of a session, and is told what comes in."""

    def client_data(self, data: bytes, now: float) -> None:
        """Bytes of the client that the session reads."""

    def server_data(self, data: bytes, now: float) -> None:
        """Bytes of the server that the session reads."""

    def ended(self, connection: Reading, reset: bool) -> None:
        """Nothing more comes from one side."""

    def failed(self, error: BaseException) -> None:
        """A bug of ours: end the session."""


class Closing:
    """Our own end of one side: until when it may take, and how much still comes."""

    __slots__ = ("_discarded", "abort_at", "resets")

    def __init__(self, abort_at: float, resets: bool) -> None:
        self.abort_at = abort_at  # when it turns into a reset
        self.resets = resets  # a reset instead of a close, once all is sent
        self._discarded = 0  # bytes that came since

    def goes_on(self, octets: int) -> bool:
        """So much more came; whether that is more than anybody says who has not yet heard that we have closed."""
        self._discarded += octets
        return self._discarded > MAX_DISCARDED


class Reading(ABC):
    """One end of a session, as it is read."""

    __slots__ = (
        "_carrier", "_closing", "_deadlines", "_lines", "_may_read", "_octets", "_pace", "_peer", "_poller", "channel",
        "closed", "end_seen", "ended", "flow", "paused", "relaying", "securing", "sender", "side", "sock",
    )  # fmt: skip

    def __init__(
        self, side: str, sock: socket.SocketType, carrier: Carries, poller: Poller, deadlines: Deadlines
    ) -> None:
        """`side`: who is at the other end of `sock`, client or server."""
        self.side = side
        self.sock = sock
        self.sender = Sender(sock, self)
        self.channel: TlsChannel | None = None
        self.flow = Flow()  # what is relayed from here
        self.paused = 0
        self.relaying = False
        self.ended = False  # nothing more will come from here
        self.end_seen = False  # ... and it was an end: a FIN, whatever followed it
        self.securing = False  # a TLS handshake is under way: what comes in is the handshake's alone
        self._closing: Closing | None = None
        self.closed = False
        self._carrier: Carries | None = carrier
        self._poller = poller
        self._deadlines = deadlines
        self._peer: Reading | None = None
        self._octets = 0  # that the session has read
        self._lines = 0  # ... in so many lines
        self._pace: Pace | None = None  # of one that has said more than is free
        self._may_read = False

    def join(self, peer: Reading) -> None:
        """From now on these two are the ends of one session."""
        self._peer = peer
        if peer._peer is not self:
            peer.join(self)

    def part(self) -> None:
        """No longer so."""
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.part()

    def too_full(self) -> None:
        """More waits for this socket than may."""
        if self._peer is not None:
            self._peer.pause(PEER_FULL)

    def has_room(self) -> None:
        """No longer so."""
        if self._peer is not None:
            self._peer.resume(PEER_FULL)

    def lost(self) -> None:
        """Nothing can be sent here any more."""
        self._may_read = True
        self._poller.soon(self)

    def pause(self, why: int) -> None:
        """Read no more for this reason, until `resume` is called with it."""
        self.paused |= why

    def resume(self, why: int) -> None:
        """That reason is gone."""
        if self.paused & why:
            self.paused &= ~why
            may_come = self._may_read or self.channel is not None or self.flow.pipe is not None
            if may_come and not self.paused and not self.closed:
                self._poller.soon(self)

    # -- reading -----------------------------------------------------------------------------------------------------

    def ready(self, mask: int) -> None:
        """Something may be possible now: take what is there, and give it to where it belongs."""
        if self.closed or self.securing:
            return
        sender = self.sender
        if mask & _ERROR:  # told once: it must not be forgotten while what came before is read
            sender.unsendable(error_of(self.sock))
        elif sender.wants_room and mask & _WRITABLE and not self._goes_on():
            return
        if mask == _WRITABLE:
            return
        if self.ended:
            if sender.broken:
                self._gone()
        elif self._closing is not None:
            self._discard(self._closing)
        elif sender.broken and self._pace is not None and not self.relaying and self.side == "client":
            self._finished()  # nobody is there to wait for the replies, nor to be kept waiting for 500 a second
        elif self.paused:
            self._may_read = True
        elif self.relaying and self.channel is None:
            self._relay(mask)
        elif self._pace is not None and not self.relaying and self._pace.has_to_queue():
            self._turn_over()
        elif self.channel is not None:
            self._read_tls(self.channel, mask)
        else:
            self._read_for_session(mask)

    def _goes_on(self) -> bool:
        """The socket takes more: send what waits.  False when that was the last of it."""
        if self.sender.flush():
            self._settle()
        peer = self._peer
        if peer is not None and peer.flow.pipe is not None:
            peer.ready(0)
        return not self.closed

    def _turn_over(self) -> None:
        """There is more to read: in the next turn, behind all who want less."""
        self._may_read = True
        if self._pace is not None:
            self._pace.queued()
        self._poller.later(self)

    def _read_for_session(self, mask: int) -> None:
        ends_at = 0.0
        while True:
            size = PIECE if self._pace is None else self._pace.piece
            try:
                data = self.sock.recv(size)
            except BlockingIOError:
                self._may_read = False
                return
            except OSError:
                self._reset_came()
                return
            if not data:
                self._finished()
                return
            now = monotonic()
            self._received(data, now)
            if self.closed or self._closing is not None:
                return
            if self.paused or self.securing:
                self._may_read = True
                return
            if self.relaying or self.channel is not None:
                self._may_read = True
                self._poller.soon(self)
                return
            # Without a mask (`soon`) an end may have been told while nothing was read: only EAGAIN says that all is in.
            if len(data) < size and mask and not mask & _ENDINGS:
                self._may_read = False
                return
            ends_at = ends_at or now + TURN
            if now >= ends_at or size < PIECE:
                break
        self._turn_over()

    def _read_tls(self, channel: TlsChannel, mask: int) -> None:
        only_bytes = mask and not mask & _ENDINGS
        ends_at = monotonic() + TURN
        for _ in range(RECORDS_A_TURN):
            size = MAX_RECORD if self.relaying else PIECE if self._pace is None else self._pace.piece
            try:
                data = channel.recv(size)
            except OSError:
                self._reset_came()
                return
            except TlsProblem:
                # One that we have ended without close_notify answers so (OpenSSL's own default): its end, not a fault.
                if self.sender.ended_bare:
                    self._finished()
                else:
                    self._reset_came()
                return
            if data is None:
                if channel.more:
                    break
                self._may_read = False
                return
            if not data:
                self._finished()
                return
            if not self.relaying:
                self._received(data, monotonic())
            elif self._peer is not None and self._carrier is not None:
                self.flow.decrypted(data)
                self._peer.sender.write(data)
            if self.closed or self._closing is not None:
                return
            if self.paused or self.securing:
                self._may_read = True
                return
            if size < PIECE or monotonic() >= ends_at:
                break
            if only_bytes and len(data) < size and not channel.has_more():
                self._may_read = False
                return
        self._turn_over()

    def _received(self, data: bytes, now: float) -> None:
        """Bytes of a direction that the session reads."""
        carrier = self._carrier
        assert carrier is not None
        self._octets += len(data)
        if self.side == "server":
            carrier.server_data(data, now)
        else:
            carrier.client_data(data, now)
        if not self.relaying:  # what made the session let go may be long, and no line
            lines = data.count(b"\n")
            self._lines += lines
            if self._lines > FREE_COMMANDS:
                self._said_much(lines, now)

    def _said_much(self, lines: int, now: float) -> None:
        """More than any mail begins with: small pieces in turns of their own, and of a client 500 commands a second."""
        pace = self._pace
        if pace is None:
            pace = self._pace = Pace()
        until = pace.said(lines, self._lines, now)
        may_pause = not (self._closing is not None or self.closed or self.securing)
        if until and may_pause and self.side == "client":
            self.pause(TOO_FAST)
            self._deadlines.at(until, self)

    # -- relaying ----------------------------------------------------------------------------------------------------

    def _relay(self, mask: int) -> None:
        """Give to the peer what is there."""
        peer = self._peer
        if peer is None:
            return
        to = peer.sender
        if to.broken:
            if not self.sender.broken:
                # For nobody; the end comes when what the peer said last has been taken, or never, and then in time.
                self._may_read = True
                return
            self.flow.give_pipe_back()  # nor does this side take what the peer said last: it is read to its end
        only_bytes = mask != 0 and not mask & _ENDINGS  # the event told of no end
        came = self.flow.carry(self.sock, to, only_bytes, peer.channel is None)
        if came == ALL:
            self._may_read = False
        elif came == END:
            self._finished()
        elif came == RESET:
            self._reset_came()
        elif came == TOO_MUCH:
            self._may_read = True
        else:
            self._turn_over()

    # -- its end -----------------------------------------------------------------------------------------------------

    def _finished(self) -> None:
        """The peer's end was read; it may be gone altogether since."""
        sender = self.sender
        self._is_over(not sender.reset_seen, sender.broken)

    def _reset_came(self) -> None:
        """Nothing more will come, and there was no end before."""
        self._is_over(False, True)

    def _is_over(self, end_seen: bool, gone: bool) -> None:
        self.ended = True
        self.end_seen = end_seen
        self._may_read = False
        carrier = self._carrier
        if self._closing is not None or carrier is None:
            self.abort()
        else:
            carrier.ended(self, gone)

    @property
    def closing(self) -> bool:
        """Whether nothing more is to be sent but what waits."""
        return self.closed or self._closing is not None

    @property
    def octets(self) -> int:
        """How many bytes have come."""
        return self._octets + self.flow.moved

    @property
    def end_was_clean(self) -> bool:
        """False when this side's TLS ended without a close_notify: the other side's then ends so, too."""
        return self.channel is None or not self.ended or self.channel.clean_end

    # -- what the other half does ------------------------------------------------------------------------------------

    @abstractmethod
    def failed(self, error: BaseException) -> None:
        """A bug of ours in `ready`."""

    @abstractmethod
    def deadline_passed(self, now: float) -> None:
        """What was asked of the deadlines has come."""

    @abstractmethod
    def abort(self, *, reset: bool = True) -> None:
        """Close the socket now."""

    @abstractmethod
    def _discard(self, closing: Closing) -> None:
        """What comes is for nobody any more."""

    @abstractmethod
    def _gone(self) -> None:
        """The peer had ended before; now it is gone altogether."""

    @abstractmethod
    def _settle(self) -> None:
        """Nothing waits to be sent: do what was to come after."""
