"""Reading a configuration: from a text, a file or the command line; every problem at once, and never anything else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy import settings
from proxy.settings import (
    Destination,
    Endpoint,
    Listen,
    Problem,
    Settings,
    SettingsError,
    declared,
    from_arguments,
    load,
    parse,
)

MINIMAL = '[[route]]\nlisten = ["127.0.0.1:2525"]\ndestination = ["192.0.2.10"]\n'


def problems(text: str, file: str = "test.toml") -> tuple[Problem, ...]:
    with pytest.raises(SettingsError) as caught:
        parse(text, file)
    assert caught.value.problems
    return caught.value.problems


def test_a_whole_file_is_read() -> None:
    found = parse(
        """
        [service]
        workers = "auto"
        drain_timeout = "1h"
        [log]
        format = "json"
        [admin]
        listen = "[::1]:9925"
        [[route]]
        name = "domain1"
        listen = ["0.0.0.0:25", "systemd:smtp6"]
        destination = ["192.0.2.10:2525", "mx:domain1.com"]
        allow_clients = ["192.0.2.0/24"]
        [route.repair]
        mode = "observe"
        remove = ["chunking"]
        [route.timeouts]
        idle = 3600
        [[route]]
        name = "domain2"
        listen = ["0.0.0.0:26"]
        destination = "original"
        """,
        "test.toml",
    )
    assert (found.service.workers, found.service.drain_timeout, found.path) == (0, 3600.0, "test.toml")
    assert found.log.format == "json"
    assert found.admin.listen == Endpoint("::1", 9925)
    first, second = found.routes
    assert first.listen == (Listen("0.0.0.0", 25), Listen(systemd="smtp6"))
    assert first.destination == (Destination("address", "192.0.2.10", 2525), Destination("mx", "domain1.com", 25))
    assert first.allow_clients == (ip_network("192.0.2.0/24"),)
    assert (first.repair.mode, first.repair.remove, first.timeouts.idle) == ("observe", ("CHUNKING",), 3600.0)
    assert second.destination == (Destination("original", "", 0),)
    assert second.repair == settings.Repair()


def test_every_problem_is_told_at_once() -> None:
    found = problems(
        """
        colour = "blue"
        [service]
        workers = 0
        drain_timout = "5m"
        [log]
        level = "loud"
        [[route]]
        listen = ["127.0.0.1:99999", "127.0.0.1:25"]
        destination = ["a b"]
        max_sessions = "many"
        proxy_protocol = "yes"
        [route.tls]
        mode = "brigde"
        [route.timeouts]
        idle = -1
        [[route]]
        """
    )
    assert [problem.key for problem in found] == [
        "colour",
        "service.workers",
        "service.drain_timout",
        "log.level",
        "route[0].listen[0]",
        "route[0].destination[0]",
        "route[0].max_sessions",
        "route[0].proxy_protocol",
        "route[0].tls.mode",
        "route[0].timeouts.idle",
        "route[1].name",
        "route[1].listen",
        "route[1].destination",
    ]
    assert {problem.file.partition(":")[0] for problem in found} == {"test.toml"}
    assert {problem.key: problem.nearest for problem in found if problem.nearest} == {
        "service.drain_timout": "drain_timeout",
        "route[0].tls.mode": "bridge",
    }


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("[servise]", "servise", "service"),
        ("[[routes]]", "routes", "route"),
        ("listen = []", "listen", "admin.listen or route.listen"),
        ("[route]\nlisten = []", "route", None),
        ("[service]\nworker = 2", "service.worker", "workers"),
        ("[log]\nLevel = 'info'", "log.Level", "level"),
        ('[log]\n"a\\nb" = 1', 'log."a\\nb"', None),
        ("[[route]]\nverify = 'none'", "route[0].verify", "route.tls.verify"),
        ("[[route]]\nmode = 'off'", "route[0].mode", "route.repair.mode or route.tls.mode"),
        ("[[route]]\n[route.timeout]", "route[0].timeout", "timeouts"),
        ("[[route]]\nrepair = 'off'", "route[0].repair", None),
        ("[[route]]\n[[route.tls]]", "route[0].tls", None),
        ("route = [1]", "route[0]", None),
        ("service = 1", "service", None),
    ],
)
def test_a_misspelt_or_misplaced_key_is_told_with_the_one_that_was_meant(text: str, key: str, near: str | None) -> None:
    assert (key, near) in [(problem.key, problem.nearest) for problem in problems(text)]


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("a = 1\nb = ", "test.toml:2:5"),
        ("a = 1\nb = [1,\n2\n", "test.toml:4"),
        ("a = 1\na = 2", "test.toml:2:6"),
        ("[[route]\n", "test.toml:1:8"),
        ('a = "\nb"', "test.toml:1:6"),
    ],
)
def test_a_text_that_is_not_toml_is_told_with_its_line(text: str, file: str) -> None:
    (problem,) = problems(text)
    assert (problem.file.split(":")[:2], problem.key) == (file.split(":")[:2], "")
    assert problem.expected.startswith("valid TOML: ")


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000 + "]" * 5000,
        "a = " + "{a=" * 5000,
        "a" + ".a" * 5000 + " = 1",
        "[log]\nlevel" + ".a" * 5000 + " = 1",
        "a = " + "1" * 5000,
        "[service]\nworkers = 0x" + "f" * 5000,
        "[[route]]\nproxy_protocol = 0x" + "f" * 5000,
        "[service]\ndrain_timeout = 0x" + "f" * 5000,
        "[service]\ndrain_timeout = nan",
        "[service]\ndrain_timeout = 1e999",
        "[service]\ndrain_timeout = 2024-01-01",
        "[service]\nuser = '\\ud800'",
        "\0",
        "\ufeff[log]",
        "a\r=1",
        "[[route]]\nlisten = [[[[]]]]\ndestination = [{}, 2024-01-01, nan]\nname = []",
        "[[route]]\nallow_clients = ['::1%a/128', '[::1]', '1/1/1', '']",
    ],
)
def test_a_hostile_text_is_a_settings_error(text: str) -> None:
    for problem in problems(text):
        assert str(problem).isprintable()


WORDS = sorted({word for kind in settings.TABLES.values() for path, _ in declared(kind) for word in path.split(".")})
VALUES = st.one_of(
    st.sampled_from(
        ["true", "nan", "-inf", "0", "1", "25", '"auto"', '"5m"', '"original"', '"[::1]:25"', '"mx:a.b"', "[]"]
    ),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=20).map(lambda text: f"'{text}'"),
    st.lists(st.sampled_from(['"127.0.0.1:25"', '"x"', "1", "[]", "{}"]), max_size=3).map(
        lambda x: f"[{', '.join(x)}]"
    ),
)
KEYS = st.one_of(st.sampled_from(WORDS), st.text(st.characters(codec="utf-8"), max_size=8))
LINES = st.one_of(
    st.sampled_from(
        ["[service]", "[log]", "[admin]", "[[route]]", "[route.tls]", "[route.repair]", "[route.timeouts]"]
    ),
    st.tuples(KEYS, VALUES).map(" = ".join),
    st.tuples(KEYS, KEYS, VALUES).map(lambda x: f"{x[0]}.{x[1]} = {x[2]}"),
    st.text(max_size=30),
)


@given(st.one_of(st.text(), st.lists(LINES, max_size=12).map("\n".join)))
@example(MINIMAL)
def test_an_arbitrary_text_gives_settings_or_a_settings_error(text: str) -> None:
    try:
        found = parse(text, "test.toml")
    except SettingsError as error:
        problems = error.problems
    else:
        settings.warnings(found)
        return
    assert problems
    assert all(str(problem).isprintable() for problem in problems)


@given(st.binary(max_size=300))
def test_a_file_of_arbitrary_bytes_gives_a_settings_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "arbitrary.toml"
    path.write_bytes(data)
    with pytest.raises(SettingsError):
        load(str(path))


@pytest.mark.parametrize(
    ("data", "where", "says"),
    [
        (b"[log]\nlevel = 'caf\xe9'", ":2", "UTF-8"),
        (b"\xef\xbb\xbf[log]", ":1", "byte order mark"),
    ],
)
def test_a_file_in_another_encoding_is_told_so(tmp_path: Path, data: bytes, where: str, says: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(data)
    with pytest.raises(SettingsError) as caught:
        load(str(path))
    (problem,) = caught.value.problems
    assert problem.file == f"{path}{where}"
    assert says in problem.expected


@pytest.mark.parametrize("name", ["missing.toml", "", ".", "a\0b", "é" * 300])
def test_a_file_that_can_not_be_read_is_told_so(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(os.path.join(tmp_path, name))
    (problem,) = caught.value.problems
    assert problem.expected.startswith("a file that can be read: ")


def test_a_relative_path_is_taken_from_the_files_directory(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    path = tmp_path / "test.toml"
    path.write_text(MINIMAL + 'record.directory = "records"\n')
    assert load(str(path)).routes[0].record.directory == str(tmp_path / "records")
    path.write_text(MINIMAL + 'record.directory = "/tmp"\n')
    assert load(str(path)).routes[0].record.directory == "/tmp"


def test_the_hosts_own_addresses_are_given_to_load(tmp_path: Path) -> None:
    path = tmp_path / "test.toml"
    path.write_text('[[route]]\nlisten = ["0.0.0.0:25"]\ndestination = ["192.0.2.10"]\n')
    assert load(str(path))
    with pytest.raises(SettingsError, match="leads back to the proxy itself"):
        load(str(path), {ip_address("192.0.2.10")})


def test_the_command_line_makes_one_route_named_default(tmp_path: Path) -> None:
    found = from_arguments("127.0.0.1:0", "mail.domain1.com", ["192.0.2.0/24"], "127.0.0.1:9925", str(tmp_path))
    (route,) = found.routes
    assert route.name == "default"
    assert route.listen == (Listen("127.0.0.1", 0),)
    assert route.destination == (Destination("name", "mail.domain1.com", 25),)
    assert route.allow_clients == (ip_network("192.0.2.0/24"),)
    assert route.record.directory == str(tmp_path)
    assert found.admin.listen == Endpoint("127.0.0.1", 9925)
    assert found.path == "command line"


def test_what_is_not_on_the_command_line_is_the_default() -> None:
    found = from_arguments("127.0.0.1:0", "192.0.2.10:2526")
    assert found == Settings(
        settings.Service(),
        settings.Log(),
        settings.Admin(),
        (settings.Route(listen=(Listen("127.0.0.1", 0),), destination=(Destination("address", "192.0.2.10", 2526),)),),
        "command line",
    )


def test_a_mistake_on_the_command_line_is_told_by_its_option() -> None:
    with pytest.raises(SettingsError) as caught:
        from_arguments("localhost", "a b", ["192.0.2.1/24"], "9925", "/nonexistent")
    assert [problem.key for problem in caught.value.problems] == [
        "--admin",
        "--listen",
        "--destination",
        "--allow",
        "--record",
    ]
    assert all(str(problem).startswith("command line: --") for problem in caught.value.problems)


def test_a_destination_on_the_command_line_does_not_lead_back() -> None:
    with pytest.raises(SettingsError, match=r"--destination = .* leads back to the proxy itself"):
        from_arguments("127.0.0.1:2525", "127.0.0.1:2525")


def test_reading_settings_imports_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "test.toml"
    path.write_text(MINIMAL)
    program = (
        "import sys\nfrom proxy.settings import load\nload(sys.argv[1])\n"
        "print([m for m in ('twisted', 'OpenSSL', 'cryptography', 'ssl', 'socket', 'logging') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "[]\n"


def test_what_never_ends_is_no_file() -> None:
    with pytest.raises(SettingsError, match="/dev/zero: expected a file of at most 16 MiB"):
        load("/dev/zero")


def test_thousands_of_routes_are_read_in_the_time_that_a_reload_may_take() -> None:
    def seconds(routes: int) -> float:
        one = '[[route]]\nname = "r{0}"\nlisten = ["127.{1}.{2}.1:25"]\ndestination = ["192.0.2.1"]\n'
        text = "".join(one.format(i, i // 250 + 1, i % 250) for i in range(routes))
        begun = time.process_time()
        parse(text, "test.toml")
        return time.process_time() - begun

    assert seconds(4000) < 8 * seconds(1000), "linear; it was quadratic"
