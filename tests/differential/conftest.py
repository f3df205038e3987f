"""The reference servers, the proxy in front of each, and what every script brings with and without it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.certificates import NAME
from tests.clients.lab import make_certificates
from tests.differential import play, references
from tests.differential.breaker import Breaker
from tests.differential.play import Script, Seen
from tests.differential.references import Reference
from tests.differential.scripts import WAYS
from tests.loopback import public_folder
from tests.proxy_process import Config, Running, bridge_in, route, running_proxy
from tests.scripted import ScriptedServer, together

NAMES = ("postfix", "aiosmtpd", "smtp-sink")
AT_ONCE = 48


@dataclass
class Compared:
    """What one script brought: directly, and through the proxy."""

    direct: Seen
    proxied: Seen
    direct_mails: list[str]
    proxied_mails: list[str]


@dataclass
class Lab:
    """The servers that could be had, and the proxy: a route `NAME` to each, `NAME-broken` and `NAME-bridge`."""

    servers: dict[str, Reference]
    running: Running
    breakers: dict[str, ScriptedServer]
    context: ssl.SSLContext
    _compared: dict[tuple[str, str], dict[str, Compared]] = field(default_factory=dict)

    def server(self, name: str) -> Reference:
        if name not in self.servers:
            pytest.skip(references.missing(name))
        return self.servers[name]

    def compared(self, name: str, way: str) -> dict[str, Compared]:
        """What each script brought; at the first call all of them run, side by side."""
        self.server(name)
        if not self._compared:
            self._play_all()
        return self._compared[name, way]

    def _play_all(self) -> None:
        runs = [
            (one, way, name, script)
            for one in self.servers.values()
            for way, scripts in WAYS.items()
            if one.has_tls or way == "clear"
            for name, script in scripts.items()
        ]
        seen = together([partial(self._both, *run) for run in runs], AT_ONCE)
        kept = {one.name: one.mails() for one in self.servers.values()}
        for (one, way, name, _script), both in zip(runs, seen, strict=True):
            marks = self._marks(way, name)
            found = Compared(*both, *(kept[one.name].get(mark, []) for mark in marks))
            self._compared.setdefault((one.name, way), {})[name] = found

    @staticmethod
    def _marks(way: str, name: str) -> tuple[str, str]:
        """Of the two runs, of one length."""
        number = list(WAYS[way]).index(name)
        return f"d{way[0]}{number}", f"p{way[0]}{number}"

    def _both(self, reference: Reference, way: str, name: str, script: Script) -> tuple[Seen, Seen]:
        direct = self.breakers[reference.name].port if way == "broken" else reference.port
        proxied = self.running.port_of(reference.name + {"broken": "-broken", "bridge": "-bridge"}.get(way, ""))
        with_mark, with_other = (play.marked(script, mark.encode()) for mark in self._marks(way, name))
        first = play.alone(direct, with_mark, self.context)
        if all(reference.repaired):
            first = first.repaired(script, *reference.repaired)
        return first, play.like(first, proxied, with_other, self.context)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with ExitStack() as stack:
        folder = stack.enter_context(public_folder())  # Postfix and smtp-sink run as other users
        certificates = make_certificates(folder)
        servers = {
            name: stack.enter_context(references.running(name, folder, certificates))
            for name in NAMES
            if not references.missing(name)
        }
        with_tls = [one for one in servers.values() if one.has_tls]
        breakers = {one.name: stack.enter_context(ScriptedServer(Breaker(one.port))) for one in with_tls}
        context = ssl.create_default_context(cafile=str(certificates.ca))
        context.check_hostname = False  # NAME is in the certificate; the proxy's own tests check it
        running = stack.enter_context(running_proxy({"route": _routes(servers, breakers, folder)}))
        yield Lab(servers, running, breakers, context)


def _routes(servers: dict[str, Reference], breakers: dict[str, ScriptedServer], folder: Path) -> list[Config]:
    bridge = bridge_in(folder, NAME)
    return [
        # smtp-sink offers XCLIENT to everyone, so its clients have to be trusted ones.
        *(route(one.port, name=one.name, trusted_proxies=["127.0.0.1"]) for one in servers.values()),
        *(route(server.port, name=f"{name}-broken") for name, server in breakers.items()),
        *(route(one.port, name=f"{one.name}-bridge", tls=bridge) for one in servers.values() if one.has_tls),
    ]
