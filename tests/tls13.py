"""TLS 1.3 records made by hand (RFC 8446 5.2, 4.6.3), for a client that sends what no library lets it: KeyUpdates by
the thousand.

`Flooder` does the handshake by pyOpenSSL, takes the client's traffic secret from the key log, and from then on writes
its own records; what the server says is read by OpenSSL.
"""

from __future__ import annotations

import socket

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from OpenSSL import SSL

KEY_UPDATE = b"\x18\x00\x00\x01%c\x16"  # whether an answer is asked for, and the inner type of a handshake message


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label with no context, of at most one hash (RFC 8446 7.1)."""
    full = b"tls13 " + label
    mac = hmac.HMAC(secret, hashes.SHA256())
    mac.update(size.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0\1")
    return mac.finalize()[:size]


class Flooder:
    """A client whose handshake with the server at the other end of `sock` is done."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._secret = b""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")
        context.set_keylog_callback(self._note)
        sock.settimeout(None)  # pyOpenSSL has no use for time-outs
        self.connection = SSL.Connection(context, sock)
        self.connection.set_connect_state()
        self.connection.do_handshake()
        self._take_key()

    def _note(self, _connection: SSL.Connection, line: bytes) -> None:
        label, _, secret = line.split()
        if label == b"CLIENT_TRAFFIC_SECRET_0":
            self._secret = bytes.fromhex(secret.decode())

    def _take_key(self) -> None:
        self._sequence = 0
        self._key = AESGCM(_expand(self._secret, b"key", 16))
        self._iv = int.from_bytes(_expand(self._secret, b"iv", 12), "big")

    def _record(self, inner: bytes) -> bytes:
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        nonce = (self._iv ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        return header + self._key.encrypt(nonce, inner, header)

    def data(self, text: bytes) -> bytes:
        """A record of data."""
        return self._record(text + b"\x17")

    def key_update(self, *, asks: bool = False) -> bytes:
        """A record with a KeyUpdate, which may ask for one in return; what follows has the next key."""
        record = self._record(KEY_UPDATE % asks)
        self._secret = _expand(self._secret, b"traffic upd", 32)
        self._take_key()
        return record

    def say(self, command: bytes) -> bytes:
        """A command, and the first record of its reply."""
        self.sock.sendall(self.data(command + b"\r\n"))
        return self.connection.recv(16384)
