"""TLS records as they come in, counted: which of them brought data, and how many too many did not.

The header of a record is in clear in every version (RFC 8446 5.1), so whole records can be counted before OpenSSL has
them; it gives data for each that has some, and when it wants more, all are processed: the rest were without data
(KeyUpdate, HelloRequest, session tickets, warnings, empty records).

Limits: `MAX_JUNK` records without data after the handshake, beyond one for each that had some (TLS 1.0's CBC suites put
an empty one before each; OpenSSL itself allows 32 empty ones in a row and any number of KeyUpdates).  What can be seen
to be no data, the handshake messages of TLS 1.2, counts one for every 32 octets, since one record holds 4096
HelloRequests.
"""

from __future__ import annotations

from typing import Final

MAX_JUNK: Final = 64
MAX_CREDIT: Final = 1024  # records with data that count for later ones without
SMALLEST_RECORD: Final = 23  # octets: a header, and in TLS 1.3 the inner type and a tag
APPLICATION_DATA: Final = 23  # ContentType, RFC 8446 5.1
ALERT_HEADER: Final = b"\x15\x03"  # that of an alert, and the major version
HEADER: Final = 5
PROTECTED_ALERTS: Final = (19, 11)  # octets: level, description, content type and a tag of 16, or of 8 (AES-CCM-8)
PROTECTED_QUIT: Final = 23  # octets: "QUIT\r\n", content type and tag
PROTECTED_FINISHED: Final = (53, 69)  # octets: header and hash (SHA-256, SHA-384), content type and tag
CHANGE_CIPHER_SPEC: Final = b"\x14\x03\x03\x00\x01\x01"  # the whole record, RFC 8446 appendix D.4
LONGEST_ALERT: Final = 128  # octets; with a MAC of SHA-384 and padding 80


def ends_with_alert(data: bytes) -> bool:
    """Whether the last record of an established TLS session is an alert: its sender has said its last.

    It is a close_notify (RFC 8446 6.1, RFC 5246 7.2.1: no more is sent) or a fatal one.  Up to TLS 1.2 its type is in
    clear; in TLS 1.3 it is told by its length, which nothing else of a mail session has.
    """
    if any(_ends_with_record(data, APPLICATION_DATA, length) for length in PROTECTED_ALERTS):
        return True
    at = data.find(ALERT_HEADER, max(0, len(data) - HEADER - LONGEST_ALERT))
    while 0 <= at <= len(data) - HEADER - 2:
        if data[at + 3] << 8 | data[at + 4] == len(data) - at - HEADER:
            return True
        at = data.find(ALERT_HEADER, at + 1)
    return False


def ends_with_refusal(data: bytes) -> bool:
    """Whether a client in TLS 1.3 has said nothing behind its handshake but a record of QUIT's length.

    Postfix does so when it does not take the certificate, with the session tickets unread: so its close is a reset,
    which takes the close_notify along when Nagle's algorithm holds that back (RFC 1122 4.2.3.4).
    """
    if not _ends_with_record(data, APPLICATION_DATA, PROTECTED_QUIT):
        return False
    before = data[: -HEADER - PROTECTED_QUIT]
    return any(
        _ends_with_record(before, APPLICATION_DATA, length) and before[: -HEADER - length].endswith(CHANGE_CIPHER_SPEC)
        for length in PROTECTED_FINISHED
    )


def _ends_with_record(data: bytes, kind: int, length: int) -> bool:
    at = len(data) - HEADER - length
    return at >= 0 and data[at] == kind and data[at + 1] == 3 and data[at + 3] << 8 | data[at + 4] == length


class Records:
    """The records of one direction, from the first of the handshake on."""

    __slots__ = ("_begun", "_head", "_junk", "_left", "_open", "_settled")

    def __init__(self) -> None:
        self._begun = False  # where we are: inside of a record ...
        self._left = 0  # ... of which so many bytes are still to come,
        self._head = b""  # or inside a header
        self._open = 0  # whole records that were given to OpenSSL and gave no data yet
        self._settled = False  # `_open` is exact: the handshake's last records have been processed
        self._junk = 0  # records that gave none, less those that did

    def scan(self, raw: bytes) -> bool:
        """Count what OpenSSL is to be given.  False when it is too much without data to be given at all."""
        data = self._head + raw if self._head else raw
        end = len(data)
        at = self._left
        begun = self._begun
        seen = self._open
        while at <= end:
            if begun:
                seen += 1
                begun = False
            if at + HEADER > end:
                self._head = data[at:]
                self._left = 0
                break
            length = data[at + 3] << 8 | data[at + 4]
            if data[at] != APPLICATION_DATA:
                seen += length >> 5
            at += HEADER + length
            begun = True
        else:
            self._head = b""
            self._left = at - end
        self._begun = begun
        self._open = seen
        return self._junk + seen <= MAX_JUNK + end // SMALLEST_RECORD

    def handshake_over(self) -> None:
        """What was counted so far was the handshake's; a few of its records may still lie in OpenSSL."""
        self._open = 0

    def gave_data(self) -> bool:
        """One record gave data.  True when OpenSSL has no other whole one."""
        if self._open:
            self._open -= 1
        if self._junk > -MAX_CREDIT:
            self._junk -= 1
        return self._settled and not self._open

    def all_processed(self) -> bool:
        """OpenSSL wants more.  True when some had no data."""
        rest, self._open = self._open, 0
        if not self._settled:
            self._settled = True
            return False
        self._junk += rest
        return rest > 0

    @property
    def too_many(self) -> bool:
        """Whether more had no data than are allowed."""
        return self._junk > MAX_JUNK
