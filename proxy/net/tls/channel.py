"""TLS over a non-blocking socket: what the bare socket is to a session in clear, `TlsChannel` is inside TLS.

A channel is made on a socket from which nothing of the TLS has been read, with a context of `TlsContexts`, in
one of the two roles.  `handshake` is called on every edge until it is done; towards a server `judge` then
decides, before anything is sent.  After that `recv` and `send` are as on a non-blocking socket, but that
"would block" is None and 0 instead of an exception.  The owner keeps the socket, watches it edge-triggered
for both directions, and after any edge tries again what it wanted.

OpenSSL never sees the socket: given one, it reads as long as bytes come, and a peer that sends what brings no data
(HelloRequest, KeyUpdate) as fast as the network goes would keep every other session waiting.  It gets and gives bytes
in memory, and one call of `handshake` or `recv` takes one portion of them from the kernel: `PORTION`, which is 150
KeyUpdates, or `LARGE_PORTION` while they bring data.  With `more` the owner calls again after others had their turn.

What to keep to:

- `recv` until it says None: what OpenSSL holds already raises no further edge on the socket.  With `more` after a None,
  as after a False of `handshake`, take another turn.
- After a `send` that took less than it was given, the next data begins with the rest, and is no shorter than
  that rest or 16 KiB: a record that is already encrypted waits here.
- When the socket can be written to and nothing else is to be sent, `flush` if there is something `unsent`.
- `shutdown` (close_notify, RFC 8446 6.1) when all has been sent.  The owner closes the socket; closing it
  without `shutdown` is an end without close_notify, which the other side can tell from a whole one.

An end is b"" from `recv`; `clean_end` then says whether close_notify was seen.  After close_notify from the
peer `send` still works, and after our own `recv` does: TLS half-close, which RFC 8446 allows and TLS 1.2
peers mostly do not.  An end without close_notify is answered by no alert: many servers close so, and would answer that
with a reset.

Limits: `MAX_HANDSHAKE` bytes from the peer in a handshake; what `proxy.net.tls.records` says of records without data;
`MAX_UNSENT` bytes of TLS's own that the peer does not read.

Raises: OSError for what the socket did, as the bare socket would (a reset: ConnectionResetError);
`TlsProblem` for what went wrong inside TLS, with a reason in words.  After either, only closing is left; but
after an OSError from `send`, `recv` first gives what the peer had sent: a server's 250 right before its reset.
"""

from __future__ import annotations

import socket
from typing import Final

from OpenSSL import SSL

from proxy.net.tls.contexts import NoCommonProtocol
from proxy.net.tls.flight import ServerFlight
from proxy.net.tls.identity import ChainNotes
from proxy.net.tls.names import literal_address
from proxy.net.tls.problem import TlsProblem, explain
from proxy.net.tls.records import Records

MAX_RECORD: Final = 16384  # plaintext of one record, RFC 8446 5.1; OpenSSL's recv never gives more
PORTION: Final = 4096  # bytes that OpenSSL is given at once: the most of KeyUpdates that one call has to work off
LARGE_PORTION: Final = 16640  # ... while they bring data: a record of the largest size, RFC 8446 5.2
MAX_HANDSHAKE: Final = 262144
MAX_UNSENT: Final = 32768  # that wait for the socket: a record of the owner's, and TLS's own answers
LARGEST_OUT: Final = 20000  # more than a record


class TlsChannel:
    """One end of TLS over `sock`.  Make it with `towards_client` or `towards_server`.

    `peer` is who is at the other end, for the reasons: "client" or "server".
    """

    __slots__ = (
        "_drained", "_dry", "_ended", "_flight", "_notified", "_out", "_owed", "_portion", "_records", "_reset",
        "_sock", "clean_end", "connection", "hello_size", "more", "peer", "received",
    )  # fmt: skip

    def __init__(self, connection: SSL.Connection, sock: socket.SocketType, peer: str) -> None:
        self.connection = connection
        self.peer = peer
        self.clean_end = False  # the peer's close_notify was seen
        self.more = False  # `handshake` or `recv` stopped at its portion: the socket may hold more, without an event
        self.received = 0  # bytes of the handshake that came from the peer
        self.hello_size = 0  # octets of our ClientHello, its record included
        self._sock = sock
        self._ended = False  # the peer has ended, in whatever way
        self._notified = False  # our close_notify is out, or can't be
        self._reset: OSError | None = None  # what a send was told; a reset is told by the kernel only once
        # what goes out
        self._out = b""  # records that the socket did not take yet
        self._owed = 0  # bytes of the owner's that are in them
        # what comes in
        self._portion = PORTION
        self._dry = False  # OpenSSL has no whole record
        self._drained = False  # the last receive took all that the kernel had
        self._records = Records()
        self._flight: ServerFlight | None = None

    @classmethod
    def towards_client(cls, context: SSL.Context, sock: socket.SocketType) -> TlsChannel:
        """We are the TLS server."""
        connection = SSL.Connection(context, None)
        connection.set_accept_state()
        return cls(connection, sock, "client")

    @classmethod
    def towards_server(
        cls, context: SSL.Context, sock: socket.SocketType, name: str, flight: ServerFlight | None = None
    ) -> TlsChannel:
        """We are the TLS client.  `name` goes out as SNI unless it is an address (RFC 6066 3) or empty; `flight` is to
        see what comes in a handshake before OpenSSL does."""
        connection = SSL.Connection(context, None)
        connection.set_app_data(ChainNotes())
        connection.set_connect_state()
        if server_name := _sni(name):
            connection.set_tlsext_host_name(server_name)
        channel = cls(connection, sock, "server")
        channel._flight = flight
        return channel

    def handshake(self) -> bool:
        """Go on with the handshake: True when it is done, False when it waits for the socket, or its turn is over.

        Raises TlsProblem, also for an end and a reset, since nothing but the handshake was under way.
        """
        if self._sock.fileno() < 0:
            raise TlsProblem(f"the connection to the {self.peer} is closed")
        self.more = False
        left = PORTION
        try:
            while True:
                done = self._step()
                self._take_out()
                if not self.hello_size:
                    self.hello_size = len(self._out)
                if not self._push():
                    return False
                if done:
                    return True
                if not left:
                    self.more = True
                    return False
                raw = self._sock.recv(left)
                if not raw:
                    raise TlsProblem(f"the {self.peer} closed the connection during the TLS handshake")
                left -= len(raw)
                self.received += len(raw)
                if self.received > MAX_HANDSHAKE:
                    raise TlsProblem(f"the {self.peer} sent {MAX_HANDSHAKE >> 10} KiB and no end of the TLS handshake")
                self._records.scan(raw)
                if self._flight is not None:
                    self._flight.feed(raw)
                self.connection.bio_write(raw)
        except BlockingIOError:
            return False
        except OSError as error:
            what = (error.strerror or "no reason").lower()
            raise TlsProblem(f"the {self.peer} was lost during the TLS handshake: {what}") from None

    def _step(self) -> bool:
        """OpenSSL's part of the handshake, with all that it was given."""
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            return False
        except NoCommonProtocol:
            reason = "the client offers ALPN protocols, but not smtp"
        except SSL.ZeroReturnError:
            reason = f"the {self.peer} ended TLS during the handshake"
        except SSL.Error as error:
            reason = explain(error, self.peer)
        else:
            self._records.handshake_over()
            return True
        self._push_alert()
        raise TlsProblem(reason)

    def recv(self, size: int) -> bytes | None:
        """At most `size` bytes and at most one record; None when there is nothing yet (`more`: or when its turn is
        over), b"" at the end."""
        if self._ended:
            return b""  # OpenSSL would call it an error, with nothing to say about it
        self.more = False
        if size > MAX_RECORD:
            size = MAX_RECORD
        if not self._dry:
            data = self._read(size)
            if data is not None:
                return data
        portion = self._portion
        try:
            raw = self._sock.recv(portion)
        except BlockingIOError:
            return None
        if not raw:
            if self._reset is not None:
                raise self._reset
            self._ended = True
            return b""
        self._drained = len(raw) < portion
        if not self._records.scan(raw):
            raise self._too_much_junk()
        self.connection.bio_write(raw)
        data = self._read(size)
        if data is None:
            self._portion = PORTION
            self.more = not self._drained
        else:
            self._portion = LARGE_PORTION
        return data

    def _read(self, size: int) -> bytes | None:
        """What OpenSSL makes of what it was given."""
        try:
            data = self.connection.recv(size)
        except SSL.WantReadError:
            self._dry = True
            if self._records.all_processed():
                self._answer_junk()
            return None
        except SSL.ZeroReturnError:
            self._ended = self.clean_end = True
            return b""
        except SSL.Error as error:
            self._push_alert()
            raise TlsProblem(explain(error, self.peer)) from None
        if len(data) == size and self.connection.pending():
            self._dry = False  # the record goes on: it is counted with its last piece
        else:
            self._dry = self._records.gave_data()
        return data

    def _answer_junk(self) -> None:
        """There were records without data: OpenSSL may have answered."""
        if self._records.too_many:
            raise self._too_much_junk()
        self._take_out()
        if len(self._out) > MAX_UNSENT:
            raise TlsProblem(f"the {self.peer} asks for answers in TLS and does not read them")
        try:
            self._push()
        except OSError:
            pass  # what the peer had said before is still to be read

    def _too_much_junk(self) -> TlsProblem:
        return TlsProblem(f"the {self.peer} sends TLS records without data")

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send as much of `data` as the socket takes; how much that was, 0 when it takes nothing now."""
        size = len(data)
        if not size or not self._push():
            return 0
        sent, self._owed = self._owed, 0
        try:
            while sent < size:
                # one record a call: pyOpenSSL turns SSL_MODE_ENABLE_PARTIAL_WRITE on
                taken = self.connection.send(memoryview(data)[sent:] if sent else data)
                self._take_out()
                if not self._push():
                    self._owed = taken
                    break
                sent += taken
        except SSL.WantReadError:
            self._sock.send(b"")  # the handshake is not over; of a closed socket that is told as of any other
        except SSL.ZeroReturnError:
            raise BrokenPipeError(f"the {self.peer} ended TLS") from None
        except SSL.Error as error:
            raise TlsProblem(explain(error, self.peer)) from None
        return sent

    def _take_out(self) -> None:
        """What OpenSSL has put out, behind what waits already."""
        try:
            while True:
                out = self.connection.bio_read(LARGEST_OUT)
                self._out = self._out + out if self._out else out
                if len(out) < LARGEST_OUT:
                    return
        except SSL.WantReadError:
            return

    def _push(self) -> bool:
        """Send what waits.  False when the socket does not take all of it now.  Raises OSError."""
        out = self._out
        if not out:
            return True
        try:
            sent = self._sock.send(out)
        except BlockingIOError:
            return False
        except BrokenPipeError:
            raise  # we have ended this direction, or the reset was told already
        except OSError as error:
            self._reset = error
            raise
        self._out = out[sent:]
        return not self._out

    def _push_alert(self) -> None:
        """TLS has failed and OpenSSL wants to say why."""
        self._take_out()
        try:
            self._push()
        except OSError:
            pass  # nobody is left to be told

    def flush(self) -> bool:
        """Send what TLS itself has to say, such as an answer to a KeyUpdate.  False when the socket takes nothing now.

        Raises OSError.
        """
        return self._push()

    @property
    def unsent(self) -> bool:
        """Whether something waits for the socket."""
        return bool(self._out)

    def shutdown(self) -> bool:
        """Send close_notify.  False when the socket takes nothing now: call again.  Never raises."""
        try:
            if not self._notified:
                self._notified = True
                try:
                    self.connection.shutdown()
                except SSL.Error:
                    pass  # TLS is broken: there is nothing to end
                self._take_out()
            return self._push()
        except OSError:
            return True  # nobody is left to be told

    def has_more(self) -> bool:
        """Whether there may be more to receive, after a `recv` that gave something.

        False is worth an attempt at `recv`, which costs a system call; whatever comes later is an event.
        """
        return not (self._dry and self._drained)

    @property
    def pending(self) -> int:
        """Bytes that are decrypted and not yet received."""
        return self.connection.pending()

    @property
    def version(self) -> str:
        """The negotiated version: "TLSv1.3" and the like."""
        return self.connection.get_protocol_version_name()

    @property
    def cipher(self) -> str:
        """OpenSSL's name of the cipher suite, "" before the handshake."""
        return self.connection.get_cipher_name() or ""

    @property
    def group(self) -> str:
        """The name of the key exchange's group, "" where there is none."""
        return self.connection.get_group_name() or ""

    @property
    def sni(self) -> str:
        """The server name that the client asked for, "" if none."""
        return (self.connection.get_servername() or b"").decode("ascii", "backslashreplace")

    @property
    def alpn(self) -> str:
        """The protocol agreed on, "smtp" or ""."""
        return self.connection.get_alpn_proto_negotiated().decode("ascii", "backslashreplace")


def _sni(name: str) -> bytes:
    """`name` as server_name has it: a DNS name in ASCII, no final dot, at most 255 octets; else b""."""
    if not name or literal_address(name) is not None:
        return b""
    try:
        text = name.strip().rstrip(".")
        encoded = text.encode("ascii") if text.isascii() else text.encode("idna")
    except UnicodeError:
        return b""
    return encoded if len(encoded) <= 255 and b"\0" not in encoded else b""
