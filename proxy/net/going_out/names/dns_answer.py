"""What a DNS answer says about a name: pure, over messages that twisted.names has read.

Only records on the way from the name that was asked for, over its aliases, are looked at; what else a name server put
into its answer was not asked for.  Exchanges that are no host names (an address, RFC 974's old mistake; the root, a
null MX of RFC 7505) are kept without a name, so that the caller can tell "none that is usable" from "none".
"""

from __future__ import annotations

import socket

from twisted.names import dns

from proxy.net.going_out.destination import Exchange
from proxy.net.going_out.names.name_files import HOST_NAME, is_address

MAX_TTL = 7 * 24 * 3600.0
NOTHING_FRESH = 30.0  # seconds for "it has none of these": the usual answer to AAAA
MAX_ALIASES = 8
MAX_RECORDS = 100


def read_answer(message: dns.Message, name: str, kind: int) -> tuple[tuple[str | Exchange, ...], str, float]:
    """Addresses or exchanges of `name`, the name that its aliases lead to, and for how many seconds that holds."""
    ttl = MAX_TTL
    alias = name.rstrip(".").lower()
    aliases = {
        _text(answer.name): answer
        for answer in message.answers
        if answer.cls == dns.IN and isinstance(answer.payload, dns.Record_CNAME)
    }
    for _ in range(MAX_ALIASES):
        answer = aliases.get(alias)
        if answer is None or not isinstance(answer.payload, dns.Record_CNAME):
            break
        target = _text(answer.payload.name)
        if not HOST_NAME.match(target):
            break
        ttl = min(ttl, float(answer.ttl))
        alias = target
    records: list[str | Exchange] = []
    for answer in message.answers[:MAX_RECORDS]:
        if answer.type != kind or answer.cls != dns.IN or _text(answer.name) != alias:
            continue
        payload = answer.payload
        if isinstance(payload, dns.Record_MX):
            exchange = _text(payload.name)
            usable = HOST_NAME.match(exchange) and not is_address(exchange)
            records.append(Exchange(payload.preference, exchange if usable else ""))
        elif isinstance(payload, dns.Record_A):
            records.append(payload.dottedQuad())
        elif isinstance(payload, dns.Record_AAAA):
            records.append(socket.inet_ntop(socket.AF_INET6, payload.address))
        ttl = min(ttl, float(answer.ttl))
    return tuple(records), alias, ttl if records else min(ttl, NOTHING_FRESH)


def _text(name: dns.Name) -> str:
    """In small letters, without the last dot; what is not ASCII becomes something that matches nothing."""
    return name.name.decode("ascii", "replace").rstrip(".").lower()
