"""What is asked, and what is seen of it: the values that `probe` is made of, and how they are made.

A `Target` is one host and port, as typed, as an exchange of a domain or as a destination of a route.  What a server
says becomes a `Judged`, by `proxy.smtp.reply.repair`; TLS becomes a `TlsSeen`, by `proxy.net.tls.identity`.  The
conversation itself is in `converse`, what it all means in `verdict`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.serialization import Encoding

from proxy.net.tls.channel import TlsChannel
from proxy.net.tls.identity import ChainNotes, judge, spki_sha256
from proxy.net.tls.names import certificate_names, literal_address
from proxy.settings import Tls
from proxy.smtp.lines import split_lines
from proxy.smtp.reply.findings import FINDINGS, Finding
from proxy.smtp.reply.repair import EhloContext, RepairPolicy, RepairResult, repair_reply
from proxy.tools.probe.wire import EhloHeard

NO_NAME = "the chain is trusted; no name was asked for that the certificate could have (give --name)"
IMPLICIT_PORT = 465  # RFC 8314 7.3: TLS from the first byte


@dataclass(frozen=True, slots=True)
class Asked:
    """What holds for all targets; `timeout` in seconds, for each answer."""

    ehlo: str = ""
    name: str = ""  # to verify and to send as SNI; "": the host's
    ca_file: str = ""
    implicit_tls: bool = False
    tls: bool = True
    repeat: int = 1  # connections to each address
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """One server.  `problem`: why there is none to ask.  From `route` on: of a configuration."""

    label: str
    host: str
    port: int
    asked: Asked
    problem: str = ""
    route: str = ""
    destination: str = ""  # as a route writes it; "": the label
    listen: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    source: str = ""  # our own address towards it

    @property
    def implicit_tls(self) -> bool:
        return self.asked.implicit_tls or self.port == IMPLICIT_PORT


def dialogue_finding(finding_id: str, message: str) -> Finding:
    """A finding of the dialogue: about no line, never repaired."""
    return Finding(finding_id, 0, False, message, FINDINGS[finding_id].clause)


@dataclass(frozen=True, slots=True)
class Judged:
    """An EHLO reply, as the proxy would take it with its default settings, and with `strict`."""

    raw: bytes
    result: RepairResult
    strict: RepairResult

    @property
    def offers_starttls(self) -> bool:
        """As a sender sees it behind the proxy, which passes a reply that is too long as it comes."""
        if any(finding.id == "reply-too-long" for finding in self.result.findings):
            return any(line[4:].split()[:1] == [b"STARTTLS"] for line in self.result.after[1:])
        return b"STARTTLS" in self.result.keywords

    @property
    def shows_starttls(self) -> bool:
        """As a sender sees it that follows the RFC: 250 lines behind the first, the keyword's case ignored."""
        lines = split_lines(self.raw)
        for number, line in enumerate(lines):
            if line[:3] != b"250" or line[3:4] not in (b" ", b"-"):
                return False
            if number and line[4:].rstrip(b"\r\n").upper() == b"STARTTLS":
                return True
            if line[3:4] == b" ":
                return False
        return False

    @property
    def broken(self) -> bool:
        """A sender stumbles: something is repaired that is more than a matter of taste."""
        return any(finding.repaired and finding.id != "keyword-case" for finding in self.result.findings)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server's certificate says; texts are the peer's."""

    subject: str
    names: tuple[str, ...]
    not_after: str  # RFC 3339
    sha256_spki: str  # Base64, as `pins` takes it behind "sha256:"


@dataclass(frozen=True, slots=True)
class TlsSeen:
    """TLS as it came about.  `verified` None: the chain is trusted, and there was no name to compare with."""

    version: str
    cipher: str
    certificate: Certificate | None
    verified: bool | None
    reason: str
    chain: tuple[bytes, ...] = ()  # DER, the server's own first


@dataclass(frozen=True, slots=True)
class Tried:
    """One ClientHello and what came of it: `result` is "" when TLS came up."""

    hello: str  # see handshake.py
    words: str
    octets: int
    result: str


def judged(heard: EhloHeard, context: EhloContext) -> Judged:
    """What the proxy finds in this reply, and would make of it."""
    policy = RepairPolicy()
    result, strict = (
        repair_reply(heard.raw, each, context, unterminated=heard.unterminated)
        for each in (policy, policy._replace(strict=True))
    )
    return Judged(heard.raw, result, strict)


def identity(channel: TlsChannel, ca_file: str, name: str, host: str) -> tuple[bool | None, str]:
    """Whether the certificate would verify, and why not; an address that has no name is no reason against it."""
    verdict = judge(channel.connection, Tls(ca_file=ca_file), name or host)
    if verdict.accepted or name or not literal_address(host):
        return verdict.accepted, verdict.reason
    notes = channel.connection.get_app_data()
    if isinstance(notes, ChainNotes) and notes.leaf_seen and not notes.failed and not notes.reasons:
        return None, NO_NAME
    reasons = "; ".join(notes.reasons) if isinstance(notes, ChainNotes) else ""
    return False, reasons or verdict.reason


def certificate_of(channel: TlsChannel) -> Certificate | None:
    """None also for one that can't be read: it is a stranger's."""
    try:
        found = channel.connection.get_peer_certificate(as_cryptography=True)
        if found is None:
            return None
        not_after = found.not_valid_after_utc.isoformat().replace("+00:00", "Z")
        names, pin = certificate_names(found), spki_sha256(found)
        return Certificate(found.subject.rfc4514_string(), names, not_after, pin)
    except ValueError:
        return None


def chain_of(channel: TlsChannel) -> tuple[bytes, ...]:
    try:
        chain = channel.connection.get_peer_cert_chain(as_cryptography=True) or []
        return tuple(each.public_bytes(Encoding.DER) for each in chain)
    except ValueError:
        return ()


def tls_seen(channel: TlsChannel, asked: Asked, host: str) -> TlsSeen:
    """TLS as it is once the handshake has ended."""
    verified, reason = identity(channel, asked.ca_file, asked.name, host)
    return TlsSeen(channel.version, channel.cipher, certificate_of(channel), verified, reason, chain_of(channel))
