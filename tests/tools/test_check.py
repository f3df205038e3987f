"""`check`: every error at once, what is unwise, and names that lead back to the proxy."""

from __future__ import annotations

import io
import re
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from proxy.settings import load
from proxy.tools import check
from tests.certificates import make

Resolver = Callable[..., Any]
OWN = frozenset({ip_address("198.51.100.25"), ip_address("127.0.0.1"), ip_address("::1")})


@pytest.fixture(autouse=True)
def _the_proxys_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """198.51.100.25; no test asks a resolver."""
    monkeypatch.setattr(check, "OwnAddresses", lambda: OWN)
    resolve(monkeypatch, {})


def resolve(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]], seconds: float = 0.0) -> None:
    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        time.sleep(seconds)
        if host not in names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def bare(found: re.Match[str]) -> str:
    """A place without its line and its route, which `tests/settings/test_key_lines.py` has."""
    return "FILE: " if found[1] else "FILE"


def run(tmp_path: Path, text: str, within: float = 5.0) -> tuple[int, list[str], list[str]]:
    path = tmp_path / "test.toml"
    path.write_text(text)
    out, err = io.StringIO(), io.StringIO()
    code = check.run([str(path)], out, err, within=within)
    where = re.compile(rf"{re.escape(str(path))}(:\d+: (route \"[^\"]*\": )?|(?=:))")
    stripped = [[where.sub(bare, line) for line in stream.getvalue().splitlines()] for stream in (out, err)]
    return code, stripped[0], stripped[1]


def route(listen: str = "0.0.0.0:25", destination: str = "192.0.2.10", more: str = "") -> str:
    return f'[[route]]\nlisten = ["{listen}"]\ndestination = ["{destination}"]\n{more}\n'


def test_a_good_file_is_said_to_be_good_and_nothing_else(tmp_path: Path) -> None:
    assert run(tmp_path, route() + route("0.0.0.0:26", more='name = "b"')) == (0, ["FILE: ok, 2 routes"], [])


def test_every_error_is_told_and_nothing_is_said_to_be_good(tmp_path: Path) -> None:
    code, out, err = run(
        tmp_path, route("0.0.0.0:99999", more="max_sesions = 5\n[route.record]\ndirectory = '/nonexistent'")
    )
    assert (code, out) == (2, [])
    assert err == [
        'FILE: route[0].listen[0] = "0.0.0.0:99999": expected a port from 0 to 65535',
        "FILE: route[0].max_sesions = 5: expected a known key (did you mean max_sessions?)",
        'FILE: route[0].record.directory = "/nonexistent": expected /nonexistent to exist',
    ]


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    err = io.StringIO()
    assert check.run([str(tmp_path / "missing.toml")], io.StringIO(), err) == 2
    assert err.getvalue().endswith("missing.toml: expected a file that can be read: No such file or directory\n")
    code, _, lines = run(tmp_path, "[[route]]\nlisten = [")
    assert code == 2
    assert lines[0].startswith("FILE: expected valid TOML")


def test_what_is_unwise_is_a_warning_and_not_an_error(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, route(more='allow_clients = ["0.0.0.0/0"]\ntimeouts.banner = 5'))
    assert (code, out) == (0, ["FILE: ok, 1 route"])
    assert len(err) == 2
    assert all(line.startswith("warning: FILE: route[0].") for line in err)


def test_the_servers_name_leads_back_where_the_sender_was_made_to_find_the_proxy_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe for a Cisco ESA: a local zone says that mail.domain1.com is the proxy."""
    resolve(monkeypatch, {"mail.domain1.com": ["198.51.100.25"]})
    code, out, err = run(tmp_path, route(destination="mail.domain1.com"))
    assert (code, out) == (2, [])
    assert err == [
        'FILE: route[0].destination[0] = "mail.domain1.com:25": expected a server; this leads back to the proxy itself,'
        " which listens on 0.0.0.0:25 (route[0].listen[0]): mail.domain1.com is 198.51.100.25 here;"
        " give the server by its own address"
    ]


def test_a_name_of_another_host_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, {"mail.domain1.com": ["192.0.2.10"]})
    assert run(tmp_path, route(destination="mail.domain1.com"))[0] == 0


def test_a_name_with_one_address_of_many_that_leads_back_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, {"mail.domain1.com": ["192.0.2.10", "127.0.0.1"]})
    assert run(tmp_path, route(destination="mail.domain1.com"))[0] == 2


def test_a_name_for_this_host_is_not_followed_and_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, {"localhost": ["127.0.0.1"]})
    code, _, err = run(tmp_path, route(destination="localhost:2526"))
    assert code == 0
    assert "give the address instead if it is meant" in err[0]


def test_a_name_that_is_not_found_is_a_warning(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, route(destination="mail.domain1.com"))
    assert code == 0
    assert err == [
        "warning: FILE: route[0].destination[0]: mail.domain1.com could not be looked up: Name or service not known"
    ]


def test_a_resolver_that_does_not_answer_is_waited_for_only_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, {}, seconds=1.5)
    began = time.monotonic()
    code, _, err = run(tmp_path, route(destination="a.example") + route("0.0.0.0:26", "b.example", 'name = "b"'), 0.1)
    assert time.monotonic() - began < 1.4
    assert code == 0
    assert [line.rpartition(": ")[2] for line in err] == ["no answer in 0.1 seconds"] * 2


def test_errors_in_names_are_told_with_all_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, {"mail.domain1.com": ["198.51.100.25"]})
    err = run(tmp_path, route(destination="mail.domain1.com", more="colour = 1"))[2]
    assert [line.split(" = ")[0] for line in err] == ["FILE: route[0].colour", "FILE: route[0].destination[0]"]


def test_an_address_that_the_host_does_not_have_is_a_warning(tmp_path: Path) -> None:
    code, _, err = run(tmp_path, route("192.0.2.77:25", more='source = "192.0.2.78"'))
    assert code == 0
    assert [line.split(": ")[2] for line in err] == ["route[0].listen[0]", "route[0].source"]
    assert run(tmp_path, route("198.51.100.25:25", more='source = "client"'))[2] == []


def test_a_key_that_does_not_fit_is_found_by_check(tmp_path: Path) -> None:
    good, other = make("good").write(tmp_path, "good"), make("other-key").write(tmp_path, "other")
    text = "[route.tls]\nmode = 'bridge'\nverify_name = 'mail.domain1.com'\n"
    well = run(tmp_path, route(more=f"{text}certificate = '{good.certificate}'\nkey = '{good.key}'"))
    assert well == (0, ["FILE: ok, 1 route"], [])
    code, _, err = run(tmp_path, route(more=f"{text}certificate = '{good.certificate}'\nkey = '{other.key}'"))
    assert code == 2
    assert "the private key of the first certificate" in err[0]


def several(*arguments: str, **named: bool) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return check.run(arguments, out, err, **named), out.getvalue(), err.getvalue()


def test_several_files_are_checked_and_the_worst_counts(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(route())
    bad.write_text(route(more="colour = 1"))
    code, out, err = several(str(good), str(bad))
    assert (code, out) == (2, f"{good}: ok, 1 route\n")
    assert err.startswith(f"{bad}:4: route[0].colour = 1: expected a known key")


def test_a_warning_has_its_line_and_route_and_is_an_error_when_strict(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(route(more='name = "a"\n[route.timeouts]\nidle = 10'))
    code, out, err = several(str(file))
    assert (code, out) == (0, f"{file}: ok, 1 route\n")
    assert err.startswith(f'warning: {file}:6: route "a": route[0].timeouts.idle: 10 s is less than')
    code, out, strict = several(str(file), strict=True)
    assert (code, out) == (2, "")
    assert strict == err.replace("warning: ", "error: ")


def test_what_is_in_force_reads_as_the_same_settings_again(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text(
        '[service]\nworkers = "auto"\n[admin]\nlisten = "unix:/run/x"\n'
        + route(
            more='name = "a"\n[route.tls]\nverify_name = "b.example"\nkeylog = "k"\n[route.timeouts]\nresolve = "250ms"'
        )
        + route("0.0.0.0:26", more='name = "b"\n[route.repair]\nremove = ["auth:ntlm"]\nadd = ["STARTTLS"]')
    )
    code, out, _ = several(str(file), show=True)
    assert code == 0
    assert 'workers = "auto"' in out
    shown = tmp_path / "elsewhere" / "shown.toml"  # where a relative path would mean another file
    shown.parent.mkdir()
    shown.write_text(out)
    first, second = load(str(file)), load(str(shown))
    assert replace(first, path="") == replace(second, path="")


def test_standard_input_is_a_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(route().encode())))
    assert several("-") == (0, "-: ok, 1 route\n", "")
