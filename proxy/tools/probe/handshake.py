"""Which ClientHello a server answers: today's, and where that fails smaller and weaker ones.

OpenSSL's ClientHello carries a hybrid key share since 3.5 and does not fit one TCP segment; some servers and firewalls
wait for ever for the rest of it (openssl/openssl#27557, tldr.fail).  So on silence, an end or a reset a small one is
tried; then, as after an alert, TLS 1.2 alone, OpenSSL's weaker security levels with Diffie-Hellman over finite fields
(with P-256 alone beside it: OpenSSL 4 names larger fields of RFC 7919, and then does not get an old server's), and
TLS 1.0.  Each has a connection of its own: a server that has failed at a handshake is not asked again on that one.

Every context is the one that bridge mode has by default, changed in the one respect.  Nothing is raised but
`TlsProblem` for what is wrong on this host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from proxy.net.tls.channel import server_side
from proxy.settings import Tls

SEGMENT = 1460  # octets of a TCP segment on an Ethernet, without options
_ALL = b"DEFAULT:!aNULL:!eNULL:@SECLEVEL="


@dataclass(frozen=True, slots=True)
class Hello:
    """One kind of ClientHello; `words` go behind "a ClientHello "."""

    name: str
    words: str
    change: Callable[[SSL.Context], None]
    minimum_version: str = "1.2"

    def context(self, ca_file: str) -> SSL.Context:
        """Raises TlsProblem."""
        context = server_side(Tls(ca_file=ca_file, minimum_version=self.minimum_version))
        self.change(context)
        return context


def _nothing(context: SSL.Context) -> None:
    pass


def _classic(context: SSL.Context) -> None:
    context.set_tmp_ecdh(ec.SECP256R1())  # all groups but this one go


def _tls12(context: SSL.Context) -> None:
    context.set_max_proto_version(SSL.TLS1_2_VERSION)


def _level_2(context: SSL.Context) -> None:
    _classic(context)
    context.set_cipher_list(_ALL + b"2")


def _level_1(context: SSL.Context) -> None:
    _classic(context)
    context.set_cipher_list(_ALL + b"1")


def _level_0(context: SSL.Context) -> None:
    _classic(context)
    context.set_cipher_list(_ALL + b"0")


TODAY = Hello("today", "as OpenSSL sends it today", _nothing)
SMALL = Hello("small", "without a hybrid key share (P-256 alone)", _classic)
TLS12 = Hello("tls1.2", "of TLS 1.2 alone", _tls12)
LEVEL_2 = Hello("level-2", "with DHE (finite fields)", _level_2)
LEVEL_1 = Hello("level-1", "with DHE and security level 1", _level_1)
LEVEL_0 = Hello("level-0", "with DHE and security level 0", _level_0)
TLS10 = Hello("tls1.0", "that takes TLS 1.0 and security level 0", _level_0, minimum_version="1.0")

AFTER_SILENCE = (SMALL, TLS12, LEVEL_2, LEVEL_1, LEVEL_0, TLS10)
AFTER_ALERT = (TLS12, LEVEL_2, LEVEL_1, LEVEL_0, TLS10)


def hello_size(context: SSL.Context, server_name: bytes) -> int:
    """The octets of the ClientHello that this context sends, record header included."""
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    if server_name:
        connection.set_tlsext_host_name(server_name)
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        pass
    except SSL.Error:
        return 0  # nothing is left that this OpenSSL would offer
    return len(connection.bio_read(65536))
