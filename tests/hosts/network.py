"""Hosts of a test's own: network namespaces on one machine, made and removed by the test.

`Host.entered` moves the calling thread into a host's network: sockets made there and programs started there belong to
that host.  Nothing here touches the machine's own network.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000
ETC = Path("/etc/netns")  # `ip netns exec` lays what is below NAME here over /etc


def missing() -> str:
    """Why namespaces can't be used here, or empty."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    programs = [name for name in ("ip", "nft") if not shutil.which(name, path=path)]
    if programs:
        return f"not installed: {', '.join(programs)}"
    probe = f"ehlo-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False, timeout=20)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "delete", probe], check=True, timeout=20)
    return ""


class Host:
    """One network namespace."""

    def __init__(self, name: str, *addresses: str) -> None:
        """`addresses` are put on its loopback, with their prefix lengths."""
        self.name = f"ehlo-{os.getpid()}-{name}"
        self.sh(f"ip netns add {self.name}")
        self.inside("echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6; ip link set lo up")
        for address in addresses:
            self.inside(
                f"ip address add {address} dev lo nodad" if ":" in address else f"ip address add {address} dev lo"
            )

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False, timeout=20)
        shutil.rmtree(ETC / self.name, ignore_errors=True)
        with contextlib.suppress(OSError):
            ETC.rmdir()

    @staticmethod
    def sh(script: str) -> str:
        done = subprocess.run(["sh", "-ec", script], capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, f"{script}\n{done.stdout.decode()}{done.stderr.decode()}"
        return done.stdout.decode()

    def inside(self, script: str) -> str:
        """Run a shell script on this host, with its own files laid over /etc; its stdout."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, "sh", "-ec", script], capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 0, f"{script}\n{done.stdout.decode()}{done.stderr.decode()}"
        return done.stdout.decode()

    def etc(self, file: str, content: str) -> None:
        """What /etc/`file` is on this host, for programs that `ip netns exec` starts."""
        (ETC / self.name).mkdir(parents=True, exist_ok=True)
        (ETC / self.name / file).write_text(content)

    def command(self, *command: str | Path) -> list[str]:
        """The command line that runs a program on this host, as a child of its own process id."""
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be on this host, for this thread."""
        with entered(Path(f"/run/netns/{self.name}")):
            yield


@contextlib.contextmanager
def entered(namespace: Path) -> Iterator[None]:
    """Be in that network, for this thread."""
    with open("/proc/thread-self/ns/net") as before, open(namespace) as here:
        _setns(here.fileno())
        try:
            yield
        finally:
            _setns(before.fileno())


def _setns(descriptor: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Network:
    """client -- router -- server, both families; the router forwards, and has the proxy."""

    CLIENT, ROUTER_IN, ROUTER_OUT, SERVER = "192.0.2.40", "192.0.2.1", "198.51.100.1", "198.51.100.10"
    CLIENT6, ROUTER_IN6, ROUTER_OUT6, SERVER6 = "2001:db8:1::40", "2001:db8:1::1", "2001:db8:2::1", "2001:db8:2::10"

    def __init__(self) -> None:
        self.hosts: list[Host] = []
        try:
            self.client, self.router, self.server = (self._host(name) for name in ("client", "router", "server"))
            self._wire(
                self.client, "eth0", (self.CLIENT, self.CLIENT6), self.router, "in", (self.ROUTER_IN, self.ROUTER_IN6)
            )
            self._wire(
                self.server,
                "eth0",
                (self.SERVER, self.SERVER6),
                self.router,
                "out",
                (self.ROUTER_OUT, self.ROUTER_OUT6),
            )
            self.client.inside(
                f"ip route add default via {self.ROUTER_IN}; ip -6 route add default via {self.ROUTER_IN6}"
            )
            self.server.inside(
                f"ip route add default via {self.ROUTER_OUT}; ip -6 route add default via {self.ROUTER_OUT6}"
            )
            self.router.inside("echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        for host in self.hosts:
            host.remove()

    def _host(self, name: str) -> Host:
        host = Host(name)
        self.hosts.append(host)
        return host

    @staticmethod
    def _wire(
        one: Host, name: str, addresses: tuple[str, str], other: Host, other_name: str, others: tuple[str, str]
    ) -> None:
        Host.sh(f"ip link add {name} netns {one.name} type veth peer name {other_name} netns {other.name}")
        for host, link, (four, six) in ((one, name, addresses), (other, other_name, others)):
            host.inside(
                f"ip address add {four}/24 dev {link}; ip address add {six}/64 dev {link} nodad; ip link set {link} up"
            )

    def addresses(self, family: int) -> tuple[str, str, str, str]:
        """Client, router towards it, router towards the server, server: of family 4 or 6."""
        if family == 4:
            return self.CLIENT, self.ROUTER_IN, self.ROUTER_OUT, self.SERVER
        return self.CLIENT6, self.ROUTER_IN6, self.ROUTER_OUT6, self.SERVER6
