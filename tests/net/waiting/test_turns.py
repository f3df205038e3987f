"""How long the event loop was held: the histogram, and who is told of the slow ones."""

from __future__ import annotations

from proxy.net.observer import session_id
from proxy.net.waiting.turns import BOUNDS, Turns, named


class NameLookup:
    pass


class Broken:
    def __str__(self) -> str:
        raise ValueError("a bug")


def test_every_turn_is_in_the_histogram_and_only_slow_ones_are_told() -> None:
    told: list[tuple[str, float]] = []
    turns = Turns(lambda owner, seconds: told.append((owner, seconds)))
    for seconds in (0.0001, 0.0005, 0.003, 0.1, 0.2, 60.0):
        turns.ended(seconds, "somebody")
    assert sum(turns.counts) == 6
    assert turns.counts[0] == 2
    assert turns.counts[-1] == 1
    assert turns.counts[BOUNDS.index(0.1)] == 1
    assert turns.total == 0.0001 + 0.0005 + 0.003 + 0.1 + 0.2 + 60.0
    assert told == [("somebody", 0.2), ("somebody", 60.0)]


def test_what_a_callback_was_told_of_is_not_told_again_of_its_turn() -> None:
    told: list[tuple[str, float]] = []
    turns = Turns(lambda owner, seconds: told.append((owner, seconds)))
    turns.slow("one", 0.3)
    turns.ended(0.35, "many")
    assert told == [("one", 0.3)]
    turns.slow("one", 0.3)
    turns.ended(0.5, "many")
    turns.ended(0.2, "others")
    assert [owner for owner, _ in told] == ["one", "one", "many", "others"]


def test_an_owner_is_named_by_itself_or_by_its_class() -> None:
    assert named("the reactor") == "the reactor"
    assert named(NameLookup()) == "name lookup"
    assert named(Broken()) == "broken"


def test_nobody_need_be_told() -> None:
    turns = Turns()
    turns.ended(1.0, "somebody")
    assert turns.total == 1.0


def test_the_ids_of_sessions_are_short_and_differ() -> None:
    ids = [session_id() for _ in range(100_000)]
    assert len(set(ids)) == 100_000
    assert {len(one) for one in ids} == {12}
    assert "".join(ids).isalnum()
    assert ids == sorted(ids)
