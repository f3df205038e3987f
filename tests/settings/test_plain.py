"""Plain values: what is taken, what it becomes, and what is said about the rest."""

from __future__ import annotations

import base64
import contextlib
import datetime
import math
from typing import Any

import pytest

from proxy.settings import plain
from proxy.settings.problems import Unfit

KEY_HASH = "sha256:" + base64.b64encode(bytes(range(32))).decode()
# Values of every type that TOML has, none of which is right for a key of another type.
ODD: list[object] = [
    None,
    True,
    False,
    -1,
    2**70,
    16**5000,
    1.5,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "x",
    "\0",
    "\n",
    "\u2028",
    "é",
    [],
    ["x"],
    [[]],
    {},
    {"a": 1},
    datetime.datetime(2024, 1, 1),
    datetime.date(2024, 1, 1),
    datetime.time(1, 2),
]


def fault(read: plain.Reader[Any], value: object) -> tuple[str, str | None]:
    with pytest.raises(Unfit) as caught:
        read(value)
    (one,) = caught.value.faults
    return one.expected, one.nearest


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (15, 15.0),
        (0.25, 0.25),
        ("0s", 0.0),
        ("250ms", 0.25),
        ("15s", 15.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("1.5h", 5400.0),
        ("5 m", 300.0),
        ("365d", 365 * 86400.0),
    ],
)
def test_a_duration_is_seconds_or_a_number_with_a_unit(value: object, seconds: float) -> None:
    assert plain.duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        True,
        -1,
        -0.5,
        math.nan,
        math.inf,
        10**30,
        "5",
        "m",
        "",
        "5 minutes",
        "5M",
        "-5m",
        "1e3s",
        "٥m",
        "366d",
        "5m\n",
        "9" * 5000 + "s",
        [5],
        {"m": 5},
    ],
)
def test_anything_else_is_no_duration(value: object) -> None:
    assert '"5m"' in fault(plain.duration, value)[0]


@pytest.mark.parametrize("value", [0, "0s", "0ms"])
def test_a_time_out_of_nothing_is_refused(value: object) -> None:
    assert "more than 0" in fault(plain.span, value)[0]


def test_a_whole_number_has_bounds_and_is_no_truth_value() -> None:
    read = plain.whole(1, 65535)
    assert (read(1), read(65535)) == (1, 65535)
    for wrong in (0, 65536, True, 1.0, "x", None, [1]):
        assert fault(read, wrong) == ("a whole number from 1 to 65535", None)
    assert fault(read, "25") == ("a whole number from 1 to 65535", "25")
    assert fault(plain.whole(0), -1) == ("a whole number of at least 0", None)


@pytest.mark.parametrize(("value", "number"), [("auto", 0), (1, 1), (1024, 1024)])
def test_workers_are_a_number_or_auto(value: object, number: int) -> None:
    assert plain.workers(value) == number


@pytest.mark.parametrize("value", [0, -1, 1025, 1.0, True, "two"])
def test_no_other_number_of_workers_is_taken(value: object) -> None:
    assert 'or "auto"' in fault(plain.workers, value)[0]


def test_a_truth_value_in_quotes_is_told_from_a_real_one() -> None:
    assert plain.boolean(True) is True
    assert fault(plain.boolean, "True") == ("true or false, without quotes", "true")
    assert fault(plain.boolean, 1) == ("true or false, without quotes", None)


def test_a_text_has_no_control_characters() -> None:
    assert plain.text("/etc/été.pem") == "/etc/été.pem"
    assert fault(plain.text, 5)[0] == "a string in quotes"
    assert "control characters" in fault(plain.text, "a\nb")[0]


@pytest.mark.parametrize("name", ["a", "domain1", "domain1.com_25-a", "9" * 64])
def test_a_route_may_be_called(name: str) -> None:
    assert plain.name(name) == name


@pytest.mark.parametrize(("name", "near"), [("", None), ("-", None), ("domain 1", "domain-1"), ('a"b', "a-b")])
def test_a_route_may_not_be_called(name: str, near: str | None) -> None:
    assert fault(plain.name, name)[1] == near


def test_a_choice_names_its_words_and_the_nearest() -> None:
    read = plain.choice("repair", "observe", "off")
    assert read("off") == "off"
    assert fault(read, "repiar") == ('"repair", "observe" or "off"', "repair")
    assert fault(read, "Observe")[1] == "observe"
    assert fault(read, True)[1] is None
    assert fault(plain.choice("1.2", "1.3"), 1.2) == ('"1.2" or "1.3"', "1.2")


def test_a_list_reports_each_wrong_item_with_its_place() -> None:
    with pytest.raises(Unfit) as caught:
        plain.listed(plain.port, "ports")([25, 0, "x", 25])
    assert [(one.where, one.value) for one in caught.value.faults] == [("[1]", 0), ("[2]", "x"), ("[3]", 25)]
    assert "place [0]" in caught.value.faults[2].expected


def test_a_single_string_is_a_list_of_one_only_where_that_is_said() -> None:
    assert plain.listed(plain.text, "texts", lone=True)("a") == ("a",)
    assert "square brackets" in fault(plain.listed(plain.text, "texts"), "a")[0]


def test_a_pin_is_the_base64_of_a_sha256() -> None:
    assert plain.pin(KEY_HASH) == KEY_HASH


@pytest.mark.parametrize(
    "value",
    [
        "",
        KEY_HASH[7:],
        "sha1:" + KEY_HASH[7:],
        KEY_HASH[:-1],
        KEY_HASH + "=",
        KEY_HASH + " ",
        "sha256:",
        "sha256:AAAA",
        "sha256:" + "00" * 32,
        "sha256:" + ":".join(["00"] * 32),
        KEY_HASH[:-2] + "9=",
        5,
    ],
)
def test_anything_else_is_no_pin(value: object) -> None:
    assert fault(plain.pin, value)


def test_a_pin_as_curl_writes_it_is_recognised() -> None:
    assert fault(plain.pin, KEY_HASH.replace(":", "//"))[1] == KEY_HASH


READERS = {
    "boolean": plain.boolean,
    "whole": plain.whole(0),
    "workers": plain.workers,
    "duration": plain.duration,
    "span": plain.span,
    "text": plain.text,
    "name": plain.name,
    "choice": plain.choice("a", "b"),
    "pin": plain.pin,
    "list": plain.listed(plain.listed(plain.text, "texts", lone=True), "lists"),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("value", ODD, ids=lambda value: ascii(value)[:20] if not isinstance(value, int) else "int")
def test_a_reader_raises_nothing_but_unfit(read: plain.Reader[Any], value: object) -> None:
    with contextlib.suppress(Unfit):
        read(value)
