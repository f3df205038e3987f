"""The carrier: what waits for what."""

from __future__ import annotations

import gc
import select
import socket
from typing import Any, cast

from proxy.daemon.log.logs import EventLog
from proxy.daemon.reports import Reports
from proxy.net.carrier.route import RouteRuntime, RouteState
from proxy.net.coming_in.admission import OwnPlaces
from proxy.net.going_out.destination import Surroundings
from proxy.net.observer import Observer
from proxy.settings import from_arguments
from tests.own_reactor import OwnReactor

EVERYWHERE = Surroundings(frozenset(), lambda: frozenset())


class Listening:
    """An observer that sees what the client can read when something is told, and hands it on."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.readable: dict[str, bytes] = {}
        self._reports = Reports(EventLog(lambda line: None))

    def __getattr__(self, name: str) -> Any:
        if name in ("ehlo_replied", "starttls_answered"):
            self.readable[name] = self.client.recv(4096, socket.MSG_DONTWAIT)
        return getattr(self._reports, name)


def arrived(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


def route_runtime(own: OwnReactor, listening: socket.socket, observer: object) -> RouteRuntime:
    """The route to this server, as shipped."""
    [route] = from_arguments("127.0.0.1:2601", f"127.0.0.1:{listening.getsockname()[1]}").routes
    return RouteRuntime(
        route,
        state=RouteState(OwnPlaces()),
        poller=own.poller,
        deadlines=own.deadlines,
        observer=cast(Observer, observer),
        names=lambda: cast(Any, None),
        surroundings=EVERYWHERE,
        host_name="proxy.example",
        secure=None,
    )


def test_a_session_that_is_over_is_freed_at_once() -> None:
    """No circle is left of its objects: the collector would have some 30 of each session to find."""
    own = OwnReactor()
    reports = Reports(EventLog(lambda line: None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        runtime = route_runtime(own, listening, reports)
        for _ in range(2):  # what is set up once is in the first
            gc.collect()
            gc.disable()
            client, ours = socket.socketpair()
            ours.setblocking(False)
            assert runtime.admit(ours, ("127.0.0.1", 4444), None) is None
            own.turns(0.05)
            server, _ = listening.accept()
            for at, said in (
                (server, b"220 mail.domain1.com ESMTP\r\n"), (client, b"EHLO ESA.com\r\n"),
                (server, b"250-STARTTLS\r\n250 mail.domain1.com\r\n"), (client, b"STARTTLS\r\n"),
                (server, b"220 Ready\r\n"), (client, b"\x16\x03\x01\x00\x05hello"),
            ):  # fmt: skip
                at.send(said)
                there = client if at is server else server
                own.run(lambda there=there: arrived(there))  # type: ignore[misc]
                there.recv(4096)
            client.close()
            server.close()
            own.run(lambda: not runtime.state.sessions)
            own.turns(0.05)
            try:
                left = gc.collect()
            finally:
                gc.enable()
        assert left == 0
    own.close()


def test_the_peer_has_its_bytes_before_the_log_is_told() -> None:
    own = OwnReactor()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client, ours = socket.socketpair()
        ours.setblocking(False)
        told = Listening(client)
        runtime = route_runtime(own, listening, told)
        assert runtime.admit(ours, ("127.0.0.1", 4444), None) is None
        own.turns(0.1)
        server, _ = listening.accept()
        server.send(b"220 mail.domain1.com ESMTP\r\n")
        own.run(lambda: arrived(client))
        client.recv(4096)
        for command, reply, event in (
            (b"EHLO ESA.com\r\n", b"250-STARTTLS\r\n250 mail.domain1.com\r\n", "ehlo_replied"),
            (b"STARTTLS\r\n", b"220 Ready\r\n", "starttls_answered"),
        ):
            client.send(command)
            own.run(lambda: arrived(server))
            assert server.recv(4096) == command
            server.send(reply)
            own.run(lambda event=event: event in told.readable)  # type: ignore[misc]
        assert told.readable["ehlo_replied"].startswith(b"250-mail")
        assert told.readable["starttls_answered"] == b"220 Ready\r\n"
        client.close()
        server.close()
        own.run(lambda: not runtime.state.sessions)
    own.close()
