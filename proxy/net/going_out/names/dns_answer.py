"""What a DNS answer says about a name: pure.

Only records on the way from the name that was asked for, over its aliases, are looked at; what else a name server put
into its answer was not asked for.  Exchanges that are no host names (an address, RFC 974's old mistake; the root, a
null MX of RFC 7505) are kept without a name, so that the caller can tell "none that is usable" from "none".
"""

from __future__ import annotations

from proxy.net.going_out.names.dns_message import CNAME, MX, DnsAnswer
from proxy.net.going_out.names.name_files import HOST_NAME, is_address
from proxy.net.going_out.names.wanted import Exchange

MAX_TTL = 7 * 24 * 3600.0
NOTHING_FRESH = 30.0  # seconds for "it has none of these": the usual answer to AAAA
MAX_ALIASES = 8


def records_of(answer: DnsAnswer, name: str, kind: int) -> tuple[tuple[str | Exchange, ...], str, float]:
    """Addresses or exchanges of `name`, the name that its aliases lead to, and for how many seconds that holds."""
    ttl = MAX_TTL
    alias = name.rstrip(".").lower()
    aliases = {record.owner: record for record in answer.records if record.kind == CNAME}
    for _ in range(MAX_ALIASES):
        found = aliases.get(alias)
        if found is None or not HOST_NAME.match(found.name):
            break
        ttl = min(ttl, float(found.ttl))
        alias = found.name
    records: list[str | Exchange] = []
    for record in answer.records:
        if record.kind != kind or record.owner != alias:
            continue
        if kind == MX:
            usable = HOST_NAME.match(record.name) and not is_address(record.name)
            records.append(Exchange(record.preference, record.name if usable else ""))
        elif record.name:
            records.append(record.name)
        ttl = min(ttl, float(record.ttl))
    return tuple(records), alias, ttl if records else min(ttl, NOTHING_FRESH)
