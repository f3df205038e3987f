"""The drop-ins with the real systemd: bridge mode with keys as credentials, interception, recorded transcripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.tools.strict_client import StrictClient
from tests import certificates
from tests.loopback import TOP, wait_until
from tests.systemd.conftest import CERTIFICATE, FAR, IN_FAR, MAIL, MAKE_FAR, start_server
from tests.systemd.machine import CONFIGURATION, PREFIX, Machine

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
certificate = "/run/credentials/{unit}/tls-certificate"
key = "/run/credentials/{unit}/tls-key"
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


@pytest.mark.parametrize("unit", [OWN, ACTIVATED])
def test_bridge_mode_has_its_key_from_root_alone(machine: Machine, unit: str, tmp_path: Path) -> None:
    ours = certificates.make("good")
    machine.write("/etc/ehlo-proxy/tls/certificate.pem", ours.certificate_pem)
    machine.write("/etc/ehlo-proxy/tls/key.pem", ours.key_pem, 0o600)
    machine.run("chmod 700 /etc/ehlo-proxy/tls")
    machine.write("/etc/ehlo-proxy/server-ca.pem", machine.path(CERTIFICATE).read_bytes())
    machine.write(CONFIGURATION, ROUTE.format(listen=LISTEN[unit]) + BRIDGE.format(unit=unit))
    machine.drop_in(unit, "bridge")
    machine.start(unit)
    send(machine, certificates.root().pem.decode())
    (end,) = machine.events(unit, "session-end")
    assert "tls=bridge" in end
    assert "outcome=completed" in end
    (saved,) = machine.path(MAIL).iterdir()
    assert saved.read_bytes().endswith(MESSAGE)
    uid = machine.run(f"awk '/^Uid/ {{print $2}}' /proc/{machine.main_pid(unit)}/status")
    machine.run(f"setpriv --reuid={uid} --regid={uid} --clear-groups cat /etc/ehlo-proxy/tls/key.pem", fails=True)

    machine.run(f"systemctl reload {unit}")
    wait_until(lambda: machine.events(unit, "reload"), 10, "a reload")
    renewed = certificates.make("good")
    machine.write("/etc/ehlo-proxy/tls/certificate.pem", renewed.certificate_pem)
    machine.run(f"systemctl restart {unit}")
    send(machine, certificates.root().pem.decode())
    machine.run(f"systemctl stop {unit}; test ! -e /run/credentials/{unit}/tls-key")


def test_bridge_mode_without_its_drop_in_says_what_is_missing(machine: Machine) -> None:
    ours = certificates.make("good")
    machine.write("/etc/ehlo-proxy/certificate.pem", ours.certificate_pem)
    machine.write("/etc/ehlo-proxy/key.pem", ours.key_pem)
    bridge = BRIDGE.replace("/run/credentials/{unit}/tls-", "/etc/ehlo-proxy/")
    bridge = bridge.replace("proxy/certificate", "proxy/certificate.pem").replace("proxy/key", "proxy/key.pem")
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
        assert f"client=192.0.2.1 destination={FAR}:25 outcome=completed" in end
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
