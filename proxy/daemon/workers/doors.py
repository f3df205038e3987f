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
from proxy.net.coming_in.sockets import bound, passed
from proxy.net.going_out.transparent import try_transparent

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
                        passed(listen.systemd, self._inherited)  # their workers take them
                        concrete.append(listen)
                        continue
                    # A free port belongs to the route that got it.
                    key = (listen, route.name, number) if listen.any_port else (listen, "", 0)
                    held = self._held.get(key) or self._bind(listen)
                    wanted[key] = held
                    for sock in held if is_transparent else ():
                        try_transparent(sock)
                    concrete.append(replace(listen, port=held[0].getsockname()[1]))
                routes.append(replace(route, listen=tuple(concrete)))
        except OSError as error:
            _close(wanted, self._held)
            raise CannotStart(error.strerror) from None
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
        try:
            for _ in range(self._workers):
                sockets.append(bound(listen, reuse_port=True))
                listen = replace(listen, port=sockets[0].getsockname()[1])
        except OSError:
            for sock in sockets:
                sock.close()
            raise
        return sockets


def _close(held: Mapping[_Key, list[socket.socket]], but: Mapping[_Key, list[socket.socket]]) -> None:
    for key, sockets in held.items():
        if key not in but:
            for sock in sockets:
                sock.close()
