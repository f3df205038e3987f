"""The listening sockets of all workers, held by their parent.

Each worker has a socket of its own for each address (SO_REUSEPORT), bound here before any right is given up and passed
down to it; the kernel spread clients evenly only over such sockets.  Since the parent keeps a duplicate of each,

* port 0 means the same port for all, and a port that is taken is found before any worker is started or reloaded;
* a port below 1024 stays when root has been given up, also for the workers that are started later;
* clients in the queue of a worker that died wait for the next one;
* one that hangs is sent no more clients: its sockets are shut down, which the kernel does to the socket, whoever holds
  it.  A socket that was shut down keeps its port and listens again for the next worker.

A worker makes its sockets listen when it is ready to serve.  systemd's sockets are not held here: they are shared by
all workers, and pass over one that hangs by themselves.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from proxy.daemon.serving import CannotStart
from proxy.net.going_out import transparent

if TYPE_CHECKING:
    from proxy.settings import Listen, Settings

_Key = tuple["Listen", str, int]


class HeldDoors:
    """Raises CannotStart where a socket can't be had."""

    def __init__(self, workers: int, inherited: Mapping[str, list[int]]) -> None:
        self._workers = workers
        self._inherited = inherited
        self._held: dict[_Key, list[socket.socket]] = {}  # of each entry of `listen`, by the worker's number

    def open(self, settings: Settings) -> Settings:
        """Bind what these settings name and let go of the rest; the settings with the ports that port 0 has become.

        When one can't be had nothing is changed.
        """
        wanted: dict[_Key, list[socket.socket]] = {}
        routes = []
        try:
            for route in settings.routes:
                is_transparent = any(destination.kind == "original" for destination in route.destination)
                concrete = []
                for number, listen in enumerate(route.listen):
                    if listen.systemd:
                        if not self._inherited.get(listen.systemd):
                            known = ", ".join(sorted(self._inherited)) or "none"
                            name = repr(listen.systemd)
                            raise CannotStart(f"systemd passed no socket named {name} (it passed: {known})")
                        concrete.append(listen)
                        continue
                    # A free port belongs to the route that got it.
                    key = (listen, route.name, number) if listen.any_port else (listen, "", 0)
                    held = self._held.get(key) or self._bind(listen)
                    wanted[key] = held
                    for sock in held if is_transparent else ():
                        _make_transparent(sock)
                    concrete.append(replace(listen, port=held[0].getsockname()[1]))
                routes.append(replace(route, listen=tuple(concrete)))
        except BaseException:
            _close(wanted, self._held)
            raise
        _close(self._held, wanted)
        self._held = wanted
        return replace(settings, routes=tuple(routes))

    def of(self, worker: int) -> list[tuple[str, socket.socket]]:
        """The sockets of that worker, each with its address."""
        found = []
        for (listen, _route, _number), held in self._held.items():
            sock = held[worker]
            found.append((str(replace(listen, port=sock.getsockname()[1])), sock))
        return found

    def shut(self, worker: int) -> None:
        """Send no more clients to that worker; those in its queues are reset.  It may not be able to do so itself."""
        for _address, sock in self.of(worker):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it did not listen (yet)

    def close(self) -> None:
        """The workers' own are the last ones."""
        _close(self._held, {})
        self._held = {}

    def _bind(self, listen: Listen) -> list[socket.socket]:
        sockets: list[socket.socket] = []
        port = listen.port
        try:
            for _ in range(self._workers):
                sock = _bound(listen, port)
                sockets.append(sock)
                port = sock.getsockname()[1]
        except OSError as error:
            for sock in sockets:
                sock.close()
            raise CannotStart(f"cannot listen on {listen}: {error.strerror}") from None
        return sockets


def _bound(listen: Listen, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted sockets inherit it (Linux): one system call less for each client.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((listen.host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _make_transparent(sock: socket.socket) -> None:
    try:
        transparent.set_transparent(sock)
    except PermissionError:
        pass  # REDIRECT works without it; TPROXY rules without the capability bring no connection here


def _close(held: Mapping[_Key, list[socket.socket]], but: Mapping[_Key, list[socket.socket]]) -> None:
    for key, sockets in held.items():
        if key not in but:
            for sock in sockets:
                sock.close()
