"""Hosts, a broken server and a proxy for the tests over several hosts."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests import certificates
from tests.hosts.broken_server import BrokenServer
from tests.hosts.network import Host, Network, missing
from tests.loopback import TOP, child, wait_until

START = 20.0  # seconds until a proxy is ready


@pytest.fixture(scope="session")
def namespaces() -> None:
    why = missing()
    if why:
        pytest.skip(why)


@pytest.fixture
def network(namespaces: None) -> Iterator[Network]:
    network = Network()
    yield network
    network.remove()


@pytest.fixture
def one_host(namespaces: None) -> Iterator[Callable[..., Host]]:
    """Makes hosts of their own, with the given addresses."""
    hosts: list[Host] = []

    def make(name: str, *addresses: str) -> Host:
        hosts.append(Host(name, *addresses))
        return hosts[-1]

    yield make
    for host in hosts:
        host.remove()


@pytest.fixture(scope="session")
def server_tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """What the real server shows: a good certificate for mail.domain1.com."""
    paths = certificates.make("good").write(tmp_path_factory.mktemp("server"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(paths.certificate, paths.key)
    return context


@pytest.fixture(scope="session")
def client_tls() -> ssl.SSLContext:
    """A client that trusts the server's authority only, and checks names."""
    return ssl.create_default_context(cadata=certificates.root().pem.decode())


class StartServer(Protocol):
    def __call__(self, host: Host, *addresses: tuple[str, int], **options: Any) -> BrokenServer: ...


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    servers: list[BrokenServer] = []

    def start(host: Host, *addresses: tuple[str, int], **options: Any) -> BrokenServer:
        with host.entered():
            servers.append(BrokenServer(*addresses, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class Proxy:
    """A running `ehlo-proxy run`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log's events of that name."""
        lines = self.log.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [event for event in events if event["event"] == name]

    def await_event(self, name: str, number: int = 1, seconds: float = 10.0) -> list[dict[str, Any]]:
        def look() -> list[dict[str, Any]]:
            found = self.events(name)
            return found if len(found) >= number else []

        return wait_until(look, seconds, f"{number} {name} in\n{self.log.read_text()}")


class StartProxy(Protocol):
    def __call__(self, host: Host, route: str, *, more: str = "", prefix: tuple[str, ...] = ()) -> Proxy: ...


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[StartProxy]:
    """Starts proxies; `route` is the route's table, `more` what stands in front of it, `prefix` runs the command."""
    with contextlib.ExitStack() as stack:
        count = 0

        def start(host: Host, route: str, *, more: str = "", prefix: tuple[str, ...] = ()) -> Proxy:
            nonlocal count
            count += 1
            config, log = tmp_path / f"proxy{count}.toml", tmp_path / f"proxy{count}.log"
            config.write_text(f'[log]\nformat = "json"\nlevel = "debug"\n{more}\n[[route]]\nname = "r"\n{route}\n')
            tmp_path.chmod(0o755)
            command = host.command(*prefix, sys.executable, "-m", "proxy", "run", "--config", config)
            proxy = Proxy(stack.enter_context(child(command, log)), log)
            wait_until(lambda: proxy.events("ready") or proxy.process.poll() is not None, START, "ready")
            assert proxy.process.poll() is None, log.read_text()
            return proxy

        yield start


def nftables(name: str) -> Path:
    """One of the files that the package ships."""
    return TOP / "config" / "nftables" / name


def text_of(reply: bytes) -> str:
    """A 421's status and text."""
    found = re.match(rb"421 (.*)\r\n\Z", reply)
    assert found, reply
    return found[1].decode()
