"""The Debian package on a fresh Debian 12: install, settings, a mail, upgrade with mail under way, remove, purge.

README.md and docs/install.md are followed to the letter. It is built by `config/packaging/build-deb`, twice, and must
come out the same to the byte; lintian has no word to say.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import __version__
from tests.loopback import TOP
from tests.pages import block, blocks
from tests.systemd.conftest import FAR, IN_FAR, MAKE_FAR, start_server
from tests.systemd.machine import CONFIGURATION, PREFIX, Machine
from tests.systemd.senders import Senders
from tests.systemd.test_install import SENDER, journal, send

pytestmark = [pytest.mark.systemd, pytest.mark.root, pytest.mark.alone]

NEXT = "1.999.0"
SOURCES = ("proxy", "config", "systemd", "docs", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md",
           "SECURITY.md", "requirements.lock", "requirements-test.lock")  # fmt: skip
UNIT = "ehlo-proxy-activated"
CONFIG = f"""
[[route]]
name = "domain1"
listen = ["systemd:ehlo-proxy-25-v4"]
destination = ["{FAR}:25"]
allow_clients = ["127.0.0.0/8", "{SENDER}"]
"""


def build(source: Path, out: Path, wheels: Path, compiled: str = "yes") -> Path:
    """The package of a copy of the repository; compiling takes some 80 s."""
    environment = {**os.environ, "BUILDER": sys.executable, "WHEELS": str(wheels), "COMPILED": compiled}
    done = subprocess.run(
        [source / "config/packaging/build-deb", out], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """This version, the same again from elsewhere, both compiled, and a later one, pure."""
    python = "/usr/bin/python3"
    if shutil.which(python) is None or b"3.11" not in subprocess.run([python, "-V"], capture_output=True).stdout:
        pytest.skip("no /usr/bin/python3 of Debian 12 to build the package for")
    folder = tmp_path_factory.mktemp("packages")
    found = []
    for number, version in enumerate((__version__, __version__, NEXT)):
        copy = folder / f"copy{number}"
        copy.mkdir()
        for name in SOURCES:
            source = TOP / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, copy / name)
        init = copy / "proxy/__init__.py"
        init.write_text(init.read_text().replace(f'"{__version__}"', f'"{version}"'))
        found.append(build(copy, folder / f"out{number}", folder / "wheels", "no" if version == NEXT else "yes"))
    return found


@pytest.fixture(scope="module")
def fresh(tree: Path, packages: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tree, tmp_path_factory.mktemp("package") / "console")
    try:
        for package in packages[1:]:
            machine.write(f"/root/{package.name}", package.read_bytes())
        machine.write(f"/root/checkout/dist/{packages[1].name}", packages[1].read_bytes())
        machine.run(f"{MAKE_FAR}\nip address add {SENDER}/32 dev lo")
        machine.run(f"mkdir -p {PREFIX}/bin; ln -s /usr/bin/ehlo-proxy {PREFIX}/bin/ehlo-proxy")  # for `start_server`
        yield machine
    finally:
        machine.end()


def test_it_comes_out_the_same_and_lintian_is_content(packages: list[Path]) -> None:
    assert packages[0].read_bytes() == packages[1].read_bytes()
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed")
    done = subprocess.run(
        ["lintian", "--allow-root", packages[0]], capture_output=True, text=True, check=False, timeout=120
    )
    assert [line for line in done.stdout.splitlines() if line[:2] in ("E:", "W:")] == []


def test_from_install_to_a_mail_as_the_readme_says(fresh: Machine, packages: list[Path]) -> None:
    one = block("docs/install.md", "apt-get install -y python3-venv")
    venv, built, install = one.commands
    assert built == "config/packaging/build-deb", "which the fixture has run"
    assert one.text.splitlines()[2] == f"dist/{packages[1].name}"
    for command in (venv, install):
        fresh.run(f"cd /root/checkout; {command}", 120)
    server = fresh.path(start_server(fresh, "server", f"{FAR}:25", IN_FAR)).read_text()
    (recipe,) = [one.text for one in blocks("README.md") if one.heading == "Cisco ESA" and one.language == "toml"]
    fresh.write(CONFIGURATION, fresh.path(CONFIGURATION).read_text() + recipe)
    said = fresh.run(block("README.md", "ehlo-proxy check").text)
    assert "ok, 1 route" in said
    send(fresh, server)
    assert "outcome=completed" in journal(fresh, "ehlo-proxy")
    # Units and drop-ins are for the package's own program; the checkout's are for /opt.
    kept = "/usr/lib/systemd/system/ehlo-proxy* /usr/share/doc/ehlo-proxy/examples/systemd-drop-ins"
    assert fresh.run(f"grep -r /opt/ {kept} || true") == ""
    fresh.run("mkdir /etc/systemd/system/ehlo-proxy.service.d; cd /etc/systemd/system/ehlo-proxy.service.d; "
              "cp /usr/share/doc/ehlo-proxy/examples/systemd-drop-ins/record.conf .; systemctl daemon-reload; "
              "systemctl restart ehlo-proxy; systemctl reload ehlo-proxy; rm -r ../ehlo-proxy.service.d")  # fmt: skip
    fresh.run("apt-get purge -y ehlo-proxy; systemctl stop server", 120)
    assert not fresh.path("/usr/lib/ehlo-proxy").exists()
    assert fresh.run("systemctl is-active ehlo-proxy || true") == "inactive"


def test_from_install_to_purge(fresh: Machine, packages: list[Path]) -> None:
    fresh.run(f"apt-get install ./{packages[1].name}", 120)
    said = fresh.run("ehlo-proxy --version")
    assert f"ehlo-proxy {__version__}" in said
    assert "build: compiled" in said
    fresh.run("ehlo-proxy demo", 60)
    assert fresh.run("systemctl is-enabled ehlo-proxy || true") == "disabled"  # nothing runs before it is wanted
    fresh.run("ehlo-proxy check", fails=True)  # every setting is explained, and no route is there yet
    for page in ("man1/ehlo-proxy.1", "man5/ehlo-proxy.toml.5", "man7/ehlo-proxy-findings.7"):
        assert fresh.path(f"/usr/share/man/{page}.gz").exists()
    server = fresh.path(start_server(fresh, "server", f"{FAR}:25", IN_FAR)).read_text()

    explained = fresh.path(CONFIGURATION).read_text()
    fresh.write(CONFIGURATION, explained + CONFIG)
    assert "ok, 1 route" in fresh.run("ehlo-proxy check")
    fresh.run("systemctl enable -q --now ehlo-proxy-25-v4.socket; systemctl disable -q ehlo-proxy-25-v6.socket")
    fresh.write(
        f"/etc/systemd/system/{UNIT}.service.d/v4.conf",
        "[Unit]\nRequires=\nRequires=ehlo-proxy-25-v4.socket\n[Service]\nSockets=\nSockets=ehlo-proxy-25-v4.socket\n",
    )
    fresh.run(f"systemctl daemon-reload; systemctl start {UNIT}", 60)
    send(fresh, server)
    assert "outcome=completed" in journal(fresh, UNIT)

    with Senders(fresh, 20) as senders:
        fresh.run(f"apt-get install ./{packages[2].name}", 120)
        fresh.run(
            f"for i in $(seq 60); do systemctl is-active -q {UNIT} && ehlo-proxy --version && break; sleep 1; done"
        )
        fresh.run(f"sleep 3; journalctl --sync; journalctl -o cat -u {UNIT} | grep -q 'version={NEXT}'", 30)
    assert senders.ended == {"completed": senders.ended["completed"]}, "nobody was refused or cut over the upgrade"
    assert fresh.path(CONFIGURATION).read_text() == explained + CONFIG
    send(fresh, server)

    fresh.run(f"apt-get install -y --allow-downgrades ./{packages[1].name}", 120)  # and back
    assert f"ehlo-proxy {__version__}" in fresh.run("ehlo-proxy --version")
    fresh.run("apt-get remove -y ehlo-proxy", 120)
    assert fresh.path(CONFIGURATION).exists()
    assert not fresh.path("/usr/lib/ehlo-proxy").exists()
    fresh.run("apt-get purge -y ehlo-proxy", 60)
    assert not fresh.path("/etc/ehlo-proxy").exists()
