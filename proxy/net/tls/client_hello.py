"""What two peers say in clear when they start TLS through us, for the log: SNI, version, cipher suite, alert.

`TlsRecordPeek` is shown a copy of the first bytes of each direction in pass-through.  It holds nothing back,
changes nothing, asks for nothing and never raises: bytes that are not TLS end its interest, and the session
goes on as it would have.

It reads the record layer (RFC 8446 5.1, RFC 5246 6.2.1), reassembles one handshake message a direction,
ClientHello (RFC 8446 4.1.2) and ServerHello (4.1.3), skips all else, and stops at the first encrypted record
(a server's after change_cipher_spec, a client's behind that, or of the type application_data) or after the limits.
Alerts after that can't be read; but a client's first encrypted record is its Finished, and one as short as an alert is
an alert: the client has refused what the server showed.

`failure` says, when all is over, whether the handshake is known never to have come to its end.  A client that says
nothing at all behind the server's flight has not finished it either: Python's asyncio breaks off so, without an alert.

Limits: 4 KiB held of a hello (a ClientHello with a post-quantum key share has about 1.8 KiB), 16 KiB looked
at in a direction (a TLS 1.2 server's certificates are in clear, an alert may come behind them).  A hello
longer than that is read as far as it goes.
"""

from __future__ import annotations

from proxy.net.tls.records import PROTECTED_ALERTS

MAX_HELD = 4096
MAX_LOOKED_AT = 16384

_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA = 20, 21, 22, 23
_CLIENT_HELLO, _SERVER_HELLO = 1, 2
_FATAL = 2
_FINISHED_AT_MOST = 100  # octets of an encrypted Finished of TLS 1.2; a second ClientHello has more
_SERVER_NAME, _SUPPORTED_VERSIONS = 0, 43

VERSIONS = {0x0300: "SSLv3", 0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}

# The suites that mail servers of this time agree on, by OpenSSL's names, as the log has them in bridge mode.
CIPHERS = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
    0xC02F: "ECDHE-RSA-AES128-GCM-SHA256",
    0xC030: "ECDHE-RSA-AES256-GCM-SHA384",
    0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256",
    0xC02C: "ECDHE-ECDSA-AES256-GCM-SHA384",
    0xCCA8: "ECDHE-RSA-CHACHA20-POLY1305",
    0xCCA9: "ECDHE-ECDSA-CHACHA20-POLY1305",
    0xC013: "ECDHE-RSA-AES128-SHA",
    0xC014: "ECDHE-RSA-AES256-SHA",
    0xC027: "ECDHE-RSA-AES128-SHA256",
    0xC028: "ECDHE-RSA-AES256-SHA384",
    0x009E: "DHE-RSA-AES128-GCM-SHA256",
    0x009F: "DHE-RSA-AES256-GCM-SHA384",
    0x0033: "DHE-RSA-AES128-SHA",
    0x0039: "DHE-RSA-AES256-SHA",
    0x009C: "AES128-GCM-SHA256",
    0x009D: "AES256-GCM-SHA384",
    0x002F: "AES128-SHA",
    0x0035: "AES256-SHA",
    0x000A: "DES-CBC3-SHA",
}

# RFC 8446 section 6 and the older ones that are still sent.
ALERTS = {
    0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 21: "decryption_failed",
    22: "record_overflow", 40: "handshake_failure", 42: "bad_certificate", 43: "unsupported_certificate",
    44: "certificate_revoked", 45: "certificate_expired", 46: "certificate_unknown",
    47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error", 51: "decrypt_error",
    70: "protocol_version", 71: "insufficient_security", 80: "internal_error", 86: "inappropriate_fallback",
    90: "user_canceled", 100: "no_renegotiation", 109: "missing_extension", 110: "unsupported_extension",
    112: "unrecognized_name", 113: "bad_certificate_status_response", 115: "unknown_psk_identity",
    116: "certificate_required", 120: "no_application_protocol",
}  # fmt: skip


class TlsRecordPeek:
    """Feed it what each side sends; read the attributes when `done`, or whenever they are wanted."""

    __slots__ = (
        "_client", "_fatal", "_from_client", "_protected", "_server", "alert", "alert_by", "answered", "cipher",
        "hello_octets", "sni", "version",
    )  # fmt: skip

    def __init__(self) -> None:
        self.sni = ""  # as the client wrote it; not ASCII is escaped
        self.version = ""  # that the server chose: "TLSv1.3"
        self.cipher = ""  # that the server chose: OpenSSL's name, or "0xc030"
        self.alert = ""  # the first alert in clear: "unknown_ca", or "alert-77"
        self.alert_by = ""  # who sent it: "client", "server"
        self.hello_octets = 0  # of the ClientHello as it stands on the wire, records' headers included; 0: not seen
        self.answered = False  # the server has said anything at all
        self._fatal = False
        self._from_client = 0  # octets looked at
        self._protected = 0  # octets in the client's first encrypted record
        self._client: _Direction | None = _Direction(_CLIENT_HELLO)
        self._server: _Direction | None = _Direction(_SERVER_HELLO)

    @property
    def done(self) -> bool:
        """Nothing more can be learned: stop feeding."""
        return self._client is None and self._server is None

    def failure(self) -> str:
        """Why the handshake never came to its end, in words; "" where it did, or where nothing of the kind was seen."""
        if self.hello_octets and not self.answered:  # an alert of the client's only says that it heard no more
            if self._from_client >= self.hello_octets:
                return f"the ClientHello of {self.hello_octets} octets was never answered"
        elif self._fatal:
            return f"the {self.alert_by} sent the TLS alert {self.alert}"
        elif self.version == "TLSv1.3" and self._protected in PROTECTED_ALERTS:
            return "the client ended the TLS handshake with an alert behind the server's certificate"
        elif self.version and self._client is not None and not self._finishes:
            return "the TLS handshake was not finished: the client said no more behind the server's hello"
        return ""

    @property
    def _finishes(self) -> bool:
        """The client has changed to its own keys, which in TLS 1.3 says nothing (RFC 8446 D.4)."""
        return self.version != "TLSv1.3" and self._client is not None and self._client.changed

    def feed_client(self, data: bytes) -> None:
        """Bytes from the client, cut anywhere, in order."""
        direction = self._client
        if direction is None:
            return
        self._from_client += len(data)
        try:
            going = direction.look(data)
            if direction.hello and not direction.read:
                direction.read = True
                self.hello_octets = direction.hello_octets
                self.sni = _server_name(direction.hello)
            self._protected = direction.protected
            self._note_alert(direction, "client")
        except (ValueError, IndexError):
            going = False
        if not going:
            self._client = None

    def feed_server(self, data: bytes) -> None:
        """Bytes from the server, cut anywhere, in order."""
        self.answered = True
        direction = self._server
        if direction is None:
            return
        try:
            going = direction.look(data)
            if direction.hello and not direction.read:
                direction.read = True
                self.version, self.cipher = _chosen(direction.hello)
            self._note_alert(direction, "server")
        except (ValueError, IndexError):
            going = False
        if not going:
            self._server = None

    def _note_alert(self, direction: _Direction, side: str) -> None:
        if direction.alert >= 0 and (not self.alert or (direction.alert_is_fatal and not self._fatal)):
            self._fatal = direction.alert_is_fatal
            self.alert = ALERTS.get(direction.alert, f"alert-{direction.alert}")
            self.alert_by = side


class _Direction:
    """The records of one direction."""

    __slots__ = (
        "_header", "_held", "_kind", "_left", "_looked_at", "_records", "_wanted", "alert",
        "alert_is_fatal", "changed", "hello", "hello_octets", "protected", "read",
    )  # fmt: skip

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted  # the handshake message that is to be read
        self._header = b""  # of a record, as far as it has come
        self._kind = 0  # of the record that is being read
        self._left = 0  # bytes to come of that record
        self._held = bytearray()  # of the handshake message, or of an alert
        self._looked_at = 0
        self.hello = b""  # the body of the hello, as soon as there is one
        self.read = False  # by the owner
        self.alert = -1
        self.alert_is_fatal = False
        self.hello_octets = 0  # with the headers of its records
        self.protected = 0  # octets in the first encrypted record
        self._records = 0
        self.changed = False  # change_cipher_spec was seen

    def look(self, data: bytes) -> bool:
        """Go through `data`; False when there is nothing more to see in this direction."""
        data = data[: MAX_LOOKED_AT - self._looked_at]
        self._looked_at += len(data)
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                missing = 5 - len(self._header)
                self._header += data[at : at + missing]
                at += missing
                if not self._begin_record():
                    return False
                continue
            part = data[at : at + self._left]
            at += len(part)
            self._left -= len(part)
            if self._kind == _ALERT:
                self._held += part
                if not self._left:
                    self.alert = self._held[1]
                    self.alert_is_fatal = self._held[0] == _FATAL
                    if self.alert_is_fatal or not self.hello:
                        return False
            elif self._kind == _HANDSHAKE and not self.hello:
                self._held += part[: MAX_HELD - len(self._held)]
                self._take_hello()
        if self._looked_at >= MAX_LOOKED_AT:
            self._take_hello(cut=True)
            return False
        return True

    def _begin_record(self) -> bool:
        """With a whole header: what record is this?  False: one that ends our interest."""
        header = self._header
        kind = header[0]
        if kind not in (_ALERT, _HANDSHAKE):
            encrypts = kind in (_CHANGE_CIPHER_SPEC, _APPLICATION_DATA)
            if not encrypts or not self.hello or self._wanted != _CLIENT_HELLO:
                return False
        if len(header) > 1 and header[1] != 3:
            return False
        if len(header) < 5:
            return True
        self._header = b""
        self._kind, self._left = kind, header[3] << 8 | header[4]
        if kind == _APPLICATION_DATA:
            self.protected = self._left
            return False
        if kind == _CHANGE_CIPHER_SPEC:
            self.changed = True
            return self._left == 1
        if kind == _ALERT:
            self._held.clear()
            return self._left == 2  # longer: encrypted
        if not self.hello:
            self._records += 1
        elif self.changed and self._left <= _FINISHED_AT_MOST:
            return False
        return self._left > 0  # RFC 8446 5.1: no empty handshake records

    def _take_hello(self, cut: bool = False) -> None:
        held = self._held
        if len(held) < 4 or self.hello:
            return
        if held[0] != self._wanted:
            raise ValueError("another message than a hello")
        length = int.from_bytes(held[1:4], "big")
        if not length:
            raise ValueError("an empty hello")
        if cut or len(held) >= MAX_HELD or len(held) >= 4 + length:
            self.hello = bytes(held[4 : 4 + length])
            self.hello_octets = 4 + length + 5 * self._records
            self._held = bytearray()


def _server_name(hello: bytes) -> str:
    """RFC 6066 section 3.  A hello that ends early, or is none, raises IndexError or gives ""."""
    at = 34  # legacy_version, random
    at += 1 + hello[at]  # legacy_session_id
    at += 2 + (hello[at] << 8 | hello[at + 1])  # cipher_suites
    at += 1 + hello[at]  # legacy_compression_methods
    value = _extension(hello, at, _SERVER_NAME)
    # ServerNameList: length, then name_type host_name (0), length, name
    if len(value) < 5 or value[2] != 0:
        return ""
    return value[5 : 5 + (value[3] << 8 | value[4])].decode("ascii", "backslashreplace")


def _chosen(hello: bytes) -> tuple[str, str]:
    """Version and cipher suite of a ServerHello, or of a HelloRetryRequest, which has its form."""
    version = hello[0] << 8 | hello[1]
    at = 34
    at += 1 + hello[at]
    suite = hello[at] << 8 | hello[at + 1]
    value = _extension(hello, at + 3, _SUPPORTED_VERSIONS)
    if len(value) == 2:
        version = value[0] << 8 | value[1]
    return VERSIONS.get(version, f"0x{version:04x}"), CIPHERS.get(suite, f"0x{suite:04x}")


def _extension(hello: bytes, at: int, wanted: int) -> bytes:
    """The data of one extension; b"" if it isn't there, or not as far as the hello goes."""
    at += 2
    while at + 4 <= len(hello):
        kind, length = hello[at] << 8 | hello[at + 1], hello[at + 2] << 8 | hello[at + 3]
        if kind == wanted:
            return hello[at + 4 : at + 4 + length]
        at += 4 + length
    return b""
