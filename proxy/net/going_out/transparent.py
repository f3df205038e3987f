"""Interception on Linux: where an intercepted connection was meant to go, and connections under another's address.

Two ways bring a foreign connection to our listener, and the socket tells which it was:

* REDIRECT (nftables `redirect`, iptables `REDIRECT`): NAT has rewritten the destination to ours.  SO_ORIGINAL_DST asks
  connection tracking for the one that the client wanted.
* TPROXY: nothing was rewritten; the accepted socket's own address is the one that the client wanted.  The listening
  socket needs IP_TRANSPARENT.  SO_ORIGINAL_DST gives the same address, or ENOENT without connection tracking.

A client that connected to the listener directly gets the listener's own address in both ways; the loop guard in
`proxy.net.going_out.destination` sees that.

`source = "client"` binds the socket towards the server to the client's address (IP_TRANSPARENT), so that the server
sees the client; the host must route the server's packets back into this proxy (`config/nftables/tproxy-spoof.nft`).

IP_TRANSPARENT needs CAP_NET_ADMIN or CAP_NET_RAW.  Raises OSError where the kernel refuses.
"""

from __future__ import annotations

import socket
import struct

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST of linux/netfilter_ipv6/ip6_tables.h
IP_TRANSPARENT = 19  # linux/in.h
IPV6_TRANSPARENT = 75  # linux/in6.h
IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h, for both families

CAPABILITIES = "CAP_NET_ADMIN (or CAP_NET_RAW)"


def original_destination(sock: socket.SocketType) -> tuple[str, int]:
    """Address and port that the client of this accepted socket wanted to reach.

    Raises OSError when the connection is over already."""
    try:
        if sock.family == socket.AF_INET6:
            # struct sockaddr_in6: family, port, flow label, address, scope
            packed = sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
            port, raw, scope = struct.unpack("=2xH4x16sI", packed)
            address = socket.inet_ntop(socket.AF_INET6, raw)
            return f"{address}%{scope}" if scope else address, socket.ntohs(port)
        packed = sock.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
        port, raw = struct.unpack_from("!H4s", packed, 2)
        return socket.inet_ntop(socket.AF_INET, raw), port
    except OSError:  # no connection tracking, or none of this connection
        name = sock.getsockname()
        return name[0], name[1]


def set_transparent(sock: socket.SocketType) -> None:
    """Let a socket listen for, or bind to, addresses that are not this host's.  Raises PermissionError."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)


def try_transparent(sock: socket.SocketType) -> None:
    """The same, where it may fail: REDIRECT works without it, and TPROXY rules without the capability bring nobody."""
    try:
        set_transparent(sock)
    except PermissionError:
        pass


def bind_source(sock: socket.SocketType, address: str, transparent: bool) -> None:
    """Bind a socket that is going to connect to a source address, its port left to the kernel.

    The port is chosen at connect (IP_BIND_ADDRESS_NO_PORT): chosen at bind it would have to be free for all
    destinations at once, and one address could have only some 28,000 sessions."""
    if transparent:
        set_transparent(sock)
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((address, 0))


def lacking(source: str) -> str:
    """What this process lacks for the setting `source`, in words for a person; empty when nothing."""
    if source != "client":
        return ""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                set_transparent(sock)
                return ""
        except PermissionError:
            return f'source = "client" needs the capability {CAPABILITIES}'
        except OSError:  # a host without this family
            continue
    return 'source = "client": this kernel has no transparent sockets'
