"""How a problem is told: one line, with what was found and what was meant."""

from __future__ import annotations

import pytest

from proxy.settings.problems import MAX_SHOWN, Problem, SettingsError, Warning_, key_path, nearest, shown


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (
            Problem("f", "log.level", "inof", 'one of "x"', "info"),
            'f: log.level = "inof": expected one of "x" (did you mean info?)',
        ),
        (Problem("f", "a.b", 1.1, '"1.1"', "1.1"), 'f: a.b = 1.1: expected "1.1" (did you mean "1.1", in quotes?)'),
        (Problem("f", "log.level", 5, "a string"), "f: log.level = 5: expected a string"),
        (Problem("f", "route", None, "one"), "f: route is missing: expected one"),
        (Problem("f:3:1", "", None, "valid TOML: no"), "f:3:1: expected valid TOML: no"),
    ],
)
def test_a_problem_is_one_line(problem: Problem, line: str) -> None:
    assert str(problem) == line


def test_an_error_has_a_line_for_each_problem() -> None:
    error = SettingsError([Problem("f", "a", 1, "x"), Problem("f", "b", 2, "y")])
    assert str(error).splitlines() == [str(problem) for problem in error.problems]


def test_a_warning_names_its_key() -> None:
    assert str(Warning_("route[0].tls", "is unwise")) == "route[0].tls: is unwise"


@pytest.mark.parametrize(
    "value", ["a\nb", "\x1b[31m", "\u2028", "\x85", "x" * 1000, ["\n"] * 50, {"\r": "\n"}, [16**5000], object()]
)
def test_what_is_shown_is_one_short_printable_line(value: object) -> None:
    text = shown(value)
    assert text.isprintable()
    assert len(text) <= MAX_SHOWN


def test_what_nests_too_deep_is_shown_as_just_that() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "(too large to be shown)"


@pytest.mark.parametrize(
    ("where", "name", "path"),
    [
        ("", "log", "log"),
        ("route[0].tls", "mode", "route[0].tls.mode"),
        ("log", "a b", 'log."a b"'),
        ("log", "", 'log.""'),
        ("log", "a\nb", 'log."a\\nb"'),
    ],
)
def test_a_key_path_quotes_what_toml_would_quote(where: str, name: str, path: str) -> None:
    assert key_path(where, name) == path


def test_the_nearest_word_is_near_or_none() -> None:
    assert nearest("destinaton", ["destination", "listen"]) == "destination"
    assert nearest("LISTEN", ["destination", "listen"]) == "listen"
    assert nearest("colour", ["destination", "listen"]) is None
    assert nearest("x" * 100_000, ["destination", "listen"]) is None
