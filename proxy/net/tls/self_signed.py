"""A self-signed certificate with its key, made on the spot: what a simulated server shows.

No file is written and no trust is asked for: whoever connects has to take it as it is, or pin its key.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

DAYS = datetime.timedelta(days=30)


def make_self_signed(
    names: Sequence[str], *, with_rsa: bool = False, ends_in: datetime.timedelta = DAYS
) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM form for `names`, host names and addresses; valid up to `ends_in` from now, for a year.

    Raises ValueError when there is no name, or one that no certificate can hold.
    """
    if not names:
        raise ValueError("a certificate needs a name")
    key = rsa.generate_private_key(65537, 2048) if with_rsa else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0][:64])])
    ends_at = datetime.datetime.now(datetime.UTC) + ends_in
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends_at - datetime.timedelta(days=365))
        .not_valid_after(ends_at)
        .add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def general_name(name: str) -> x509.GeneralName:
    """`name` as it stands in a subjectAltName: an iPAddress if it is an address, else a dNSName."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return x509.DNSName(name)
