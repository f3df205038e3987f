"""Every broken server at once, in one process: `python -m tests.clients.servers FOLDER PORT=FINDING...`

Besides those of `simulate` there are the servers of `OTHERS`, which no finding tells.
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

from proxy.tools.simulate.faults import FAULTS, NO_FAULT, Fault
from proxy.tools.simulate.incoming import Mail
from proxy.tools.simulate.replies import BROKEN, GOOD, GOOD_INSIDE_TLS, GOOD_REPLIES, Piece, without_starttls
from proxy.tools.simulate.server import ServerSideTls, SimulatedServer

_CHUNKS = b"250-CHUNKING\r\n250-BINARYMIME\r\n250-AUTH NTLM PLAIN\r\n250-AUTH=NTLM\r\n250 HELP\r\n"
_UNKNOWN = Fault(
    replace(
        GOOD_REPLIES,
        ehlo=(Piece(GOOD.replace(b"250 HELP\r\n", _CHUNKS)),),
        inside_tls=(Piece(GOOD_INSIDE_TLS.replace(b"250 HELP\r\n", _CHUNKS)),),
    ),
    answers={b"BDAT": b"500 5.5.1 Command not known\r\n"},
)
OTHERS = {  # a front offers CHUNKING that what stands behind it does not know: hmailserver#261, Mailu#1766
    "chunks-unknown": _UNKNOWN,
    "chunks-unknown-in-clear": replace(
        _UNKNOWN, replies=replace(_UNKNOWN.replies, ehlo=without_starttls(_UNKNOWN.replies.ehlo))
    ),
}


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
        fault = {**FAULTS, **OTHERS}.get(finding) or replace(NO_FAULT, replies=BROKEN.get(finding, GOOD_REPLIES))
        on_mail = functools.partial(keep, finding)
        server = SimulatedServer(reactor, fault.replies, tls(fault.weakness), on_mail=on_mail, fault=fault)
        reactor.listenTCP(int(port), server, backlog=100, interface="127.0.0.1")  # type: ignore[arg-type]  # Twisted wants a ServerFactory
    reactor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
