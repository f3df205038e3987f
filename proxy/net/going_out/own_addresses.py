"""Which addresses are this host's own?  Asked of the kernel, one address at a time.

A session must not be led back into the proxy, and a name from DNS must not lead into the host's own mail system; both
need to know which addresses are our own.

A datagram socket that is connected to an address of this host gets that same address as its own, since the kernel's
local routes come first and prefer it.  Nothing is sent, no privilege is needed, it works in the network namespace that
the caller is in and without AF_NETLINK, and it costs some ten microseconds however many addresses and routes there are
(the list of them in /proc/net/fib_trie took 5 s to read on a host with 200,000 routes).

What is not found here: whole networks that are routed to the host itself (`ip route add local 192.0.2.0/24 dev lo`),
and addresses that a packet filter redirects.  Loopback is a network too (127.0.0.0/8): ask `ip_address.is_loopback`.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

ANY_PORT = 9  # discard, RFC 863; nothing goes there


class OwnAddresses:
    """The addresses of this host, for `in`; link-local IPv6 addresses are not found without their interface."""

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, IPv4Address | IPv6Address):
            return False
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.connect((str(address), ANY_PORT))
                return str(sock.getsockname()[0]) == str(address)
        except OSError:  # no route, no such family, a broadcast address: not ours
            return False
