"""A server's flight in clear (TLS 1.2 and older), read before OpenSSL has it: a Diffie-Hellman group that is too large.

OpenSSL takes moduli of up to 10,000 bits, and computes for a second with one, before any certificate is judged.  The
ServerKeyExchange (RFC 5246 7.4.3) stands in clear: a group of over `MAX_DH_BITS` is refused when its length is read.
DHE is offered only where the settings ask for it (`proxy.net.tls.contexts`), and the flight is read only then; in TLS
1.3 it is encrypted, and its groups have names and 3072 bits at most.

Raises `TlsProblem` for a group that is too large; what is malformed is left to OpenSSL.
"""

from __future__ import annotations

from typing import Final

from proxy.net.tls.problem import TlsProblem

MAX_DH_BITS: Final = 4096

_HANDSHAKE: Final = 22  # ContentType, RFC 8446 5.1
_SERVER_HELLO: Final = 2
_SERVER_KEY_EXCHANGE: Final = 12
_HEADER: Final = 5
_NEEDED: Final = 128  # octets of a message that are looked at: a ServerHello's up to its cipher suite are 72


class ServerFlight:
    """Fed with what comes from the server, in any pieces, until it ends the handshake in clear."""

    __slots__ = ("_curves", "_held", "_left", "_message", "_over", "_rest")

    def __init__(self) -> None:
        self._held = b""  # of a record's header
        self._left = 0  # octets of the record that are still to come
        self._message = bytearray()  # the handshake message so far: its head
        self._rest = -1  # octets of it that are still to come; -1: its own header is not complete
        self._curves = False  # the cipher suite has elliptic curves
        self._over = False

    def feed(self, data: bytes) -> None:
        """Look at what OpenSSL is to be given."""
        data = self._held + data
        at, self._held = 0, b""
        while at < len(data) and not self._over:
            if not self._left:
                if len(data) - at < _HEADER:
                    self._held = data[at:]
                    return
                if data[at] != _HANDSHAKE:
                    self._over = True  # ChangeCipherSpec, or an alert: nothing in clear comes behind it
                    return
                self._left = data[at + 3] << 8 | data[at + 4]
                at += _HEADER
                continue
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            self._messages(piece)

    def _messages(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._rest < 0:  # msg_type and a length of three octets, RFC 5246 7.4
                piece = data[at : at + 4 - len(self._message)]
                self._message += piece
                at += len(piece)
                if len(self._message) < 4:
                    return
                self._rest = int.from_bytes(self._message[1:4], "big")
            piece = data[at : at + self._rest]
            at += len(piece)
            self._rest -= len(piece)
            self._message += piece[: _NEEDED - len(self._message)]
            if self._message[0] == _SERVER_KEY_EXCHANGE:
                self._judge()
            if not self._rest:
                if self._message[0] == _SERVER_HELLO and len(self._message) > 38:
                    suite = 39 + self._message[38]  # behind version, random and session_id
                    self._curves = _has_curves(self._message[suite : suite + 2])
                self._message.clear()
                self._rest = -1

    def _judge(self) -> None:
        """ServerDHParams begins with dh_p<1..2^16-1>; with elliptic curves there is none."""
        if self._curves or len(self._message) < 7:
            return
        octets = int.from_bytes(self._message[4:6], "big")
        if octets * 8 > MAX_DH_BITS + 8:  # a leading zero is no larger group
            raise TlsProblem(
                f"the server's Diffie-Hellman group has {octets * 8} bits, at most {MAX_DH_BITS} are taken"
            )


def _has_curves(suite: bytearray) -> bool:
    """Whether a cipher suite of IANA's registry is an ECDHE one."""
    if len(suite) < 2:
        return False
    high, low = suite
    if high == 0xCC:
        return low in (0xA8, 0xA9, 0xAC)
    if high == 0xC0:
        return (
            0x01 <= low <= 0x19
            or 0x23 <= low <= 0x3B
            or 0x48 <= low <= 0x4D
            or 0x5C <= low <= 0x63
            or 0x70 <= low <= 0x71
            or 0x72 <= low <= 0x79
            or 0x86 <= low <= 0x8D
            or 0x9A <= low <= 0x9B
            or 0xAC <= low <= 0xAF
        )
    return high == 0xD0
