"""Every broken server at once, in one process: `python -m tests.clients.servers FOLDER PORT=FINDING...`

Each is a `proxy.tools` simulated server with the certificate that lies in FOLDER. An accepted message is one JSON line
in FOLDER/mails.jsonl; its bytes are in a file of their own beside it, which is whole by then. Ends at SIGTERM.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

from twisted.internet import reactor

from proxy.tools.simulate.incoming import Mail
from proxy.tools.simulate.replies import BROKEN, GOOD_REPLIES
from proxy.tools.simulate.server import ServerSideTls, SimulatedServer


def main(folder: Path, wanted: list[str]) -> None:
    tls = ServerSideTls((folder / "server.pem").read_bytes(), (folder / "server.key").read_bytes())
    numbers = iter(range(1, 1_000_000))

    def keep(finding: str, mail: Mail) -> None:
        path = folder / f"mail-{next(numbers)}"
        path.write_bytes(mail.data)
        told = {"finding": finding, "from": mail.sender, "to": mail.recipients, "tls": mail.tls, "file": str(path)}
        with (folder / "mails.jsonl").open("a") as mails:
            mails.write(json.dumps(told) + "\n")

    for one in wanted:
        port, finding = one.split("=")
        replies = BROKEN[finding] if finding != "none" else GOOD_REPLIES
        server = SimulatedServer(reactor, replies, tls, on_mail=functools.partial(keep, finding))
        reactor.listenTCP(int(port), server, backlog=100, interface="127.0.0.1")  # type: ignore[arg-type]  # Twisted wants a ServerFactory
    reactor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
