"""In which line a key stands: for every text that tomllib takes, and no text is an exception or slow."""

from __future__ import annotations

import contextlib
import time
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings import SettingsError, parse
from proxy.settings.problems import key_lines, line_in

TEXT = '''# a comment with [brackets] and "quotes
[service]
workers = 2      # 3

  [log]
"level" = "info" # = x
[[route]]
name = "one"
listen = [
    "0.0.0.0:25", # [
    "[::]:25",
]
tls.mode = """
bridge = [ "quoted \\""" # not a comment
"""
tls.verify = \'\'\'a
b\'\'\'
[route.repair]
add = ["x"]
[[route]]
name = 'two'
[route.tls]
"a b" = { c = 1, d = [2,
  3] }
key = 1
'''
EXPECTED = {
    "service": 2, "service.workers": 3, "log": 5, "log.level": 6, "route[0]": 7, "route[0].name": 8,
    "route[0].listen": 9, "route[0].tls": 13, "route[0].tls.mode": 13, "route[0].tls.verify": 16,
    "route[0].repair": 18, "route[0].repair.add": 19, "route[1]": 20, "route[1].name": 21, "route[1].tls": 22,
    'route[1].tls."a b"': 23, "route[1].tls.key": 25,
}  # fmt: skip


def test_every_key_and_table_has_the_line_where_it_first_stands() -> None:
    text = TEXT.replace("\\'", "'")
    tomllib.loads(text)
    assert key_lines(text) == EXPECTED


@pytest.mark.parametrize(
    ("path", "line"),
    [("route[0].listen[1]", 9), ("route[1].destination", 20), ("route[0].tls.pins[0]", 13), ("nothing", 0), ("", 0)],
)
def test_what_has_no_line_of_its_own_has_that_of_what_is_around_it(path: str, line: int) -> None:
    assert line_in(EXPECTED, path) == line


def test_a_problem_says_file_line_route_key_value_and_what_was_expected() -> None:
    with pytest.raises(SettingsError) as caught:
        parse('[[route]]\nname = "domain1"\nlisten = ["127.0.0.1:0"]\ndestination = ["192.0.2.1"]\n'
              "[route.tls]\nverfy = 'pin'\n", "x.toml")  # fmt: skip
    assert str(caught.value) == (
        'x.toml:6: route "domain1": route[0].tls.verfy = "pin": expected a known key (did you mean verify?)'
    )


@given(st.text(alphabet="ab.=\"'[]{}#\n\\ ", max_size=200))
def test_no_text_raises(text: str) -> None:
    key_lines(text)
    with contextlib.suppress(tomllib.TOMLDecodeError, RecursionError):
        document = tomllib.loads(text)
        assert all(path in key_lines(text) for path in document if path.isalpha())


@pytest.mark.parametrize(
    "piece", ["a=[", "[a]\n", "[[a]]\n", "a='", '"', "a=1\n", "#", "[a.b.c", "a.", "'''", 'x="""\\']
)
def test_no_text_is_slow(piece: str) -> None:
    began = time.process_time()
    key_lines(piece * (200_000 // len(piece)))
    assert time.process_time() - began < 2
