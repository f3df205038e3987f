"""From a table of TOML to its dataclass: what is derived from one declaration."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from proxy.settings.reading import Key, Reading, declared
from proxy.settings.tables import TABLES, Log, Route, Timeouts

KEYS = [(f"{title}.{path}", key) for title, kind in TABLES.items() for path, key in declared(kind)]


def test_every_field_of_a_table_is_declared() -> None:
    for kind in (*TABLES.values(), Timeouts):
        assert all("key" in one.metadata or "table" in one.metadata for one in fields(kind))


@pytest.mark.parametrize(("path", "key"), KEYS, ids=[path for path, _ in KEYS])
def test_every_key_has_a_meaning_in_whole_sentences(path: str, key: Key) -> None:
    meaning = key.meaning
    assert meaning[0].isupper() or meaning[0] == '"'
    assert meaning.endswith(".")


def test_a_key_inside_a_table_is_declared_with_its_path() -> None:
    paths = [path for path, _ in declared(Route)]
    assert paths[0] == "name"
    assert "tls.verify_name" in paths
    assert len(paths) == len(set(paths))


def test_what_can_not_be_read_is_reported_and_its_default_stands_in() -> None:
    reading = Reading("test.toml", TABLES)
    found = reading.table(Timeouts, {"idle": "soon", "abort": 5, "banana": 1}, "route[0].timeouts")
    assert found == Timeouts(abort=5.0)
    assert [problem.key for problem in reading.problems] == ["route[0].timeouts.idle", "route[0].timeouts.banana"]
    assert reading.spoilt("route[0].timeouts.idle")
    assert not reading.spoilt("route[0].timeouts.abort", "route[0].timeouts")


def test_a_misspelt_key_spoils_the_one_that_was_meant() -> None:
    reading = Reading("test.toml", TABLES)
    reading.table(Timeouts, {"idel": 5}, "route[0].timeouts")
    assert reading.spoilt("route[0].timeouts.idle")


def test_what_is_no_table_spoils_all_of_it() -> None:
    reading = Reading("test.toml", TABLES)
    assert reading.table(Log, "info", "log") == Log()
    assert reading.spoilt("log.level")


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Log().level = "debug"  # type: ignore[misc]  # that is the claim
