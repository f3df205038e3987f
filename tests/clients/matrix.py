"""Every finding, every sender, with and without the proxy: `tests/run --matrix`, a table in Markdown.

Each sender must send one message over TLS or not at all. A cell says what came of it: `TLS` when the message arrived
over TLS and byte for byte, `-` when it did not arrive. Two words are without and with the proxy; one stands for both.
Every mail system tries again later, and so do these where time decides (`TRIED_TWICE`): on a busy machine the rest of a
reply can come later than the 0.2 s that the proxy waits, which ends the session and is remembered for the next one.
`--write FILE` puts the table into FILE between its marker lines. With `--faults` the rows are the servers that go wrong
beside the reply, and with the proxy means: with the settings that cure it; and there are the tables of
`tests.clients.dialogue`. The command itself is `tests.clients.tables`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.clients import lab as labs
from tests.clients import postfix as postfixes
from tests.clients.lab import BAD_NAME, Lab
from tests.clients.senders import ALL, SENDER, Sender

FAULTS_BEGIN = "<!-- matrix: written by tests/run --matrix --faults --write docs/faults.md -->"
BEGIN, END = "<!-- matrix: written by tests/run --matrix --write docs/findings.md -->", "<!-- /matrix -->"
POSTFIX = "Postfix"
AT_ONCE = 10
TRIED_TWICE = {"final-line-early"}
MESSAGE = b"".join(
    line + b"\r\n"
    for line in (
        b"From: Anna <anna@sender.example>",
        b"To: Bert <bert@domain1.com>",
        b"Subject: byte for byte",
        b"Date: Tue, 24 Nov 2026 07:00:00 +0000",
        b"Message-ID: <byte-for-byte@sender.example>",
        b"MIME-Version: 1.0",
        b"",
        b"Lines that look like something else:",
        b".",
        b"..two dots",
        b"QUIT",
        b"250-STARTTLS",
        b"From here a tab\tand blanks at the end  ",
        b"x" * 900,
        b"",
        *(b"%d. The quick brown fox jumps over the lazy dog." % number for number in range(200)),
    )
)


def outcome(lab: Lab, finding: str, recipient: str, exact: bool, seconds: float) -> str:
    """What came of one message, as the server tells it: TLS, -, or what should never be."""
    arrived = lab.mail_to(recipient, seconds)
    if arrived is None:
        return "-"
    if not arrived.tls:
        return "CLEAR"
    same = arrived.data == MESSAGE if exact else arrived.data.endswith(MESSAGE)
    return "TLS" if same and arrived.finding == finding else "CHANGED"


def one(lab: Lab, sender: Sender, finding: str, proxied: bool) -> str:
    came = "-"
    for _ in range(2 if finding in TRIED_TWICE else 1):
        recipient = f"{uuid.uuid4().hex}@domain1.com"
        if finding == "client-name-invalid":
            sender = sender.saying(BAD_NAME)
        said = sender.send(lab.port(finding, proxied), lab.certificates.ca, recipient, MESSAGE)
        came = outcome(lab, finding, recipient, sender.exact, 0.5 if said.content else 0.1)
        if came != "-":
            break
    return came


def by_postfix(lab: Lab, folder: Path, findings: Iterable[str]) -> dict[tuple[str, bool], str]:
    """All of Postfix's cells at once: a domain for each server, with and without the proxy."""
    folder.mkdir()
    domains = {
        (finding, proxied): f"{finding}.{proxied}.example".lower() for finding in findings for proxied in (False, True)
    }
    policy = "secure match=mail.domain1.com servername=mail.domain1.com"
    levels, options = {"secure": policy, "nameless": policy}, {"nameless": f"smtp_helo_name = {BAD_NAME}"}
    transports = {
        domain: f"{'nameless' if where[0] == 'client-name-invalid' else 'secure'}:[127.0.0.1]:{lab.port(*where)}"
        for where, domain in domains.items()
    }
    found: dict[tuple[str, bool], str] = {}

    def attempt(name: str, wanted: Iterable[tuple[str, bool]]) -> None:
        recipients = {where: f"{name}@{domains[where]}" for where in wanted}
        for recipient in recipients.values():
            postfix.submit(SENDER, recipient, MESSAGE)
        for where, recipient in recipients.items():
            delivery = postfix.delivery(recipient, 40)
            wait = 1.0 if delivery and delivery.status == "sent" else 0.0
            found[where] = outcome(lab, where[0], recipient, False, wait)

    with postfixes.running(folder, lab.certificates, transports, levels, options=options) as postfix:
        attempt("first", domains)
        attempt("second", [where for where in domains if where[0] in TRIED_TWICE and found[where] == "-"])
    return found


Table = dict[tuple[str, str], tuple[str, str]]


def measure(folder: Path, findings: Sequence[str], senders: Sequence[Sender], with_postfix: bool) -> Table:
    """(finding, sender) -> what came of it without and with the proxy."""
    measured: Table = {}
    with labs.running(folder, findings) as lab, ThreadPoolExecutor(AT_ONCE) as pool:
        postfix = pool.submit(by_postfix, lab, folder / "postfix", findings) if with_postfix else None
        slow_first = sorted(findings, key=lambda finding: finding != "final-line-missing")  # everyone waits for its end
        cells = [(finding, sender) for finding in slow_first for sender in senders]
        jobs = {cell: [pool.submit(one, lab, cell[1], cell[0], proxied) for proxied in (False, True)] for cell in cells}
        for (finding, sender), (without, through) in jobs.items():
            measured[finding, sender.name] = (without.result(), through.result())
        if postfix is not None:
            found = postfix.result()
            for finding in findings:
                measured[finding, POSTFIX] = (found[finding, False], found[finding, True])
    names = [*([POSTFIX] if with_postfix else []), *(sender.name for sender in senders)]
    return {(finding, name): measured[finding, name] for finding in findings for name in names}


def versions() -> str:
    """One line: which versions were measured, or would be here."""
    found = [] if postfixes.missing() else [f"{POSTFIX} {postfixes.version()}"]
    found += [f"{sender.name} {sender.version()}" for sender in ALL if not sender.missing()]
    return f"Measured with {', '.join(found)}."


def cell(pair: tuple[str, str]) -> str:
    return pair[0] if pair[0] == pair[1] else f"{pair[0]} → {pair[1]}"


def markdown(table: Table) -> str:
    """Findings downwards, senders across."""
    findings = list(dict.fromkeys(finding for finding, _ in table))
    names = list(dict.fromkeys(name for _, name in table))
    rows = [f"| finding | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    rows += [f"| `{finding}` | {' | '.join(cell(table[finding, name]) for name in names)} |" for finding in findings]
    return "\n".join(rows)


def read(text: str, begin: str = BEGIN) -> dict[tuple[str, str], str]:
    """(finding, sender) -> cell, of the table between the markers in `text`; empty if there is none."""
    found = re.search(f"{re.escape(begin)}(.*?){re.escape(END)}", text, re.DOTALL)
    if found is None:
        return {}
    rows = [
        [part.strip(" `") for part in line.strip("|").split("|")]
        for line in found[1].split("\n")
        if line.startswith("|")
    ]
    names = rows[0][1:] if rows else []
    return {(row[0], name): value for row in rows[2:] for name, value in zip(names, row[1:], strict=True)}


def write(path: Path, table: str, begin: str = BEGIN) -> None:
    """Into `path`, between the markers. Raises ValueError when it has none."""
    text = path.read_text()
    changed, number = re.subn(f"({re.escape(begin)}).*?({re.escape(END)})", f"\\1\n{table}\n\\2", text, flags=re.DOTALL)
    if not number:
        raise ValueError(f"{path} lacks the lines {begin} and {END}")
    path.write_text(changed)
