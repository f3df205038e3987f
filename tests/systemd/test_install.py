"""docs/install.md, followed to the letter on a fresh Debian 12: every `sh` block in it is run as it stands.

Only the network is not there: pip finds what it would download in a folder, and nothing else.
"""

from __future__ import annotations

import re
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import __version__
from proxy.tools.strict_client import StrictClient
from tests import certificates
from tests.loopback import wait_until
from tests.pages import blocks
from tests.systemd import debian
from tests.systemd.conftest import FAR, IN_FAR, MAKE_FAR, RELEASE, give, start_server
from tests.systemd.machine import Machine

pytestmark = [pytest.mark.systemd, pytest.mark.root, pytest.mark.alone]

SENDER = "198.51.100.40"  # as in config/cisco-esa.toml, as is FAR
NEXT = "1.1.0"
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": RELEASE}
MESSAGE = b"Subject: hello\r\n\r\nInstalled.\r\n"


@pytest.fixture(scope="module")
def chapter() -> dict[str, list[str]]:
    """The blocks of each section, by the first word of its title."""
    found: dict[str, list[str]] = {}
    for one in blocks("docs/install.md"):
        if one.language == "sh" and not one.untried:
            found.setdefault(one.heading.split()[0].rstrip(":"), []).append(one.text)
    return found


@pytest.fixture(scope="module")
def fresh(
    chapter: dict[str, list[str]], tree: Path, release: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A machine with nothing but Debian's packages, the unpacked sdist with both versions' wheels, and a server."""
    folder = tmp_path_factory.mktemp("fresh")
    machine = Machine(tree, folder / "console")
    try:
        give(machine, release)
        machine.run(f"mkdir /root/copy; tar -C /root/copy --strip-components=1 -xf {RELEASE}/ehlo_proxy-*.tar.gz")
        machine.run(f"mkdir /root/copy/dist; mv {RELEASE}/ehlo_proxy-* /root/copy/dist")
        wheel = next_version(release, folder)
        machine.write(f"/root/copy/dist/{wheel.name}", wheel.read_bytes())
        machine.run(f"{MAKE_FAR}\nip address add {SENDER}/32 dev lo")
        yield machine
    finally:
        machine.end()


def next_version(release: Path, folder: Path) -> Path:
    """The wheel of this code under a later version's number."""
    (sdist,) = release.glob("ehlo_proxy-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    copy = folder / sdist.name.removesuffix(".tar.gz")
    (copy / "PKG-INFO").unlink()  # else the version that it states is taken
    init = copy / "proxy/__init__.py"
    init.write_text(init.read_text().replace(f'"{__version__}"', f'"{NEXT}"'))
    debian.build_wheel(copy, folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def follow(machine: Machine, blocks: list[str]) -> str:
    """Run them; what they said."""
    return "\n".join(machine.run(f"cd /root/copy\n{block}", 300, **OFFLINE) for block in blocks)


def send(machine: Machine, ca: str) -> None:
    """A message from the sender's address (this is how the kernel chooses it), to any of the host's."""
    with machine.network():
        sent = StrictClient(SENDER, 25, "mail.domain1.com", ca).send("a@esa.com", "b@domain1.com", MESSAGE)
    assert sent.sent, sent


def journal(machine: Machine, unit: str) -> str:
    return machine.run(f"journalctl --sync; journalctl --no-pager -o cat -u {unit}")


def test_from_nothing_to_a_running_service_and_on_to_all_its_kinds(
    fresh: Machine, chapter: dict[str, list[str]]
) -> None:
    said = follow(fresh, chapter["Debian"][:1])
    certificate = start_server(fresh, "server", f"{FAR}:25", IN_FAR)
    server = fresh.path(certificate).read_text()
    probed = fresh.run(f"ehlo-proxy probe {FAR}", fails=True)
    assert "greeting-not-first" in probed

    said = follow(fresh, chapter["Debian"][1:])
    assert "ok, 1 route" in said
    assert "active (running)" in said
    assert f"version={__version__}" in said
    assert fresh.run("systemctl is-enabled ehlo-proxy") == "enabled"
    send(fresh, server)

    stopping = fresh.command("systemctl stop ehlo-proxy")
    assert stopping.communicate(timeout=30)[0] == ""
    assert chapter["Upgrade"][1]
    follow(fresh, chapter["Upgrade"][:1])
    assert f"version={NEXT}" in journal(fresh, "ehlo-proxy")
    send(fresh, server)
    follow(fresh, chapter["Upgrade"][1:])
    assert re.findall(r"^ready .* version=(\S+)", journal(fresh, "ehlo-proxy"), re.M) == [
        __version__,
        NEXT,
        __version__,
    ]
    send(fresh, server)

    before = fresh.run("cat /etc/ehlo-proxy/ehlo-proxy.toml")
    ours = certificates.make("good")
    fresh.write("/root/copy/fullchain.pem", ours.certificate_pem)
    fresh.write("/root/copy/privkey.pem", ours.key_pem, 0o600)
    fresh.run(f"cp {certificate} /usr/local/share/ca-certificates/server.crt; update-ca-certificates")
    follow(fresh, chapter["Bridge"])
    send(fresh, certificates.root().pem.decode())
    assert "tls=bridge" in journal(fresh, "ehlo-proxy")
    fresh.run("ehlo-proxy check")  # root sees the copies of the pair while the service runs
    fresh.run("systemctl stop ehlo-proxy; ! ehlo-proxy check")
    fresh.write("/etc/ehlo-proxy/ehlo-proxy.toml", before + "\n")
    fresh.run("rm /etc/systemd/system/ehlo-proxy.service.d/bridge.conf; systemctl daemon-reload")

    follow(fresh, chapter["Socket"])
    assert set(chapter) == {"Debian", "Upgrade", "Bridge", "Socket"}, "every block was followed"
    assert fresh.run("systemctl is-active ehlo-proxy || true") == "inactive"
    assert fresh.run("systemctl is-enabled ehlo-proxy-activated ehlo-proxy-25-v4.socket ehlo-proxy-25-v6.socket")
    send(fresh, server)
    assert "outcome=completed" in journal(fresh, "ehlo-proxy-activated")


def test_a_second_sigterm_ends_at_once_as_the_chapter_says(fresh: Machine, chapter: dict[str, list[str]]) -> None:
    unit = "ehlo-proxy-activated"
    with fresh.network():
        sock = socket.create_connection((SENDER, 25), 10)
    try:
        sock.recv(1024)
        sock.sendall(b"EHLO x\r\nMAIL FROM:<a@esa.com>\r\nRCPT TO:<b@domain1.com>\r\nDATA\r\n")
        wait_until(lambda: b"354" in sock.recv(4096), 10, "354")
        stopping = fresh.command(f"systemctl stop {unit}.service")
        wait_until(lambda: "draining" in fresh.run(f"systemctl status --no-pager {unit} || true"), 10, "draining")
        assert stopping.poll() is None
        fresh.run(f"systemctl kill --kill-whom=main --signal=TERM {unit}")
        stopping.communicate(timeout=10)
        assert fresh.run(f"systemctl show --value -p Result -p ExecMainStatus {unit}").split() == ["success", "0"]
    finally:
        sock.close()
