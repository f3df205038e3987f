"""Which ClientHello a server answers: today's, and where that fails smaller and weaker ones.

OpenSSL's ClientHello carries a hybrid key share since 3.5 and does not fit one TCP segment; some servers and firewalls
wait for ever for the rest of it (openssl/openssl#27557, tldr.fail).  So on silence, an end or a reset a small one is
tried; then, as after an alert, TLS 1.2 alone, OpenSSL's weaker security levels with Diffie-Hellman over finite fields
(with P-256 alone beside it: OpenSSL 4 names larger fields of RFC 7919, and then does not get an old server's), and
TLS 1.0.  Each has a connection of its own: a server that has failed at a handshake is not asked again on that one.

Every context is the one that bridge mode has with these settings: what is told to be set does what was seen.  Nothing
is raised but `TlsProblem` for what is wrong on this host.
"""

from __future__ import annotations

from dataclasses import dataclass

from OpenSSL import SSL

from proxy.net.tls.contexts import server_side
from proxy.settings import Tls


@dataclass(frozen=True, slots=True)
class Hello:
    """One kind of ClientHello; `words` go behind "a ClientHello ".  The rest is what bridge mode is set to for it."""

    name: str
    words: str
    groups: str = "default"
    security_level: str | int = "default"
    minimum_version: str = "1.2"
    maximum_version: int = 0  # OpenSSL's number; there is no setting for it

    def context(self, ca_file: str) -> SSL.Context:
        """Raises TlsProblem."""
        tls = Tls(
            ca_file=ca_file,
            groups=self.groups,
            security_level=self.security_level,
            server_minimum_version=self.minimum_version,
        )
        context = server_side(tls)
        context.set_max_proto_version(self.maximum_version)
        return context

    def lines(self, version: str) -> tuple[str, ...]:
        """The same as lines of [route.tls], where OpenSSL calls the version that came about `version`."""
        lines = []
        if self.groups != "default":
            lines.append(f'groups = "{self.groups}"')
        if self.security_level != "default":
            lines.append(f"security_level = {self.security_level}")
        if self.minimum_version != "1.2":
            old = version.removeprefix("TLSv")
            lines.append(f'server_minimum_version = "{old if "." in old else "1.0"}"')
        return tuple(lines)


TODAY = Hello("today", "as OpenSSL sends it today")
SMALL = Hello("small", "without a hybrid key share (P-256 alone)", "classic")
TLS12 = Hello("tls1.2", "of TLS 1.2 alone", maximum_version=SSL.TLS1_2_VERSION)
LEVEL_2 = Hello("level-2", "with DHE (finite fields)", "classic", 2)
LEVEL_1 = Hello("level-1", "with DHE and security level 1", "classic", 1)
LEVEL_0 = Hello("level-0", "with DHE and security level 0", "classic", 0)
TLS10 = Hello("tls1.0", "that takes TLS 1.0 and security level 0", "classic", minimum_version="1.0")

AFTER_SILENCE = (SMALL, TLS12, LEVEL_2, LEVEL_1, LEVEL_0, TLS10)
AFTER_ALERT = (TLS12, LEVEL_2, LEVEL_1, LEVEL_0, TLS10)
HELLOS = {hello.name: hello for hello in (TODAY, *AFTER_SILENCE)}


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
