"""The drop-ins with the real systemd: bridge mode with a key that stays root's, interception, recorded transcripts."""

from __future__ import annotations

import smtplib
import ssl

import pytest
from cryptography.x509 import load_pem_x509_certificate

from proxy.tools.strict_client import StrictClient
from tests import certificates
from tests.loopback import TOP, wait_until
from tests.systemd.conftest import CERTIFICATE, FAR, IN_FAR, MAIL, MAKE_FAR, start_server
from tests.systemd.machine import CONFIGURATION, PREFIX, Machine
from tests.systemd.senders import Senders

pytestmark = [pytest.mark.systemd, pytest.mark.root, pytest.mark.alone]

OWN, ACTIVATED = "ehlo-proxy.service", "ehlo-proxy-activated.service"
LISTEN = {
    OWN: '["0.0.0.0:25", "[::]:25"]',
    ACTIVATED: '["systemd:ehlo-proxy-25-v4", "systemd:ehlo-proxy-25-v6"]',
}
ROUTE = """
[[route]]
name = "domain1"
listen = {listen}
destination = ["127.0.0.1:2530"]
"""
BRIDGE = """
[route.tls]
mode = "bridge"
verify_name = "mail.domain1.com"
ca_file = "/etc/ehlo-proxy/server-ca.pem"
certificate = "/run/ehlo-proxy-tls/certificate.pem"
key = "/run/ehlo-proxy-tls/key.pem"
"""
MESSAGE = b"Subject: hello\r\n\r\nThrough port 25.\r\n"


INTERCEPTED = """
[[route]]
name = "all"
listen = ["127.0.0.1:2525", "[::1]:2525"]
destination = ["original"]
allow_clients = ["192.0.2.1"]
"""


def send(machine: Machine, ca: str, host: str = "127.0.0.1") -> None:
    with machine.network():
        sent = StrictClient(host, 25, "mail.domain1.com", ca).send("a@esa.com", "b@domain1.com", MESSAGE)
    assert sent.sent, sent


PEER = "/root/peer"  # what a certificate authority's program would keep, as certbot does: links to the newest pair


def renew(machine: Machine, *, fits: bool = True) -> str:
    """Another pair where the program of the authority keeps it; its serial number."""
    made, other = (certificates.root().issue(certificates.NAME) for _ in range(2))
    machine.write(f"{PEER}/fullchain.pem", made.certificate_pem)
    machine.write(f"{PEER}/privkey.pem", (made if fits else other).key_pem, 0o600)
    return serial(made.certificate_pem)


def serial(pem: str | bytes) -> str:
    return str(load_pem_x509_certificate(pem.encode() if isinstance(pem, str) else pem).serial_number)


def shown(machine: Machine) -> str:
    """The serial number of the certificate that a client is shown."""
    context = ssl.create_default_context(cadata=certificates.root().pem.decode())
    with machine.network(), smtplib.SMTP("127.0.0.1", 25, timeout=20) as client:
        client.ehlo("renewal.example")
        context.check_hostname = False
        client.starttls(context=context)
        assert isinstance(client.sock, ssl.SSLSocket)
        der = client.sock.getpeercert(True)
        assert der is not None
        return serial(ssl.DER_cert_to_PEM_cert(der))


def bridge(machine: Machine, unit: str, *, workers: int = 1) -> str:
    """Bridge mode running; the serial number of its certificate."""
    first = renew(machine)
    machine.run(f"chmod 700 {PEER}; mkdir -p /etc/ehlo-proxy/tls; chmod 700 /etc/ehlo-proxy/tls")
    machine.run(f"ln -sf {PEER}/fullchain.pem /etc/ehlo-proxy/tls/certificate.pem")
    machine.run(f"ln -sf {PEER}/privkey.pem /etc/ehlo-proxy/tls/key.pem")
    serve(machine, unit, workers)
    return first


def serve(machine: Machine, unit: str, workers: int = 1) -> None:
    """The service in bridge mode, running."""
    machine.write("/etc/ehlo-proxy/server-ca.pem", machine.path(CERTIFICATE).read_bytes())
    head = f'[service]\nworkers = {workers}\n[admin]\nlisten = "127.0.0.1:9925"\n'
    machine.write(CONFIGURATION, head + ROUTE.format(listen=LISTEN[unit]) + BRIDGE)
    machine.drop_in(unit, "bridge")
    machine.start(unit)


@pytest.mark.parametrize("unit", [OWN, ACTIVATED])
def test_bridge_mode_has_its_key_from_root_alone(machine: Machine, unit: str) -> None:
    bridge(machine, unit)
    send(machine, certificates.root().pem.decode())
    (end,) = machine.events(unit, "session-end")
    assert "tls=bridge" in end
    assert "outcome=completed" in end
    (saved,) = machine.path(MAIL).iterdir()
    assert saved.read_bytes().endswith(MESSAGE)
    uid = machine.run(f"awk '/^Uid/ {{print $2}}' /proc/{machine.main_pid(unit)}/status")
    service = f"setpriv --reuid={uid} --regid={uid} --clear-groups"
    other = "setpriv --reuid=1234 --regid=1234 --clear-groups"
    machine.run(f"{service} cat /run/ehlo-proxy-tls/key.pem")
    for who, what in (
        (service, "cat /etc/ehlo-proxy/tls/key.pem"),
        (service, "touch /run/ehlo-proxy-tls/key.pem"),
        (service, "ln -s /etc/shadow /run/ehlo-proxy-tls/key.new"),
        (other, "cat /run/ehlo-proxy-tls/key.pem"),
        (other, "ls /run/ehlo-proxy-tls"),
    ):
        machine.run(f"{who} {what}", fails=True)
    machine.run(f"systemctl stop {unit}; test ! -e /run/ehlo-proxy-tls")


@pytest.mark.parametrize(("unit", "workers"), [(OWN, 1), (OWN, 2), (ACTIVATED, 1)])
def test_a_renewal_is_a_reload(machine: Machine, unit: str, workers: int) -> None:
    """As docs/renewal.md says: no restart, no connection refused; and a pair that does not fit changes nothing."""
    first = bridge(machine, unit, workers=workers)
    pid = machine.main_pid(unit)
    assert shown(machine) == first
    with Senders(machine, 50) as senders:
        second = renew(machine)
        machine.run(f"systemctl reload {unit}")
        wait_until(lambda: shown(machine) == second, 10, "the new certificate")
        renew(machine, fits=False)
        told = machine.run(f"systemctl reload {unit}", fails=True)
        assert f"Job for {unit} failed" in told
        assert [shown(machine) for _ in range(4)] == [second] * 4
        assert "the last reload failed" in machine.show(unit, "StatusText")
        assert len(machine.events(unit, "reload-failed")) == 1
        third = renew(machine)
        machine.run(f"systemctl reload {unit}")
        wait_until(lambda: shown(machine) == third, 10, "the newest certificate")
        wait_until(lambda: "failed" not in machine.show(unit, "StatusText"), 10, "a status without it")
    assert senders.ended == {"completed": senders.ended["completed"]}
    assert (machine.main_pid(unit), machine.show(unit, "NRestarts")) == (pid, "0")


def test_bridge_mode_without_its_drop_in_says_what_is_missing(machine: Machine) -> None:
    ours = certificates.make("good")
    machine.write("/etc/ehlo-proxy/certificate.pem", ours.certificate_pem)
    machine.write("/etc/ehlo-proxy/key.pem", ours.key_pem)
    bridge = BRIDGE.replace("/run/ehlo-proxy-tls/", "/etc/ehlo-proxy/")
    machine.write("/etc/ehlo-proxy/server-ca.pem", machine.path(CERTIFICATE).read_bytes())
    machine.write(CONFIGURATION, ROUTE.format(listen=LISTEN[OWN]) + bridge)
    machine.run(f"systemctl start {OWN}", fails=True)
    told = machine.run(f"journalctl --sync; journalctl --no-pager -o cat -u {OWN}")
    assert "MemoryDenyWriteExecute" in told


def test_interception_takes_the_hosts_own_mail_and_lets_its_own_connections_out(machine: Machine) -> None:
    """A sender on the same host, the packet filter as it is shipped, and a server on a host of its own."""
    machine.run(MAKE_FAR)
    try:
        certificate = start_server(machine, "far-server", f"{FAR}:25", IN_FAR)
        machine.run("systemd-sysusers")
        machine.write(CONFIGURATION, INTERCEPTED)
        machine.drop_in(OWN, "interception")
        machine.start(OWN)
        machine.write("/root/redirect-local.nft", (TOP / "config/nftables/redirect-local.nft").read_text())
        machine.run("nft -f /root/redirect-local.nft")
        pid = machine.main_pid(OWN)
        assert machine.run(f"stat -c %U /proc/{pid}") == "ehlo-proxy"
        capabilities = machine.run(f"awk '/^CapEff/ {{print $2}}' /proc/{pid}/status")
        assert int(capabilities, 16) == 1 << 10 | 1 << 13, "CAP_NET_BIND_SERVICE, and CAP_NET_RAW"
        send(machine, machine.path(certificate).read_text(), FAR)
        (end,) = machine.events(OWN, "session-end")
        for told in ("client=192.0.2.1", f"destination={FAR}:25", "outcome=completed"):
            assert f" {told} " in end
        assert "ehlo=repaired" in end
    finally:
        machine.run("systemctl stop far-server; nft delete table inet ehlo_proxy; ip netns delete far")
        machine.run(f"systemctl stop {OWN}; userdel ehlo-proxy")  # else DynamicUser= takes it for its own


def test_transcripts_are_written_where_only_root_can_read_them(machine: Machine) -> None:
    machine.write(
        CONFIGURATION, ROUTE.format(listen=LISTEN[OWN]) + '[route.record]\ndirectory = "/var/lib/ehlo-proxy"\n'
    )
    machine.drop_in(OWN, "record")
    machine.start(OWN)
    send(machine, machine.path(CERTIFICATE).read_text())
    machine.run(f"systemctl stop {OWN}")
    (transcript,) = machine.run("ls /var/lib/private/ehlo-proxy").split()
    told = machine.run(f"{PREFIX}/bin/ehlo-proxy replay /var/lib/private/ehlo-proxy/{transcript}")
    assert "250-mail.domain1.com" in told
    machine.run("setpriv --reuid=1234 --regid=1234 --clear-groups ls /var/lib/ehlo-proxy/", fails=True)
