"""What DNS says of a server: the exchanges of a domain, and TLSA records (RFC 6698, 7672).

A blocking question to the name servers of /etc/resolv.conf, over UDP, over TCP where the answer is cut off; every wait
has an end, and an answer counts only with the right number and question (RFC 5452 9).  twisted.names makes and reads
the messages; a datagram is judged by its header and question before it is read any further.

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
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.names import dns

from proxy.net.going_out.names.name_files import ResolvConf

TLSA = 52  # RFC 6698 7.1
MAX_DATAGRAM = 65535
MAX_DATAGRAMS = 64  # that are looked at for one answer
MAX_RECORDS = 20
MAX_ALIASES = 8
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
    message, _ = ask(domain, dns.MX, servers, timeout)
    payloads: list[Any] = [each.payload for each in message.answers[:MAX_RECORDS]]
    found = [(each.preference, _text(each.name)) for each in payloads if isinstance(each, dns.Record_MX)]
    if not found:
        if message.rCode == dns.ENAME:
            raise NoName(f"there is no domain {domain}")
        return [domain]
    names = [name for _, name in sorted(found) if name]
    if not names:
        raise NoName(f"{domain} takes no mail (null MX, RFC 7505)")
    return list(dict.fromkeys(names))


def dane(host: str, port: int, servers: Sequence[Server], timeout: float) -> Dane:
    """The TLSA records for a server.  Never raises."""
    name = f"_{port}._tcp.{host.rstrip('.')}"
    try:
        message, server = ask(name, TLSA, servers, timeout)
    except NoName as problem:
        return Dane(name, problem=str(problem))
    validated = bool(message.authenticData) and ipaddress.ip_address(server[0].partition("%")[0]).is_loopback
    owner = _alias(message, name)
    payloads: list[Any] = [
        each.payload for each in message.answers[:MAX_RECORDS] if each.type == TLSA and _text(each.name) == owner
    ]
    rdata = [each.data for each in payloads if len(each.data) > 3]
    records = tuple(Tlsa(data[0], data[1], data[2], data[3:]) for data in rdata)
    return Dane(name, validated, records)


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


def ask(name: str, kind: int, servers: Sequence[Server], timeout: float) -> tuple[dns.Message, Server]:
    """The answer to one question, and who gave it.  "No such name" is an answer.  Raises NoName."""
    deadline = time.monotonic() + timeout
    reason = "no name server is known"
    for server in servers:
        left = min(TRY, deadline - time.monotonic())
        if left <= 0:
            break
        try:
            message = _ask_one(name, kind, server, left)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or "no answer"
            continue
        if message.rCode in (dns.OK, dns.ENAME):
            return message, server
        reason = f"it answers with the code {message.rCode}"
    raise NoName(f"DNS does not say: {reason}")


def _ask_one(name: str, kind: int, server: Server, timeout: float) -> dns.Message:
    message = dns.Message(_choose.randrange(65536), recDes=1, authenticData=1)  # RFC 6840 5.7: AD is wanted
    message.queries = [dns.Query(name, kind, dns.IN)]
    packed: bytes = message.toStr()
    question = packed[12:]
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    deadline = time.monotonic() + timeout
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(server)
        sock.send(packed)
        for _ in range(MAX_DATAGRAMS):
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            data = sock.recv(MAX_DATAGRAM)
            if _is_answer(data, packed[:2], question):
                break
        else:
            raise ValueError("only noise came")
    if data[2] & 2:  # TC
        data = _over_tcp(packed, question, server, deadline)
    answer = dns.Message()
    try:
        answer.fromStr(data)
    except Exception:  # whatever twisted.names makes of hostile bytes
        raise ValueError("the answer can't be read") from None
    return answer


def _over_tcp(packed: bytes, question: bytes, server: Server, deadline: float) -> bytes:
    with socket.create_connection(server, max(0.001, deadline - time.monotonic())) as sock:
        sock.sendall(len(packed).to_bytes(2, "big") + packed)
        stream = b""
        while len(stream) < 2 or len(stream) < 2 + int.from_bytes(stream[:2], "big"):
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            part = sock.recv(MAX_DATAGRAM)
            if not part:
                raise ValueError("the name server closed the connection")
            stream += part
    data = stream[2 : 2 + int.from_bytes(stream[:2], "big")]
    if not _is_answer(data, packed[:2], question):
        raise ValueError("it is no answer to the question")
    return data


def _is_answer(data: bytes, number: bytes, question: bytes) -> bool:
    """Number, QR and the one question, by octets, case ignored (some servers answer in another case)."""
    head = data[:2] == number and len(data) >= 12 and data[2] & 0x80 and data[4:6] == b"\0\1"
    return bool(head) and data[12 : 12 + len(question)].lower() == question.lower()


def _alias(message: dns.Message, name: str) -> str:
    """The name that the aliases in the answer lead to."""
    aliases: dict[str, Any] = {
        _text(a.name): a.payload for a in message.answers if isinstance(a.payload, dns.Record_CNAME)
    }
    owner = name.lower()
    for _ in range(MAX_ALIASES):
        if owner not in aliases:
            break
        owner = _text(aliases[owner].name)
    return owner


def _text(name: dns.Name) -> str:
    return name.name.decode("ascii", "replace").rstrip(".").lower()
