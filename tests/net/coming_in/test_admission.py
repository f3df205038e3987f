"""Who gets a session, and why not."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from proxy.net.coming_in.admission import MAX_REMEMBERED, Admission, OwnPlaces, Places

HERE = [ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")]


def admission(places: Places, most: int = 3, of_client: int = 2) -> Admission:
    return Admission(HERE, [ip_network("192.0.2.1/32")], most, of_client, places)


def is_allowed(rules: Admission, address: str) -> bool:
    refusal = rules.enter(address, True)
    return refusal is not None and refusal.kind != "not_allowed"


@pytest.mark.parametrize(
    ("address", "allowed", "trusted"),
    [
        ("192.0.2.1", True, True),
        ("192.0.2.2", True, False),
        ("2001:db8::1", True, False),
        ("198.51.100.1", False, False),
    ],
)
def test_networks_decide_who_is_allowed_and_who_is_trusted(address: str, allowed: bool, trusted: bool) -> None:
    rules = admission(OwnPlaces())
    for _ in range(2):  # the second time it is remembered
        assert (is_allowed(rules, address), rules.is_trusted(address)) == (allowed, trusted)


def test_what_is_remembered_of_addresses_is_bounded_and_stays_right() -> None:
    rules = admission(OwnPlaces())
    for number in range(2 * MAX_REMEMBERED):
        assert not is_allowed(rules, f"198.51.{number >> 8}.{number & 255}")
    assert is_allowed(rules, "192.0.2.9")


def test_a_stranger_takes_no_place() -> None:
    rules = admission(OwnPlaces(), most=1)
    refusal = rules.enter("198.51.100.1", False)
    assert refusal is not None
    assert (refusal.kind, refusal.status) == ("not_allowed", "4.7.1")
    assert rules.enter("192.0.2.2", False) is None


def test_limits_are_exact_and_places_are_given_back() -> None:
    places = OwnPlaces()
    rules = admission(places)

    def kind(address: str) -> str:
        refusal = rules.enter(address, False)
        return refusal.kind if refusal else ""

    assert [kind("192.0.2.2") for _ in range(3)] == ["", "", "client_full"]
    assert [kind("192.0.2.3"), kind("192.0.2.4")] == ["", "route_full"]
    places.give_back("192.0.2.2")
    assert [kind("192.0.2.2"), kind("192.0.2.4")] == ["", "route_full"]


def test_a_reload_goes_on_with_the_places_that_are_taken() -> None:
    places = OwnPlaces()
    assert admission(places, most=1).enter("192.0.2.2", False) is None
    refusal = admission(places, most=1).enter("192.0.2.3", False)
    assert refusal is not None
    assert refusal.kind == "route_full"


def test_nobody_enters_while_the_route_is_drained() -> None:
    refusal = admission(OwnPlaces()).enter("192.0.2.2", True)
    assert refusal is not None
    assert (refusal.kind, refusal.status) == ("draining", "4.3.2")
