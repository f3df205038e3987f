"""The addresses of this host, from /proc, without a dependency and without a privilege.

A session must not be led back into the proxy, and a name from DNS must not lead into the host's own mail system; both
need to know which addresses are our own.  IPv4 comes from the local routing table (/proc/self/net/fib_trie: every
leaf that is `/32 host LOCAL`), IPv6 from /proc/self/net/if_inet6.  Both show the network namespace that the caller is
in, and both stay readable under systemd's `ProcSubset=pid` and without AF_NETLINK.

What is not found here: whole networks that are routed to the host itself (`ip route add local 192.0.2.0/24 dev lo`),
and addresses that a packet filter redirects.  Loopback is a network too (127.0.0.0/8): ask `ip_address.is_loopback`.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address


def own_addresses(proc: str = "/proc/self/net") -> frozenset[IPv4Address | IPv6Address]:
    """Every address of this host at this moment, link-local ones without their interface; empty without a /proc.

    It costs a fraction of a millisecond on a host with a few routes; the IPv4 file grows with the routing table, so a
    caller that asks often keeps the answer for a while.
    """
    return frozenset((*_ipv4(f"{proc}/fib_trie"), *_ipv6(f"{proc}/if_inet6")))


def _ipv4(path: str) -> Iterator[IPv4Address | IPv6Address]:
    """Leaves look like `|-- 192.0.2.1`, followed by their routes, one a line: `/32 host LOCAL`."""
    leaf = ""
    try:
        with open(path, encoding="ascii") as lines:
            for line in lines:
                words = line.split()
                if words[:1] == ["|--"]:
                    leaf = words[1]
                elif words[:3] == ["/32", "host", "LOCAL"]:
                    yield ip_address(leaf)
    except OSError:
        return


def _ipv6(path: str) -> Iterator[IPv4Address | IPv6Address]:
    """One address a line, 32 hexadecimal digits without colons in front."""
    try:
        with open(path, encoding="ascii") as lines:
            for line in lines:
                yield IPv6Address(int(line.split()[0], 16))
    except OSError:  # IPv6 is disabled
        return
