"""The systemd units: systemd understands every line of them, and they leave next to no rights."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proxy import settings

SYSTEMD = Path(__file__).parents[1] / "systemd"
SERVICES = ("ehlo-proxy.service", "ehlo-proxy-activated.service")
SOCKETS = ("ehlo-proxy-25-v4.socket", "ehlo-proxy-25-v6.socket")
HOST_UNITS = Path("/usr/lib/systemd/system")

COMBINATIONS: list[tuple[str, tuple[str, ...], float]] = [
    ("ehlo-proxy.service", (), 1.4),
    ("ehlo-proxy.service", ("bridge",), 1.4),
    ("ehlo-proxy.service", ("record",), 1.4),
    ("ehlo-proxy.service", ("interception",), 1.4),
    ("ehlo-proxy.service", ("bridge", "interception", "record"), 1.5),
    ("ehlo-proxy-activated.service", (), 1.1),
    ("ehlo-proxy-activated.service", ("bridge", "record"), 1.1),
]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None or not HOST_UNITS.is_dir():
        pytest.skip("no systemd-analyze here: the units were not verified (apt-get install systemd)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)


def installed(root: Path, unit: str, drop_ins: tuple[str, ...]) -> Path:
    """A root directory with the units, a drop-in directory, and everything that they name."""
    units = root / "etc/systemd/system"
    units.mkdir(parents=True)
    for name in (*SERVICES, *SOCKETS):
        shutil.copy(SYSTEMD / name, units)
    if drop_ins:
        (units / f"{unit}.d").mkdir()
        for name in drop_ins:
            shutil.copy(SYSTEMD / "drop-ins" / f"{name}.conf", units / f"{unit}.d")
    for program in ("opt/ehlo-proxy/bin/ehlo-proxy", "usr/bin/kill", "usr/bin/rm", "bin/sh"):
        (root / program).parent.mkdir(parents=True, exist_ok=True)
        (root / program).write_text("#!/bin/sh\n")
        (root / program).chmod(0o755)
    if HOST_UNITS.is_dir():
        shutil.copytree(HOST_UNITS, root / HOST_UNITS.relative_to("/"), symlinks=True)
    return units


def options(name: str) -> list[tuple[str, str, str]]:
    """`(section, key, value)` of each line of a unit, repeated keys too."""
    found: list[tuple[str, str, str]] = []
    section = ""
    for line in (SYSTEMD / name).read_text().replace("\\\n", "").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            found.append((section, key, value))
    return found


def values(name: str, key: str) -> list[str]:
    return [value for _section, found, value in options(name) if found == key]


@pytest.mark.parametrize(("unit", "drop_ins", "most"), COMBINATIONS)
def test_systemd_understands_every_line(unit: str, drop_ins: tuple[str, ...], most: float, tmp_path: Path) -> None:
    installed(tmp_path, unit, drop_ins)
    ran = analyze("verify", f"--root={tmp_path}", unit)
    # The exit status is 0 even for unknown keys: only silence is praise.
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", SOCKETS)
def test_systemd_understands_the_sockets(unit: str, tmp_path: Path) -> None:
    installed(tmp_path, unit, ())
    ran = analyze("verify", f"--root={tmp_path}", unit)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_misspelt_key_would_be_seen(tmp_path: Path) -> None:
    units = installed(tmp_path, "ehlo-proxy.service", ())
    with (units / "ehlo-proxy.service").open("a") as unit:
        unit.write("WantedBuy=multi-user.target\n")
    assert "WantedBuy" in analyze("verify", f"--root={tmp_path}", "ehlo-proxy.service").stderr


@pytest.mark.parametrize(("unit", "drop_ins", "most"), COMBINATIONS)
def test_the_exposure_is_small(unit: str, drop_ins: tuple[str, ...], most: float, tmp_path: Path) -> None:
    installed(tmp_path, unit, drop_ins)
    ran = analyze("security", "--offline=true", "--no-pager", f"--root={tmp_path}", unit)
    told = re.search(r"Overall exposure level for \S+: ([\d.]+)", ran.stdout)
    assert told, ran.stdout + ran.stderr
    assert float(told[1]) <= most


@pytest.mark.parametrize("unit", SERVICES)
def test_the_service_is_one_that_tells_and_is_watched(unit: str) -> None:
    assert values(unit, "Type") == ["notify"]
    assert values(unit, "WatchdogSec")
    assert values(unit, "RestartPreventExitStatus") == ["2"]
    assert values(unit, "ExecStart")[0].split()[1:3] == ["run", "--config"]
    # The running service sees and counts a bad file, too, and what comes last makes the reload fail.
    hang_up, check = values(unit, "ExecReload")
    assert hang_up == "kill -HUP $MAINPID"
    assert check.split()[1] == "check"


@pytest.mark.parametrize("unit", SERVICES)
def test_stopping_has_more_time_than_the_drain(unit: str) -> None:
    (minutes,) = values(unit, "TimeoutStopSec")
    drain = settings.from_arguments(["127.0.0.1:2525"], "192.0.2.1:25", [], None, None).service.drain_timeout
    assert float(minutes.removesuffix("min")) * 60 > drain


def test_one_service_has_one_capability_and_the_other_none() -> None:
    assert values("ehlo-proxy.service", "CapabilityBoundingSet") == ["CAP_NET_BIND_SERVICE"]
    assert values("ehlo-proxy.service", "AmbientCapabilities") == ["CAP_NET_BIND_SERVICE"]
    assert values("ehlo-proxy-activated.service", "CapabilityBoundingSet") == [""]
    assert values("ehlo-proxy-activated.service", "AmbientCapabilities") == []


def test_the_two_services_are_otherwise_the_same() -> None:
    differ = {
        "Description", "Wants", "After", "Requires", "Conflicts", "Sockets", "CapabilityBoundingSet",
        "AmbientCapabilities", "PrivateUsers", "Also",
    }  # fmt: skip
    one, other = ([line for line in options(unit) if line[1] not in differ] for unit in SERVICES)
    assert one == other


def test_each_socket_is_one_address_and_has_a_name_of_its_own() -> None:
    names = []
    for unit in SOCKETS:
        (listen,) = values(unit, "ListenStream")
        assert listen.endswith(":25")
        assert values(unit, "Service") == ["ehlo-proxy-activated.service"]
        names += values(unit, "FileDescriptorName")
    assert len(set(names)) == len(SOCKETS)
    for key in ("Requires", "Sockets", "Also"):
        assert values("ehlo-proxy-activated.service", key) == [" ".join(SOCKETS)]
    text = f"[[route]]\nlisten = {[f'systemd:{name}' for name in names]}\ndestination = ['192.0.2.1:25']\n"
    (route,) = settings.parse(text, "ehlo-proxy.toml").routes
    assert [listen.systemd for listen in route.listen] == names
    assert text.splitlines()[1].replace("'", '"') in (SYSTEMD / "ehlo-proxy-activated.service").read_text()


def test_bridge_mode_gets_a_copy_of_the_pair_from_root_at_each_reload() -> None:
    name = "drop-ins/bridge.conf"
    assert values(name, "MemoryDenyWriteExecute") == ["no"]
    (start,) = values(name, "ExecStartPre")
    reset, copy, hang_up, check = values(name, "ExecReload")
    assert start == copy
    assert copy.startswith("+")
    assert reset == ""
    assert [hang_up, check] == values("ehlo-proxy.service", "ExecReload")


def test_the_user_of_interception_is_made_by_sysusers(tmp_path: Path) -> None:
    (user,) = values("drop-ins/interception.conf", "User")
    program = shutil.which("systemd-sysusers")
    if program is None:
        pytest.skip("no systemd-sysusers here: the user was not made (apt-get install systemd)")
    (tmp_path / "etc").mkdir()
    file = SYSTEMD / "sysusers.d/ehlo-proxy.conf"
    ran = subprocess.run([program, f"--root={tmp_path}", str(file)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    made = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()]
    assert [(line[0], line[5], line[6]) for line in made] == [(user, "/nonexistent", "/usr/sbin/nologin")]


def test_no_line_is_longer_than_a_terminal_and_every_file_says_what_it_is() -> None:
    for file in SYSTEMD.rglob("*.*"):
        if file.is_file():
            lines = file.read_text().splitlines()
            assert lines[0].startswith("# "), file
            assert max(len(line) for line in lines if line.startswith("#")) <= 120, file
