"""Many scripted servers behind one proxy process, a route for each: a table of cases costs one start.

CASES = {"late banner": Case(silent, timeouts={"banner": 0.4}), ...}

@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with open_lab(CASES) as lab:
        yield lab

with lab.connect("late banner") as client: ...
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.certificates import make, root
from tests.proxy_process import Config, Event, Running, route, running_proxy
from tests.scripted import Peer, Script, ScriptedServer, connect, servers


@dataclass(frozen=True)
class Case:
    """A server's script, and the settings of its route; `second` is the script of a second destination."""

    script: Script
    second: Script | None = None
    keys: tuple[tuple[str, Any], ...] = ()


def case(script: Script, second: Script | None = None, **keys: Any) -> Case:
    return Case(script, second, tuple(keys.items()))


class Lab:
    """The running proxy, and where each case is."""

    def __init__(self, running: Running, found: Mapping[str, list[ScriptedServer]]) -> None:
        self.running = running
        self.servers = found

    def server(self, name: str) -> ScriptedServer:
        return self.servers[name][0]

    def port(self, name: str) -> int:
        return self.running.port_of(name)

    def connect(self, name: str, **keys: Any) -> Peer:
        return connect(self.port(name), **keys)

    def where(self, name: str, number: int = 0) -> str:
        """How the proxy names the destination of a case in its replies."""
        return f"127.0.0.1 port {self.servers[name][number].port}"

    def end(self, name: str, **fields: Any) -> Event:
        """The end of a session on that case's route."""
        return self.running.wait_for("session-end", route=name, **fields)


@contextmanager
def open_lab(cases: Mapping[str, Case], more: Sequence[Config] = (), **tables: Any) -> Iterator[Lab]:
    """Everything running; `more` are routes of other servers, `tables` other tables of the configuration."""
    scripts = [script for one in cases.values() for script in (one.script, one.second) if script is not None]
    with servers(scripts) as made:
        left = iter(made)
        found = {name: [next(left) for script in (one.script, one.second) if script] for name, one in cases.items()}
        routes = [
            route(*(server.port for server in found[name]), name=name, **dict(one.keys)) for name, one in cases.items()
        ]
        with running_proxy({"log": {"level": "debug"}, **tables, "route": [*routes, *more]}) as running:
            yield Lab(running, found)


def tls_contexts(kind: str = "good") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's with that certificate, and a client's that trusts its authority."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        paths = make(kind).write(Path(folder))
        server.load_cert_chain(paths.certificate, paths.key)
    return server, ssl.create_default_context(cadata=root().pem.decode())
