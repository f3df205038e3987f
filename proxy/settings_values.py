"""One value of the configuration file: from TOML's types to ours, or an `Unfit` that says what was expected.

A reader is a function of one argument, the value as tomllib gives it (so `bool`, `int`, `float`, `str`, `list`, `dict`,
or a date), and returns what the program works with.  Readers look at nothing but the value: no file, no address of this
host, no other key.  Those judgements are `settings_rules` and `settings_files`.

Domains are RFC 5321's (4.1.2 `Domain`), with underscores allowed in names that are only looked up; address literals are
4.1.3's without the general form; EHLO keywords are 4.1.1.1's.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal, TypeVar

from proxy.settings_problems import Fault, Unfit, nearest, unfit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
T = TypeVar("T")
Reader = Callable[[object], T]

SMTP_PORT: Final = 25
MAX_SECONDS: Final = 365 * 86400.0  # nothing here waits for a year; a larger number is a mistake
UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION: Final = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(ms|s|m|h|d)\Z")
# sub-domain = Let-dig [Ldh-str]; Domain = sub-domain *("." sub-domain)
LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DOMAIN: Final = re.compile(rf"{LABEL}(?:\.{LABEL})*\Z")
# A host that is only looked up: underscores occur in the field.
HOST: Final = re.compile(r"(?=[^.]{1,63}(?:\.|\Z))[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
                         r"(?:\.(?=[^.]{1,63}(?:\.|\Z))[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*\Z")
MAX_DOMAIN: Final = 255  # RFC 5321 4.5.3.1.2
# ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-"); `_` and `=`: real servers send PIPE_CONNECT and AUTH=LOGIN
KEYWORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*\Z")
FIELD_KEYWORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_=-]*\Z")
# ehlo-line = ehlo-keyword *( SP ehlo-param ); ehlo-param = 1*(%d33-126)
EHLO_LINE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(?: [!-~]+)*\Z")
MAX_EHLO_LINE: Final = 512 - len("250-\r\n")  # RFC 5321 4.5.3.1.5, the code and the line end counted
SYSTEMD_NAME: Final = re.compile(r"[!-9;-~]{1,255}\Z")  # FileDescriptorName=: printable ASCII without a colon


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A textual address, or a name, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen: an address (port 0: any free one), or the sockets that systemd passes under a name."""

    host: str = ""
    port: int = 0
    systemd: str = ""

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


def boolean(value: object) -> bool:
    """`true` or `false`."""
    if not isinstance(value, bool):
        near = str(value).lower() if str(value).lower() in ("true", "false") else None
        raise unfit(value, "true or false, without quotes", near)
    return value


def whole(low: int, high: int = 2**53) -> Reader[int]:
    """A reader of whole numbers from `low` to `high`."""
    span = f"a whole number of at least {low}" if high == 2**53 else f"a whole number from {low} to {high}"

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            digits = isinstance(value, str) and re.match(r"[0-9]{1,15}\Z", value) and low <= int(value) <= high
            raise unfit(value, span, str(value) if digits else None)
        return value

    return read


port = whole(1, 65535)


def workers(value: object) -> int:
    """A number of processes, at least 1; 0 stands for "auto", one a core."""
    if value == "auto":
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024:
        raise unfit(value, 'a whole number from 1 to 1024, or "auto"', "auto" if isinstance(value, str) else None)
    return value


def duration(value: object) -> float:
    """Seconds, zero included, from a number or a string such as "250ms", "15s", "5m", "1h", "1d"."""
    expected = 'seconds, or a string such as "250ms", "15s", "5m", "1h", "1d"'
    seconds = -1.0
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if 0 <= value <= MAX_SECONDS:  # false for nan
            seconds = float(value)
        else:
            expected += f", from 0 to {MAX_SECONDS:.0f} seconds"
    elif isinstance(value, str) and (match := DURATION.match(value)):
        seconds = float(match[1]) * UNITS[match[2]]
        if seconds > MAX_SECONDS:
            seconds, expected = -1.0, f"at most a year; {expected}"
    if seconds < 0:
        raise unfit(value, expected)
    return seconds


def span(value: object) -> float:
    """A duration that is more than nothing: a time-out of zero would end every session."""
    seconds = duration(value)
    if seconds <= 0:
        raise unfit(value, 'more than 0 seconds, such as "5m"')
    return seconds


def text(value: object) -> str:
    """A string without control characters."""
    if not isinstance(value, str):
        raise unfit(value, "a string in quotes")
    if not value.isprintable():
        raise unfit(value, "a string without control characters")
    return value


def name(value: object) -> str:
    """What a route is called in logs and metrics: letters, digits, `.`, `_` and `-`, at most 64."""
    written = text(value)
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", written):
        raise unfit(value, "a name of 1 to 64 letters, digits, dots, hyphens and underscores",
                    re.sub(r"[^A-Za-z0-9._-]+", "-", written).strip("-._")[:64] or None)
    return written


def choice(*words: str) -> Reader[str]:
    """A reader of one word out of `words`, exactly as written here."""
    listed = " or ".join(f'"{word}"' for word in words) if len(words) < 3 else (
        ", ".join(f'"{word}"' for word in words[:-1]) + f' or "{words[-1]}"'
    )

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise unfit(value, listed, nearest(str(value)[:40], words) if isinstance(value, (str, float)) else None)
        return value

    return read


def listed(read: Reader[T], what: str, lone: bool = False) -> Reader[tuple[T, ...]]:
    """A reader of a list of what `read` reads, each once. With `lone`, a single string counts as a list of one."""

    def read_list(value: object) -> tuple[T, ...]:
        if lone and isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            raise unfit(value, f"a list of {what}, in square brackets")
        found: dict[T, int] = {}
        faults: list[Fault] = []
        for index, item in enumerate(value):
            try:
                one = read(item)
            except Unfit as problem:
                faults += [Fault(f"[{index}]{f.where}", f.value, f.expected, f.nearest) for f in problem.faults]
                continue
            first = found.setdefault(one, index)
            # Two listeners with "any free port" are two listeners.
            if first != index and not (isinstance(one, Listen) and one.port == 0 and not one.systemd):
                faults.append(Fault(f"[{index}]", item, f"each only once; it is also in place [{first}]"))
        if faults:
            raise Unfit(*faults)
        return tuple(read(item) for item in value)

    return read_list


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
    try:
        parsed = ip_address(value)
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(parsed)


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
    if HOST.match(name) and len(name) <= MAX_DOMAIN - 2 and not name.rpartition(".")[2].isdigit():
        return name
    near = None
    if not name.isascii():
        try:
            near = name.encode("idna").decode("ascii")
        except UnicodeError:
            pass
    raise unfit(whole_value, "an address, or a host name in ASCII letters, digits and hyphens", near)


def endpoint(value: object) -> Endpoint | None:
    """An address and a port, 0 for any free one; None for ""."""
    if text(value) == "":
        return None
    one = listen(value)
    if one.systemd:
        raise unfit(value, 'an address and a port, such as "127.0.0.1:9925"')
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
        raise unfit(value, 'an address to listen on, not a name: "0.0.0.0:25" for all of IPv4, "[::]:25" for all of'
                    ' IPv6, or "systemd:NAME"', near and f"{near}:{number}")
    return Listen(host, number, "")


def destination(value: object) -> Destination:
    """`HOST[:PORT]`, `mx:DOMAIN[:PORT]` or `original`."""
    written = text(value)
    if written == "original":
        return Destination("original", "", 0)
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
    """"", "client", or a textual address."""
    written = text(value)
    if written in ("", "client"):
        return written
    found = address(written)
    if found is None:
        raise unfit(value, '"client", or an address of this host', nearest(written, ["client"]))
    return found


def domain(value: object) -> str:
    """"", a domain, or an address literal such as `[192.0.2.1]` or `[IPv6:2001:db8::1]`, at most 255 octets."""
    written = text(value)
    if written == "" or (DOMAIN.match(written) and len(written) <= MAX_DOMAIN and address(written) is None):
        return written
    if written.startswith("[") and written.endswith("]"):
        inside = written[1:-1]
        if inside.lower().startswith("ipv6:"):
            if ":" in inside[5:] and address(inside[5:]) is not None and "%" not in inside:
                return written
        elif ":" not in inside and address(inside) is not None:
            return written
    bare = address(written.strip("[]"))
    near = None if bare is None else f"[IPv6:{bare}]" if ":" in bare else f"[{bare}]"
    raise unfit(value, 'a domain such as "mail.domain1.com", or an address literal such as "[192.0.2.10]"', near)


def server_name(value: object) -> str:
    """"", or what a certificate has to name: a host name or an address."""
    written = text(value)
    if written == "":
        return written
    return address(written.strip("[]")) or host_name(written, value)


def keyword(value: object) -> str:
    """One EHLO keyword, in capitals."""
    word = text(value)
    if re.match(r"250[- ]", word):
        raise unfit(value, "the keyword without the reply code", word[4:])
    if not FIELD_KEYWORD.match(word) or len(word) > MAX_EHLO_LINE:
        raise unfit(value, 'one EHLO keyword, such as "CHUNKING"', word.split()[0] if word.split() else None)
    return word.upper()


def ehlo_line(value: object) -> str:
    """An EHLO keyword, turned into capitals, with its parameters as they are."""
    line = text(value)
    if re.match(r"250[- ]", line):
        raise unfit(value, "the line without the reply code", line[4:])
    if not EHLO_LINE.match(line):
        raise unfit(value, 'an EHLO keyword and its parameters, such as "STARTTLS" or "SIZE 10240000"')
    if len(line) > MAX_EHLO_LINE:
        raise unfit(value, f"at most {MAX_EHLO_LINE} octets (RFC 5321 4.5.3.1.5)")
    word, space, parameters = line.partition(" ")
    if word.upper() == "STARTTLS" and space:
        raise unfit(value, "no parameter (RFC 3207 4)", "STARTTLS")
    return word.upper() + space + parameters


def pin(value: object) -> str:
    """`sha256:` and the base64 of the 32 bytes of a hash of a SubjectPublicKeyInfo."""
    written = text(value)
    near = None
    if written.startswith("sha256//"):  # as curl writes it
        near = "sha256:" + written[8:]
    scheme, _, encoded = written.partition(":")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if scheme != "sha256" or len(digest) != 32 or base64.b64encode(digest).decode() != encoded:
        raise unfit(value, '"sha256:" and the base64 of the SHA-256 of the public key (44 characters)', near)
    return written
