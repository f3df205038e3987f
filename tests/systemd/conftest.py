"""One machine for all tests of the units, with the proxy from its wheel, its units, and a broken server behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import TOP, wait_until
from tests.systemd import debian
from tests.systemd.machine import PREFIX, UNITS, Machine

RELEASE = "/root/release"  # wheels
SERVER = "127.0.0.1:2530"
CERTIFICATE = "/root/broken-server.pem"  # that server's
MAIL = "/root/mail"

# A host of its own behind a wire, inside the machine: where a server is not one of the machine's own addresses.
FAR = "192.0.2.10"
IN_FAR = "/sbin/ip netns exec far"
MAKE_FAR = f"""
ip netns add far
ip link add eth0 type veth peer name eth0 netns far
ip address add 192.0.2.1/24 dev eth0
ip link set eth0 up
ip -n far address add {FAR}/24 dev eth0
ip -n far link set eth0 up
"""


@pytest.fixture(scope="session")
def tree() -> Path:
    if why := debian.missing():
        pytest.skip(f"no system was booted: {why}")
    return debian.tree()


@pytest.fixture(scope="session")
def release(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, the sdist and the wheels that they need."""
    folder = tmp_path_factory.mktemp("release")
    debian.build_release(folder)
    debian.wheels(folder)
    return folder


@pytest.fixture(scope="session")
def booted(tree: Path, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tree, tmp_path_factory.mktemp("machine") / "console")
    try:
        give(machine, release)
        machine.run(f"python3 -m venv {PREFIX}", 120)
        machine.run(f"{PREFIX}/bin/pip install -q --no-index --find-links={RELEASE} ehlo-proxy", 240)
        for unit in (*(TOP / "systemd").glob("*.service"), *(TOP / "systemd").glob("*.socket")):
            machine.write(f"{UNITS}/{unit.name}", unit.read_text())
        machine.write("/etc/sysusers.d/ehlo-proxy.conf", (TOP / "systemd/sysusers.d/ehlo-proxy.conf").read_text())
        machine.run("systemctl daemon-reload")
        start_server(machine, "broken-server", SERVER)
        yield machine
    finally:
        machine.end()


def give(machine: Machine, release: Path) -> None:
    """Put the release on the machine."""
    for file in release.iterdir():
        machine.write(f"{RELEASE}/{file.name}", file.read_bytes())


def start_server(machine: Machine, unit: str, listen: str, prefix: str = "") -> str:
    """A broken server, in a unit of its own; `prefix` runs it elsewhere.  The file with its certificate."""
    certificate = f"/root/{unit}.pem"
    command = f"{PREFIX}/bin/ehlo-proxy simulate --listen {listen} --save {MAIL} --save-certificate {certificate}"
    machine.run(f"mkdir -p {MAIL}; rm -f {certificate}; systemd-run -q --collect --unit={unit} {prefix} {command}")
    wait_until(machine.path(certificate).exists, 20, unit)
    return certificate


@pytest.fixture
def machine(booted: Machine) -> Iterator[Machine]:
    """The machine, for a test that finds and leaves it with nothing running, no drop-ins and no journal."""
    yield booted
    units = "ehlo-proxy.service ehlo-proxy-activated.service ehlo-proxy-25-v4.socket ehlo-proxy-25-v6.socket"
    booted.run(f"systemctl kill --signal=KILL {units} 2>/dev/null || true; systemctl stop {units}")
    booted.run(f"systemctl disable -q {units}; systemctl reset-failed; rm -rf {UNITS}/ehlo-proxy*.d {MAIL}/*")
    booted.run("rm -rf /etc/ehlo-proxy; systemctl daemon-reload")
    booted.clean_journal()
