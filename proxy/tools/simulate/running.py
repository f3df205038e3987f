"""The simulated server in a process of its own, for other programs' tests: `simulated_server`.

It listens on loopback, on any free port, until the `with` ends.  What it takes is kept in a temporary directory and
told as `ReceivedMail`.  Nothing here needs a reactor, nor pytest; the fixture is `proxy.tools.simulate.plugin`'s.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy.tools.children import Child, ChildFailed

START_TIMEOUT = 30.0  # seconds; keys are made at start


@dataclass(frozen=True, slots=True)
class ReceivedMail:
    """One message that the server accepted: `data` is what was sent, its dots undone; `tls` a version or `clear`."""

    sender: str
    recipients: tuple[str, ...]
    data: bytes
    tls: str
    helo: str


class RunningServer:
    """`host` and `port` to connect to, `certificate` the path of its certificate as PEM, for a client to trust."""

    def __init__(self, child: Child, host: str, port: int, certificate: str) -> None:
        self._child = child
        self.host = host
        self.port = port
        self.certificate = certificate

    def mails(self) -> list[ReceivedMail]:
        """All that it has accepted so far."""
        self._child.hear(0.0)
        told = [json.loads(line) for line in self._child.said.splitlines()[:-1] if line.startswith("{")]
        told += [json.loads(line) for line in self._child.said.splitlines()[-1:] if line.endswith("}")]
        return [
            ReceivedMail(one["from"], tuple(one["to"]), Path(one["file"]).read_bytes(), one["tls"], one["helo"])
            for one in told
            if one["event"] == "mail"
        ]

    def wait_for_mail(self, number: int = 1, seconds: float = 10.0) -> ReceivedMail:
        """The mail of this number, 1 for the first.  Raises TimeoutError when it does not come in time."""
        deadline = time.monotonic() + seconds
        while True:
            mails = self.mails()
            if len(mails) >= number:
                return mails[number - 1]
            left = deadline - time.monotonic()
            if left <= 0 or not self._child.hear(left):
                raise TimeoutError(f"{len(mails)} mails came, not {number}; the server says: {self._child.said}")


@contextmanager
def simulated_server(
    finding: str = "",
    *,
    fault: str = "",
    reply: bytes = b"",
    transcript: str = "",
    tls: bool = True,
    broken_inside_tls: bool = False,
    name: str = "",
) -> Iterator[RunningServer]:
    """A server with one finding (default: `greeting-not-first`, `none`: a good one) or fault, as `simulate` has them.

    `reply`: its EHLO reply is these bytes.  `transcript`: the path of a recorded session.  Raises ValueError, with what
    `simulate` says, when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="ehlo-proxy-simulate-") as folder:
        certificate = str(Path(folder, "certificate.pem"))
        arguments = ["--listen", "127.0.0.1:0", "--json", "--save", folder]
        if reply:
            Path(folder, "reply").write_bytes(reply)
        for option, value in (
            ("--finding", finding), ("--fault", fault), ("--transcript", transcript), ("--name", name),
            ("--reply", str(Path(folder, "reply")) if reply else ""), ("--save-certificate", certificate),
        ):  # fmt: skip
            if value:
                arguments += [option, value]
        arguments += ["--no-tls"] if not tls else []
        arguments += ["--broken-inside-tls"] if broken_inside_tls else []
        with Child("simulate", *arguments) as child:
            try:
                port = int(child.wait_for(r'"port": ([0-9]+)}$', START_TIMEOUT)[1])
            except ChildFailed as problem:
                raise ValueError(str(problem)) from None
            yield RunningServer(child, "127.0.0.1", port, certificate)
