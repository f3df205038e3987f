"""The values that are not plain: addresses, names and ports; where to listen, where to go, who may come.

What is written as `HOST:PORT` is read once, by `host_and_port`, with IPv6 addresses in brackets.  Addresses come out in
their canonical text, IPv4-mapped ones as the IPv4 addresses that they are, so that equal ones compare equal.  Names are
kept as written, without the dot at the end; nothing is looked up here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal

from proxy.settings.plain import listed, text
from proxy.settings.problems import Fault, Unfit, nearest, unfit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SMTP_PORT: Final = 25
# A host that is only looked up: RFC 1123 2.1, and underscores, which occur in the field.
HOST_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST: Final = re.compile(rf"{HOST_LABEL}(?:\.{HOST_LABEL})*\Z")
MAX_HOST: Final = 253  # RFC 1035 3.1: 255 octets in the message, length octets counted
INTERFACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}\Z")  # as ip-link names them; IFNAMSIZ is 16
MAX_SOCKET_PATH: Final = 107  # bytes; sun_path of unix(7) without its NUL
URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(.*)")
POSTFIX: Final = re.compile(r"\[([A-Za-z0-9_.-]*[A-Za-z_-][A-Za-z0-9_.-]*)\](:[0-9]+)?\Z")  # [name]:25, transport(5)
SYSTEMD_NAME: Final = re.compile(r"[!-9;-~]{1,255}\Z")  # FileDescriptorName=: printable ASCII without a colon


def host_port(host: str, port: int) -> str:
    """As they are written everywhere: `192.0.2.10:25`, `[2001:db8::10]:25`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unmapped(found: Address) -> Address:
    """An IPv4-mapped address as the IPv4 address that it is: rules for that hold for it, too."""
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A textual address, or a name, and a port."""

    host: str
    port: int
    path: str = ""  # of a UNIX socket, in place of both

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return host_port(self.host, self.port)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: an address (port 0: any free one), or the sockets that systemd passes under a name."""

    host: str = ""
    port: int = 0
    systemd: str = ""

    @property
    def any_port(self) -> bool:
        """Is the port left to the kernel? Two such listeners never get in each other's way."""
        return not self.systemd and self.port == 0

    def __str__(self) -> str:
        return f"systemd:{self.systemd}" if self.systemd else str(Endpoint(self.host, self.port))


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a session may go. `original` has neither host nor port: they come from the intercepted connection."""

    kind: Literal["address", "name", "mx", "original"]
    host: str = ""
    port: int = SMTP_PORT

    def __str__(self) -> str:
        if self.kind == "original":
            return "original"
        if self.kind == "mx":
            return f"mx:{self.host}" if self.port == SMTP_PORT else f"mx:{self.host}:{self.port}"
        return str(Endpoint(self.host, self.port))


def network(value: object) -> Network:
    """A network in CIDR, or one address."""
    try:
        return ip_network(text(value))
    except ValueError:
        pass
    try:
        near = str(ip_network(text(value), strict=False))  # 10.1.2.3/8
    except ValueError:
        near = None
    raise unfit(value, 'a network such as "192.0.2.0/24" or "2001:db8::/32", or an address', near)


def address(value: str) -> str | None:
    """The canonical text of an IP address (IPv4-mapped ones as IPv4), None when it is none."""
    _, zone, interface = value.partition("%")
    if zone and not INTERFACE.match(interface):
        return None
    try:
        return str(unmapped(ip_address(value)))
    except ValueError:
        return None


def host_and_port(value: str, default_port: int | None, low: int) -> tuple[str, int, bool]:
    """`HOST:PORT`, `[V6]:PORT`, and without the port where there is a default: host, port, is it an address.

    Raises `Unfit` about `value`.
    """
    example = '"192.0.2.10:25" or "[2001:db8::10]:25"'
    if value.startswith("["):
        inside, closed, rest = value[1:].partition("]")
        host = address(inside) if ":" in inside else None
        if not closed or host is None:
            raise unfit(value, f"an IPv6 address inside the brackets, such as {example}")
    else:
        inside, colon, after = value.partition(":")
        rest = colon + after
        if ":" in after:
            bare = address(value)
            raise unfit(value, "an IPv6 address in brackets", f"[{bare}]:{default_port or SMTP_PORT}" if bare else None)
        host = address(inside)
    if rest and not re.match(r":[0-9]{1,5}\Z", rest):
        raise unfit(value, f"a port number behind the colon, such as {example}")
    if not rest and default_port is None:
        raise unfit(value, f"a port too, such as {example}", f"{value}:{SMTP_PORT}" if host else None)
    number = int(rest[1:]) if rest else default_port or 0
    if not low <= number <= 65535:
        raise unfit(value, f"a port from {low} to 65535")
    if host is None:
        return inside, number, False
    parsed = ip_address(host)
    if isinstance(parsed, IPv6Address) and parsed.is_link_local and not parsed.scope_id:
        raise unfit(value, "the interface of a link-local address too, such as [fe80::1%eth0]:25")
    return host, number, True


def host_name(value: str, whole_value: object) -> str:
    """A name to look up, without the dot at its end. Raises `Unfit` about `whole_value`."""
    name = value[:-1] if value.endswith(".") else value
    if HOST.match(name) and len(name) <= MAX_HOST and not name.rpartition(".")[2].isdigit():
        return name
    near = None
    if not name.isascii():
        try:
            near = name.encode("idna").decode("ascii")
        except UnicodeError:
            pass
    raise unfit(whole_value, "an address, or a host name in ASCII letters, digits and hyphens", near)


def endpoint(value: object) -> Endpoint | None:
    """An address and a port, 0 for any free one, or `unix:` and an absolute path; None for ""."""
    expected = 'an address and a port, such as "127.0.0.1:9925", or "unix:" and a path, such as "unix:/run/x/admin"'
    written = text(value)
    if written == "":
        return None
    if written.startswith("unix:"):
        if not written.startswith("unix:/") or len(os.fsencode(written[5:])) > MAX_SOCKET_PATH:
            raise unfit(value, f'"unix:" and an absolute path of at most {MAX_SOCKET_PATH} bytes')
        return Endpoint("", 0, written[5:])
    if address(written.strip("[]")) is not None:
        raise unfit(value, expected)  # a port of SMTP's would be no help
    one = listen(value)
    if one.systemd:
        raise unfit(value, expected)
    return Endpoint(one.host, one.port)


def listen(value: object) -> Listen:
    """`ADDRESS:PORT` or `systemd:NAME`."""
    written = text(value)
    if written.startswith("systemd:"):
        if not SYSTEMD_NAME.match(written[8:]):
            raise unfit(value, '"systemd:" and the FileDescriptorName of a socket unit')
        return Listen("", 0, written[8:])
    host, number, is_address = host_and_port(written, None, 0)
    if not is_address:
        near = {"localhost": "127.0.0.1", "": "0.0.0.0", "*": "0.0.0.0"}.get(host)
        raise unfit(
            value,
            'an address to listen on, not a name: "0.0.0.0:25" for all of IPv4, "[::]:25" for all of'
            ' IPv6, or "systemd:NAME"',
            near and f"{near}:{number}",
        )
    return Listen(host, number, "")


def destination(value: object) -> Destination:
    """`HOST[:PORT]`, `mx:DOMAIN[:PORT]` or `original`."""
    written = text(value)
    if written == "original":
        return Destination("original", "", 0)
    if found := URL.match(written):
        raise unfit(value, 'HOST:PORT, "mx:DOMAIN" or "original", not a URL', found[1].strip("/") or None)
    if found := POSTFIX.match(written):
        raise unfit(
            value,
            "a name without brackets: a name is looked up by its addresses, never its MX",
            found[1] + (found[2] or ""),
        )
    if written.startswith("original:"):
        raise unfit(value, '"original" without a port: `original_ports` has those it may connect to', "original")
    kind: Literal["address", "name", "mx"] = "name"
    if written.startswith("mx:"):
        kind, written = "mx", written[3:]
    try:
        host, number, is_address = host_and_port(written, SMTP_PORT, 1)
    except Unfit as problem:
        raise Unfit(*(Fault(f.where, value, f.expected, f.nearest) for f in problem.faults)) from None
    if not is_address:
        return Destination(kind, host_name(host, value), number)
    if kind == "mx":
        raise unfit(value, 'a mail domain behind "mx:"', str(Endpoint(host, number)))
    return Destination("address", host, number)


def source(value: object) -> str:
    """ "", "client", or a textual address."""
    written = text(value)
    if written in ("", "client"):
        return written
    found = address(written)
    if found is None:
        raise unfit(value, '"client", or an address of this host', nearest(written, ["client"]))
    return found


def server_name(value: object) -> str:
    """ "", or what a certificate has to name: a host name or an address."""
    written = text(value)
    if written == "":
        return written
    return address(written.strip("[]")) or host_name(written, value)


def verified_names(value: object) -> tuple[str, ...]:
    """Names of which a certificate has to have one, each a name, an address, or `.domain1.com`: any name below it.

    A lone text is a list of one, and "" is none.
    """
    return () if value == "" else _verified_names(value)


def _verified_name(value: object) -> str:
    written = text(value)
    if written.startswith("."):
        return f".{host_name(written[1:], value)}"
    return server_name(value) or host_name(written, value)


_verified_names: Final = listed(_verified_name, "names", lone=True)
