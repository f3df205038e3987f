"""TLS over a non-blocking socket: what the bare socket is to a session in clear, `TlsChannel` is inside TLS.

A channel is made on a socket from which nothing of the TLS has been read, with a context of `TlsContexts`, in
one of the two roles.  `handshake` is called on every edge until it is done; towards a server `judge` then
decides, before anything is sent.  After that `recv` and `send` are as on a non-blocking socket, but that
"would block" is None and 0 instead of an exception.  The owner keeps the socket, watches it edge-triggered
for both directions, and after any edge tries again what it wanted: so it never matters whether TLS wanted to
read in order to write, or the reverse.

What to keep to:

- `recv` until it says None: what TLS has decrypted already raises no further edge on the socket.
- After a `send` that took less than it was given, the next data begins with the rest, and is no shorter than
  that rest or 16 KiB: a record that is already encrypted waits inside OpenSSL.
- `shutdown` (close_notify, RFC 8446 6.1) when all has been sent.  The owner closes the socket; closing it
  without `shutdown` is an end without close_notify, which the other side can tell from a whole one.

An end is b"" from `recv`; `clean_end` then says whether close_notify was seen.  After close_notify from the
peer `send` still works, and after our own `recv` does: TLS half-close, which RFC 8446 allows and TLS 1.2
peers mostly do not.

Raises: OSError for what the socket did, as the bare socket would (a reset: ConnectionResetError);
`TlsProblem` for what went wrong inside TLS, with a reason in words.  After either, only closing is left; but
after an OSError from `send`, `recv` first gives what the peer had sent: a server's 250 right before its reset.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from fcntl import ioctl
from termios import FIONREAD

from OpenSSL import SSL

from proxy.net.tls.contexts import (
    Credential,
    KeyLog,
    NoCommonProtocol,
    TlsContexts,
    client_side,
    memory_deny_write_execute_active,
    parse_credential,
    read_credential,
    server_side,
)
from proxy.net.tls.identity import ChainNotes, Verdict, judge, literal_address
from proxy.net.tls.problem import TlsProblem

__all__ = [
    "Credential",
    "KeyLog",
    "TlsChannel",
    "TlsContexts",
    "TlsProblem",
    "Verdict",
    "client_side",
    "judge",
    "memory_deny_write_execute_active",
    "parse_credential",
    "read_credential",
    "server_side",
]

_TCP_CLOSE = 7  # in tcpi_state, the first byte of Linux's struct tcp_info

_NOTHING = bytes(4)  # FIONREAD's int

MAX_RECORD = 16384  # plaintext of one record, RFC 8446 5.1; OpenSSL's recv never gives more

_ALERT = re.compile(r"(?:tlsv1|tlsv13|sslv3|ssl/tls|tls) alert (.+)")  # OpenSSL 4 says "tls" of all
_REASONS = {
    "wrong version number": "the {peer} did not answer with TLS",
    "http request": "the {peer} did not answer with TLS",
    "https proxy request": "the {peer} did not answer with TLS",
    "packet length too long": "the {peer} did not answer with TLS",
    "unsupported protocol": "the {peer} offers no TLS version that is allowed here",
    "no protocols available": "no TLS version is left that is allowed here",
    "no shared cipher": "no cipher suite in common with the {peer}",
    "unexpected eof while reading": "the {peer} closed the connection",
    "decryption failed or bad record mac": "a record from the {peer} was damaged",
    "ee key too small": "the key of the {peer}'s certificate is too weak",
    "ca key too small": "the key of a CA of the {peer}'s certificate is too weak",
    "ca md too weak": "the signature algorithm of the {peer}'s certificate is too weak",
    "dh key too small": "the {peer}'s Diffie-Hellman key is too weak",
    "certificate verify failed": "the {peer}'s certificate could not be checked",
}


class TlsChannel:
    """One end of TLS over `sock`.  Make it with `towards_client` or `towards_server`.

    `peer` is who is at the other end, for the reasons: "client" or "server".
    """

    __slots__ = (
        "_connection_recv",
        "_connection_send",
        "_ended",
        "_fileno",
        "_sock",
        "clean_end",
        "connection",
        "peer",
    )

    def __init__(self, connection: SSL.Connection, sock: socket.socket, peer: str) -> None:
        self.connection = connection
        self.peer = peer
        self.clean_end = False  # the peer's close_notify was seen
        self._ended = False  # the peer has ended, in whatever way
        self._sock = sock
        self._fileno = sock.fileno
        self._connection_recv = connection.recv
        self._connection_send = connection.send

    @classmethod
    def towards_client(cls, context: SSL.Context, sock: socket.socket) -> TlsChannel:
        """We are the TLS server."""
        connection = SSL.Connection(context, sock)
        connection.set_accept_state()
        return cls(connection, sock, "client")

    @classmethod
    def towards_server(cls, context: SSL.Context, sock: socket.socket, name: str) -> TlsChannel:
        """We are the TLS client.  `name` goes out as SNI unless it is an address (RFC 6066 3) or empty."""
        connection = SSL.Connection(context, sock)
        connection.set_app_data(ChainNotes())
        connection.set_connect_state()
        if server_name := _sni(name):
            connection.set_tlsext_host_name(server_name)
        return cls(connection, sock, "server")

    def handshake(self) -> bool:
        """Go on with the handshake: True when it is done, False when it waits for the socket.

        Raises TlsProblem, also for an end and a reset, since nothing but the handshake was under way.
        """
        if self._fileno() < 0:
            raise TlsProblem(f"the connection to the {self.peer} is closed")
        try:
            self.connection.do_handshake()
        except (SSL.WantReadError, SSL.WantWriteError):
            return False
        except NoCommonProtocol:
            raise TlsProblem("the client offers ALPN protocols, but not smtp") from None
        except SSL.SysCallError as error:
            _empty_error_queue()
            if error.args[0] <= 0:
                raise TlsProblem(f"the {self.peer} closed the connection during the TLS handshake") from None
            what = os.strerror(error.args[0]).lower()
            raise TlsProblem(f"the {self.peer} was lost during the TLS handshake: {what}") from None
        except SSL.ZeroReturnError:
            raise TlsProblem(f"the {self.peer} ended TLS during the handshake") from None
        except SSL.Error as error:
            raise TlsProblem(self._explain(error)) from None
        return True

    def recv(self, size: int) -> bytes | None:
        """At most `size` bytes and at most one record; None when there is nothing yet, b"" at the end."""
        if self._ended:
            return b""  # OpenSSL would call it an error, with nothing to say about it
        if self._fileno() < 0:
            raise _closed()
        try:
            return self._connection_recv(size if size < MAX_RECORD else MAX_RECORD)
        except (SSL.WantReadError, SSL.WantWriteError):
            return None
        except SSL.ZeroReturnError:
            self._ended = self.clean_end = True
            return b""
        except SSL.SysCallError as error:
            _empty_error_queue()
            if error.args[0] <= 0:
                self._ended = True
                return b""
            raise OSError(error.args[0], os.strerror(error.args[0])) from None
        except SSL.Error as error:
            raise TlsProblem(self._explain(error)) from None

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send as much of `data` as the socket takes; how much that was, 0 when it takes nothing now."""
        size = len(data)
        sent = 0
        if not size:
            return 0
        rest: bytes | bytearray | memoryview = data
        try:
            while True:
                self._look_before_sending()
                # one record a call: pyOpenSSL turns SSL_MODE_ENABLE_PARTIAL_WRITE on, and moving buffers too
                sent += self._connection_send(rest)
                if sent == size:
                    return sent
                rest = memoryview(data)[sent:]
        except (SSL.WantWriteError, SSL.WantReadError):
            return sent
        except SSL.SysCallError as error:
            _empty_error_queue()
            if error.args[0] <= 0:
                raise BrokenPipeError(f"the {self.peer} closed the connection") from None
            raise OSError(error.args[0], os.strerror(error.args[0])) from None
        except SSL.ZeroReturnError:
            raise BrokenPipeError(f"the {self.peer} ended TLS") from None
        except SSL.Error as error:
            raise TlsProblem(self._explain(error)) from None

    def shutdown(self) -> bool:
        """Send close_notify.  False when the socket takes nothing now: call again.  Never raises."""
        if self._fileno() < 0:
            return True
        try:
            self.connection.shutdown()
        except (SSL.WantWriteError, SSL.WantReadError):
            return not self.connection.want_write()
        except (SSL.Error, OSError):
            _empty_error_queue()  # the connection is broken: nobody is left to be told
        return True

    def ended_bare(self) -> bool:
        """Whether a FIN without close_notify is all that is left: the end, found without asking OpenSSL.

        OpenSSL would answer it with an alert, and a peer that has closed (many servers do it so) answers that with a
        reset: an ordinary end would look like a lost connection, to the log and to the other side.

        Raises OSError, which the kernel tells only once: a reset is none that `recv` could still find.
        """
        if self._ended or self.connection.pending():
            return False
        try:
            self._ended = self._sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        return self._ended

    def has_more(self) -> bool:
        """Whether the kernel holds bytes from the peer, after a `recv` that gave a whole record.

        False is worth an attempt at `recv`, which would cost ten times as much; whatever comes later is an event.
        """
        return ioctl(self._sock, FIONREAD, _NOTHING) != _NOTHING

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
    def sni(self) -> str:
        """The server name that the client asked for, "" if none."""
        return (self.connection.get_servername() or b"").decode("ascii", "backslashreplace")

    @property
    def alpn(self) -> str:
        """The protocol agreed on, "smtp" or ""."""
        return self.connection.get_alpn_proto_negotiated().decode("ascii", "backslashreplace")

    def _look_before_sending(self) -> None:
        """Raise ConnectionResetError if the peer has reset the connection, OSError if the owner has closed it.

        A write that fails inside OpenSSL spoils reading too, and a reply that lies there would be lost: the message it
        is about would come twice.  What is left is a reset within the microseconds between this look and the write.
        """
        if self._fileno() < 0:
            raise _closed()
        try:
            state = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
        except OSError:
            return  # not TCP
        if state[0] == _TCP_CLOSE:
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    def _explain(self, error: SSL.Error) -> str:
        """OpenSSL's reason, in our words where we have better ones."""
        queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
        reasons = [str(entry[2]) for entry in queue]
        for reason in reasons:
            if alert := _ALERT.fullmatch(reason):
                return f"the {self.peer} sent the TLS alert '{alert[1]}'"
            if known := _REASONS.get(reason):
                return known.format(peer=self.peer)
        told = next((reason for reason in reasons if reason), "unknown")
        return f"TLS with the {self.peer} failed: {told[:100]}"


def _closed() -> OSError:
    """OpenSSL keeps the number of the descriptor, which by now may be another session's."""
    return OSError(errno.EBADF, os.strerror(errno.EBADF))


_spare: list[SSL.Context] = []


def _empty_error_queue() -> None:
    """Take what a failed system call has left in OpenSSL's error queue, which is the whole thread's.

    pyOpenSSL leaves it there, and before OpenSSL 4 the next session that merely has to wait is told of this one's
    reset (SSL_get_error(3): "the current thread's error queue must be empty before the TLS/SSL I/O operation").
    """
    if not _spare:
        _spare.append(SSL.Context(SSL.TLS_CLIENT_METHOD))
    try:
        _spare[0].load_verify_locations(None)  # fails at once, and raises with all that is in the queue
    except SSL.Error:
        pass


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
