"""Twenty a minute of a route and kind are told, the others counted."""

from __future__ import annotations

from proxy.daemon.log import rates
from proxy.daemon.log.rates import Rates


def test_twenty_a_minute_of_a_route_and_kind_are_told_then_they_are_counted() -> None:
    told = Rates(0.0)
    assert sum(told.tell("a", "refused", "warning", "192.0.2.1") for _ in range(100)) == 20
    assert sum(told.tell("a", "timeout", "warning", "192.0.2.1") for _ in range(100)) == 20
    assert sum(told.tell("b", "refused", "warning", "192.0.2.1") for _ in range(5)) == 5
    assert not told.due(59.0)
    assert told.due(60.0)
    assert [tuple(one) for one in told.untold(60.0)] == [
        ("a", "refused", "warning", 80, "192.0.2.1"),
        ("a", "timeout", "warning", 80, "192.0.2.1"),
    ]
    assert list(told.untold(120.0)) == []
    assert told.tell("a", "refused", "warning"), "a new minute"


def test_the_only_client_of_what_was_held_back_is_named() -> None:
    told = Rates(0.0)
    for client in ["192.0.2.1"] * 20 + ["192.0.2.2", "192.0.2.3"]:
        told.tell("a", "refused", "warning", client)
    assert [one.client for one in told.untold(60.0)] == [""]


def test_what_comes_when_the_table_is_full_shares_one_allowance() -> None:
    told = Rates(0.0)
    for number in range(rates.MAX_KINDS):
        told.tell("a", str(number), "warning")
    assert sum(told.tell("a", f"more {number}", "warning") for number in range(100)) == 20
    assert [(one.kind, one.number) for one in told.untold(60.0)] == [("others", 80)]
