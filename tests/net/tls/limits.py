"""What today's OpenSSL, or what binds it, can't be made to do: each as a try, and what it says.

`LIMITS` is the table of docs/faults.md, which `python -m tests.readme_tables` writes; `test_limits` makes every try.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL

from proxy.net.tls.contexts import parse_credential, server_side
from proxy.settings import Tls
from proxy.tools.simulate.weak import certificate_for, weaken
from tests.certificates import NAME

# ServerHello of TLS 1.2 (RFC 5246 7.4.1.3) with ECDHE-RSA-AES128-GCM-SHA256 and no extension, so none of RFC 5746
OLD_HELLO = b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03" + bytes(32) + b"\x00\xc0\x2f\x00"


@dataclass(frozen=True, slots=True)
class Limit:
    """`what` can't be done; `tried` comes to an end that says `refusal`; what `follows` for the operator."""

    what: str
    refusal: str
    follows: str
    tried: Callable[[], object]


def handshake(fault: str, **tls: Any) -> str:
    """The proxy as client against a simulated server with this weakness: the version that they come to."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    weaken(context, fault)
    parse_credential(*certificate_for(fault, [NAME])).use_in(context)
    client = SSL.Connection(server_side(Tls(mode="bridge", verify="none", **tls)), None)
    server = SSL.Connection(context, None)
    client.set_connect_state()
    server.set_accept_state()
    for _ in range(4):
        with contextlib.suppress(SSL.WantReadError):
            client.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            server.bio_write(client.bio_read(1 << 16))
        with contextlib.suppress(SSL.Error):  # the client hears of it
            server.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            client.bio_write(server.bio_read(1 << 16))
    return client.get_protocol_version_name()


def old_hello() -> None:
    """A server that has no secure renegotiation answers."""
    client = SSL.Connection(server_side(Tls(mode="bridge", verify="none", security_level=0)), None)
    client.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        client.do_handshake()
    client.bio_write(OLD_HELLO)
    client.do_handshake()


def suite(name: bytes) -> None:
    SSL.Context(SSL.TLS_METHOD).set_cipher_list(name + b":@SECLEVEL=0")


def signature(name: bytes) -> None:
    if SSL._lib.SSL_CTX_set1_sigalgs_list(SSL.Context(SSL.TLS_METHOD)._context, name) != 1:  # type: ignore[attr-defined]
        raise ValueError("no such signature algorithm")


def certificate_with(algorithm: hashes.HashAlgorithm) -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    builder.sign(key, algorithm)  # type: ignore[arg-type]  # not one that it takes


def ssl_3() -> None:
    try:
        SSL.Context(SSL.TLS_METHOD).set_min_proto_version(SSL.SSL3_VERSION)
    except SSL.Error as refused:
        raise ValueError("refused without a word") from refused


LIMITS = (
    Limit("SSL 3, on either side", "refused without a word",
          "`minimum_version` begins at \"1.0\"; such a server or device can't be reached in TLS at all.", ssl_3),
    Limit("RC4", "no cipher match", "Not built in, at no security level.", lambda: suite(b"RC4-SHA")),
    Limit("3DES and DES", "no cipher match", "As above.", lambda: suite(b"DES-CBC3-SHA")),
    Limit("export suites", "no cipher match", "As above.", lambda: suite(b"EXP-RC4-MD5")),
    Limit("a handshake signed with MD5", "no such signature algorithm", "As above.", lambda: signature(b"RSA+MD5")),
    Limit("a server without secure renegotiation (RFC 5746)", "unsafe legacy renegotiation disabled",
          "The handshake fails at every `security_level`; there is no setting to allow it.", old_hello),
    Limit("TLS 1.0 or 1.1 at `security_level` 1 or 2", "tlsv1 alert protocol version",
          "Leave `security_level` away: a minimum version below 1.2 implies 0 on its side.",
          lambda: handshake("tls10", server_minimum_version="1.0", security_level=1)),
    Limit("a handshake signed with SHA-1 at `security_level` 1 or 2", "tls alert handshake failure",
          "`security_level = 0`. It also takes certificates that are signed with SHA-1.",
          lambda: handshake("sha1", security_level=1)),
    Limit("a DH group of 1024 bits at `security_level` 2", "dh key too small",
          "`security_level` 1 or 0.", lambda: handshake("dh-1024", groups="classic", security_level=2)),
    Limit("`simulate`: 1024 bits of DH to a client that names FFDHE groups (RFC 7919)", "tls alert handshake failure",
          "`--fault dh-1024` is met with `groups = \"classic\"`; real old servers send their group to anyone.",
          lambda: handshake("dh-1024", security_level=1)),
    Limit("`simulate`: a certificate signed with SHA-1", 'Hash algorithm "sha1" not supported for signatures',
          "`--fault sha1` is about the handshake's signature.", lambda: certificate_with(hashes.SHA1())),
    Limit("`simulate`: an RSA key of 512 bits", "key_size must be at least 1024-bits",
          "There is no such server to try against.", lambda: rsa.generate_private_key(65537, 512)),
)  # fmt: skip
