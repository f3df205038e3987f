"""The files in config/: the reference says what the code does, and the examples can be taken as they are."""

from __future__ import annotations

import io
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy import settings
from proxy.settings import Route, SettingsError, Tls, declared, parse, warnings
from proxy.tools import check

CONFIG = Path(__file__).parent.parent / "config"
REFERENCE = (CONFIG / "ehlo-proxy.toml").read_text()
EXAMPLES = sorted(path.name for path in CONFIG.glob("*.toml") if path.name != "ehlo-proxy.toml")
WITHOUT_DEFAULT = {"route.listen", "route.destination"}
KEYS = [(f"{title}.{path}", key) for title, kind in settings.TABLES.items() for path, key in declared(kind)]


def uncommented(text: str) -> str:
    return re.sub(r"(?m)^#(?=[a-z_]+ = )", "", text)


def documented() -> Iterator[tuple[str, str]]:
    """Each commented-out key of the reference with the comment in front of it."""
    table, comment = "", ""
    for line in REFERENCE.splitlines():
        if header := re.match(r"\[+([a-z.]+)\]+$", line):
            table = header[1]
        elif key := re.match(r"#([a-z_]+) = ", line):
            yield f"{table}.{key[1]}", " ".join(comment.split())
        comment = f"{comment} {line[1:]}" if line.startswith("# ") else ""


def value_at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document[part]
        document = document[0] if isinstance(document, list) and part == "route" else document
    return document


def test_the_reference_has_every_key_once_and_no_other() -> None:
    assert sorted(key for key, _ in documented()) == sorted(key for key, _ in KEYS)


@pytest.mark.parametrize(("path", "key"), KEYS, ids=[path for path, _ in KEYS])
def test_the_reference_gives_each_keys_meaning_and_default(path: str, key: settings.Key) -> None:
    comment = dict(documented())[path]
    assert key.meaning in comment
    if path in WITHOUT_DEFAULT:
        assert comment.endswith("An example, not a default:")
    else:
        assert value_at(tomllib.loads(uncommented(REFERENCE)), path) == key.default


def test_the_reference_uncommented_is_the_defaults() -> None:
    found = parse(uncommented(REFERENCE), "ehlo-proxy.toml")
    bare = parse("[[route]]\nlisten = ['0.0.0.0:25', '[::]:25']\ndestination = ['192.0.2.10:25']", "ehlo-proxy.toml")
    assert found == bare
    assert not warnings(found)


def test_the_reference_as_shipped_asks_for_what_has_no_default() -> None:
    with pytest.raises(SettingsError) as caught:
        parse(REFERENCE, "ehlo-proxy.toml")
    assert [problem.key for problem in caught.value.problems] == ["route[0].listen", "route[0].destination"]


def test_the_defaults_are_those_of_the_dataclasses() -> None:
    route = parse("[[route]]\nlisten = ['0.0.0.0:25']\ndestination = ['192.0.2.10:25']", "x").routes[0]
    assert route == Route(listen=route.listen, destination=route.destination)
    assert route.tls == Tls()


def test_there_are_the_three_examples() -> None:
    assert {"cisco-esa.toml", "lab.toml", "several-domains.toml"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_valid_and_nothing_in_it_is_unwise(name: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert check.run([str(CONFIG / name)], out, err) == 0, err.getvalue()
    assert re.fullmatch(rf"{re.escape(str(CONFIG / name))}: ok, \d+ routes?\n", out.getvalue())
    assert not warnings(parse((CONFIG / name).read_text(), name))


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_an_example_leaves_commented_out_is_valid_too(name: str) -> None:
    assert parse(uncommented((CONFIG / name).read_text()), name)


def test_the_cisco_example_follows_its_own_recipe() -> None:
    """By address, since the name leads back to the proxy; with a greeting, since an address has none; ESA only."""
    (route,) = parse((CONFIG / "cisco-esa.toml").read_text(), "cisco-esa.toml").routes
    assert [one.kind for one in route.destination] == ["address"]
    assert route.repair.greeting == "mail.domain1.com"
    assert all(network.num_addresses == 1 for network in route.allow_clients)
    assert route.tls.mode == "passthrough"


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.toml")), ids=lambda path: path.name)
def test_lines_fit_a_terminal(path: Path) -> None:
    assert not [line for line in path.read_text().splitlines() if len(line) > 120]
