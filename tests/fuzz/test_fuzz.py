"""Everything that the fuzzer has kept runs; each target is fuzzed for a moment, and for ten minutes with --long."""

from __future__ import annotations

import time

import pytest

from tests.fuzz.run import HERE, fuzz, inputs_of
from tests.fuzz.targets import TARGETS

NAMES = pytest.mark.parametrize("name", sorted(TARGETS))


@NAMES
def test_what_was_kept_and_what_once_failed_runs(name: str) -> None:
    kept = list(inputs_of(name))
    assert kept
    for data in kept:
        TARGETS[name].run(data)  # raises what it finds


@NAMES
def test_for_a_moment_nothing_is_found(name: str) -> None:
    runs, _, found = fuzz(name, 1.0, seed=time.time_ns() % 2**32)
    assert runs
    assert found is None, f"kept in {found}"


@pytest.mark.long
@NAMES
def test_for_ten_minutes_nothing_is_found(name: str) -> None:
    runs, grown, found = fuzz(name, 600.0, seed=time.time_ns() % 2**32, grow=True)
    print(f"{name}: {runs} inputs, {grown} reached something new")
    assert found is None, f"kept in {found}"


def test_there_is_a_corpus_for_each_target() -> None:
    assert {path.name for path in (HERE / "corpus").iterdir()} == set(TARGETS)
