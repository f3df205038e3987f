"""Real HAProxy, with the file that is shipped, in front of two proxies: addresses arrive, and one proxy may die."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.hosts.broken_server import BrokenServer
from tests.hosts.conftest import Proxy, StartProxy, StartServer, text_of
from tests.hosts.network import Host
from tests.loopback import TOP, child, wait_until

BALANCER, PROXIES, SERVER = "192.0.2.10", ("192.0.2.11", "192.0.2.12"), "192.0.2.50"
SENDERS = [f"192.0.2.{last}" for last in range(128, 152)]
MAIL = b"Subject: x\r\n\r\nbody\r\n"


@dataclass
class Site:
    """Senders, HAProxy and two proxies with one mail server, on one wire."""

    senders: Host
    balancer: Host
    inner: Host
    proxies: list[Proxy]
    server: BrokenServer


@pytest.fixture
def site(
    one_host: Callable[..., Host], start_server: StartServer, start_proxy: StartProxy, tmp_path: Path
) -> Iterator[Site]:
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if program is None:
        pytest.skip("not installed: haproxy")
    balancer, senders, inner = one_host("balancer"), one_host("senders"), one_host("inner")
    balancer.inside(f"ip link add wire type bridge; ip address add {BALANCER}/24 dev wire; ip link set wire up")
    for host, port, addresses in ((senders, "p1", SENDERS), (inner, "p2", [*PROXIES, SERVER])):
        Host.sh(f"ip link add eth0 netns {host.name} type veth peer name {port} netns {balancer.name}")
        balancer.inside(f"ip link set {port} master wire up")
        host.inside("".join(f"ip address add {one}/24 dev eth0; " for one in addresses) + "ip link set eth0 up")
    server = start_server(inner, (SERVER, 25))
    proxies = [
        start_proxy(
            inner,
            f'listen = ["{address}:2525"]\ndestination = ["{SERVER}:25"]\nproxy_protocol = true\n'
            f'trusted_proxies = ["{BALANCER}/32"]\nallow_clients = ["192.0.2.128/25"]\n'
            f'[route.repair]\nadd = ["XPROXY{number}"]\n',
            more=f'[admin]\nhealth_listen = "{address}:9926"',
        )
        for number, address in enumerate(PROXIES)
    ]
    log = tmp_path / "haproxy.log"
    with child(balancer.command(program, "-db", "-f", TOP / "config" / "haproxy.cfg"), log):
        with senders.entered():
            wait_until(lambda: _answers((BALANCER, 25)), 15, "HAProxy answers")
        yield Site(senders, balancer, inner, proxies, server)


def _answers(address: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, 2) as sock:
        return sock.recv(100).startswith(b"220")
    return False


@dataclass
class Load:
    """Senders that send one mail after the other; while `hold` is set they stop before DATA, until `go`."""

    hold: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    stop: threading.Event = field(default_factory=threading.Event)
    held: list[bytes] = field(default_factory=list)  # through which proxy
    broken: list[bytes] = field(default_factory=list)
    completed: list[bytes] = field(default_factory=list)

    def run(self, source: str) -> None:
        while not self.stop.is_set():
            proxy = [b"before the EHLO reply"]
            try:
                self.one(source, proxy)
                self.completed.append(proxy[0])
            except OSError:
                self.broken.append(proxy[0])

    def one(self, source: str, proxy: list[bytes]) -> None:
        with socket.create_connection((BALANCER, 25), 20, (source, 0)) as sock, sock.makefile("rb") as lines:

            def say(command: bytes) -> bytes:
                sock.sendall(command)
                return said(b"")

            def said(reply: bytes) -> bytes:
                while True:
                    line = lines.readline()
                    if not line.endswith(b"\r\n") or line.startswith(b"421"):
                        raise ConnectionError(line)
                    reply += line
                    if line[3:4] == b" ":
                        return reply

            said(b"")
            proxy[0] = next(line[4:11] for line in say(b"EHLO x\r\n").split(b"\r\n") if line[4:].startswith(b"XPROXY"))
            say(b"MAIL FROM:<a@x>\r\n")
            say(b"RCPT TO:<b@y>\r\n")
            if self.hold.is_set():
                self.held.append(proxy[0])
                self.go.wait(30)
            say(b"DATA\r\n")
            assert say(MAIL + b".\r\n").startswith(b"250")
            say(b"QUIT\r\n")


@contextlib.contextmanager
def under_load(host: Host) -> Iterator[Load]:
    load = Load()
    threads = [threading.Thread(target=load.run, args=(source,), daemon=True) for source in SENDERS]
    with host.entered():  # a thread stays where it was started
        for thread in threads:
            thread.start()
    try:
        yield load
    finally:
        load.stop.set()
        load.go.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()


def held_by(proxy: Proxy) -> int:
    """Sessions that began and did not end."""
    return len(proxy.events("session-start")) - len(proxy.events("session-end"))


def test_one_proxy_killed_under_load_breaks_exactly_the_sessions_that_it_held(site: Site) -> None:
    with under_load(site.senders) as load:
        wait_until(lambda: len(load.completed) > 50, 20, "sessions through both")
        load.hold.set()
        wait_until(lambda: len(load.held) == len(SENDERS), 20, "everybody in the middle of a session")
        assert load.broken == []
        on_first = load.held.count(b"XPROXY0")
        assert 0 < on_first < len(SENDERS)
        wait_until(lambda: held_by(site.proxies[0]) == on_first, 5, "the proxy's own count is the same")
        site.proxies[0].process.kill()
        site.proxies[0].process.wait(10)
        before = len(load.completed)
        load.hold.clear()
        load.go.set()
        wait_until(lambda: len(load.completed) - before > 100, 20, "new sessions go on")
    assert load.broken == [b"XPROXY0"] * on_first
    assert set(load.completed[:before]) == {b"XPROXY0", b"XPROXY1"}
    assert set(load.completed[before:]) == {b"XPROXY1"}
    assert len(site.server.mails) == len(load.completed)


def test_the_sender_s_address_arrives_and_is_the_one_that_counts(site: Site) -> None:
    with under_load(site.senders) as load:
        wait_until(lambda: len(load.completed) > 3 * len(SENDERS), 20, "sessions of all")
    assert load.broken == []
    started = [event for proxy in site.proxies for event in proxy.events("session-start")]
    seen = {event["client"].rpartition(":")[0] or event["client"] for event in started}
    assert set(SENDERS) <= seen
    assert BALANCER not in seen  # neither as a client nor for its health checks
    with site.balancer.entered(), socket.create_connection((BALANCER, 25), 10) as sock:  # not in allow_clients
        assert text_of(sock.recv(1000)).startswith("4.7.1 ")


def test_a_proxy_that_is_stopped_lets_its_sessions_come_to_their_end(site: Site) -> None:
    with under_load(site.senders) as load:
        wait_until(lambda: len(load.completed) > 20, 20, "sessions through both")
        load.hold.set()
        wait_until(lambda: len(load.held) == len(SENDERS), 20, "everybody in the middle of a session")
        site.proxies[0].process.send_signal(signal.SIGTERM)
        site.proxies[0].await_event("drain")
        time.sleep(0.5)
        assert site.proxies[0].process.poll() is None
        before = len(load.completed)
        load.hold.clear()
        load.go.set()
        wait_until(lambda: len(load.completed) - before > 100, 20, "new sessions go on")
        assert site.proxies[0].process.wait(10) == 0
    assert load.broken == []


def test_a_header_from_a_stranger_is_an_unknown_command_of_his(site: Site) -> None:
    forged = b"PROXY TCP4 192.0.2.200 192.0.2.10 4000 25\r\n"
    with (
        site.senders.entered(),
        socket.create_connection((PROXIES[0], 2525), 10, (SENDERS[0], 0)) as sock,
    ):
        sock.sendall(forged)
        assert sock.recv(1000).startswith(b"220 ")
        assert sock.recv(1000).startswith(b"250 ")  # what this server says to anything
        sock.sendall(b"QUIT\r\n")
        assert sock.recv(1000).startswith(b"221 ")
    wait_until(lambda: held_by(site.proxies[0]) == 0, 5, "the session has ended")
    assert {end["client"] for end in site.proxies[0].events("session-end")} == {SENDERS[0]}
    assert forged in [session.header for session in site.server.sessions]
    with site.balancer.entered(), socket.create_connection((PROXIES[0], 2525), 10) as sock:
        sock.sendall(b"EHLO trusted.but.without.a.header\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1000) == b""  # closed without a word
