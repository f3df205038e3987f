"""The host's own addresses, from what the kernel shows of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest

from proxy.net.going_out.own_addresses import own_addresses

FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.2
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
"""
IF_INET6 = """00000000000000000000000000000001 01 80 10 80       lo
fe8000000000000000fc00fffe000001 02 40 20 80     eth0
20010db8000000000000000000000002 02 40 00 80     eth0
"""


def test_local_addresses_are_read_and_no_network_or_broadcast(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    (tmp_path / "if_inet6").write_text(IF_INET6)
    expected = ["192.0.2.2", "127.0.0.1", "::1", "fe80::fc:ff:fe00:1", "2001:db8::2"]
    assert own_addresses(str(tmp_path)) == {ip_address(one) for one in expected}


def test_a_host_without_ipv6_or_proc_has_what_can_be_read(tmp_path: Path) -> None:
    assert own_addresses(str(tmp_path)) == frozenset()
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    assert own_addresses(str(tmp_path)) == {ip_address("192.0.2.2"), ip_address("127.0.0.1")}


def test_it_agrees_with_ip_address_show() -> None:
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed")
    shown = json.loads(subprocess.run(["ip", "-j", "address"], capture_output=True, check=True, timeout=10).stdout)
    expected = {ip_address(one["local"]) for link in shown for one in link.get("addr_info", ()) if "local" in one}
    assert own_addresses() >= expected
