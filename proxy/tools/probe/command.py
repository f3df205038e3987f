"""`probe HOST[:PORT]`: what a server says to EHLO, before and inside TLS, and what is wrong with it.

Connects with a blocking socket, asks EHLO, STARTTLS and EHLO again, says QUIT; never MAIL.  The judging is
`proxy.smtp.reply.repair`'s and, for the certificate, `proxy.net.tls.identity`'s; the conversation `wire`'s; how it is
shown, `report`'s.

Exit: 0 nothing would be repaired; 1 something would be, what only `strict` repairs counted in; 3 no answer, or none
about the reply inside TLS from a server that offers it.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TextIO

from proxy.net.tls.channel import TlsChannel, TlsProblem, server_side
from proxy.net.tls.identity import certificate_names, judge, spki_sha256
from proxy.settings import Tls
from proxy.smtp.lines import split_lines
from proxy.smtp.reply.ehlo import split_before_banner
from proxy.smtp.reply.findings import Finding
from proxy.smtp.reply.repair import EhloContext, RepairPolicy, RepairResult, repair_reply
from proxy.smtp.reply.replies import code_of
from proxy.tools.probe.wire import EhloHeard, NoAnswer, Wire, connect


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """As on the command line; `timeout` in seconds, for each answer."""

    host: str
    port: int = 25
    ehlo: str = ""
    tls: bool = True
    timeout: float = 30.0
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """An EHLO reply, as the proxy would take it with its default settings, and with `strict`."""

    raw: bytes
    result: RepairResult
    strict: RepairResult

    @property
    def would_change(self) -> bool:
        return self.result.changed or self.strict.changed

    @property
    def offers_starttls(self) -> bool:
        """As a sender sees it behind the proxy, which passes a reply that is too long as it comes."""
        if any(finding.id == "reply-too-long" for finding in self.result.findings):
            return any(line[4:].split()[:1] == [b"STARTTLS"] for line in self.result.after[1:])
        return b"STARTTLS" in self.result.keywords


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a server's certificate says; texts are the peer's."""

    subject: str
    names: tuple[str, ...]
    not_after: str  # RFC 3339
    sha256_spki: str  # Base64, as `pins` takes it behind "sha256:"


@dataclass(frozen=True, slots=True)
class TlsSeen:
    """TLS as it came about; `verified` for the host that was asked for."""

    version: str
    cipher: str
    certificate: Certificate | None
    verified: bool
    reason: str


@dataclass(slots=True)
class Probed:
    """All that was seen.  `problem`: what prevented the rest."""

    options: ProbeOptions
    ehlo_name: str = ""
    address: str = ""
    banner: bytes = b""
    banner_findings: tuple[Finding, ...] = ()
    before_tls: Judged | None = None
    starttls_reply: bytes = b""
    tls: TlsSeen | None = None
    after_tls: Judged | None = None
    problem: str = ""

    @property
    def exit_code(self) -> int:
        if self.banner_findings or any(reply and reply.would_change for reply in (self.before_tls, self.after_tls)):
            return 1
        return 3 if self.problem else 0


def run(options: ProbeOptions, out: TextIO, err: TextIO) -> int:
    """Probe and show."""
    from proxy.tools.probe import report as probe_report

    seen = probe(options)
    if options.as_json:
        print(probe_report.as_json(seen), file=out)
    else:
        probe_report.show(seen, out)
    if seen.problem:
        print(f"ehlo-proxy probe: {seen.problem}", file=err)
    return seen.exit_code


def probe(options: ProbeOptions) -> Probed:
    """The whole conversation.  Never raises for anything that a server does."""
    seen = Probed(options)
    try:
        sock = connect(options.host, options.port, options.timeout)
    except NoAnswer as problem:
        seen.problem = str(problem)
        return seen
    seen.address = str(sock.getpeername()[0])
    seen.ehlo_name = options.ehlo or own_name(sock)
    wire = Wire(sock, options.timeout)
    try:
        _converse(seen, wire, sock)
    except NoAnswer as problem:
        seen.problem = str(problem)
    finally:
        wire.goodbye()
    return seen


def _converse(seen: Probed, wire: Wire, sock: socket.socket) -> None:
    before = split_before_banner(wire.banner())
    seen.banner, seen.banner_findings = before.banner, before.findings
    if code_of(seen.banner) != 220:
        raise NoAnswer(f"the server greets with {seen.banner.decode('latin-1').strip()!r}")
    seen.before_tls = _ehlo(seen, wire, inside_tls=False)
    if code_of(seen.before_tls.raw) == 421:  # RFC 5321 3.8: said at any time, about the service and not about EHLO
        raise NoAnswer(f"the server ends the session: {seen.before_tls.raw.decode('latin-1').strip()!r}")
    offered = seen.before_tls.offers_starttls
    masked = any(finding.id == "keyword-masked" for finding in seen.before_tls.result.findings)
    if not seen.options.tls or not (offered or masked):
        return
    wire.say(b"STARTTLS")
    seen.starttls_reply = wire.reply("STARTTLS")
    if code_of(seen.starttls_reply) != 220:
        if offered:
            raise NoAnswer(f"STARTTLS is offered, but refused: {seen.starttls_reply.decode('latin-1').strip()!r}")
        return
    seen.tls = _handshake(seen, wire, sock)
    seen.after_tls = _ehlo(seen, wire, inside_tls=True)


def _ehlo(seen: Probed, wire: Wire, inside_tls: bool) -> Judged:
    wire.say(b"EHLO " + seen.ehlo_name.encode("ascii", "replace"))
    banner = split_lines(seen.banner)[0]
    heard = wire.ehlo_reply(banner)
    host = seen.options.host
    context = EhloContext(
        banner=banner,
        destination_name=b"" if host == seen.address else host.encode("ascii", "replace"),
        destination_address=seen.address.encode(),
        client_name=seen.ehlo_name.encode("ascii", "replace"),
        inside_tls=inside_tls,
        client_trusted=False,
    )
    return judged(heard, context)


def judged(heard: EhloHeard, context: EhloContext) -> Judged:
    """What the proxy finds in this reply, and would make of it."""
    policy = RepairPolicy()
    result, strict = (
        repair_reply(heard.raw, each, context, unterminated=heard.unterminated)
        for each in (policy, policy._replace(strict=True))
    )
    return Judged(heard.raw, result, strict)


def _handshake(seen: Probed, wire: Wire, sock: socket.socket) -> TlsSeen:
    host, policy = seen.options.host, Tls()
    try:
        context = server_side(policy)
    except TlsProblem as problem:
        raise NoAnswer(f"no TLS on this host: {problem.reason}") from None
    channel = TlsChannel.towards_server(context, sock, host)
    wire.start_tls(channel)
    verdict = judge(channel.connection, policy, host)
    return TlsSeen(channel.version, channel.cipher, _certificate(channel), verdict.accepted, verdict.reason)


def _certificate(channel: TlsChannel) -> Certificate | None:
    """None also for one that can't be read: it is a stranger's."""
    try:
        found = channel.connection.get_peer_certificate(as_cryptography=True)
        if found is None:
            return None
        not_after = found.not_valid_after_utc.isoformat().replace("+00:00", "Z")
        return Certificate(found.subject.rfc4514_string(), certificate_names(found), not_after, spki_sha256(found))
    except ValueError:
        return None


def own_name(sock: socket.socket) -> str:
    """This host's name for EHLO; its address as a literal where it has no name with a dot (RFC 5321 4.1.1.1)."""
    name = socket.getfqdn()
    if "." in name.strip(".") and name.isascii() and all(letter.isalnum() or letter in "-." for letter in name):
        return name
    address = str(sock.getsockname()[0])
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
