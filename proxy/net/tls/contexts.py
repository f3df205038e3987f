"""What TLS in bridge mode is set up with: the two OpenSSL contexts of a route, made from its settings.

`TlsContexts` is all that a route needs: the context with which the proxy is the TLS server towards its
clients, the one with which it is the TLS client towards the server, and when its own certificate ends.
OpenSSL's contexts can't be changed once a connection has been made from them, so a reload makes new ones and
running sessions keep theirs.  What is done with a context is `proxy.net.tls.channel`; who the server is, is
`proxy.net.tls.identity`'s to judge.

Towards the client: TLS 1.2 or later, no renegotiation, neither tickets nor a session cache (a resumed session
would save little in front of an SMTP session and carries keys about), and RFC 7301 for ALPN: a client that
offers `smtp` gets it, one that offers only others gets the alert `no_application_protocol`, one that offers
none is served.

Towards the server: the chain is always built and what OpenSSL finds wrong with it is noted, but the handshake
goes on to its end, so that `judge` can say in words what is wrong, once, for chain, expiry and name together.
Nothing is sent inside TLS before it has judged.  No ALPN is offered.  With `verify` "none" or "pin" keys down
to 80 bits of strength are taken (OpenSSL's security level 1: RSA-1024): the servers that can't be changed
have such certificates, and no chain is believed.  `groups` "classic" is P-256 alone, a ClientHello of 350 octets in
place of 1540, for servers and firewalls that never answer one of two segments.  DHE is not offered, since the server
chooses the group and OpenSSL computes with up to 10,000 bits; an explicit `security_level` or a minimum version below
1.2 asks for it, and `proxy.net.tls.flight` bounds it.

Limits: TLS 1.0 and 1.1 need OpenSSL's security level 0 (a side's minimum version below 1.2 implies it, on that side
alone).  What OpenSSL 4 can't do at any level stands in docs/faults.md, each of it tried by a test.

Raises `TlsProblem` for everything that a file or the host does wrong, with a sentence for the operator.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL import SSL

from proxy.net.tls.identity import note_chain
from proxy.net.tls.problem import TlsProblem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes

    from proxy.settings import Tls

VERSIONS = {
    "1.0": SSL.TLS1_VERSION,
    "1.1": SSL.TLS1_1_VERSION,
    "1.2": SSL.TLS1_2_VERSION,
    "1.3": SSL.TLS1_3_VERSION,
}

# Where distributions keep the bundle of their trust store (Debian, Fedora, openSUSE, RHEL, Alpine), as in
# Go's crypto/x509.  pyOpenSSL knows them as well, but only for cryptography's own wheels.
SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

SUITES = b"DEFAULT:!aNULL:!eNULL"  # a lower level must not bring suites without authentication or encryption along

NO_CALLBACKS = (
    "bridge mode can't work here: pyOpenSSL's callbacks need memory that is writable and executable, and the "
    "system refuses it; set MemoryDenyWriteExecute=no in the unit"
)


class NoCommonProtocol(Exception):
    """The client offered ALPN, but not `smtp`; raised in the callback, which makes OpenSSL send the alert."""


def memory_deny_write_execute_active() -> str:
    """The sentence that says why bridge mode can't work here, or "" if it can.

    cffi makes each callback in a page that is writable and executable.  Under systemd's
    `MemoryDenyWriteExecute=yes` (prctl(PR_SET_MDWE), before systemd 253 a seccomp filter) making one raises
    MemoryError: so one is made, and thrown away. That asks just what will be needed, and keeps quiet where
    cffi does without such pages.
    """
    try:
        SSL.Context(SSL.TLS_CLIENT_METHOD).set_verify(SSL.VERIFY_PEER, note_chain)
    except (MemoryError, OSError):
        return NO_CALLBACKS
    return ""


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate with its key: ours."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]  # sent behind the certificate
    key: PrivateKeyTypes

    @property
    def not_after(self) -> float:
        """Unix time at which the certificate ends."""
        return self.certificate.not_valid_after_utc.timestamp()

    def use_in(self, context: SSL.Context) -> None:
        context.use_certificate(self.certificate)
        for certificate in self.chain:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(self.key)  # type: ignore[arg-type]  # kinds that TLS can't use raise TypeError


def read_credential(certificate_file: str, key_file: str) -> Credential:
    """A certificate chain and its key from PEM files; with no `key_file`, both are in the first.

    Raises TlsProblem: a file that can't be read or holds something else, an encrypted key, a key that does
    not fit.
    """
    certificate_pem = _read(certificate_file, "certificate")
    key_pem = _read(key_file, "key") if key_file else certificate_pem
    return parse_credential(certificate_pem, key_pem, certificate_file, key_file or certificate_file)


def parse_credential(
    certificate_pem: bytes, key_pem: bytes, certificate_file: str = "certificate", key_file: str = "key"
) -> Credential:
    """The same from bytes; the names are for the error's text."""
    try:
        certificates = x509.load_pem_x509_certificates(certificate_pem)
    except ValueError:
        raise TlsProblem(f"{certificate_file}: no certificate in PEM form in it") from None
    try:
        key = load_pem_private_key(key_pem, None)
    except TypeError:
        raise TlsProblem(f"{key_file}: the key is encrypted; a key without a passphrase is needed") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsProblem(f"{key_file}: no private key in PEM form in it") from None
    try:
        fits = _public_bytes(key.public_key()) == _public_bytes(certificates[0].public_key())
    except (ValueError, UnsupportedAlgorithm):
        raise TlsProblem(f"{certificate_file}: its kind of key is not supported") from None
    if not fits:
        raise TlsProblem(f"{key_file}: the key does not fit the first certificate in {certificate_file}")
    credential = Credential(certificates[0], tuple(certificates[1:]), key)
    try:
        credential.use_in(SSL.Context(SSL.TLS_SERVER_METHOD))
    except (SSL.Error, TypeError, ValueError):
        # a key too short for OpenSSL's security level, or of a kind that TLS has no use for
        raise TlsProblem(f"{certificate_file}: OpenSSL does not take this certificate (too weak?)") from None
    return credential


def client_side(tls: Tls, credential: Credential | None = None, keylog: KeyLog | None = None) -> SSL.Context:
    """The context with which the proxy is the TLS server towards its clients.  Raises TlsProblem.

    `credential` stands in for the files that the settings name.
    """
    if credential is None:
        if not tls.certificate:
            raise TlsProblem("no certificate is set, and TLS towards the client needs one")
        credential = read_credential(tls.certificate, tls.key)
    version = tls.client_minimum_version or tls.minimum_version
    context = _context(SSL.TLS_SERVER_METHOD, version, tls.keylog, keylog)
    if VERSIONS[version] < SSL.TLS1_2_VERSION:
        context.set_cipher_list(SUITES + b":@SECLEVEL=0")
    credential.use_in(context)
    try:
        context.set_alpn_select_callback(_choose_protocol)
    except (MemoryError, OSError):
        raise TlsProblem(NO_CALLBACKS) from None
    return context


def server_side(tls: Tls, keylog: KeyLog | None = None) -> SSL.Context:
    """The context with which the proxy is the TLS client towards the server.  Raises TlsProblem."""
    version = tls.server_minimum_version or tls.minimum_version
    context = _context(SSL.TLS_CLIENT_METHOD, version, tls.keylog, keylog)
    suites = SUITES if offers_dhe(tls) else SUITES + b":!DHE"
    level = _security_level(tls, VERSIONS[version])
    context.set_cipher_list(suites if level is None else suites + b":@SECLEVEL=%d" % level)
    if tls.groups == "classic":
        context.set_tmp_ecdh(ec.SECP256R1())  # OpenSSL takes it as the whole list of groups, TLS 1.3's too
    if tls.client_certificate:
        read_credential(tls.client_certificate, tls.client_key).use_in(context)
    if tls.verify == "hostname":
        _load_trust(context, tls.ca_file)
        try:
            context.set_verify(SSL.VERIFY_PEER, note_chain)
        except (MemoryError, OSError):
            raise TlsProblem(NO_CALLBACKS) from None
    else:
        context.set_verify(SSL.VERIFY_NONE)
    return context


def offers_dhe(tls: Tls) -> bool:
    """Whether the server may choose a Diffie-Hellman group of its own: only where the settings ask for it."""
    version = tls.server_minimum_version or tls.minimum_version
    return tls.security_level != "default" or VERSIONS.get(version, 0) < SSL.TLS1_2_VERSION


def _security_level(tls: Tls, version: int) -> int | None:
    """OpenSSL's, towards the server; None leaves it at its default."""
    if isinstance(tls.security_level, int):
        return tls.security_level
    if version < SSL.TLS1_2_VERSION:
        return 0
    return None if tls.verify == "hostname" else 1


SharedContexts = dict[Hashable, tuple[SSL.Context, float | None]]


class TlsContexts:
    """Both contexts of one route, as its settings and the files stand now.  Raises TlsProblem.

    `shared`, one dict for the routes of one load, lets routes with the same settings have the same contexts:
    a system's trust store is 0.8 MiB and 4 ms.
    """

    __slots__ = ("client_side", "not_after", "server_side")

    client_side: SSL.Context | None  # None where the client has no TLS
    server_side: SSL.Context | None  # None where the server has no TLS
    not_after: float | None  # Unix time: end of the certificate that we show to clients

    def __init__(self, tls: Tls, shared: SharedContexts | None = None) -> None:
        made: SharedContexts = {} if shared is None else shared
        self.client_side = self.server_side = self.not_after = None
        if tls.client != "none":
            key: Hashable = (
                "client",
                tls.certificate,
                tls.key,
                tls.client_minimum_version or tls.minimum_version,
                tls.keylog,
            )
            if key not in made:
                if not tls.certificate:
                    raise TlsProblem("no certificate is set, and TLS towards the client needs one")
                credential = read_credential(tls.certificate, tls.key)
                made[key] = client_side(tls, credential), credential.not_after
            self.client_side, self.not_after = made[key]
        if tls.server != "none":
            key = (
                "server", tls.verify == "hostname", tls.ca_file, tls.client_certificate, tls.client_key,
                tls.server_minimum_version or tls.minimum_version, tls.groups, tls.security_level, tls.keylog,
            )  # fmt: skip
            if key not in made:
                made[key] = server_side(tls), None
            self.server_side = made[key][0]


class KeyLog:
    """An NSS key log: whoever has it reads the sessions.  Appended to, 0600; for a lab."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: str) -> None:
        """Raises TlsProblem if the file can't be opened for appending by us alone."""
        self._descriptor = -1
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            self._descriptor = os.open(path, flags, 0o600)
            os.fchmod(self._descriptor, 0o600)
        except OSError as error:
            raise TlsProblem(f"{path}: the key log can't be opened: {error.strerror}") from None

    def write(self, connection: SSL.Connection, line: bytes) -> None:
        """OpenSSL's callback.  A full disk must not end a session, and nothing may be raised into OpenSSL."""
        try:
            os.write(self._descriptor, line + b"\n")
        except OSError:
            pass

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _context(method: int, minimum_version: str, keylog_file: str, keylog: KeyLog | None) -> SSL.Context:
    version = VERSIONS.get(minimum_version)
    if version is None:
        raise TlsProblem(f"minimum_version {minimum_version!r} is not one of {', '.join(VERSIONS)}")
    context = SSL.Context(method)
    context.set_min_proto_version(version)
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle session keeps no 34 KiB of record buffers
    if keylog is None and keylog_file:
        keylog = KeyLog(keylog_file)
    if keylog is not None:
        try:
            context.set_keylog_callback(keylog.write)
        except (MemoryError, OSError):
            raise TlsProblem(NO_CALLBACKS) from None
    return context


def _choose_protocol(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    if b"smtp" in offered:
        return b"smtp"
    # An exception is how pyOpenSSL is told to send the alert no_application_protocol.  Returning b"" looks like
    # it, but OpenSSL 3 and later answer `internal_error` to that.
    raise NoCommonProtocol


def _load_trust(context: SSL.Context, ca_file: str) -> None:
    if ca_file:
        _read(ca_file, "ca_file")  # for the reason, which OpenSSL does not tell
        try:
            context.load_verify_locations(ca_file)
        except SSL.Error:
            raise TlsProblem(f"{ca_file}: no certificate in PEM form in it") from None
        return
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        for bundle in SYSTEM_BUNDLES:
            if os.path.isfile(bundle):
                try:
                    context.load_verify_locations(bundle)
                except SSL.Error:
                    continue
                return
    known = ssl.get_default_verify_paths()  # the paths that the environment names, else those built in
    if not known.cafile and not known.capath:
        raise TlsProblem("no trust store found on this system; install ca-certificates, or set ca_file")
    context.set_default_verify_paths()


def _public_bytes(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 24)
    except OSError as error:
        raise TlsProblem(f"{path}: the {what} can't be read: {error.strerror}") from None
