"""Is this the server that was meant?  Certificate and policy in, a verdict in words out.

`judge` renders it after the handshake and before a byte is sent inside TLS; `note_chain` is the callback with
which OpenSSL tells, during the handshake, what it finds wrong with the chain.  It fails closed: an exception
anywhere is a refusal, and so is a chain of which OpenSSL has said nothing.

`verify = "hostname"`: the chain leads to the trust store and has not expired (RFC 5280 section 6, by
OpenSSL), and the subjectAltName has a name that was meant (`proxy.net.tls.names`).  The common name is not looked at,
so a certificate without a subjectAltName is refused. A SAN entry that is malformed or of another kind matches
nothing and does no harm to the others. `"pin"`: the SHA-256 of the SubjectPublicKeyInfo, of the server's own
certificate, is one of `pins` (as in RFC 7858 and RFC 7469); chain, name and expiry are not looked at.
`"none"`: everyone is let in.  A chain of over `MAX_CHAIN` octets is refused under each of them.

Reasons name what a certificate says of itself, cut and in printable ASCII: a peer forges no line with them.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography import x509
from OpenSSL import SSL, crypto

from proxy.net.tls.names import Meant, name_problem, printable

if TYPE_CHECKING:
    from proxy.settings import Tls

MAX_CHAIN_NOTES = 16  # a chain is a few certificates long; OpenSSL itself stops at 100
MAX_CHAIN = 65536  # octets of all its certificates; OpenSSL itself stops at 100 KiB
MAX_REMEMBERED = 8192  # octets of a certificate that is remembered once it was read; most have some 1500

_CODES = SSL.X509VerificationCodes
_NO_ISSUER = "unable to get issuer: chain incomplete or unknown CA"
_CHAIN_REASONS = {
    _CODES.ERR_UNABLE_TO_GET_ISSUER_CERT: _NO_ISSUER,
    _CODES.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: _NO_ISSUER,
    _CODES.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: _NO_ISSUER,
    _CODES.ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "self-signed certificate",
    _CODES.ERR_SELF_SIGNED_CERT_IN_CHAIN: "unknown CA: the chain ends in {subject}",
    _CODES.ERR_CERT_SIGNATURE_FAILURE: "wrong signature on the certificate of {subject}",
    _CODES.ERR_CERT_NOT_YET_VALID: "{whose} is not valid before {not_before}",
    _CODES.ERR_CERT_HAS_EXPIRED: "{whose} expired on {not_after}",
    _CODES.ERR_CERT_REVOKED: "{whose} is revoked",
    _CODES.ERR_INVALID_CA: "{subject} is not a CA",
    _CODES.ERR_INVALID_PURPOSE: "{whose} is not for TLS servers",
    _CODES.ERR_CERT_CHAIN_TOO_LONG: "the chain is too long",
    _CODES.ERR_PERMITTED_VIOLATION: "the CA's name constraints exclude the certificate",
    _CODES.ERR_EXCLUDED_VIOLATION: "the CA's name constraints exclude the certificate",
    66: "the certificate's key is too weak",  # X509_V_ERR_EE_KEY_TOO_SMALL, which pyOpenSSL does not name
    67: "the key of the CA {subject} is too weak",  # X509_V_ERR_CA_KEY_TOO_SMALL
    68: "the signature algorithm of {subject} is too weak",  # X509_V_ERR_CA_MD_TOO_WEAK
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the server may be talked to inside TLS, and why (not), in a few printable words.

    `not_after` is the end of the server's certificate, Unix time; None when there is none or it can't be
    read.
    """

    accepted: bool
    reason: str
    not_after: float | None


class ChainNotes:
    """What OpenSSL found in one chain; the app data of a connection towards a server."""

    __slots__ = ("failed", "leaf_seen", "reasons")

    def __init__(self) -> None:
        self.leaf_seen = False  # OpenSSL came to the server's own certificate, so the chain was looked at
        self.failed = False  # our own code failed
        self.reasons: list[str] = []

    def add(self, reason: str) -> None:
        if reason not in self.reasons and len(self.reasons) < MAX_CHAIN_NOTES:
            self.reasons.append(reason)


def note_chain(connection: SSL.Connection, certificate: crypto.X509, code: int, depth: int, ok: int) -> bool:
    """OpenSSL's verify callback: note what is wrong and go on; False, ending the handshake, if we fail."""
    notes = None
    try:
        notes = connection.get_app_data()
        if not isinstance(notes, ChainNotes):
            return False
        if depth == 0:
            notes.leaf_seen = True
        if not ok:
            notes.add(_chain_reason(certificate.to_cryptography(), code, depth))
        return True
    except Exception:
        if isinstance(notes, ChainNotes):
            notes.failed = True
        return False


def judge(connection: SSL.Connection, tls: Tls, meant: Meant | str, received: int | None = None) -> Verdict:
    """The verdict on the server at the other end of a finished handshake.  Never raises.

    `meant` is who was meant, or just the host name or address (in brackets or not).  `received`, the bytes that the
    handshake had from the server, saves looking at a chain that can't be too long.
    """
    not_after = None
    try:
        if (received is None or received > MAX_CHAIN) and _chain_size(connection) > MAX_CHAIN:
            return Verdict(False, f"the server's chain of certificates has over {MAX_CHAIN >> 10} KiB", None)
        if tls.verify == "none":
            with contextlib.suppress(Exception):  # the policy does not ask for a certificate that can be read
                der = _peer_certificate(connection)
                not_after = None if der is None else _not_after(der)
            return Verdict(True, "not verified", not_after)
        der = _peer_certificate(connection)
        if der is None:
            return Verdict(False, "no certificate", None)
        not_after = _not_after(der)
        if tls.verify == "pin":
            pin = spki_sha256(_certificate(der))
            if pin in {_pin_value(wanted) for wanted in tls.pins}:
                return Verdict(True, "the key is pinned", not_after)
            return Verdict(False, f"the certificate's key is not pinned: it is sha256:{pin}", not_after)
        if tls.verify != "hostname":
            return Verdict(False, "unknown policy", not_after)
        wanted = (meant if isinstance(meant, Meant) else Meant(meant)).names(tls.verify_name)
        notes = connection.get_app_data()
        if not isinstance(notes, ChainNotes) or notes.failed or not (notes.leaf_seen or notes.reasons):
            return Verdict(False, "the chain was not verified", not_after)
        reasons = list(notes.reasons)
        if problem := _name_problem(der, wanted):
            reasons.append(problem)
        if reasons:
            return Verdict(False, "; ".join(reasons), not_after)
        return Verdict(True, f"verified for {' or '.join(printable(name) for name in wanted)}", not_after)
    except Exception as error:
        # Whatever it is, it is about a certificate that a stranger made.
        return Verdict(False, f"the certificate can't be checked ({type(error).__name__})", not_after)


def _chain_size(connection: SSL.Connection) -> int:
    chain = connection.get_peer_cert_chain(as_cryptography=False) or ()
    return sum(len(crypto.dump_certificate(crypto.FILETYPE_ASN1, one)) for one in chain)


def _peer_certificate(connection: SSL.Connection) -> bytes | None:
    certificate = connection.get_peer_certificate(as_cryptography=False)
    return None if certificate is None else crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)


# A server shows the same certificate to every session, and reading one costs as much as a third of a handshake.  What
# is remembered is what the octets say, never a verdict: chain, expiry and policy are looked at each time.


def _certificate(der: bytes) -> x509.Certificate:
    return _read(der) if len(der) <= MAX_REMEMBERED else x509.load_der_x509_certificate(der)


def _not_after(der: bytes) -> float:
    return _certificate(der).not_valid_after_utc.timestamp()


def _name_problem(der: bytes, wanted: tuple[str, ...]) -> str:
    return _judged_name(der, wanted) if len(der) <= MAX_REMEMBERED else name_problem(_certificate(der), *wanted)


@lru_cache(maxsize=128)
def _read(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


@lru_cache(maxsize=128)
def _judged_name(der: bytes, wanted: tuple[str, ...]) -> str:
    return name_problem(_read(der), *wanted)


def spki_sha256(certificate: x509.Certificate) -> str:
    """Base64 of the SHA-256 of the SubjectPublicKeyInfo, byte for byte as it stands in the certificate.

    The same as `openssl x509 -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary
    | base64`, but also for keys that neither program can read.  Raises ValueError for a certificate that is
    no DER.
    """
    # TBSCertificate ::= SEQUENCE { version [0], serialNumber, signature, issuer, validity, subject,
    #     subjectPublicKeyInfo, ... }; version is left out in X.509 version 1
    der = certificate.tbs_certificate_bytes
    start, end = _element(der, 0)[1:]
    elements: list[tuple[int, bytes]] = []
    while start < end and len(elements) < 7:
        tag, _, after = _element(der, start)
        elements.append((tag, der[start:after]))
        start = after
    index = 6 if elements and elements[0][0] == 0xA0 else 5
    if len(elements) <= index:
        raise ValueError("no SubjectPublicKeyInfo")
    return base64.b64encode(hashlib.sha256(elements[index][1]).digest()).decode()


def _chain_reason(certificate: x509.Certificate, code: int, depth: int) -> str:
    subject = _subject(certificate.subject)
    return _CHAIN_REASONS.get(code, "certificate not accepted (OpenSSL's verify error {code})").format(
        code=code,
        subject=subject,
        whose="certificate" if depth == 0 else f"the CA certificate of {subject}",
        not_before=certificate.not_valid_before_utc.date().isoformat(),
        not_after=certificate.not_valid_after_utc.date().isoformat(),
    )


def _subject(name: Iterable[x509.NameAttribute[str | bytes]]) -> str:
    """The common name, else whatever comes last, the most specific."""
    text = ""
    for attribute in name:
        if isinstance(attribute.value, str):
            text = attribute.value
            if attribute.oid == x509.NameOID.COMMON_NAME:
                break
    return f"'{printable(text)}'"


def _pin_value(pin: str) -> str:
    return pin.removeprefix("sha256:").strip()


def _element(der: bytes, start: int) -> tuple[int, int, int]:
    """Tag, begin and end of the contents of the DER element at `start`."""
    if start + 2 > len(der):
        raise ValueError("DER ends early")
    length, begin = der[start + 1], start + 2
    if length >= 0x80:
        octets = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + octets], "big"), begin + octets
    if begin + length > len(der):
        raise ValueError("DER ends early")
    return der[start], begin, begin + length
