"""Certificates for the tests, made on the spot: every way in which one can be right or wrong.

    authority = Authority("Test Root")
    good = authority.issue("mail.domain1.com")
    paths = good.write(tmp_path)            # paths.certificate, paths.key
    (tmp_path / "ca.pem").write_bytes(authority.pem)

`KINDS` names the whole table, `make(kind)` gives one of it: all are issued by `root()`, are meant for `NAME` and
`ADDRESS`, and keep their key and certificate for the whole run.  Keys are P-256, which are made in no time.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from proxy.net.tls.self_signed import general_name

NAME = "mail.domain1.com"
ADDRESS = "127.0.0.1"
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
EXPIRED = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
NOT_YET = datetime.datetime(2090, 1, 1, tzinfo=datetime.UTC)
YEAR = datetime.timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Paths:
    """A certificate and its key as files."""

    certificate: str
    key: str


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, what is sent behind it, and its key."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    private_key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return b"".join(each.public_bytes(Encoding.PEM) for each in (self.certificate, *self.chain))

    @property
    def key_pem(self) -> bytes:
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def encrypted_key_pem(self, passphrase: bytes = b"secret") -> bytes:
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))

    def write(self, directory: Path, name: str = "server") -> Paths:
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.certificate_pem)
        key.write_bytes(self.key_pem)
        key.chmod(0o600)
        return Paths(str(certificate), str(key))


class Authority:
    """A CA: a root, or below `parent`."""

    def __init__(self, common_name: str, parent: Authority | None = None) -> None:
        self.parent = parent
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        issuer = parent or self
        self.certificate = (
            _builder(self.name, self.key, LONG_AGO, NOW + 10 * YEAR, issuer.name, issuer.key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .sign(issuer.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def below(self, common_name: str) -> Authority:
        """An intermediate."""
        return Authority(common_name, self)

    def issue(
        self,
        *names: str,
        not_before: datetime.datetime = LONG_AGO,
        not_after: datetime.datetime = NOW + YEAR,
        general_names: Sequence[x509.GeneralName] = (),
        common_name: str = "",
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        complete: bool = True,
        with_rsa: bool = False,
    ) -> Issued:
        """A certificate for `names` (host names and addresses) and `general_names`; none at all: no subjectAltName.

        `complete=False` leaves the intermediates out of the chain.
        """
        key = rsa.generate_private_key(65537, 2048) if with_rsa else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or (*names, "no name")[0][:64])])
        builder = (
            _builder(subject, key, not_before, not_after, self.name, self.key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        alternatives = [*(general_name(name) for name in names), *general_names]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        chain = []
        authority: Authority | None = self
        while complete and authority is not None and authority.parent is not None:
            chain.append(authority.certificate)
            authority = authority.parent
        return Issued(certificate, tuple(chain), key)


@cache
def root() -> Authority:
    """The authority that the tests trust."""
    return Authority("Test Root")


@cache
def intermediate() -> Authority:
    return root().below("Test Intermediate")


@cache
def stranger() -> Authority:
    """An authority that nobody trusts."""
    return Authority("Unknown Root")


KINDS = (
    "good",
    "good-below-intermediate",
    "wrong-name",
    "wildcard",
    "wildcard-too-high",
    "address-literal",
    "no-san",
    "expired",
    "not-yet-valid",
    "self-signed",
    "unknown-ca",
    "unknown-ca-complete",
    "other-key",
    "incomplete-chain",
    "wrong-purpose",
)


NO_ISSUER = "unable to get issuer: chain incomplete or unknown CA"
# Why a certificate of that kind is refused where `NAME` is verified; "" for those that are good for it.
BY_NAME = {
    "good": "",
    "good-below-intermediate": "",
    "wrong-name": "certificate is for mx.other.example, not mail.domain1.com",
    "wildcard": "",
    "wildcard-too-high": "certificate is for *.com, not mail.domain1.com",
    "address-literal": "certificate is for 127.0.0.1, not mail.domain1.com",
    "no-san": "certificate has no subjectAltName",
    "expired": "certificate expired on 2024-01-01",
    "not-yet-valid": "certificate is not valid before 2090-01-01",
    "self-signed": "self-signed certificate",
    "unknown-ca": NO_ISSUER,
    "unknown-ca-complete": "unknown CA: the chain ends in 'Unknown Root'",
    "other-key": "",
    "incomplete-chain": NO_ISSUER,
    "wrong-purpose": "certificate is not for TLS servers",
}


@cache
def make(kind: str) -> Issued:
    """The certificate of that kind."""
    match kind:
        case "good" | "other-key":  # the second is for pins: good in every way, but not the key that was meant
            return root().issue(NAME)
        case "good-below-intermediate":
            return intermediate().issue(NAME)
        case "wrong-name":
            return root().issue("mx.other.example")
        case "wildcard":
            return root().issue("*.domain1.com")
        case "wildcard-too-high":
            return root().issue("*.com")
        case "address-literal":
            return root().issue(ADDRESS)
        case "no-san":
            return root().issue(common_name=NAME)
        case "expired":
            return root().issue(NAME, not_after=EXPIRED)
        case "not-yet-valid":
            return root().issue(NAME, not_before=NOT_YET, not_after=NOT_YET + YEAR)
        case "self-signed":
            return self_signed(NAME)
        case "unknown-ca":
            return stranger().issue(NAME)
        case "unknown-ca-complete":
            issued = stranger().issue(NAME)
            return Issued(issued.certificate, (stranger().certificate,), issued.private_key)
        case "incomplete-chain":
            return intermediate().issue(NAME, complete=False)
        case "wrong-purpose":
            return root().issue(NAME, usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    raise KeyError(kind)


def self_signed(*names: str, not_after: datetime.datetime = NOW + YEAR) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        _builder(subject, key, LONG_AGO, not_after, subject, key)
        .add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Issued(certificate, (), key)


def _builder(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    not_before: datetime.datetime,
    not_after: datetime.datetime,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        # RFC 5280 4.2.1.1 and 4.2.1.2 want these, and Python 3.13 insists (VERIFY_X509_STRICT)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _key_usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
