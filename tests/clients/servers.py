"""Every broken server at once, in one process: `python -m tests.clients.servers FOLDER PORT=FINDING...`

Each is a `proxy.tools` simulated server with the certificate that lies in FOLDER, or with one of its own where a fault
wants it. An accepted message is one JSON line in FOLDER/mails.jsonl; its bytes are in a file of their own beside it,
which is whole by then. Ends at SIGTERM.
"""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import replace
from pathlib import Path

from twisted.internet import reactor

from proxy.tools.simulate.faults import FAULTS, NO_FAULT
from proxy.tools.simulate.incoming import Mail
from proxy.tools.simulate.replies import BROKEN, GOOD_REPLIES
from proxy.tools.simulate.server import ServerSideTls, SimulatedServer


def main(folder: Path, wanted: list[str]) -> None:
    def tls(weakness: str) -> ServerSideTls:
        name = weakness if (folder / f"{weakness}.pem").exists() else "server"
        certificate, key = (folder / f"{name}.pem", folder / f"{name}.key")
        return ServerSideTls(certificate.read_bytes(), key.read_bytes(), weakness)

    numbers = iter(range(1, 1_000_000))

    def keep(finding: str, mail: Mail) -> None:
        path = folder / f"mail-{next(numbers)}"
        path.write_bytes(mail.data)
        told = {"finding": finding, "from": mail.sender, "to": mail.recipients, "tls": mail.tls, "file": str(path)}
        with (folder / "mails.jsonl").open("a") as mails:
            mails.write(json.dumps(told) + "\n")

    for one in wanted:
        port, finding = one.split("=")
        fault = FAULTS.get(finding) or replace(NO_FAULT, replies=BROKEN.get(finding, GOOD_REPLIES))
        on_mail = functools.partial(keep, finding)
        server = SimulatedServer(reactor, fault.replies, tls(fault.weakness), on_mail=on_mail, fault=fault)
        reactor.listenTCP(int(port), server, backlog=100, interface="127.0.0.1")  # type: ignore[arg-type]  # Twisted wants a ServerFactory
    reactor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
