"""Refused clients that are waited for: so many, and of strangers only a few."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from proxy.net.coming_in.doorstep import FAREWELL, MAX_STRANGERS, Farewells
from proxy.net.coming_in.sockets import plain
from tests.own_reactor import OwnReactor


@pytest.fixture
def lab() -> Iterator[OwnReactor]:
    lab = OwnReactor()
    yield lab
    lab.turns(0.05)
    lab.close()


def refuse(farewells: Farewells, number: int, *, stranger: bool) -> list[socket.socket]:
    """The clients' ends; 421 was sent to each."""
    clients = []
    for _ in range(number):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        ours.send(b"421\r\n")
        ours.shutdown(socket.SHUT_WR)
        farewells.see_off(ours, stranger=stranger)
        theirs.setblocking(False)
        clients.append(theirs)
    return clients


def still_there(client: socket.socket) -> bool:
    try:
        client.send(b"x")
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def test_strangers_have_a_small_share_and_leave_the_rest_to_others(lab: OwnReactor) -> None:
    farewells = Farewells(lab.poller, lab.deadlines, 1024)
    strangers = refuse(farewells, 100, stranger=True)
    others = refuse(farewells, 50, stranger=False)
    assert sum(still_there(one) for one in strangers) == min(MAX_STRANGERS, 1024 // 32)
    assert all(still_there(one) for one in others)
    assert all(one.recv(10) == b"421\r\n" for one in [*strangers, *others])  # also those that were closed at once
    for one in [*strangers, *others]:
        one.close()


def test_one_that_has_read_its_line_makes_room(lab: OwnReactor) -> None:
    farewells = Farewells(lab.poller, lab.deadlines, 64)  # two strangers
    first = refuse(farewells, 3, stranger=True)
    assert [still_there(one) for one in first] == [True, True, False]
    first[0].close()
    lab.turns(0.05)
    [again] = refuse(farewells, 1, stranger=True)
    assert still_there(again)
    for one in [*first, again]:
        one.close()


def test_an_ipv4_mapped_address_is_the_ipv4_address() -> None:
    assert (plain("::ffff:192.0.2.1"), plain("::1"), plain("192.0.2.1")) == ("192.0.2.1", "::1", "192.0.2.1")
    assert FAREWELL < 10
