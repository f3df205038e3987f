"""Listening sockets: bound here, or systemd's by the name of their unit's `FileDescriptorName=`.

An IPv6 socket is IPv6 only, so that one address never means two listeners.  With more than one worker each has its own
socket on the same port (SO_REUSEPORT), since one that is shared wakes them all and serves one.

Everything here raises OSError whose `strerror` says which address, and why, in words for a person.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from proxy.net.going_out.destination import parsed
from proxy.net.going_out.transparent import try_transparent

if TYPE_CHECKING:
    from proxy.settings import Listen

BACKLOG: Final = 4096  # the kernel caps it at net.core.somaxconn

_INET: Final = int(socket.AF_INET)
_STREAM: Final = int(socket.SOCK_STREAM)


def open_sockets(
    listen: Listen, inherited: Mapping[str, Sequence[int]], *, is_transparent: bool
) -> list[socket.socket]:
    """The sockets, listening, for one entry of `listen`; `inherited` maps systemd's names to descriptors.

    `is_transparent`: they take connections to addresses that are not the host's, too.
    """
    if not listen.systemd:
        sock = bound(listen, is_transparent=is_transparent)
        sock.listen(BACKLOG)
        return [sock]
    # A copy each: the inherited ones stay for the next reload.
    sockets = [socket.socket(fileno=os.dup(number)) for number in passed(listen.systemd, inherited)]
    for sock in sockets:
        _prepare(sock, is_transparent)
    return sockets


def passed(name: str, inherited: Mapping[str, Sequence[int]]) -> Sequence[int]:
    """The descriptors that systemd has passed under that name."""
    if not inherited.get(name):
        known = ", ".join(sorted(inherited)) or "none"
        raise OSError(errno.ENOENT, f"systemd passed no socket named {name!r} (it passed: {known})")
    return inherited[name]


def bound(listen: Listen, *, reuse_port: bool = False, is_transparent: bool = False) -> socket.socket:
    """A socket that has its address and does not listen yet."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _prepare(sock, is_transparent)
        sock.bind((listen.host, listen.port))
    except OSError as error:
        sock.close()
        why = os.strerror(error.errno or 0)
        if error.errno == errno.EACCES and listen.port < 1024:
            why += " (a port below 1024 takes CAP_NET_BIND_SERVICE, as ehlo-proxy.service has it, or a socket unit)"
        raise OSError(error.errno, f"cannot listen on {listen}: {why}") from None
    return sock


def accept(listening: socket.socket, family: int) -> tuple[socket.SocketType, tuple[str, int]]:
    """A client of a listening socket of this family, non-blocking, and its address and port, the address `plain`.

    Raises as accept(2) does.

    `listening.accept()` does the same, makes enumerations of family and type, and wraps the socket into a class of
    Python's, for `makefile` and `with`: 1.5 us and 56 bytes of each session more.  `_accept` is what it is built on.
    """
    number, client = listening._accept()  # type: ignore[attr-defined]  # not in typeshed
    sock = socket.SocketType(family, _STREAM, 0, number)
    sock.setblocking(False)
    return sock, client if family == _INET else (plain(client[0]), client[1])


def plain(host: str) -> str:
    """An IPv4-mapped address as IPv4, so that it is what networks and limits mean."""
    return str(parsed(host)) if host.startswith("::ffff:") else host


def _prepare(sock: socket.socket, is_transparent: bool) -> None:
    sock.setblocking(False)
    # Accepted sockets inherit it (Linux): one system call less for each client.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if is_transparent:
        try_transparent(sock)
