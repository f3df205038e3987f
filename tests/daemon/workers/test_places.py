"""Places that several processes share: exact over all of them, given back by who ends and for who died."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import time
from collections.abc import Iterator

import pytest

from proxy.daemon.workers import places
from proxy.daemon.workers.places import Counters, Region


@pytest.fixture
def region() -> Iterator[Region]:
    made = Region(4)
    yield made
    os.close(made.descriptor)


def worker(region: Region, number: int = -1) -> Counters:
    return Counters(region.descriptor, region.count, region.give() if number < 0 else number, lambda: None)


def test_the_limit_of_a_route_is_that_of_all_together(region: Region) -> None:
    one, other = (worker(region).of("r") for _ in range(2))
    assert [one.take("192.0.2.1", 3, 0), other.take("192.0.2.2", 3, 0), one.take("192.0.2.3", 3, 0)] == [""] * 3
    assert one.take("192.0.2.4", 3, 0) == other.take("192.0.2.4", 3, 0) == "route_full"
    other.give_back("192.0.2.2")
    assert [one.take("192.0.2.4", 3, 0), other.take("192.0.2.4", 3, 0)] == ["", "route_full"]


def test_the_limit_of_a_client_is_that_of_all_together_and_no_other_clients(region: Region) -> None:
    one, other = (worker(region).of("r") for _ in range(2))
    assert [one.take("192.0.2.1", 9, 2), other.take("192.0.2.1", 9, 2)] == ["", ""]
    assert one.take("192.0.2.1", 9, 2) == other.take("192.0.2.1", 9, 2) == "client_full"
    assert one.take("192.0.2.2", 9, 2) == ""
    # Who was refused for himself has taken nothing of the route's.
    assert [one.take(f"198.51.100.{number}", 9, 2) for number in range(7)] == [""] * 6 + ["route_full"]


def test_sessions_from_before_a_limit_was_set_count_for_it(region: Region) -> None:
    one, other = (worker(region).of("r") for _ in range(2))
    assert one.take("192.0.2.1", 9, 0) == ""
    assert other.take("192.0.2.1", 9, 1) == "client_full"
    one.give_back("192.0.2.1")
    assert other.take("192.0.2.1", 9, 1) == ""


def test_routes_do_not_count_for_each_other(region: Region) -> None:
    counters = worker(region)
    assert counters.of("a").take("192.0.2.1", 1, 1) == ""
    assert counters.of("b").take("192.0.2.1", 1, 1) == ""
    assert counters.of("a").take("192.0.2.1", 1, 1) == "route_full"


def test_places_of_one_that_died_are_free_and_its_region_another_ones(region: Region) -> None:
    numbers = [region.give() for _ in range(4)]
    assert numbers == [0, 1, 2, 3]
    assert region.give() == -1
    dead, living = worker(region, 0).of("r"), worker(region, 1).of("r")
    assert [dead.take("192.0.2.1", 2, 0), living.take("192.0.2.1", 2, 0)] == ["", ""]
    region.take_back(0)
    assert living.take("192.0.2.1", 2, 0) == ""
    assert living.take("192.0.2.1", 2, 0) == "route_full"
    assert region.give() == 0
    assert worker(region, 0).of("r").take("192.0.2.1", 3, 0) == ""
    assert living.take("192.0.2.1", 3, 0) == "route_full"


def test_a_bucket_that_is_full_refuses_and_admits_again(region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    counters = worker(region)
    monkeypatch.setattr(counters, "key", lambda name: 1 + places.BUCKETS * (hash(name) % 2**40))
    route = counters.of("r")
    clients = [f"192.0.2.{number}" for number in range(places.DEPTH)]
    assert [route.take(client, 99, 0) for client in clients] == [""] * (places.DEPTH - 1) + ["client_full"]
    route.give_back(clients[0])
    assert route.take(clients[-1], 99, 0) == ""


def test_who_has_the_lock_for_good_makes_others_wait_two_milliseconds(region: Region) -> None:
    counters = worker(region)
    ours, theirs = multiprocessing.Pipe()
    if not (child := os.fork()):
        fcntl.lockf(region.descriptor, fcntl.LOCK_EX)
        theirs.send(1)
        time.sleep(30)
        os._exit(0)
    try:
        ours.recv()
        route = counters.of("r")
        assert route.take("192.0.2.1", 1, 0) == "", "no lock is needed while there is room"
        began = time.monotonic()
        assert route.take("192.0.2.1", 1, 0) == "route_full"
        assert time.monotonic() - began < 0.1
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_those_who_come_at_the_same_moment_get_exactly_the_places_there_are(region: Region) -> None:
    """Four processes take and give back as fast as they can; what was admitted is never over the limit."""
    children = []
    readers = []
    for number in range(4):
        region.give()
        read, write = os.pipe()
        child = os.fork()
        if not child:
            route = worker(region, number).of("r")
            taken = 0
            for turn in range(3000):
                taken += not route.take("192.0.2.1", 100, 0)
                if turn % 3 == 2 and taken:
                    route.give_back("192.0.2.1")
                    taken -= 1
            # At the end everybody wants all that is left.
            for _ in range(100):
                taken += not route.take("192.0.2.1", 100, 0)
            os.write(write, bytes([taken]))
            os._exit(0)
        os.close(write)
        children.append(child)
        readers.append(read)
    taken = [os.read(read, 1)[0] for read in readers]
    for child, read in zip(children, readers, strict=True):
        os.waitpid(child, 0)
        os.close(read)
    assert sum(taken) == 100
