"""What DNS says of a server: the exchanges of a domain, and TLSA records (RFC 6698, 7672).

A blocking question to the name servers of /etc/resolv.conf, over UDP, over TCP where the answer is cut off; every wait
has an end, and an answer counts only with the right number and question (RFC 5452 9).  The messages are those of the
proxy's own resolver, `proxy.net.going_out.names`.

DNSSEC is not validated here.  Whether somebody did is the AD bit, which is believed of a resolver on loopback only
(RFC 7672 2.2.2 wants it from a "local" one): from any other the network in between could have set it.  Usages 2 and 3
are compared with the certificates seen, 0 and 1 are not for SMTP (RFC 7672 3.1.3).
"""

from __future__ import annotations

import hashlib
import ipaddress
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.net.going_out.names.dns_answer import records_of
from proxy.net.going_out.names.dns_message import (
    MX,
    NO_ERROR,
    NO_SUCH_NAME,
    TLSA,
    DnsAnswer,
    question,
    read_answer,
)
from proxy.net.going_out.names.name_files import ResolvConf
from proxy.net.going_out.names.wanted import Exchange

MAX_MESSAGE = 65535  # octets
MAX_DATAGRAMS = 64  # that are looked at for one answer
MAX_RECORDS = 20
TRY = 2.0  # seconds for one name server
RESOLV_CONF = "/etc/resolv.conf"

Server = tuple[str, int]
_choose = random.SystemRandom()


class NoName(Exception):
    """DNS gave no answer, or none that is one; a sentence for a person."""


@dataclass(frozen=True, slots=True)
class Tlsa:
    """One TLSA record.  `fits`: the certificate seen; None: none was seen, or the usage is not for SMTP."""

    usage: int
    selector: int
    matching: int
    data: bytes
    fits: bool | None = None

    def __str__(self) -> str:
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex()}"


@dataclass(frozen=True, slots=True)
class Dane:
    """What was found at `name`.  `validated`: a resolver on loopback says so.  `problem`: why nothing is known."""

    name: str
    validated: bool = False
    records: tuple[Tlsa, ...] = ()
    problem: str = ""


def name_servers() -> list[Server]:
    """Those of this host, in order."""
    return [(address, 53) for address in ResolvConf(RESOLV_CONF).servers()]


def exchanges(domain: str, servers: Sequence[Server], timeout: float) -> list[str]:
    """The exchanges of a mail domain in their order; itself where it has none (RFC 5321 5.1).  Raises NoName."""
    answer, _ = ask(domain, MX, servers, timeout)
    found = [one for one in records_of(answer, domain, MX)[0] if isinstance(one, Exchange)]
    if not found:
        if answer.code == NO_SUCH_NAME:
            raise NoName(f"there is no domain {domain}")
        return [domain]
    names = [one.name for one in sorted(found, key=lambda one: one.preference) if one.name]
    if not names:
        raise NoName(f"{domain} takes no mail (null MX, RFC 7505)")
    return list(dict.fromkeys(names))


def dane(host: str, port: int, servers: Sequence[Server], timeout: float) -> Dane:
    """The TLSA records for a server.  Never raises."""
    name = f"_{port}._tcp.{host.rstrip('.')}"
    try:
        answer, server = ask(name, TLSA, servers, timeout)
    except NoName as problem:
        return Dane(name, problem=str(problem))
    validated = answer.authentic and ipaddress.ip_address(server[0].partition("%")[0]).is_loopback
    owner = records_of(answer, name, TLSA)[1]
    rdata = [each.data for each in answer.records if each.kind == TLSA and each.owner == owner and len(each.data) > 3]
    return Dane(name, validated, tuple(Tlsa(data[0], data[1], data[2], data[3:]) for data in rdata[:MAX_RECORDS]))


def compared(found: Dane, chain: Sequence[bytes]) -> Dane:
    """The same, with what fits the certificates seen: DER, the server's own first."""

    def fits(record: Tlsa) -> bool | None:
        if record.usage not in (2, 3) or not chain:
            return None
        considered = chain[:1] if record.usage == 3 else chain[1:] or chain
        return any(_matches(record, der) for der in considered)

    records = tuple(Tlsa(each.usage, each.selector, each.matching, each.data, fits(each)) for each in found.records)
    return Dane(found.name, found.validated, records, found.problem)


def _matches(record: Tlsa, der: bytes) -> bool:
    try:
        if record.selector == 1:
            key = x509.load_der_x509_certificate(der).public_key()
            der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception:  # whatever a stranger's certificate makes of it
        return False
    digest: dict[int, Callable[[bytes], bytes]] = {
        0: bytes,
        1: lambda octets: hashlib.sha256(octets).digest(),
        2: lambda octets: hashlib.sha512(octets).digest(),
    }
    return record.selector in (0, 1) and record.matching in digest and digest[record.matching](der) == record.data


# ---------------------------------------------------------------------- asking


def ask(name: str, kind: int, servers: Sequence[Server], timeout: float) -> tuple[DnsAnswer, Server]:
    """The answer to one question, and who gave it.  "No such name" is an answer.  Raises NoName."""
    deadline = time.monotonic() + timeout
    reason = "no name server is known"
    for server in servers:
        left = min(TRY, deadline - time.monotonic())
        if left <= 0:
            break
        try:
            answer = _ask_one(name, kind, server, left)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "no answer"
            continue
        if answer.code in (NO_ERROR, NO_SUCH_NAME):
            return answer, server
        reason = f"it answers with the code {answer.code}"
    raise NoName(f"DNS does not say: {reason}")


def _ask_one(name: str, kind: int, server: Server, timeout: float) -> DnsAnswer:
    asked = question(_choose.randrange(65536), name, kind, authentic=True)
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    deadline = time.monotonic() + timeout
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(server)
        sock.send(asked)
        for _ in range(MAX_DATAGRAMS):
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            answer = read_answer(sock.recv(MAX_MESSAGE), asked)
            if answer is not None:
                return _over_tcp(asked, server, deadline) if answer.truncated else answer
    raise ValueError("only noise came")


def _over_tcp(asked: bytes, server: Server, deadline: float) -> DnsAnswer:
    with socket.create_connection(server, max(0.001, deadline - time.monotonic())) as sock:
        sock.sendall(len(asked).to_bytes(2, "big") + asked)
        stream = b""
        while len(stream) < 2 or len(stream) < 2 + int.from_bytes(stream[:2], "big"):
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            part = sock.recv(MAX_MESSAGE)
            if not part:
                raise ValueError("the name server closed the connection")
            stream += part
    answer = read_answer(stream[2 : 2 + int.from_bytes(stream[:2], "big")], asked)
    if answer is None:
        raise ValueError("it is no answer to the question")
    return answer
