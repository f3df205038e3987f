"""The EHLO keywords that are known, and the parameters that fit them.

The list is IANA's registry of SMTP service extensions (2025-09-19) and the keywords of the field that senders act on:
Exchange's, Postfix's XCLIENT and XFORWARD, Exim's and Courier's, and `AUTH=`, which Postfix and Exchange send for old
Outlook.  Where the registry says "none" but the RFC defines a parameter (DELIVERBY, FUTURERELEASE, LIMITS), the RFC
is followed; a parameter that servers in the field leave out may be left out.

What is not here is not known, on purpose: `Ok`, `ID`, `EHLO`, `coremail` and Yahoo's `8` are words that servers write
where a keyword or a greeting stands, and a greeting may be any word.

Keywords are compared without regard to case (RFC 5321 4.1.1.1), parameters too.  Nothing is raised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extension:
    """One keyword: in capitals, with the document that defines it and the parameters that may follow."""

    keyword: bytes
    reference: str
    parameters: re.Pattern[bytes]
    shape: str  # the same for a person


# ehlo-param = 1*(%d33-126), RFC 5321 4.1.1.1
_BEHIND_THE_WORD = re.compile(rb"[=:]")
_NONE = re.compile(rb"")
# size-value = 1*20DIGIT, RFC 1870 3
_SIZE = re.compile(rb"(?:[0-9]{1,20})?")
# min-by-time = 1*9DIGIT, RFC 2852 4
_BY_TIME = re.compile(rb"(?:[0-9]{1,9})?")
# sasl-mech = 1*20(UPPER-ALPHA / DIGIT / HYPHEN / UNDERSCORE), RFC 4422 3.1; old servers write them in lower case
_MECHANISMS = re.compile(rb"(?:[A-Z0-9_-]{1,20}(?:[ \t]+[A-Z0-9_-]{1,20})*)?", re.IGNORECASE)
# Solicitation-keywords, a comma list, RFC 3865 2.7
_SOLICITATIONS = re.compile(rb"(?:[A-Z0-9._:-]+(?:,[A-Z0-9._:-]+)*)?", re.IGNORECASE)
# URL prefixes, RFC 4468 3
_PREFIXES = re.compile(rb"(?:[!-~]+(?:[ \t]+[!-~]+)*)?")
# max-interval SP max-date-time, RFC 4865 3
_FUTURE = re.compile(rb"(?:[0-9]{1,9}(?:[ \t]+[0-9TZ:.+-]+)?)?", re.IGNORECASE)
# priority assignment policy name, RFC 6710 4.1
_POLICY = re.compile(rb"(?:[A-Z0-9][A-Z0-9-]*)?", re.IGNORECASE)
# limits-param = limit-name-value 0*[SP limit-name-value], RFC 9422 3
_LIMITS = re.compile(rb"(?:[A-Z0-9_-]+=[!-:<-~]*(?:[ \t]+[A-Z0-9_-]+=[!-:<-~]*)*)?", re.IGNORECASE)
# attribute names, Postfix XCLIENT_README and XFORWARD_README
_ATTRIBUTES = re.compile(rb"(?:[A-Z]+(?:[ \t]+[A-Z]+)*)?", re.IGNORECASE)

_REGISTRY: tuple[tuple[str, str, re.Pattern[bytes], str], ...] = (
    ("SEND", "RFC 821", _NONE, "none"),
    ("SOML", "RFC 821", _NONE, "none"),
    ("SAML", "RFC 821", _NONE, "none"),
    ("VRFY", "RFC 5321", _NONE, "none"),
    ("EXPN", "RFC 5321", _NONE, "none"),
    ("HELP", "RFC 5321", _NONE, "none"),
    ("TURN", "RFC 821", _NONE, "none"),
    ("8BITMIME", "RFC 6152", _NONE, "none"),
    ("SIZE", "RFC 1870", _SIZE, "up to 20 digits, or none"),
    ("VERB", "IANA", _NONE, "none"),
    ("ONEX", "IANA", _NONE, "none"),
    ("CHUNKING", "RFC 3030", _NONE, "none"),
    ("BINARYMIME", "RFC 3030", _NONE, "none"),
    ("CHECKPOINT", "RFC 1845", _NONE, "none"),
    ("DELIVERBY", "RFC 2852", _BY_TIME, "up to 9 digits, or none"),
    ("PIPELINING", "RFC 2920", _NONE, "none"),
    ("DSN", "RFC 3461", _NONE, "none"),
    ("ETRN", "RFC 1985", _NONE, "none"),
    ("ENHANCEDSTATUSCODES", "RFC 2034", _NONE, "none"),
    ("STARTTLS", "RFC 3207", _NONE, "none"),
    ("NO-SOLICITING", "RFC 3865", _SOLICITATIONS, "solicitation keywords with commas, or none"),
    ("MTRK", "RFC 3885", _NONE, "none"),
    ("SUBMITTER", "RFC 4405", _NONE, "none"),
    ("ATRN", "RFC 2645", _NONE, "none"),
    ("AUTH", "RFC 4954", _MECHANISMS, "SASL mechanism names"),
    ("BURL", "RFC 4468", _PREFIXES, "URL prefixes, or none"),
    ("FUTURERELEASE", "RFC 4865", _FUTURE, "the longest interval and the latest time"),
    ("UTF8SMTP", "RFC 5336", _NONE, "none"),
    ("CONPERM", "RFC 4141", _NONE, "none"),
    ("CONNEG", "RFC 4141", _NONE, "none"),
    ("SMTPUTF8", "RFC 6531", _NONE, "none"),
    ("MT-PRIORITY", "RFC 6710", _POLICY, "the name of a policy, or none"),
    ("RRVS", "RFC 7293", _NONE, "none"),
    ("REQUIRETLS", "RFC 8689", _NONE, "none"),
    ("LIMITS", "RFC 9422", _LIMITS, "NAME=VALUE pairs"),
)
_FIELD: tuple[tuple[str, str, re.Pattern[bytes], str], ...] = (
    ("AUTH=", "Outlook's form of AUTH", _MECHANISMS, "SASL mechanism names"),
    ("XCLIENT", "Postfix", _ATTRIBUTES, "attribute names"),
    ("XFORWARD", "Postfix", _ATTRIBUTES, "attribute names"),
    ("X-ANONYMOUSTLS", "Exchange", _NONE, "none"),
    ("X-EXPS", "Exchange", _MECHANISMS, "SASL mechanism names"),
    ("X-EXCHANGEAUTH", "Exchange", _MECHANISMS, "the name of a hash"),
    ("X-LINK2STATE", "Exchange", _NONE, "none"),
    ("XEXCH50", "Exchange", _NONE, "none"),
    ("XRDST", "Exchange", _NONE, "none"),
    ("XSHADOW", "Exchange", _NONE, "none"),
    ("XSHADOWREQUEST", "Exchange", _NONE, "none"),
    ("PIPECONNECT", "Exim", _NONE, "none"),
    ("PRDR", "Exim", _NONE, "none"),
    ("XEXDATA", "Courier", _NONE, "none"),
)

KEYWORDS: dict[bytes, Extension] = {
    keyword.encode(): Extension(keyword.encode(), reference, parameters, shape)
    for keyword, reference, parameters, shape in _REGISTRY + _FIELD
}

# any of these makes the server believe whoever speaks to it next (Postfix XCLIENT_README)
TRUSTING = frozenset((b"XCLIENT", b"XFORWARD"))


def known(word: bytes) -> Extension | None:
    """The extension that a line's first word names, in any case; None if the word is not known.

    `AUTH=LOGIN` is a word of its own: the keyword `AUTH=`.
    """
    upper = word.upper()
    if upper[:5] == b"AUTH=":
        return KEYWORDS[b"AUTH="]
    return KEYWORDS.get(upper)


def fits(word: bytes, parameters: bytes) -> bool:
    """`word` is a known keyword and `parameters`, the rest of its line, are such as it may have."""
    extension = known(word)
    if extension is None:
        return False
    if extension.keyword == b"AUTH=":
        parameters = word[5:] + b" " + parameters
    return extension.parameters.fullmatch(parameters.strip(b" \t")) is not None


def cut(word: bytes) -> bytes:
    """The word up to its first `=` or `:`: `STARTTLS=1` and `SIZE:` name a keyword and are none."""
    found = _BEHIND_THE_WORD.search(word)  # a word has up to 16 KiB, and a loop over it took as long as all the rest
    return word if found is None else word[: found.start()]
