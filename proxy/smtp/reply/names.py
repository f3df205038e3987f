"""Host names: in a banner, at the head of a greeting, and of a greeting that has to be made.

Implements `Domain` and `address-literal` of RFC 5321 4.1.2 and 4.1.3 as far as they tell a host from a keyword: a
keyword holds no dot and no bracket, so a dotted domain or a literal in front of a line is a greeting whatever else
is true.  A single label has the shape of a keyword and proves nothing.

Beyond the RFC a root dot may follow (`mail.example.com.`); names are compared without it and without regard to case.
Enhanced status codes (`2.0.0`) have the shape of a domain and are none.  Domains are limited to 255 octets
(RFC 5321 4.5.3.1.2).  Nothing is raised.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from proxy.smtp.reply.extensions import known

MAX_DOMAIN = 255  # octets, RFC 5321 4.5.3.1.2
MAX_LABEL = 63  # octets, RFC 1035 2.3.4
_MAX_HEAD = 2 * MAX_DOMAIN  # octets of a banner in which its host is looked for

# sub-domain = Let-dig [Ldh-str];  Domain = sub-domain *("." sub-domain), here with one dot at least
_SUB_DOMAIN = rb"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOTTED_DOMAIN = re.compile(_SUB_DOMAIN + rb"(?:\." + _SUB_DOMAIN + rb")+\.?")
_SINGLE_LABEL = re.compile(_SUB_DOMAIN)
# address-literal = "[" ( IPv4-address-literal / IPv6-address-literal / General-address-literal ) "]"
# General-address-literal = Standardized-tag ":" 1*dcontent
_ADDRESS_LITERAL = re.compile(rb"\[(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[A-Za-z0-9-]*[A-Za-z0-9]:[!-Z^-~]+)\]")
# status-code = class "." subject "." detail, RFC 3463 2
_ENHANCED_STATUS = re.compile(rb"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
# Greeting = "220 " ... / "220-" ...; `220host WebShield SMTP V4.5` is what McAfee's WebShield sends
_BANNER = re.compile(rb"[ \t.]*(?>(?:[2-5][0-9][0-9](?![0-9])[- ]?)?)[ \t]*([^ \t\r\n\0]+)")

# The word a greeting is made of where nothing is known of the server, as in the `repair` command without a banner.
# RFC 2606 2: no host has a name under .invalid, so no client takes it for its own name and sees a loop.
LAST_RESORT = b"unknown.invalid"


def is_dotted_domain(word: bytes) -> bool:
    """`word` is a domain of two labels at least, and no enhanced status code."""
    if len(word) > MAX_DOMAIN or b"." not in word:
        return False
    return _DOTTED_DOMAIN.fullmatch(word) is not None and _ENHANCED_STATUS.fullmatch(word) is None


def is_single_label(word: bytes) -> bool:
    """`word` is a domain of one label, which every keyword is too."""
    return len(word) <= MAX_DOMAIN and _SINGLE_LABEL.fullmatch(word) is not None


def is_address_literal(word: bytes) -> bool:
    """`word` is an address literal such as `[192.0.2.1]` or `[IPv6:2001:db8::1]`."""
    return word[:1] == b"[" and len(word) <= MAX_DOMAIN and _ADDRESS_LITERAL.fullmatch(word) is not None


def is_host(word: bytes) -> bool:
    """`word` can be nothing but a host: a dotted domain or an address literal."""
    return is_dotted_domain(word) or is_address_literal(word)


def is_full_name(argument: bytes) -> bool:
    """What a client's EHLO or HELO may say: a domain with a dot (RFC 5321 2.3.5), or an address literal that is one.

    Stricter than what tells a host from a keyword: no root dot, labels of 63 octets at most, no bare address (a last
    label of digits only, RFC 3696 2), a literal's address is an address, and has no zone.
    """
    if len(argument) > MAX_DOMAIN:
        return False
    if argument[:1] + argument[-1:] == b"[]":
        inside = argument[1:-1].decode("latin-1")
        tagged = inside[:5].lower() == "ipv6:"
        try:
            address = ipaddress.ip_address(inside[5:] if tagged else inside)
        except ValueError:
            return False
        return tagged == (address.version == 6) and "%" not in inside
    return (
        _DOTTED_DOMAIN.fullmatch(argument) is not None
        and not argument.rpartition(b".")[2].isdigit()
        and all(0 < len(label) <= MAX_LABEL for label in argument.split(b"."))
    )


def folded(name: bytes) -> bytes:
    """The name as names are compared: in lower case and without a root dot."""
    return name.lower().rstrip(b".")


def banner_host(banner: bytes) -> bytes | None:
    """The host that the banner names, as it is written there: its first word, but never ESMTP or SMTP.

    `banner` is the first banner line or more of it; None when it names no host.  The word may be anything of at most
    255 octets, stars of a firewall included: it is for comparing.  Whether a greeting can be made of it is
    `made_greeting`'s to say.
    """
    return _host_in(banner[:_MAX_HEAD])


@lru_cache(maxsize=128)  # of every banner, and of every EHLO reply that is judged: 1 us each, 0.1 us when it is known
def _host_in(head: bytes) -> bytes | None:
    match = _BANNER.match(head.partition(b"\n")[0])
    if match is None or match[1].upper() in (b"ESMTP", b"SMTP") or not folded(match[1]) or len(match[1]) > MAX_DOMAIN:
        return None
    return match[1]


def as_literal(address: bytes) -> bytes:
    """The address as an address literal (RFC 5321 4.1.3); empty for an empty one."""
    bare = address.partition(b"%")[0]
    if b":" in bare:
        return b"[IPv6:" + bare + b"]"
    return b"[" + bare + b"]" if bare else b""


def made_greeting(
    setting: bytes, host: bytes | None, destination_name: bytes, destination_address: bytes, client_name: bytes
) -> bytes:
    """The word to greet with where the server gave none.

    In this order: the setting, the banner's host name, the destination's name, its address as a literal.  Never the
    client's own name: Postfix and sendmail take a server that greets with it for themselves ("mail loops back to
    myself"), and bounce.  Never a known keyword, which would be none the better for a first line.
    """
    own = folded(client_name)
    if (
        setting
        and folded(setting) != own
        and (is_host(setting) or (is_single_label(setting) and known(setting) is None))
    ):
        return setting
    for name in (host or b"", destination_name, as_literal(destination_address)):
        if is_host(name) and folded(name) != own:
            return name
    return LAST_RESORT
