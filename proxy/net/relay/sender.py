"""The sending half of a connection: what is sent to one socket, what waits for it, and our end of it.

What is given to `write` is sent at once; what the kernel does not take is kept, and the other side is not read while
that is too much.  Then the half-close: FIN, and a close_notify before it where there is TLS.

Nothing here calls back from a write but for flow control: an error while sending is noted and comes out where all
errors do, in the next read, after everything that the peer had sent before it.  So a reply that was followed by a reset
is still delivered.

Limits: `MAX_PENDING` bytes wait in user space for a socket that does not take them; beyond it the other side is not
read (HAProxy holds two buffers of 16 KiB, Postfix's proxies one of 4).
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final, Protocol

from proxy.net.tls.problem import TlsProblem

if TYPE_CHECKING:
    from proxy.net.relay.splice import Pipe
    from proxy.net.tls.channel import TlsChannel

MAX_PENDING: Final = 65536


class Feeds(Protocol):
    """Who is told how it stands with the socket; never from within `flush`'s caller's own `write`."""

    def too_full(self) -> None:
        """More waits than may; what comes for this socket should not be read."""

    def has_room(self) -> None:
        """No longer so."""

    def lost(self) -> None:
        """Nothing can be sent any more: what the peer said before is still to be read."""


class Sender:
    """One socket's outgoing half."""

    __slots__ = (
        "_clean", "_feeds", "_sock", "broken", "channel", "fin_sent", "fin_wanted", "holds_back", "pending",
        "reset_seen", "wants_room",
    )  # fmt: skip

    def __init__(self, sock: socket.SocketType, feeds: Feeds) -> None:
        self._sock = sock
        self._feeds: Feeds | None = feeds
        self._clean = True  # our end of TLS is one with close_notify
        self.channel: TlsChannel | None = None
        self.pending: bytearray | None = None  # what the socket did not take yet
        self.holds_back = False  # a TLS handshake is under way: what is written waits for it
        self.broken = False  # nothing can be sent here any more
        self.reset_seen = False  # a write said that the peer has reset, without an end before
        self.wants_room = False  # there is, or may be, something to do when the socket takes more
        self.fin_wanted = False
        self.fin_sent = False

    # -- bytes -------------------------------------------------------------------------------------------------------

    def write(self, data: bytes | memoryview) -> None:
        """Send at once; what does not go is kept and sent when it can be."""
        if self.pending is not None:
            self.pending += data
        elif self.holds_back:
            self.pending = bytearray(data)
        elif self.broken or self.fin_sent:
            return
        else:
            try:
                sent = self._sock.send(data) if self.channel is None else self.channel.send(data)
            except BlockingIOError:
                sent = 0
            except (OSError, TlsProblem) as error:
                self.unsendable(error)
                return
            if sent == len(data):
                return
            self.pending = bytearray(data[sent:])
            self.wants_room = True
        if len(self.pending) > MAX_PENDING and self._feeds is not None:
            self._feeds.too_full()

    def take(self, pipe: Pipe) -> int:
        """Send what the socket takes of what the pipe holds: how many bytes."""
        try:
            sent = pipe.give(self._sock.fileno())
        except OSError as error:
            self.unsendable(error)
            return 0
        self.wants_room = self.wants_room or pipe.holds > 0
        return sent

    def flush(self) -> bool:
        """Send what waits, then the end that was to follow it.  False while something waits, or nothing can go."""
        pending = self.pending
        if self.holds_back:
            return False
        try:
            if pending is not None:
                sent = self._sock.send(pending) if self.channel is None else self.channel.send(pending)
                if sent < len(pending):
                    del pending[:sent]
                    if len(pending) <= MAX_PENDING // 2 and self._feeds is not None:
                        self._feeds.has_room()
                    return False
                self.pending = None
                if self._feeds is not None:
                    self._feeds.has_room()
            elif self.channel is not None:
                self.channel.flush()  # what TLS itself has to say
        except BlockingIOError:
            return False
        except (OSError, TlsProblem) as error:
            self.unsendable(error)
            return False
        if self.fin_wanted and not self.fin_sent:
            self._send_fin()
        self.wants_room = self.channel is not None or self.fin_wanted
        return True

    def unsendable(self, error: Exception) -> None:
        """The peer is gone, or its TLS is; what it said before is still to be read.

        Linux tells a reset that came behind a FIN as EPIPE, one without as ECONNRESET; after that each call is EPIPE.
        """
        if not self.broken:
            self.reset_seen = not (isinstance(error, OSError) and error.errno == errno.EPIPE)
        self.gone()
        if self._feeds is not None:
            self._feeds.lost()

    def gone(self) -> None:
        """The peer is known to take no more."""
        self.broken = True
        self.pending = None
        if self._feeds is not None:
            self._feeds.has_room()

    # -- TLS ---------------------------------------------------------------------------------------------------------

    def hold_back(self) -> None:
        """From now on what is written waits: a handshake is under way."""
        self.holds_back = True
        self.wants_room = True

    def handshake_over(self, channel: TlsChannel | None) -> None:
        """What was held back goes through `channel`; None: it was meant for inside TLS, and is forgotten."""
        self.holds_back = False
        self.channel = channel
        if channel is None:
            self.pending = None

    # -- our end -----------------------------------------------------------------------------------------------------

    def finish(self, *, clean: bool) -> None:
        """Half-close once all is sent: FIN, and a close_notify before it if `clean`."""
        self.fin_wanted = self.wants_room = True
        self._clean = clean
        if self.pending is None and not self.fin_sent:
            self._send_fin()

    def _send_fin(self) -> None:
        if self.broken:
            self.fin_sent = True
            return
        try:
            if self.channel is not None and self._clean and not self.channel.shutdown():
                return  # no room for the close_notify: again when there is
            self.fin_sent = True
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.broken = True

    @property
    def said_all(self) -> bool:
        """Nothing waits to be sent, a close_notify included."""
        return self.broken or (self.pending is None and (self.fin_sent or not self.fin_wanted))

    @property
    def ended_bare(self) -> bool:
        """We have ended TLS without a close_notify."""
        return self.fin_sent and not self._clean

    def forget(self) -> None:
        """The socket is closed."""
        self.pending = None
        self.channel = None
        self._feeds = None
        self.fin_sent = True
