"""Which names a server may prove, and whether its certificate has one of them.

RFC 9525 section 6, by service-identity: a dNSName or iPAddress of the subjectAltName is the name that was meant; a
wildcard stands for one whole leftmost label, and the common name for nothing.  Ours beyond it: ".domain1.com" is any
name below domain1.com, at any depth, a wildcard included (Postfix's smtp_tls_verify_cert_match writes it so).

With "mx:domain1.com" the domain itself, or a name below it, is to be proved and not the exchange's: what DNS says is no
identity, since whoever forges the MX has a valid certificate for a name of his own.

Limits: `MAX_COMPARED` names of a certificate, in one linear pass; one beyond does not match.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from cryptography import x509
from service_identity import CertificateError
from service_identity.hazmat import DNS_ID, DNSPattern

from proxy.smtp.session import notices

MAX_COMPARED: Final = 1000
MAX_NAMES_TOLD: Final = 3
MAX_NAME_LENGTH: Final = 64  # a name in a reason


@dataclass(frozen=True, slots=True)
class Meant:
    """The server that a session is meant for: its host name or address, and the domain whose exchange it is, or ""."""

    host: str
    domain: str = ""

    def names(self, verify_name: Sequence[str]) -> tuple[str, ...]:
        """One of these is to be proved."""
        if verify_name:
            return tuple(verify_name)
        return (self.domain, f".{self.domain}") if self.domain else (self.host,)

    def server_name(self, verify_name: Sequence[str]) -> str:
        """What goes out as SNI: the host's name; where that is an address, the first name that is a whole one."""
        if literal_address(self.host) is None:
            return self.host
        return next((name for name in verify_name if not name.startswith(".") and literal_address(name) is None), "")


class _Name:
    """A name that was meant."""

    __slots__ = ("_exact", "_identity", "_suffix")

    def __init__(self, wanted: str) -> None:
        """ValueError: no certificate could be for it."""
        self._identity = DNS_ID(wanted.strip().strip("."))  # idna's errors are ValueErrors
        host = self._identity.hostname.decode()
        self._suffix = f".{host}" if wanted.startswith(".") else ""
        self._exact = "" if self._suffix else host

    def is_named(self, text: str) -> bool:
        """Whether this dNSName stands for it.  Most are ruled out at once: what is left is judged in full."""
        lower = text.lower()
        if self._suffix:
            if not lower.endswith(self._suffix):
                return False
        elif lower != self._exact and not (lower[:2] == "*." and self._exact.partition(".")[2] == lower[2:]):
            return False
        try:
            pattern = DNSPattern.from_bytes(text.encode())
        except CertificateError:
            return False  # "*.com", "192.0.2.1" as a dNSName, "*.*.example": it stands for nothing
        return bool(self._suffix) or self._identity.verify(pattern)


def name_problem(certificate: x509.Certificate, *wanted: str) -> str:
    """Why the certificate stands for none of `wanted`, or "".  ValueError: one that can't be read."""
    names: list[_Name] = []
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for one in wanted:
        address = literal_address(one)
        if address is not None:
            addresses.append(ipaddress.ip_address(address))
            continue
        try:
            names.append(_Name(one))
        except (ValueError, TypeError, ImportError):
            return f"'{printable(one)}' is no host name that a certificate could be for"
    try:
        present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "certificate has no subjectAltName"
    for general in islice(present, MAX_COMPARED):
        if isinstance(general, x509.DNSName):
            if any(name.is_named(general.value) for name in names):
                return ""
        elif isinstance(general, x509.IPAddress) and general.value in addresses:
            return ""
    told = _told(present)
    if not told:
        return "certificate is for no host: its subjectAltName has neither a DNS name nor an address"
    return f"certificate is for {told}, not {' or '.join(_spoken(one) for one in wanted)}"


def _spoken(wanted: str) -> str:
    return f"a name below {printable(wanted[1:])}" if wanted.startswith(".") else printable(wanted)


def _told(present: x509.SubjectAlternativeName) -> str:
    names = _names(list(islice(present, MAX_COMPARED)))
    told = " and ".join(printable(each) for each in names[:MAX_NAMES_TOLD])
    more = len(names) - MAX_NAMES_TOLD + max(0, len(list(present)) - MAX_COMPARED)
    return told if more <= 0 else f"{told} and {more} more"


def _names(present: Iterable[x509.GeneralName]) -> tuple[str, ...]:
    generals = list(present)
    return (
        *(one.value for one in generals if isinstance(one, x509.DNSName)),
        *(str(one.value) for one in generals if isinstance(one, x509.IPAddress)),
    )


def certificate_names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names and addresses of the subjectAltName, as they stand there: a peer's text."""
    try:
        return _names(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()


def literal_address(name: str) -> str | None:
    """The address in `name`, with or without brackets and `IPv6:` (RFC 5321 4.1.3); None if it isn't one."""
    text = name.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
        if text[:5].lower() == "ipv6:":
            text = text[5:]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def printable(text: str, limit: int = MAX_NAME_LENGTH) -> str:
    """`text` cut at `limit` characters, everything but printable ASCII as `?`."""
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    return notices.printable(cut)
