"""The package on Debian 13 and Ubuntu 24.04: built there, by the command of docs/install.md, and installed there.

Both are booted as Debian 12 is. Where they can't be had (no mirror is reached) that is said, and the test is skipped.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.loopback import TOP
from tests.pages import block, blocks
from tests.systemd import debian
from tests.systemd.conftest import FAR, IN_FAR, MAKE_FAR, start_server
from tests.systemd.machine import CONFIGURATION, PREFIX, Machine
from tests.systemd.test_install import SENDER, journal, send
from tests.systemd.test_package import SOURCES

pytestmark = [pytest.mark.systemd, pytest.mark.root, pytest.mark.alone, pytest.mark.long]


def tree(system: debian.System) -> Path:
    if why := debian.missing():
        pytest.skip(f"no system was booted: {why}")
    try:
        return debian.tree(system)
    except AssertionError as error:
        if re.search("Failed getting release file|Couldn't download|Unable to connect", str(error)):
            pytest.skip(f"{system.suite} can't be had from its mirror")
        raise


@pytest.mark.parametrize("system", [debian.DEBIAN_13, debian.UBUNTU_24_04], ids=lambda system: system.suite)
def test_it_is_built_installed_used_and_removed_there(system: debian.System, tmp_path: Path) -> None:
    root = tree(system)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    debian.wheels_to_build(wheels, system)
    machine = Machine(root, tmp_path / "console")
    try:
        sources = subprocess.run(
            ["tar", "-c", "--exclude=__pycache__", *SOURCES], cwd=TOP, capture_output=True, check=True
        )
        machine.write("/root/sources.tar", sources.stdout)
        machine.run("mkdir -p checkout/dist/wheels; tar -x -C checkout -f sources.tar")
        for wheel in wheels.iterdir():
            machine.write(f"/root/checkout/dist/wheels/{wheel.name}", wheel.read_bytes())
        assert machine.run("/usr/bin/python3 -V").startswith(f"Python {system.python}.")
        for command in block("docs/install.md", "apt-get install -y python3-venv").commands:
            machine.run(f"cd /root/checkout; {command}", 300)
        assert f"(Python {system.python}." in machine.run("ehlo-proxy --version")
        machine.run("ehlo-proxy demo")

        machine.run(f"{MAKE_FAR}\nip address add {SENDER}/32 dev lo")
        machine.run(f"mkdir -p {PREFIX}/bin; ln -s /usr/bin/ehlo-proxy {PREFIX}/bin/ehlo-proxy")  # for `start_server`
        server = machine.path(start_server(machine, "server", f"{FAR}:25", IN_FAR)).read_text()
        (recipe,) = [one.text for one in blocks("README.md") if one.heading == "Cisco ESA" and one.language == "toml"]
        machine.write(CONFIGURATION, machine.path(CONFIGURATION).read_text() + recipe)
        machine.run(block("README.md", "ehlo-proxy check").text)
        send(machine, server)
        assert "outcome=completed" in journal(machine, "ehlo-proxy")
        machine.run("apt-get purge -y ehlo-proxy", 120)
        assert machine.run("systemctl is-active ehlo-proxy || true") == "inactive"
        assert not machine.path("/etc/ehlo-proxy").exists()
        assert not machine.path("/usr/lib/ehlo-proxy").exists()
    finally:
        machine.end()
