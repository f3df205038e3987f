"""Dialling over real sockets on loopback: order, failover, racing, time-outs, refusals, and nothing left behind."""

from __future__ import annotations

import errno
import gc
import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import globalLogPublisher

from proxy.net.going_out import attempt as attempt_module
from proxy.net.going_out.destination import FailureMemory, Server, Surroundings
from proxy.net.going_out.dial import Dial
from proxy.net.going_out.dialer import Dialer
from proxy.net.going_out.names.wanted import Exchange, NotResolved
from proxy.settings import Destination, Route, Timeouts
from tests.loopback import free_port
from tests.own_reactor import OwnReactor


class Names:
    """A resolver of a table; what is not in it never answers."""

    def __init__(self, hosts: dict[str, Any] | None = None, domains: dict[str, Any] | None = None) -> None:
        self.hosts = hosts or {}
        self.domains = domains or {}
        self.cancelled = 0

    def addresses(self, name: str, timeout: float) -> Deferred[tuple[str, ...]]:
        return self._give(self.hosts.get(name))

    def exchanges(self, domain: str, timeout: float) -> Deferred[tuple[Exchange, ...]]:
        return self._give(self.domains.get(domain))

    def _give(self, answer: Any) -> Deferred[Any]:
        if answer is None:
            return Deferred(self._cancelled)
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)

    def _cancelled(self, lookup: Deferred[Any]) -> None:
        self.cancelled += 1


class Lenient(Surroundings):
    """Takes loopback for the world, but for what the test forbids."""

    def __init__(self, forbidden: dict[str, tuple[str, str]], listening: frozenset[tuple[str, int]]) -> None:
        super().__init__(frozenset(), lambda: listening)
        self.forbidden = forbidden

    def refusal(self, address: str, port: int) -> tuple[str, str] | None:
        return self.forbidden.get(address)


class Told:
    """An observer that only remembers failures."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str, str]] = []

    def destination_failed(self, route: str, destination: str, name: str, reason: str, story: object) -> None:
        self.failures.append((destination, name, reason))


class Owner:
    """A session that waits."""

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.server: Server | None = None
        self.unreachable: tuple[str, str, Server | None] | None = None
        self.error: BaseException | None = None
        self.calls = 0

    def server_connected(self, sock: socket.socket, server: Server, mask: int) -> None:
        self.calls += 1
        self.sock, self.server = sock, server

    def server_unreachable(self, status: str, reason: str, server: Server | None) -> None:
        self.calls += 1
        self.unreachable = status, reason, server

    def failed(self, error: BaseException) -> None:
        self.calls += 1
        self.error = error


class Lab(OwnReactor):
    """One route's dialer, and servers on loopback."""

    def __init__(self) -> None:
        super().__init__()
        self.names = Names()
        self.told = Told()
        self.memory = FailureMemory()
        self.forbidden: dict[str, tuple[str, str]] = {}
        self.listening: frozenset[tuple[str, int]] = frozenset()
        self.sockets: list[socket.socket] = []
        self.dials: list[Dial] = []
        self.owners: list[Owner] = []

    def close(self) -> None:
        for dial, owner in zip(self.dials, self.owners, strict=True):
            dial.cancel()
            self.close_connection(owner)
        for sock in self.sockets:
            sock.close()
        super().close()

    def close_connection(self, owner: Owner) -> None:
        if owner.sock is not None:
            self.poller.remove(owner.sock.fileno())
            owner.sock.close()
            owner.sock = None

    def server(self, address: str = "127.0.0.1", port: int = 0, backlog: int = 16) -> int:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(backlog)
        number: int = sock.getsockname()[1]
        return number

    def black_hole(self, address: str = "127.0.0.1", port: int = 0) -> int:
        """A listener whose queue is full: Linux drops what else comes."""
        port = self.server(address, port, backlog=0)
        for _ in range(3):
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
            sock.setblocking(False)
            self.sockets.append(sock)
            sock.connect_ex((address, port))
        return port

    def dialer(self, *destinations: Destination, connect: float = 30.0, **settings: Any) -> Dialer:
        route = Route(
            destination=destinations, timeouts=Timeouts(connect=connect, resolve=10.0), **{"name": "r", **settings}
        )
        return Dialer(
            route,
            self.poller,
            self.deadlines,
            lambda: self.names,
            self.told,  # type: ignore[arg-type]  # the dialer tells failures only
            self.memory,
            Lenient(self.forbidden, self.listening),
        )

    def dial(
        self, dialer: Dialer, client: tuple[str, int] = ("127.0.0.1", 4000), original: tuple[str, int] | None = None
    ) -> tuple[Dial, Owner]:
        owner = Owner()
        dial = Dial(dialer, owner, client, original)
        assert owner.calls == 0  # never from within
        self.dials.append(dial)
        self.owners.append(owner)
        return dial, owner

    def outcome(self, dialer: Dialer, **named: Any) -> Owner:
        _, owner = self.dial(dialer, **named)
        self.run(lambda: owner.calls)
        assert owner.calls == 1
        return owner


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


def address(host: str, port: int) -> Destination:
    return Destination("address", host, port)


def name(host: str, port: int) -> Destination:
    return Destination("name", host, port)


def mx(domain: str, port: int) -> Destination:
    return Destination("mx", domain, port)


# One address.


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_single_address_is_connected_registered_and_without_delay(lab: Lab, host: str) -> None:
    port = lab.server(host)
    dial, owner = lab.dial(lab.dialer(address(host, port)))
    lab.run(lambda: owner.calls)
    assert owner.sock is not None
    assert owner.server is not None
    assert (owner.server.address, owner.server.port) == (host, port)
    assert owner.sock.getpeername()[:2] == (host, port)
    assert not owner.sock.getblocking()
    assert owner.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert lab.poller.owner_of(owner.sock.fileno()) is not None
    assert dial.server == owner.server
    assert not dial.another_left
    assert len(lab.deadlines) == 0


def test_a_refused_connection_is_unreachable(lab: Lab) -> None:
    port = free_port()
    owner = lab.outcome(lab.dialer(address("127.0.0.1", port)))
    assert owner.unreachable is not None
    status, reason, server = owner.unreachable
    assert (status, reason, str(server)) == ("4.4.1", "connection refused", f"127.0.0.1:{port}")
    assert lab.told.failures == [(f"127.0.0.1:{port}", "", "connection refused")]


def test_no_route_is_unreachable_without_waiting(lab: Lab) -> None:
    owner = lab.outcome(lab.dialer(address("255.255.255.255", 25)))
    assert owner.unreachable is not None
    assert owner.unreachable[0] == "4.4.1"


def test_a_black_hole_ends_with_the_time_out(lab: Lab) -> None:
    owner = lab.outcome(lab.dialer(address("127.0.0.1", lab.black_hole()), connect=0.3))
    assert owner.unreachable is not None
    assert owner.unreachable[:2] == ("4.4.1", "no connection within 0 s")


def test_one_address_has_ten_seconds(lab: Lab) -> None:
    now = lab.deadlines.now()
    lab.dial(lab.dialer(address("127.0.0.1", lab.black_hole())))
    [slot] = lab.deadlines._slot_of.values()
    [when] = slot.values()
    assert when - now == pytest.approx(10, abs=0.1)


def test_a_server_that_greets_and_resets_at_once_is_still_connected(lab: Lab) -> None:
    port = lab.server()
    _, owner = lab.dial(lab.dialer(address("127.0.0.1", port)))
    peer, _ = lab.sockets[0].accept()
    peer.send(b"421 go away\r\n")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    peer.close()
    lab.run(lambda: owner.calls)
    assert owner.sock is not None
    assert owner.sock.recv(100) == b"421 go away\r\n"


# Several destinations.


def test_destinations_are_tried_in_order(lab: Lab) -> None:
    first, second = lab.server(), lab.server()
    owner = lab.outcome(lab.dialer(address("127.0.0.1", first), address("127.0.0.1", second)))
    assert owner.server is not None
    assert owner.server.port == first


def test_a_destination_that_failed_is_skipped_for_a_minute_and_is_tried_last(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, alive = free_port(), lab.server()
    dialer = lab.dialer(address("127.0.0.1", dead), address("127.0.0.1", alive))
    assert lab.outcome(dialer).server is not None
    assert len(lab.told.failures) == 1
    dial, owner = lab.dial(dialer)
    lab.run(lambda: owner.calls)
    assert owner.server is not None
    assert owner.server.port == alive
    assert len(lab.told.failures) == 1  # not tried first again
    assert dial.another_left  # but it is there
    now = lab.deadlines.now
    monkeypatch.setattr(lab.deadlines, "now", lambda: now() + 61)
    lab.server(port=dead)
    assert lab.outcome(dialer).server.port == dead


def test_the_session_may_ask_for_the_next_one(lab: Lab) -> None:
    first, second = lab.server(), lab.server()
    dialer = lab.dialer(address("127.0.0.1", first), address("127.0.0.1", second))
    dial, owner = lab.dial(dialer)
    lab.run(lambda: owner.calls)
    assert dial.another_left
    lab.close_connection(owner)
    dial.next("banner 421")
    assert owner.calls == 1
    lab.run(lambda: owner.calls == 2)
    assert owner.server is not None
    assert owner.server.port == second
    assert not dial.another_left
    assert lab.told.failures == [(f"127.0.0.1:{first}", "", "banner 421")]
    # The next session begins with the second; after a good one the first is tried first again.
    dial, owner = lab.dial(dialer)
    lab.run(lambda: owner.calls)
    assert owner.server.port == second
    lab.close_connection(owner)
    dial.next("banner 421")
    lab.run(lambda: owner.calls == 2)
    assert owner.server.port == first
    dial.succeeded()
    assert lab.outcome(dialer).server.port == first


def test_next_with_nothing_that_answers_is_unreachable(lab: Lab) -> None:
    dialer = lab.dialer(address("127.0.0.1", lab.server()), address("127.0.0.1", free_port()))
    dial, owner = lab.dial(dialer)
    lab.run(lambda: owner.calls)
    lab.close_connection(owner)
    dial.next("banner 421")
    lab.run(lambda: owner.calls == 2)
    assert owner.unreachable is not None
    assert owner.unreachable[:2] == ("4.4.1", "connection refused")


# Names.


def test_a_name_is_connected_under_its_name(lab: Lab) -> None:
    port = lab.server()
    lab.names.hosts["mx.example"] = ("127.0.0.1",)
    owner = lab.outcome(lab.dialer(name("mx.example", port)))
    assert str(owner.server) == f"mx.example[127.0.0.1]:{port}"


def test_a_name_that_is_not_resolved_is_4_4_3(lab: Lab) -> None:
    lab.names.hosts["mx.example"] = NotResolved("no such name")
    owner = lab.outcome(lab.dialer(name("mx.example", 25)))
    assert owner.unreachable is not None
    assert owner.unreachable[:2] == ("4.4.3", "no such name")
    assert str(owner.unreachable[2]) == "mx.example:25"
    assert lab.told.failures == [("mx.example:25", "mx.example", "no such name")]


def test_a_bug_in_the_resolver_ends_that_destination_only(lab: Lab) -> None:
    lab.names.hosts["mx.example"] = ZeroDivisionError("ours")
    events: list[object] = []
    globalLogPublisher.addObserver(events.append)
    try:
        owner = lab.outcome(lab.dialer(name("mx.example", 25), address("127.0.0.1", lab.server())))
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert owner.server is not None
    assert len(events) == 1


def test_an_address_from_a_name_that_may_not_be_connected_is_not(lab: Lab) -> None:
    port = lab.server()
    lab.names.hosts["mx.example"] = ("127.0.0.1",)
    lab.forbidden["127.0.0.1"] = ("4.4.1", "127.0.0.1 is a loopback address")
    owner = lab.outcome(lab.dialer(name("mx.example", port)))
    assert owner.unreachable is not None
    assert owner.unreachable[:2] == ("4.4.1", "127.0.0.1 is a loopback address")
    lab.sockets[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        lab.sockets[0].accept()


def test_the_proxy_itself_among_the_addresses_of_a_name_is_left_out(lab: Lab) -> None:
    port = lab.server("127.0.0.2")
    lab.names.hosts["mx.example"] = ("127.0.0.1", "127.0.0.2")
    lab.forbidden["127.0.0.1"] = ("4.4.6", "that is this proxy itself")
    dialer = lab.dialer(name("mx.example", port))
    assert lab.outcome(dialer).server.address == "127.0.0.2"
    lab.names.hosts["mx.example"] = ("127.0.0.1", "127.0.0.3")
    lab.forbidden["127.0.0.3"] = ("4.4.1", "forbidden")
    assert lab.outcome(dialer).unreachable[0] == "4.4.6"  # type: ignore[index]  # unreachable


def test_a_literal_that_leads_back_is_not_connected(lab: Lab) -> None:
    port = lab.server()
    lab.listening = frozenset({("127.0.0.1", port)})
    owner = lab.outcome(lab.dialer(address("127.0.0.1", port)))
    assert owner.unreachable is not None
    assert owner.unreachable[0] == "4.4.6"


def test_a_failure_starts_the_next_address_at_once(lab: Lab) -> None:
    port = lab.server("127.0.0.9")
    lab.names.hosts["mx.example"] = tuple(f"127.0.0.{last}" for last in range(2, 10))
    _, owner = lab.dial(lab.dialer(name("mx.example", port)))
    assert lab.run(lambda: owner.calls) < 0.2
    assert owner.server is not None
    assert owner.server.address == "127.0.0.9"
    assert len(lab.told.failures) == 7


def test_silence_starts_the_next_address_after_250_ms_and_the_families_alternate(lab: Lab) -> None:
    port = lab.black_hole("::1")
    lab.black_hole("127.0.0.2", port)
    lab.server("127.0.0.3", port)
    lab.names.hosts["mx.example"] = ("127.0.0.2", "127.0.0.3", "::1")
    dial, owner = lab.dial(lab.dialer(name("mx.example", port)))
    assert [attempt.server.address for attempt in dial._attempts] == ["::1"]
    lab.run(lambda: len(dial._attempts) == 2)
    assert [attempt.server.address for attempt in dial._attempts] == ["::1", "127.0.0.2"]
    assert 0.2 < lab.run(lambda: owner.calls) < 0.4
    assert owner.server is not None
    assert owner.server.address == "127.0.0.3"
    assert lab.told.failures == []  # those that only lost the race have not failed
    assert len(lab.poller) == 1
    assert len(lab.deadlines) == 0


def test_the_first_that_is_connected_wins_although_it_began_earlier(lab: Lab) -> None:
    port = lab.black_hole("127.0.0.2")
    lab.black_hole("127.0.0.3", port)
    lab.names.hosts["mx.example"] = ("127.0.0.2", "127.0.0.3")
    dial, owner = lab.dial(lab.dialer(name("mx.example", port)))
    lab.run(lambda: len(dial._attempts) == 2)
    lab.sockets[0].accept()[0].close()  # room again: the retransmitted SYN gets through
    lab.sockets[0].accept()[0].close()
    lab.run(lambda: owner.calls)
    assert owner.server is not None
    assert owner.server.address == "127.0.0.2"


def test_one_time_out_for_all_addresses_of_a_destination(lab: Lab) -> None:
    port = lab.black_hole("127.0.0.2")
    for last in range(3, 8):
        lab.black_hole(f"127.0.0.{last}", port)
    lab.names.hosts["mx.example"] = tuple(f"127.0.0.{last}" for last in range(2, 8))
    second = lab.server()
    _, owner = lab.dial(lab.dialer(name("mx.example", port), address("127.0.0.1", second), connect=0.6))
    assert 0.5 < lab.run(lambda: owner.calls) < 0.9
    assert owner.server is not None
    assert owner.server.port == second
    assert len(lab.told.failures) == 3  # as many as were begun
    assert lab.memory.is_down(f"mx.example:{port}", lab.deadlines.now())


def test_an_address_that_failed_is_raced_last(lab: Lab) -> None:
    port = lab.server("127.0.0.2")
    lab.names.hosts["mx.example"] = ("127.0.0.3", "127.0.0.2")
    dialer = lab.dialer(name("mx.example", port))
    lab.outcome(dialer)
    assert len(lab.told.failures) == 1
    assert lab.outcome(dialer).server is not None
    assert len(lab.told.failures) == 1


# Mail exchanges.


def test_exchanges_are_tried_by_preference(lab: Lab) -> None:
    port = lab.server("127.0.0.2")
    lab.server("127.0.0.3", port)
    lab.names.domains["example"] = (Exchange(20, "b.example"), Exchange(10, "a.example"), Exchange(30, "c.example"))
    lab.names.hosts = {
        "a.example": NotResolved("no such name"),
        "b.example": ("127.0.0.2",),
        "c.example": ("127.0.0.3",),
    }
    dial, owner = lab.dial(lab.dialer(mx("example", port)))
    lab.run(lambda: owner.calls)
    assert str(owner.server) == f"b.example[127.0.0.2]:{port}"
    assert dial.another_left
    lab.close_connection(owner)
    dial.next("banner 421")
    lab.run(lambda: owner.calls == 2)
    assert str(owner.server) == f"c.example[127.0.0.3]:{port}"
    assert not lab.memory.is_down(f"mx:example:{port}", lab.deadlines.now())


def test_an_exchange_that_failed_is_tried_behind_the_other_destinations(lab: Lab) -> None:
    port = lab.server("127.0.0.2")
    other = lab.server()
    lab.names.domains["example"] = (Exchange(10, "a.example"), Exchange(20, "b.example"))
    lab.names.hosts = {"a.example": NotResolved("no such name"), "b.example": ("127.0.0.2",)}
    dialer = lab.dialer(mx("example", port), address("127.0.0.1", other))
    lab.outcome(dialer)
    assert len(lab.told.failures) == 1
    dial, owner = lab.dial(dialer)
    lab.run(lambda: owner.calls)
    assert len(lab.told.failures) == 1
    assert owner.server is not None
    assert owner.server.name == "b.example"
    lab.close_connection(owner)
    dial.next("banner 421")
    lab.run(lambda: owner.calls == 2)
    assert owner.server.port == other
    assert dial.another_left


@pytest.mark.parametrize("answer", [NotResolved("it accepts no mail (null MX)"), ()])
def test_a_mail_domain_without_exchanges_is_4_4_3_and_down(lab: Lab, answer: object) -> None:
    lab.names.domains["example"] = answer
    owner = lab.outcome(lab.dialer(mx("example", 25)))
    assert owner.unreachable is not None
    assert owner.unreachable[0] == "4.4.3"
    assert lab.memory.is_down("mx:example", lab.deadlines.now())


def test_when_every_exchange_fails_the_domain_is_down(lab: Lab) -> None:
    lab.names.domains["example"] = (Exchange(10, "a.example"), Exchange(10, "b.example"))
    lab.names.hosts = {"a.example": NotResolved("no such name"), "b.example": ("127.0.0.2",)}
    port = free_port()
    owner = lab.outcome(lab.dialer(mx("example", port)))
    assert owner.unreachable is not None
    assert owner.unreachable[0] == "4.4.1"  # what was tried says more than what was not found
    assert lab.memory.is_down(f"mx:example:{port}", lab.deadlines.now())


# Intercepted connections.


def test_an_intercepted_connection_goes_where_the_client_wanted(lab: Lab) -> None:
    port = lab.server("127.0.0.5")
    networks = {"original_ports": (port,), "original_networks": (ipaddress.ip_network("127.0.0.0/8"),)}
    owner = lab.outcome(lab.dialer(Destination("original", "", 0), **networks), original=("127.0.0.5", port))
    assert owner.sock is not None
    assert owner.sock.getpeername() == ("127.0.0.5", port)


@pytest.mark.parametrize(
    ("original", "status"),
    [
        (("192.0.2.1", 26), "4.4.1"),
        (("127.0.0.1", 25), "4.4.1"),
        (("169.254.1.1", 25), "4.4.1"),
        (("224.0.0.1", 25), "4.4.1"),
        (("127.0.0.1", 2525), "4.4.6"),
        (None, "4.4.6"),
    ],
)
def test_an_intercepted_connection_to_what_is_not_allowed(
    lab: Lab, original: tuple[str, int] | None, status: str
) -> None:
    lab.listening = frozenset({("127.0.0.1", 2525)})
    owner = lab.outcome(lab.dialer(Destination("original", "", 0)), original=original)
    assert owner.unreachable is not None
    assert owner.unreachable[0] == status
    assert len(lab.told.failures) == 1


# Sources.


def test_the_source_address_is_bound_and_the_other_family_left_out(lab: Lab) -> None:
    port = lab.server()
    lab.server("::1", port)
    owner = lab.outcome(lab.dialer(address("127.0.0.1", port), source="127.0.0.77"))
    assert owner.sock is not None
    assert owner.sock.getsockname()[0] == "127.0.0.77"
    lab.names.hosts["mx.example"] = ("::1", "127.0.0.1")
    assert lab.outcome(lab.dialer(name("mx.example", port), source="127.0.0.77")).server.address == "127.0.0.1"
    lab.names.hosts["mx.example"] = ("::1",)
    for destination in name("mx.example", port), address("::1", port):
        owner = lab.outcome(lab.dialer(destination, source="127.0.0.77"))
        assert owner.unreachable is not None
        assert owner.unreachable[0] == "4.4.1"
        assert "family" in owner.unreachable[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="IP_TRANSPARENT needs root")
@pytest.mark.parametrize(("host", "client"), [("127.0.0.1", "127.9.9.9"), ("::1", "::1")])
def test_the_client_s_own_address_is_the_source(lab: Lab, host: str, client: str) -> None:
    owner = lab.outcome(lab.dialer(address(host, lab.server(host)), source="client"), client=(client, 4000))
    assert owner.sock is not None
    assert owner.sock.getsockname()[0] == client


def test_a_source_address_that_is_not_here_is_not_held_against_the_destination(lab: Lab) -> None:
    owner = lab.outcome(lab.dialer(address("127.0.0.1", lab.server()), source="192.0.2.99"))
    assert owner.unreachable is not None
    assert owner.unreachable[0] == "4.4.1"
    assert len(lab.memory) == 0


def test_no_descriptors_left_is_not_held_against_the_destination(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*args: object) -> socket.socket:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    port = lab.server()
    monkeypatch.setattr(attempt_module.socket, "SocketType", none_left)
    owner = lab.outcome(lab.dialer(address("127.0.0.1", port)))
    monkeypatch.undo()
    assert owner.unreachable is not None
    assert owner.unreachable[:2] == ("4.4.1", "Too many open files")
    assert len(lab.memory) == 0


# The owner goes away, or breaks.


def test_cancel_leaves_nothing_behind_at_any_point(lab: Lab) -> None:
    hole = lab.black_hole("127.0.0.2")
    lab.black_hole("127.0.0.3", hole)
    lab.names.hosts["slow.example"] = ("127.0.0.2", "127.0.0.3")
    for destination, wait in (
        (address("127.0.0.2", hole), 0.0),
        (name("slow.example", hole), 0.0),
        (name("slow.example", hole), 0.3),
        (name("silent.example", hole), 0.0),
        (mx("silent.example", hole), 0.05),
        (address("127.0.0.1", free_port()), 0.0),
    ):
        dial, owner = lab.dial(lab.dialer(destination))
        if wait:
            lab.turns(wait)
        dial.cancel()
        dial.cancel()
        assert len(lab.poller) == 0
        assert len(lab.deadlines) == 0
        lab.turns(0.03)
        assert owner.calls == 0
    assert lab.names.cancelled == 2


def test_cancel_leaves_a_socket_that_was_handed_over(lab: Lab) -> None:
    dial, owner = lab.dial(lab.dialer(address("127.0.0.1", lab.server())))
    lab.run(lambda: owner.calls)
    dial.cancel()
    assert owner.sock is not None
    assert owner.sock.send(b"x") == 1
    dial.next("too late")
    lab.turns(0.03)
    assert owner.calls == 1


def test_an_owner_that_breaks_is_told_and_its_socket_is_closed(lab: Lab) -> None:
    class Broken(Owner):
        def server_connected(self, sock: socket.socket, server: Server, mask: int) -> None:
            raise ValueError("ours")

    owner = Broken()
    events: list[object] = []
    globalLogPublisher.addObserver(events.append)
    try:
        Dial(lab.dialer(address("127.0.0.1", lab.server())), owner, ("127.0.0.1", 1))
        lab.run(lambda: owner.error)
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert isinstance(owner.error, ValueError)
    assert len(lab.poller) == 0
    gc.collect()  # an unclosed socket would warn
