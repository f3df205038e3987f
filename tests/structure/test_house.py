"""The house keeps its order: rooms of at most ten files, one direction, no circles, nobody writes another's fields."""

from __future__ import annotations

import functools
from pathlib import Path

from tests.structure.measure import House

MAX_FILES = 10  # of a room
MAX_FIELDS = 20  # of a class, its own bases' included
MAX_DEPTH = 2  # of our own classes above each other


@functools.cache
def house() -> House:
    return House(Path(__file__).parents[2])


def test_a_room_has_at_most_ten_files() -> None:
    assert {room: number for room, number in house().files_a_room.items() if number > MAX_FILES} == {}


def test_no_modules_name_each_other_in_a_circle() -> None:
    assert house().circles == []


def test_no_room_names_a_higher_one() -> None:
    assert house().climbs == []


def test_nobody_writes_the_fields_of_another_modules_objects() -> None:
    assert [str(one) for one in house().foreign_writes] == []


def test_a_class_has_few_fields() -> None:
    classes = [one for module in house().modules.values() for one in module.classes.values()]
    wide = [f"{one.module}.{one.name}" for one in classes if len(house().fields(one)) > MAX_FIELDS]
    assert wide == []


def test_no_tower_of_inheritance() -> None:
    classes = [one for module in house().modules.values() for one in module.classes.values()]
    deep = [f"{one.module}.{one.name}" for one in classes if house().depth(one) > MAX_DEPTH]
    assert deep == []
