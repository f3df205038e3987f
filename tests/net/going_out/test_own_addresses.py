"""The host's own addresses, as the kernel answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest

from proxy.net.going_out.own_addresses import OwnAddresses

TOP = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "192.0.2.1", "255.255.255.255", "224.0.0.1", "2001:db8::77", "ff02::1"]
)
def test_loopback_is_ours_and_what_is_elsewhere_is_not(address: str) -> None:
    assert (ip_address(address) in OwnAddresses()) is (address == "127.0.0.1")


def test_what_is_no_address_is_not_ours() -> None:
    assert "127.0.0.1" not in OwnAddresses()


def test_it_agrees_with_ip_address_show() -> None:
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed")
    shown = json.loads(subprocess.run(["ip", "-j", "address"], capture_output=True, check=True, timeout=10).stdout)
    expected = {ip_address(one["local"]) for link in shown for one in link.get("addr_info", ()) if "local" in one}
    assert [one for one in expected if not one.is_link_local and one not in OwnAddresses()] == []


MANY_ROUTES = """
import subprocess, time
from ipaddress import ip_address
from proxy.net.going_out.own_addresses import OwnAddresses
subprocess.run("ip link set lo up; ip link add d0 type veth peer name d1; ip link set d1 up; "
    "ip addr add 198.51.100.1/24 dev d0; "
    "ip addr add 2001:db8::1/64 dev d0 nodad; ip link set d0 up", shell=True, check=True)
batch = "\\n".join(f"route add 10.{n >> 8}.{n & 255}.0/24 dev d0" for n in range(20000))
subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
own = OwnAddresses()
assert ip_address("198.51.100.1") in own and ip_address("2001:db8::1") in own
assert ip_address("198.51.100.2") not in own and ip_address("10.1.2.3") not in own
began = time.perf_counter()
for _ in range(100):
    ip_address("10.1.2.3") in own
print((time.perf_counter() - began) / 100)
"""


@pytest.mark.root
def test_it_costs_the_same_on_a_host_with_many_routes() -> None:
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("iproute2 or util-linux is not installed")
    command = ["unshare", "-n", sys.executable, "-c", MANY_ROUTES.replace("\\\\n", "\\n")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=TOP)
    if "is unknown" in done.stderr or "Operation not permitted" in done.stderr:
        pytest.skip(f"no network namespace or veth: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.001 * float(os.environ.get("EHLO_SLOW_MACHINE", "1"))
