"""The sockets of the admin listener: TCP, or a UNIX socket with a mode.

A UNIX socket that nobody listens on any more is removed, one that is in use is not.  It gets its mode before anybody
can connect (the umask of the moment), and belongs to the user that the service becomes.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory
from twisted.python.failure import Failure

from proxy.settings.values import host_port

if TYPE_CHECKING:
    from proxy.settings import Endpoint

BACKLOG = 50


def listen(reactor: Any, where: Endpoint, factory: IProtocolFactory, *, mode: str, user: str) -> str:
    """Listen; the address, with the port that port 0 has become.  Raises OSError with a text."""
    if where.path:
        _listen_unix(reactor, where.path, factory, int(mode, 8), user)
        return str(where)
    try:
        port = reactor.listenTCP(where.port, factory, interface=where.host)
    except CannotListenError as error:
        raise OSError(f"cannot listen on {where} (admin): {os.strerror(error.socketError.errno or 0)}") from None
    host = port.getHost()
    return host_port(host.host, host.port)


def _listen_unix(reactor: Any, path: str, factory: IProtocolFactory, mode: int, user: str) -> None:
    _remove_stale(path)
    before = os.umask(0o777 & ~mode)
    try:
        _Port(os.fsencode(path), factory, BACKLOG, mode, reactor).startListening()  # type: ignore[no-untyped-call]  # Twisted's
    except CannotListenError as error:
        raise OSError(f"cannot listen on unix:{path} (admin): {os.strerror(error.socketError.errno or 0)}") from None
    finally:
        os.umask(before)
    if user and os.geteuid() == 0:
        import pwd

        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            return  # the service says so, and does not start
        os.chown(path, entry.pw_uid, entry.pw_gid)


def _remove_stale(path: str) -> None:
    """Remove a socket that its process has left behind.  Raises OSError if somebody listens, or it is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(f"cannot listen on unix:{path} (admin): it is there and is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass
    raise OSError(f"cannot listen on unix:{path} (admin): another process listens there")


class _Port(unix.Port):
    """Goes without a complaint when its file cannot be removed: with `user`, the directory is root's."""

    def connectionLost(self, reason: Failure) -> None:
        try:
            super().connectionLost(reason)  # type: ignore[no-untyped-call]  # Twisted's
        except OSError:
            tcp.Port.connectionLost(self, reason)
