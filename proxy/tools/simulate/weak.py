"""A simulated server's side of TLS: its certificate, made at start, and what is weak about it.

OpenSSL 4.0, which the cryptography package carries, still does TLS 1.0 and 1.1 at security level 0, and SHA-1 there.
What it can't be made to do as old servers do stands in docs/faults.md, each of it tried by a test.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from proxy.net.tls.self_signed import DAYS, make_self_signed

WRONG_NAME = "wrong.example"
_RSA = frozenset(("dh-1024", "sha1"))  # DHE and SHA-1 signatures of old servers went with RSA keys
# Second Oakley Group, RFC 2409 6.2: the 1024 bits that most old servers had
OAKLEY_2 = """-----BEGIN DH PARAMETERS-----
MIGHAoGBAP//////////yQ/aoiFowjTExmKLgNwc0SkCTgiKZ8x0Agu+pjsTmyJR
Sgh5jjQE3e+VGbPNOkMbMCsKbfJfFDdP4TVtbVHCReSFtXZiXn7G9ExC6aY37WsL
/1y29Aa37e44a/taiZ+lrp8kEXxLH+ZJKGZR7OZTgf//////////AgEC
-----END DH PARAMETERS-----
"""


def certificate_for(weakness: str, names: Sequence[str]) -> tuple[bytes, bytes]:
    """(certificate, key) as PEM for a server with this weakness, or none.  Raises ValueError for a bad name."""
    shown = [WRONG_NAME] if weakness == "wrong-name" else names
    return make_self_signed(shown, with_rsa=weakness in _RSA, ends_in=-DAYS if weakness == "expired" else DAYS)


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
            file.write(OAKLEY_2)
            file.flush()
            context.load_tmp_dh(file.name)
    elif weakness == "sha1":
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(b"ECDHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0")
        # pyOpenSSL has no method for it, only OpenSSL's own function
        if SSL._lib.SSL_CTX_set1_sigalgs_list(context._context, b"RSA+SHA1") != 1:  # type: ignore[attr-defined]
            raise ValueError("this OpenSSL signs no handshake with SHA-1")
