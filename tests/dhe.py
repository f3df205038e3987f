"""A server of TLS 1.2 with Diffie-Hellman over a group of any size, which nobody looks at: its modulus is no prime."""

from __future__ import annotations

import datetime
import secrets
import ssl
from base64 import encodebytes
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.certificates import NAME


def _der(tag: int, body: bytes) -> bytes:
    length = len(body)
    if length < 128:
        return bytes([tag, length]) + body
    octets = (length.bit_length() + 7) // 8
    return bytes([tag, 0x80 | octets]) + length.to_bytes(octets, "big") + body


def _parameters(bits: int) -> bytes:
    """A group of so many bits in PEM."""
    modulus = secrets.randbits(bits) | 1 << (bits - 1) | 1
    body = _der(2, b"\0" + modulus.to_bytes((bits + 7) // 8, "big")) + _der(2, b"\2")
    return b"-----BEGIN DH PARAMETERS-----\n" + encodebytes(_der(48, body)) + b"-----END DH PARAMETERS-----\n"


def dhe_server(folder: Path, bits: int) -> ssl.SSLContext:
    """TLS 1.2 with DHE and nothing else; pyOpenSSL's would choose a group by itself."""
    (folder / "dh.pem").write_bytes(_parameters(bits))
    certificate, key = _rsa()
    (folder / "pair.pem").write_bytes(
        certificate.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("kDHE:@SECLEVEL=0")
    context.load_cert_chain(folder / "pair.pem")
    context.load_dh_params(str(folder / "dh.pem"))
    return context


@cache
def _rsa() -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()), key
