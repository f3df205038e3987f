"""docs/renewal.md with the real certbot: a certificate from an ACME server, and its renewal by both hooks.

The ACME server is Pebble, Let's Encrypt's own for tests, from Debian's package; it asks nobody for proof here.  certbot
comes from PyPI, since Debian 12's knows no `reconfigure`.  Both are fetched when the test runs, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import smtplib
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.x509 import DNSName, SubjectAlternativeName, load_der_x509_certificate

from tests.certificates import root
from tests.loopback import wait_until
from tests.pages import block
from tests.systemd.machine import Machine
from tests.systemd.senders import Senders
from tests.systemd.test_drop_ins import OWN, serve

pytestmark = [pytest.mark.systemd, pytest.mark.root, pytest.mark.alone]

CERTBOT = "/opt/certbot/bin/certbot"
NAME = "mail.example.com"
PEBBLE = {
    "listenAddress": "127.0.0.1:14000",
    "managementListenAddress": "127.0.0.1:15000",
    "certificate": "/root/acme/server.pem",
    "privateKey": "/root/acme/server.key",
    "httpPort": 5002,
    "tlsPort": 5001,
}


def fetched(folder: Path) -> tuple[bytes, list[Path]]:
    """Pebble's program, and the wheels of certbot; skips where they can't be had."""
    wheels = folder / "wheels"
    for command in (
        ["apt-get", "download", "-qq", "pebble"],
        [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--python-version=3.11",
         "--platform=manylinux2014_x86_64", "--platform=manylinux_2_28_x86_64", "--platform=manylinux_2_34_x86_64",
         "--dest", str(wheels), "certbot"],
    ):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=300)
        if done.returncode:
            pytest.skip(f"{' '.join(command[:4])}: {done.stderr.strip()[-200:]}")
    (package,) = folder.glob("pebble_*.deb")
    subprocess.run(["dpkg", "-x", str(package), str(folder / "pebble")], check=True, timeout=60)
    return (folder / "pebble/usr/bin/pebble").read_bytes(), [*wheels.iterdir()]


def shown(machine: Machine) -> int:
    """The serial number of the certificate that a client is shown; it is for the name."""
    with machine.network(), smtplib.SMTP("127.0.0.1", 25, timeout=20) as client:
        client.ehlo("renewal.example")
        client.starttls(context=ssl._create_unverified_context())  # Pebble's root is new at each start
        assert isinstance(client.sock, ssl.SSLSocket)
        der = client.sock.getpeercert(True)
    assert der is not None
    certificate = load_der_x509_certificate(der)
    names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value.get_values_for_type(DNSName)
    assert names == [NAME]
    return certificate.serial_number


def answers(machine: Machine) -> bool:
    with machine.network(), contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 14000), 1):
        return True
    return False


def test_certbot_renews_and_its_hooks_reload_without_a_refused_connection(machine: Machine, tmp_path: Path) -> None:
    pebble, wheels = fetched(tmp_path)
    machine.write("/usr/local/bin/pebble", pebble, 0o755)
    for wheel in wheels:
        machine.write(f"/root/certbot/{wheel.name}", wheel.read_bytes())
    machine.run("python3 -m venv /opt/certbot", 120)
    machine.run("/opt/certbot/bin/pip install -q --no-index --find-links=/root/certbot certbot", 240)
    machine.run(f"ln -sf {CERTBOT} /usr/local/bin/certbot")
    pair = root().issue("localhost", "127.0.0.1")
    machine.write(PEBBLE["certificate"], pair.certificate_pem)  # type: ignore[arg-type]
    machine.write(PEBBLE["privateKey"], pair.key_pem)  # type: ignore[arg-type]
    machine.write("/root/acme/ca.pem", root().pem)
    machine.write("/root/acme/pebble.json", json.dumps({"pebble": PEBBLE}))
    settings = "-E PEBBLE_VA_ALWAYS_VALID=1 -E PEBBLE_VA_NOSLEEP=1 -E PEBBLE_WFE_NONCEREJECT=0"
    machine.run(f"systemd-run -q --unit=pebble {settings} /usr/local/bin/pebble -config /root/acme/pebble.json")
    wait_until(lambda: answers(machine), 20, "Pebble listens")
    trust = {"REQUESTS_CA_BUNDLE": "/root/acme/ca.pem"}
    machine.run(
        f"certbot certonly -n --standalone --http-01-port 5002 --server https://127.0.0.1:14000/dir --agree-tos "
        f"--register-unsafely-without-email -d {NAME}", 120, **trust,
    )  # fmt: skip
    machine.run(block("docs/renewal.md", "install -d -m 700 /etc/ehlo-proxy/tls").text, 120, **trust)
    serve(machine, OWN)
    first, pid = shown(machine), machine.main_pid(OWN)
    with Senders(machine, 50) as senders:
        machine.run("certbot renew -n --force-renewal --no-random-sleep-on-renew", 120, **trust)
        wait_until(lambda: shown(machine) != first, 10, "the renewed certificate, by the hook of `reconfigure`")
        second = shown(machine)
        machine.run(f"sed -i /renew_hook/d /etc/letsencrypt/renewal/{NAME}.conf")
        machine.run("certbot renew -n --force-renewal --no-random-sleep-on-renew", 120, **trust)
        assert shown(machine) == second, "no hook, no reload"
        machine.run(block("docs/renewal.md", "cat >/etc/letsencrypt").text)
        machine.run("certbot renew -n --force-renewal --no-random-sleep-on-renew", 120, **trust)
        wait_until(lambda: shown(machine) not in (first, second), 10, "the renewed certificate, by the hook in a file")
    assert senders.ended == {"completed": senders.ended["completed"]}
    assert (machine.main_pid(OWN), machine.show(OWN, "NRestarts")) == (pid, "0")
    assert machine.events(OWN, "reload-failed") == []
