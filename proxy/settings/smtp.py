"""What the configuration says in SMTP: a domain to greet with, EHLO keywords to hide and to add.

The grammar is RFC 5321's: `Domain` and `address-literal` (4.1.2, 4.1.3; not the general form), `ehlo-keyword` and
`ehlo-line` (4.1.1.1).  Beyond it, a keyword to hide may also be one that the grammar has no room for, since real
servers send `PIPE_CONNECT` and `AUTH=LOGIN`; one to add may not.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.settings.plain import text
from proxy.settings.problems import unfit
from proxy.settings.values import address

# sub-domain = Let-dig [Ldh-str]; Domain = sub-domain *("." sub-domain)
SUB_DOMAIN: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
DOMAIN: Final = re.compile(rf"{SUB_DOMAIN}(?:\.{SUB_DOMAIN})*\Z")
MAX_DOMAIN: Final = 255  # RFC 5321 4.5.3.1.2
# ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
# ehlo-param = 1*(%d33-126)
# ehlo-line = ehlo-keyword *( SP ehlo-param )
EHLO_LINE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(?: [!-~]+)*\Z")
FIELD_KEYWORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_=-]*\Z")
MECHANISM: Final = re.compile(r"[A-Za-z0-9_-]{1,20}\Z")  # sasl-mech = 1*20mech-char, RFC 4422 3.1
MAX_EHLO_LINE: Final = 512 - len("250-\r\n")  # RFC 5321 4.5.3.1.5, the code and the line end counted


def domain(value: object) -> str:
    """ "", a domain, or an address literal such as `[192.0.2.1]` or `[IPv6:2001:db8::1]`, at most 255 octets."""
    written = text(value)
    if code := re.match(r"[2-5][0-9]{2}[- ](.*)", written):
        raise unfit(value, "the name without the reply code", code[1].split(" ")[0] or None)
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


def keyword(value: object) -> str:
    """One EHLO keyword, in capitals."""
    word = text(value)
    if re.match(r"250[- ]", word):
        raise unfit(value, "the keyword without the reply code", word[4:])
    if not FIELD_KEYWORD.match(word) or len(word) > MAX_EHLO_LINE:
        first = word.partition(" ")[0]
        near = first if first != word and FIELD_KEYWORD.match(first) else None
        raise unfit(value, 'one EHLO keyword, such as "CHUNKING"', near)
    return word.upper()


def client_name(value: object) -> str:
    """ "", or a name that any server takes in an EHLO: a domain with a dot, or an address literal."""
    written = domain(value)
    if written and "." not in written and not written.startswith("["):
        raise unfit(value, 'a domain with a dot, such as "printer.domain1.com", or an address literal')
    return written


def hidden(value: object) -> str:
    """What `remove` hides: a keyword, or one mechanism as `AUTH:NTLM`, in capitals."""
    word, colon, mechanism = text(value).partition(":")
    if not colon:
        return keyword(value)
    if word.upper() != "AUTH" or not MECHANISM.match(mechanism):
        raise unfit(value, 'one EHLO keyword, such as "CHUNKING", or one mechanism, such as "AUTH:NTLM"')
    return f"AUTH:{mechanism.upper()}"


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
