"""What a local zone does to a sender's DANE, and the ways to keep it, as docs/interposition.md has them.

Real Postfix code looks: `posttls-finger`, with a name server whose answers bear the AD bit where the zone is signed.
The server has the fault that started it all, so that without the proxy there is no STARTTLS for it; TLS passes through.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.names import dns

from tests.hosts.conftest import StartProxy
from tests.hosts.name_server import From, UdpNames
from tests.hosts.network import Host
from tests.loopback import child, wait_until

pytestmark = [pytest.mark.root, pytest.mark.alone]
FINGER = "/usr/sbin/posttls-finger"
A, NS, TLSA, AD = 1, 2, 52, 0x0020
OWN, SERVERS = "relay.domain1.com", "mail.domain1.com"  # the proxy's own name; the server's
ADDRESS = bytes((127, 0, 0, 1))


class Signed(UdpNames):
    """`table` by name and type; `signed` are the names in zones whose answers bear AD."""

    def __init__(self, address: str) -> None:
        self.table: dict[tuple[str, int], bytes] = {("", NS): b"\0"}  # Postfix asks whether the root is signed
        self.signed = {""}
        super().__init__(address)

    def asked_for(self, question: dns.Message, name: str, peer: From) -> None:
        query = question.queries[0]
        data = self.table.get((name, query.type))
        known = any(name == other for other, _ in self.table)
        flags = 0x8180 | (AD if name.removeprefix("_2525._tcp.") in self.signed else 0) | (0 if known else 3)
        labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".") if label) + b"\0"
        head = struct.pack("!HHHHHH", question.id, flags, 1, int(data is not None), 0, 0)
        answer = b"" if data is None else b"\xc0\x0c" + struct.pack("!HHIH", query.type, 1, 60, len(data)) + data
        self.send(head + labels + struct.pack("!HH", query.type, 1) + answer, peer)


class Scene:
    def __init__(self, host: Host, names: Signed, certificate: Path, config: Path) -> None:
        self.host = host
        self.environment = {**os.environ, "MAIL_CONFIG": str(config)}
        self.names = names
        self.certificate = certificate
        key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.tlsa = b"\x03\x01\x01" + hashlib.sha256(spki).digest()  # DANE-EE(3) SPKI(1) SHA2-256(1), RFC 7672 3.1.1

    def finger(self, level: str, where: str, *match: str) -> str:
        """What posttls-finger says of the server behind the proxy."""
        trust = ["-F", str(self.certificate)] if match else []
        command = self.host.command(FINGER, "-t", "10", "-l", level, *trust, f"[{where}]:2525", *match)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=self.environment)
        return done.stdout + done.stderr


@pytest.fixture
def scene(one_host: Callable[..., Host], start_proxy: StartProxy, tmp_path: Path) -> Iterator[Scene]:
    if not shutil.which(FINGER):
        pytest.skip("posttls-finger is not installed")
    host = one_host("dane")
    host.etc("resolv.conf", "nameserver 127.0.0.1\noptions trust-ad\n")
    host.etc("hosts", "127.0.0.1 localhost\n")
    settings = "compatibility_level = 3.6\nsmtp_dns_support_level = dnssec\nmyhostname = sender.example\n"
    config = tmp_path / "postfix"
    config.mkdir()
    (config / "main.cf").write_text(f"{settings}inet_protocols = ipv4\nqueue_directory = {tmp_path}\n")
    certificate = tmp_path / "server.pem"
    with host.entered():
        names = Signed("127.0.0.1")
    server = host.command(sys.executable, "-m", "proxy", "simulate", "--listen", "127.0.0.1:2526",
                          "--save-certificate", certificate)  # fmt: skip
    with child(server, tmp_path / "server.log"):
        wait_until(lambda: "listening" in (tmp_path / "server.log").read_text(), 20, "the server listens")
        start_proxy(host, 'listen = ["127.0.0.1:2525"]\ndestination = ["127.0.0.1:2526"]')
        made = Scene(host, names, certificate, config)
        made.names.table[SERVERS, A] = made.names.table[OWN, A] = ADDRESS
        yield made
    names.close()


def test_a_local_zone_makes_the_servers_name_insecure_and_dane_has_none(scene: Scene) -> None:
    """The server's own TLSA record is out of reach, though it is signed: nothing is verified by it any more."""
    scene.names.signed.add(f"_2525._tcp.{SERVERS}")
    scene.names.table[f"_2525._tcp.{SERVERS}", TLSA] = scene.tlsa
    for level in ("dane", "dane-only"):
        said = scene.finger(level, SERVERS)
        assert "Untrusted TLS connection established" in said
        assert "Verified TLS" not in said
    scene.names.signed.add(SERVERS)
    assert "Verified TLS connection established" in scene.finger("dane-only", SERVERS), "as it is without the zone"


def test_a_signed_name_of_the_proxys_own_with_the_servers_key_keeps_dane(scene: Scene) -> None:
    """TLS is the server's, so its TLSA record may stand at any name that leads to the proxy."""
    scene.names.signed.add(OWN)
    scene.names.table[f"_2525._tcp.{OWN}", TLSA] = scene.tlsa
    assert f"Verified TLS connection established to {OWN}[127.0.0.1]:2525" in scene.finger("dane-only", OWN)
    scene.names.table[f"_2525._tcp.{OWN}", TLSA] = b"\x03\x01\x01" + bytes(32)
    said = scene.finger("dane-only", OWN)
    assert "Verified TLS" not in said
    assert "Untrusted TLS connection" in said, "it would defer: another key is no match"


def test_a_route_by_address_is_verified_by_the_name_that_the_sender_has(scene: Scene) -> None:
    said = scene.finger("secure", "127.0.0.1", SERVERS)
    assert "Verified TLS connection established to 127.0.0.1[127.0.0.1]:2525" in said
    assert "Verified TLS connection" not in scene.finger("secure", "127.0.0.1", "other.domain1.com")
