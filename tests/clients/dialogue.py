"""Real senders and the faults of the dialogue: what becomes of one message, and of its TLS.

Each row twice: senders that take TLS where it is offered, and senders that require it.  A cell says `TLS` or `clear`
when the message arrived, in that way and byte for byte; else what a mail system made of it, `deferred` or `bounced`,
and `fails` for a program without a queue.  Two words are without and with the proxy, which has the settings that cure
the fault where there are any (`tests.clients.lab.REPAIRS`).  Of `starttls-not-steady` each sender sends two messages.

The tables stand in docs/faults.md; `tests/run --matrix --faults --write docs/faults.md` measures them.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.clients import lab as labs
from tests.clients import postfix as postfixes
from tests.clients.lab import Lab
from tests.clients.matrix import AT_ONCE, MESSAGE, POSTFIX, Table
from tests.clients.postfix import Postfix
from tests.clients.senders import SENDER, Sender

OFFERED = "<!-- matrix: TLS where it is offered, by tests/run --matrix --faults --write docs/faults.md -->"
REQUIRED = "<!-- matrix: TLS required, by tests/run --matrix --faults --write docs/faults.md -->"
ROWS = (
    "ehlo-refused", "ehlo-repeat-refused", "starttls-refused", "starttls-reply-code", "starttls-not-steady",
    "closes-after-220", "banner-multiline", "keyword-incomplete",
)  # fmt: skip
LEVELS = {"may": "may", "required": "secure match=mail.domain1.com servername=mail.domain1.com"}
TWICE = "starttls-not-steady"
Send = Callable[[str, bool], str]  # of a fault, without or with the proxy: what came of it


def outcome(lab: Lab, recipient: str, exact: bool, status: str) -> str:
    """What came of one message: as the server tells it, and where it has none, as the sender does."""
    arrived = lab.mail_to(recipient, 1.0 if status in ("", "sent") else 0.1)
    if arrived is None:
        return status if status not in ("", "sent") else "fails"
    if not (arrived.data == MESSAGE if exact else arrived.data.endswith(MESSAGE)):
        return "CHANGED"
    return "TLS" if arrived.tls else "clear"


def _program(lab: Lab, sender: Sender) -> Send:
    def send(fault: str, proxied: bool) -> str:
        recipient = f"{uuid.uuid4().hex}@domain1.com"
        said = sender.send(lab.port(fault, proxied), lab.certificates.ca, recipient, MESSAGE)
        return outcome(lab, recipient, sender.exact, said.status or ("sent" if said.content else "fails"))

    return send


def _domain(fault: str, proxied: bool, level: str) -> str:
    return f"{fault}.{proxied}.{level}.example".lower()


def _postfix(lab: Lab, postfix: Postfix, level: str) -> Send:
    def send(fault: str, proxied: bool) -> str:
        recipient = f"{uuid.uuid4().hex}@{_domain(fault, proxied, level)}"
        postfix.submit(SENDER, recipient, MESSAGE)
        delivery = postfix.delivery(recipient, 40)
        return outcome(lab, recipient, False, delivery.status if delivery else "hangs")

    return send


def measure(
    folder: Path, senders: Sequence[Sender], with_postfix: bool, rows: Sequence[str] = ROWS
) -> tuple[Table, Table]:
    """(fault, sender) -> what came of it without and with the proxy: with TLS where it is offered, and required."""
    turn = threading.Lock()  # the server that is not steady counts its connections

    def pair(send: Send, fault: str) -> tuple[str, str]:
        if fault != TWICE:
            return send(fault, False), send(fault, True)
        with turn:
            without, through = ([send(fault, proxied) for _ in range(2)] for proxied in (False, True))
        return ", ".join(sorted(without)), ", ".join(sorted(through))

    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(labs.running(folder, rows))
        ways: tuple[dict[str, Send], dict[str, Send]] = ({}, {})
        if with_postfix:
            transports = {
                _domain(fault, proxied, level): f"{level}:[127.0.0.1]:{lab.port(fault, proxied)}"
                for fault in rows
                for proxied in (False, True)
                for level in LEVELS
            }
            (folder / "postfix").mkdir()
            postfix = stack.enter_context(postfixes.running(folder / "postfix", lab.certificates, transports, LEVELS))
            for way, level in zip(ways, LEVELS, strict=True):
                way[POSTFIX] = _postfix(lab, postfix, level)
        for sender in senders:
            if not sender.only_required:
                ways[0][sender.name] = _program(lab, sender.not_required())
            ways[1][sender.name] = _program(lab, sender)
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        jobs = [{(f, name): pool.submit(pair, way[name], f) for f in rows for name in way} for way in ways]
        offered, required = ({where: job.result() for where, job in of.items()} for of in jobs)
        return offered, required
