"""The lab: one broken server for each finding or fault, and the proxy in front of each, as two child processes.

`port(finding, proxied)` is where a sender connects; `mail_to(recipient)` is what arrived, told by the server itself.
The finding `none` is a server without fault. In front of a server with a fault the proxy has the settings that cure it,
`CURES` and `REPAIRS`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.certificates import ADDRESS, NAME, NOW, Authority
from tests.loopback import child, free_port, wait_until

START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """One message as the server got it; `tls` is the version, empty if it came in clear."""

    finding: str
    tls: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the clients trust, as a file, and the server's certificate as it goes over the wire."""

    ca: Path
    der: bytes


def make_certificates(folder: Path) -> Certificates:
    """A new authority, and the server's certificate and key as the servers want them: server.pem, server.key.

    Where what is weak is the certificate or its key, it has one of its own, by that name.
    """
    authority = Authority("Test Root")
    authority.issue(NAME, ADDRESS, not_after=NOW - timedelta(days=30)).write(folder, "expired")
    authority.issue("wrong.example").write(folder, "wrong-name")
    for weakness in ("dh-1024", "sha1"):
        authority.issue(NAME, ADDRESS, with_rsa=True).write(folder, weakness)
    issued = authority.issue(NAME, ADDRESS)
    issued.write(folder)
    (folder / "ca.pem").write_bytes(authority.pem)
    return Certificates(folder / "ca.pem", issued.certificate.public_bytes(Encoding.DER))


@dataclass(frozen=True, slots=True)
class Lab:
    folder: Path
    certificates: Certificates
    direct: dict[str, int]
    proxied: dict[str, int]

    def port(self, finding: str, proxied: bool) -> int:
        return (self.proxied if proxied else self.direct)[finding]

    def mail_to(self, recipient: str, seconds: float = 0.0) -> Arrived | None:
        """What came for the recipient, waiting so long for it."""
        until = time.monotonic() + seconds
        while True:
            for line in self._mails():
                told = json.loads(line)
                if recipient in told["to"]:
                    return Arrived(told["finding"], told["tls"], Path(told["file"]).read_bytes())
            if time.monotonic() >= until:
                return None
            time.sleep(0.05)

    def _mails(self) -> list[str]:
        path = self.folder / "mails.jsonl"
        return path.read_text().splitlines() if path.exists() else []

    def proxy_log(self) -> str:
        return (self.folder / "proxy.log").read_text(errors="replace")


BRIDGE = """[route.tls]
mode = "bridge"
certificate = "{folder}/server.pem"
key = "{folder}/server.key"
ca_file = "{folder}/ca.pem"
verify_name = "mail.domain1.com"
"""
# Where the cure is ours: what `explain` says, as settings.
CURES = {
    "hello-unanswered": BRIDGE + 'groups = "classic"\n',
    "hello-too-large": BRIDGE + 'groups = "classic"\n',
    "tls-outdated": BRIDGE + 'server_minimum_version = "1.1"\n',
    "tls10-only": BRIDGE + 'server_minimum_version = "1.0"\n',
    "dh-1024": BRIDGE + 'groups = "classic"\nsecurity_level = 1\n',
    "sha1": BRIDGE + "security_level = 0\n",
    "expired": BRIDGE.replace("verify_name", "#") + 'verify = "pin"\npins = ["sha256:{pin}"]\n',
    "wrong-name": BRIDGE.replace("mail.domain1.com", "wrong.example"),
    "client-name-invalid": BRIDGE,  # the EHLO inside pass-through TLS would be the client's own
}
REPAIRS = {
    "client-name-invalid": 'client_name = "gateway.domain1.com"\n',
    "starttls-refused": 'remove = ["STARTTLS"]\n',
    "keyword-incomplete": 'remove = ["SMTPUTF8", "BINARYMIME"]\n',
}
HIDING = 'remove = ["CHUNKING", "AUTH:NTLM"]\n'
HIDDEN = {"chunks-unknown": BRIDGE, "chunks-unknown-in-clear": ""}  # servers of `tests.clients.servers`, what is hidden
BAD_NAME = "localhost"  # what clients say to the server that takes no such name


def _pin(certificate: Path) -> str:
    """The hash of a certificate's key, as `pins` has it."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(spki).digest()).decode()


def _route(folder: Path, finding: str, port: int, destination: int) -> str:
    # A second instead of 15 for the missing final line, so that the tests need not wait.
    return (
        f'[[route]]\nname = "{finding}"\nlisten = ["127.0.0.1:{port}"]\ndestination = ["127.0.0.1:{destination}"]\n'
        f'[route.repair]\nunterminated_after = "1s"\n{HIDING if finding in HIDDEN else REPAIRS.get(finding, "")}'
    ) + (CURES | HIDDEN).get(finding, "").format(folder=folder, pin=_pin(folder / "expired.pem"))


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def running(folder: Path, findings: Sequence[str]) -> Iterator[Lab]:
    """A lab with these findings, in `folder`, which every user may read."""
    folder.chmod(0o755)
    lab = Lab(
        folder,
        make_certificates(folder),
        {finding: free_port() for finding in findings},
        {finding: free_port() for finding in findings},
    )
    config = folder / "proxy.toml"
    config.write_text("".join(_route(folder, f, lab.proxied[f], lab.direct[f]) for f in findings))
    pairs = [f"{port}={finding}" for finding, port in lab.direct.items()]
    with (
        child([sys.executable, "-m", "tests.clients.servers", folder, *pairs], folder / "servers.log") as servers,
        child([sys.executable, "-m", "proxy", "run", "--config", config], folder / "proxy.log") as proxy,
    ):
        for name, process, ports in (("servers", servers, lab.direct), ("proxy", proxy, lab.proxied)):
            for port in ports.values():
                wait_until(lambda: _answers(port) or process.poll() is not None, START_SECONDS, f"{name} start")  # noqa: B023
                if process.poll() is not None:
                    raise RuntimeError((folder / f"{name}.log").read_text(errors="replace")[-2000:])
        yield lab
