"""Which addresses a name may lead to, what leads back, in what order things are tried, and what is remembered."""

from __future__ import annotations

import ipaddress
from collections import Counter

import pytest

from proxy.net.going_out.destination import (
    DOWN_FOR,
    MAX_ADDRESSES,
    MAX_EXCHANGES,
    MAX_REMEMBERED,
    FailureMemory,
    Server,
    Surroundings,
    by_preference,
    interleave,
    key_of,
)
from proxy.net.going_out.names.wanted import Exchange
from proxy.settings import Destination

OWN = frozenset({ipaddress.ip_address("198.51.100.1"), ipaddress.ip_address("2001:db8::1")})
ADDRESS = Destination("address", "192.0.2.1", 25)


def surroundings(*listening: tuple[str, int]) -> Surroundings:
    return Surroundings(OWN, lambda: frozenset(listening))


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("::ffff:169.254.1.1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("239.1.1.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("198.51.100.1", "own"),
        ("::ffff:198.51.100.1", "own"),
        ("2001:db8::1", "own"),
    ],
)
def test_a_name_may_not_lead_there(address: str, word: str) -> None:
    refusal = surroundings().refusal(address, 25)
    assert refusal is not None
    assert refusal[0] == "4.4.1"
    assert word in refusal[1]


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "10.0.0.1", "192.168.1.1", "2001:db8::2", "fd00::1", "::ffff:192.0.2.1"]
)
def test_a_name_may_lead_there(address: str) -> None:
    assert surroundings().refusal(address, 25) is None


@pytest.mark.parametrize(
    ("address", "port", "listening", "leads_back"),
    [
        ("198.51.100.1", 25, ("198.51.100.1", 25), True),
        ("198.51.100.1", 26, ("198.51.100.1", 25), False),
        ("198.51.100.1", 25, ("0.0.0.0", 25), True),
        ("::ffff:198.51.100.1", 25, ("0.0.0.0", 25), True),
        ("198.51.100.2", 25, ("0.0.0.0", 25), False),
        ("127.0.0.1", 25, ("0.0.0.0", 25), True),
        ("127.9.9.9", 25, ("0.0.0.0", 25), True),
        ("127.0.0.1", 25, ("198.51.100.1", 25), False),
        ("0.0.0.0", 25, ("127.0.0.1", 25), True),
        ("0.0.0.0", 25, ("0.0.0.0", 25), True),
        ("2001:db8::1", 25, ("::", 25), True),
        ("2001:db8:0::1", 25, ("2001:db8::1", 25), True),
        ("2001:db8::1", 25, ("0.0.0.0", 25), False),
        ("::1", 25, ("::", 25), True),
        ("127.0.0.1", 25, ("", 25), False),
    ],
)
def test_what_leads_back_to_the_proxy(address: str, port: int, listening: tuple[str, int], leads_back: bool) -> None:
    assert surroundings(listening).leads_back(address, port) is leads_back
    refusal = surroundings(listening).refusal(address, port)
    assert (refusal is not None and refusal[0] == "4.4.6") is leads_back


NETWORKS = (ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("127.0.0.0/8"))


@pytest.mark.parametrize(
    ("address", "port", "networks", "status"),
    [
        ("192.0.2.1", 25, (), None),
        ("192.0.2.1", 587, (), None),
        ("192.0.2.1", 26, (), "4.4.1"),
        ("127.0.0.1", 25, (), "4.4.1"),
        ("fe80::1", 25, (), "4.4.1"),
        ("224.0.0.1", 25, (), "4.4.1"),
        ("198.51.100.1", 25, (), "4.4.6"),
        ("198.51.100.1", 2525, (), "4.4.6"),
        ("198.51.100.7", 25, NETWORKS, None),
        ("198.51.100.1", 25, NETWORKS, None),
        ("198.51.100.1", 2525, NETWORKS, "4.4.6"),
        ("127.0.0.1", 25, NETWORKS, None),
        ("192.0.2.1", 25, NETWORKS, "4.4.1"),
        ("2001:db8::7", 25, NETWORKS, "4.4.1"),
    ],
)
def test_where_an_intercepted_connection_may_go(
    address: str, port: int, networks: tuple[ipaddress.IPv4Network, ...], status: str | None
) -> None:
    refusal = surroundings(("0.0.0.0", 2525)).original_refusal(address, port, (25, 587), networks)
    assert (refusal and refusal[0]) == status


def test_families_alternate_and_there_is_a_limit() -> None:
    assert interleave(["192.0.2.1", "192.0.2.2", "2001:db8::1"]) == ["2001:db8::1", "192.0.2.1", "192.0.2.2"]
    assert interleave([]) == []
    assert len(interleave([f"192.0.2.{last}" for last in range(99)])) == MAX_ADDRESSES


def test_exchanges_by_preference_and_equals_at_random() -> None:
    exchanges = [Exchange(20, "c"), Exchange(10, "a"), Exchange(10, "b"), Exchange(5, "d")]
    firsts = Counter(tuple(e.name for e in by_preference(exchanges)) for _ in range(200))
    assert set(firsts) == {("d", "a", "b", "c"), ("d", "b", "a", "c")}
    assert min(firsts.values()) > 50


def test_an_exchange_named_twice_is_tried_once_at_its_best_preference() -> None:
    assert by_preference([Exchange(20, "a"), Exchange(10, "a"), Exchange(15, "b")]) == [
        Exchange(10, "a"),
        Exchange(15, "b"),
    ]
    assert len(by_preference([Exchange(1, f"mx{n}") for n in range(99)])) == MAX_EXCHANGES


def test_what_failed_is_down_for_a_minute_and_comes_last() -> None:
    memory = FailureMemory()
    memory.failed("a", 100.0)
    assert memory.down_last(["a", "b", "c"], str, 100.0) == ["b", "c", "a"]
    assert memory.is_down("a", 100.0 + DOWN_FOR - 1)
    assert not memory.is_down("a", 100.0 + DOWN_FOR)
    assert len(memory) == 0
    memory.failed("a", 100.0)
    memory.succeeded("a")
    memory.succeeded("never")
    assert not memory.is_down("a", 100.0)


def test_the_memory_of_failures_does_not_grow() -> None:
    memory = FailureMemory()
    for number in range(3 * MAX_REMEMBERED):
        memory.failed(str(number), 0.0)
    assert len(memory) == MAX_REMEMBERED
    assert memory.is_down(str(3 * MAX_REMEMBERED - 1), 0.0)


def test_servers_and_targets_are_written_as_people_read_them() -> None:
    assert str(Server("192.0.2.1", "192.0.2.1", 25, ADDRESS)) == "192.0.2.1:25"
    assert str(Server("2001:db8::1", "2001:db8::1", 25, ADDRESS)) == "[2001:db8::1]:25"
    assert str(Server("mx.example", "192.0.2.1", 25, ADDRESS)) == "mx.example[192.0.2.1]:25"
    assert str(Server("mx.example", "", 25, ADDRESS)) == "mx.example:25"
    assert Server("mx.example", "", 25, ADDRESS).key == "mx.example:25"
    assert key_of(Destination("original", "", 0), ("192.0.2.1", 25)) == "192.0.2.1:25"
    assert key_of(Destination("original", "", 0), None) == ""
    assert key_of(Destination("mx", "example", 25), None) == "mx:example"
