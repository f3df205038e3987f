"""Every simulated server at a port of its own, in one process, for as long as this room's tests run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Every finding and every fault (`fault:ID`); the first finding also broken inside TLS, without TLS, and a good server.
SERVERS = """
import json, sys
from dataclasses import replace
from twisted.internet import reactor
from proxy.net.tls.self_signed import make_self_signed
from proxy.tools.simulate.faults import FAULTS
from proxy.tools.simulate.replies import BROKEN, GOOD_REPLIES, adapted
from proxy.tools.simulate.server import ServerSideTls, SimulatedServer
from proxy.tools.simulate.weak import certificate_for

NAMES = ["mail.domain1.com", "127.0.0.1"]
tls = ServerSideTls(*make_self_signed(NAMES))
servers = {finding: SimulatedServer(reactor, replies, tls) for finding, replies in BROKEN.items()}
servers["none"] = SimulatedServer(reactor, GOOD_REPLIES, tls)
bad, masked = BROKEN["greeting-not-first"], BROKEN["keyword-masked"]
servers["inside"] = SimulatedServer(reactor, adapted(bad, broken_inside_tls=True), tls)
servers["no-tls"] = SimulatedServer(reactor, adapted(GOOD_REPLIES, tls=False))
servers["implicit"] = SimulatedServer(reactor, GOOD_REPLIES, tls, implicit_tls=True)
servers["implicit-broken"] = SimulatedServer(reactor, adapted(bad, broken_inside_tls=True), tls, implicit_tls=True)
servers["refused"] = SimulatedServer(reactor, GOOD_REPLIES, answers={b"STARTTLS": b"454 4.7.0 not today\\r\\n"})
servers["other-code"] = SimulatedServer(reactor, GOOD_REPLIES, answers={b"STARTTLS": b"250 go ahead\\r\\n"})
servers["mask-refused"] = SimulatedServer(reactor, masked, answers={b"STARTTLS": b"500 what?\\r\\n"})
servers["helo"] = SimulatedServer(reactor, GOOD_REPLIES, answers={b"EHLO": b"502 5.5.1 what?\\r\\n"})
servers["injected"] = SimulatedServer(reactor, GOOD_REPLIES, tls, behind_starttls=b"250 injected\\r\\n")
for name, fault in FAULTS.items():
    sooner = tuple(replace(piece, pause=min(piece.pause, 2.5)) for piece in fault.replies.banner)  # the slow banner
    fault = replace(fault, replies=replace(fault.replies, banner=sooner))
    weak = ServerSideTls(*certificate_for(fault.weakness, NAMES), fault.weakness)
    servers["fault:" + name] = SimulatedServer(reactor, fault.replies, weak, fault=fault)
log = open(sys.argv[1], "a")
for server in servers.values():
    server.on_command = lambda line: print(line.split()[0].decode(), file=log, flush=True)
ports = {n: reactor.listenTCP(0, s, interface="127.0.0.1").getHost().port for n, s in servers.items()}
print(json.dumps(ports), flush=True)
reactor.callLater(1500, reactor.stop)
reactor.run()
"""


@dataclass(frozen=True, slots=True)
class Simulated:
    """The servers' ports by what they are, and the commands that all of them have heard."""

    ports: dict[str, int]
    log: Path

    @property
    def verbs(self) -> list[str]:
        return self.log.read_text().split()


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulated]:
    log = tmp_path_factory.mktemp("simulated") / "commands"
    command = [sys.executable, "-c", SERVERS, str(log)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Simulated(json.loads(process.stdout.readline()), log)
        finally:
            process.terminate()
