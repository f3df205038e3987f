"""A simulated server's side of TLS: its certificate, made at start, and what is weak about it.

Tried with OpenSSL 4.0, which the cryptography package carries.  It still does TLS 1.0 and 1.1 at security level 0 and
signs a handshake with SHA-1 there.  Two things it can't be made to do as old servers do: it negotiates FFDHE groups by
RFC 7919, so that 1024 bits are sent only to a client that names no larger group (others get an alert); and the
cryptography package signs no certificate with SHA-1, so `sha1` is about the handshake alone.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import SSL

from proxy.net.tls.self_signed import general_name, make_self_signed

WRONG_NAME = "wrong.example"
EXPIRED_FOR = datetime.timedelta(days=30)
_RSA = frozenset(("dh-1024", "sha1"))  # DHE and SHA-1 signatures of old servers went with RSA keys
# Second Oakley Group, RFC 2409 6.2: the 1024 bits that most old servers had
_OAKLEY_2 = """-----BEGIN DH PARAMETERS-----
MIGHAoGBAP//////////yQ/aoiFowjTExmKLgNwc0SkCTgiKZ8x0Agu+pjsTmyJR
Sgh5jjQE3e+VGbPNOkMbMCsKbfJfFDdP4TVtbVHCReSFtXZiXn7G9ExC6aY37WsL
/1y29Aa37e44a/taiZ+lrp8kEXxLH+ZJKGZR7OZTgf//////////AgEC
-----END DH PARAMETERS-----
"""


def certificate_for(weakness: str, names: Sequence[str]) -> tuple[bytes, bytes]:
    """(certificate, key) as PEM for a server with this weakness, or none.  Raises ValueError for a bad name."""
    if weakness == "wrong-name":
        names = [WRONG_NAME]
    if weakness not in _RSA and weakness != "expired":
        return make_self_signed(names)
    key = rsa.generate_private_key(65537, 2048) if weakness in _RSA else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0][:64])])
    ends = datetime.datetime.now(datetime.UTC) + (-EXPIRED_FOR if weakness == "expired" else EXPIRED_FOR)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - datetime.timedelta(days=365))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def weaken(context: SSL.Context, weakness: str) -> None:
    """Make a server's context as weak as that; one that is only about the certificate changes nothing."""
    if weakness in ("tls10", "tls11"):
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_min_proto_version(SSL.TLS1_VERSION)
        context.set_max_proto_version(SSL.TLS1_VERSION if weakness == "tls10" else SSL.TLS1_1_VERSION)
    elif weakness == "dh-1024":
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(b"DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-SHA:@SECLEVEL=0")
        context.set_tmp_ecdh(ec.SECP256R1())  # no FFDHE group: those would be negotiated, and are large
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(_OAKLEY_2)
            file.flush()
            context.load_tmp_dh(file.name)
    elif weakness == "sha1":
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(b"ECDHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0")
        # pyOpenSSL has no method for it, only OpenSSL's own function
        if SSL._lib.SSL_CTX_set1_sigalgs_list(context._context, b"RSA+SHA1") != 1:  # type: ignore[attr-defined]
            raise ValueError("this OpenSSL signs no handshake with SHA-1")
