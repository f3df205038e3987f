"""Every sender, everything that can happen, TLS 1.2 and 1.3: what our log says of it.

`python -m tests.clients.outcomes` prints it as a table, and says what is not as it should be.
One proxy for all of it, with a route for each cell, so that a line of the log and a metric belong to one session.  The
server is the same for all senders.  Where the sender does not accept the certificate, the server tells whether the
handshake had come to its end by then: `tls-failed` is for the one, `completed` for the other.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.certificates import root
from tests.clients import postfix as postfixes
from tests.clients.happenings import CLEAR, HAPPENINGS, TLS_VERSIONS, Cutter, Happening, Seen, serve
from tests.clients.lab import Certificates
from tests.clients.senders import SENDER, Aiosmtplib, Curl, Exim, Msmtp, PosttlsFinger, Sender, Smtplib, Swaks
from tests.end_to_end.lab import tls_contexts
from tests.proxy_process import Running, route, running_proxy
from tests.scripted import Peer, ScriptedServer

POSTFIX = "Postfix"
AT_ONCE = 8
IMPATIENT = 1  # seconds, of a sender that gives up
IDLE = 1.5  # seconds, of the routes where the proxy does
MESSAGE = b"Subject: hello\r\n\r\n" + b"The quick brown fox jumps over the lazy dog.\r\n" * 2000

# When a sender refuses a certificate: inside the handshake, after it, or not at all (swaks compares no names,
# posttls-finger only tells).
INSIDE, AFTER, NEVER = "inside", "after", "never"
REFUSES: Mapping[str, tuple[str, str]] = {
    # name: an authority that it does not trust, a certificate of another name
    POSTFIX: (AFTER, AFTER),
    "posttls-finger": (NEVER, NEVER),
    "Python smtplib": (INSIDE, INSIDE),
    "aiosmtplib": (INSIDE, INSIDE),
    "swaks": (INSIDE, NEVER),
    "curl": (INSIDE, AFTER),
    "msmtp": (AFTER, AFTER),
    "Exim": (AFTER, AFTER),
}


@dataclass(frozen=True, slots=True)
class Cell:
    sender: str
    what: Happening
    version: str  # 1.2, 1.3, clear

    @property
    def route(self) -> str:
        return re.sub(r"[^a-z0-9.]+", "-", f"{self.sender} {self.what.name} {self.version}".lower())

    @property
    def refuses(self) -> str:
        """When the sender refuses what it is shown here."""
        authority, name = REFUSES[self.sender]
        return {"unknown-ca": authority, "wrong-name": name}.get(self.what.certificate, NEVER)


@dataclass(slots=True)
class Came:
    """What came of one cell: our lines about its sessions, the metrics of its route, what the server saw."""

    ends: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[tuple[str, ...], float] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    said: str = ""  # by the sender


@dataclass(frozen=True, slots=True)
class Expected:
    """What the log and the metrics should say of a cell."""

    outcome: str
    by: tuple[str, ...]
    level: str
    starttls: str  # the metric's result


def expected(cell: Cell) -> Expected:
    what = cell.what
    either = ("client", "server")
    if cell.refuses == INSIDE:
        return Expected("tls-failed", either, "warning", "failed")
    if what.at == "hello":
        return Expected("tls-failed", (what.lost,), "warning", "failed")
    if not what.lost:
        return Expected("completed", either, "info", "accepted")
    answered = what.lost == "client" and what.how == "fin"  # a reset is passed on before the EHLO reply has come
    starttls = "accepted" if cell.version != CLEAR else "not_used" if answered else "not_offered"
    if what.how == "reset":
        level = "warning" if what.lost == "server" else "info"
        return Expected(f"{what.lost}-reset", (what.lost,), level, starttls)
    if cell.version == CLEAR:
        level = "warning" if what.lost == "server" else "info"  # the client was told 421
        return Expected(f"{what.lost}-closed", (what.lost,), level, starttls)
    return Expected("completed", (what.lost,), "info", "accepted")


def cells(senders: Sequence[str]) -> list[Cell]:
    return [Cell(sender, what, version) for sender in senders for what in HAPPENINGS for version in what.versions]


def name_of(sender: str) -> str:
    """What a sender says in EHLO."""
    return "sender.example" if sender == POSTFIX else f"{sender.replace(' ', '-').lower()}.example"


Table = dict[Cell, Came]


def usable(config: Path) -> dict[str, Sender | None]:
    """The senders that are here, by name; Postfix, whose configuration is in that folder, is none of `senders`."""
    found: dict[str, Sender | None] = {} if postfixes.missing() else {POSTFIX: None}
    others = [Exim(), Msmtp(), Smtplib(), Aiosmtplib(), Swaks(), Curl(), *([PosttlsFinger(config)] if found else [])]
    return found | {one.name: one for one in others if not one.missing()}


def measure(folder: Path) -> Table:
    """Everything, once.  `folder` is one that every user may read."""
    folder.chmod(0o755)
    certificates = Certificates(folder / "ca.pem", b"")
    certificates.ca.write_bytes(root().pem)
    senders = usable(folder / "postfix" / "config")
    table: Table = {cell: Came() for cell in cells([*senders])}
    by_name = {(name_of(cell.sender), cell.what.name, cell.version): cell for cell in table}
    cutters: dict[Cell, Cutter] = {}

    def cut(what: Happening, version: str, name: str) -> None:
        cutters[by_name[name, what.name, version]].cut()

    def told(what: Happening, version: str, seen: Seen) -> None:
        if seen.name:
            table[by_name[seen.name, what.name, version]].seen.append(seen)

    with ExitStack() as stack:
        servers = {
            (what.name, version): stack.enter_context(_server(what, version, told, cut))
            for what in HAPPENINGS
            for version in what.versions
        }
        routes = [_route(cell, servers[cell.what.name, cell.version].port) for cell in table]
        running = stack.enter_context(running_proxy({"admin": {"listen": "127.0.0.1:0"}, "route": routes}))
        listens = {one["name"]: one["listen"][0] for one in json.loads(running.get("/status.json")[1])["routes"]}
        ports = {cell: int(listens[cell.route].rpartition(":")[2]) for cell in table}  # too many for `ready`
        for cell in table:
            if cell.what.lost == "client" and cell.what.how != "silence":
                cutters[cell] = Cutter(ports[cell], cell.what.how)
                stack.callback(cutters[cell].close)
                ports[cell] = cutters[cell].port
        _send(folder, certificates, [one for one in senders.values() if one is not None], table, ports)
        for cell in table:
            running.wait_for("session-end", 20, route=cell.route)
        for cell, came in table.items():
            came.ends = running.of("session-end", route=cell.route)
        _count(running, table)
    return table


def _route(cell: Cell, server: int) -> Mapping[str, Any]:
    idle = {"timeouts": {"idle": IDLE, "half_closed": IDLE}} if cell.what.lost == "proxy" else {}
    return route(server, name=cell.route, **idle)


@contextmanager
def _server(what: Happening, version: str, told: Any, cut: Any) -> Iterator[ScriptedServer]:
    context, _ = tls_contexts(what.certificate)
    if version != CLEAR:
        context.minimum_version = context.maximum_version = TLS_VERSIONS[version]

    def script(peer: Peer) -> None:
        serve(peer, what, context, partial(told, what, version), partial(cut, what, version))

    with ScriptedServer(script) as server:
        yield server


def _send(
    folder: Path, certificates: Certificates, senders: Sequence[Sender], table: Table, ports: Mapping[Cell, int]
) -> None:
    """One message for each cell; Postfix's all at once."""
    ways = {"secure": "secure match=mail.domain1.com servername=mail.domain1.com"}
    ways["impatient"] = ways["secure"]
    domains = {cell: f"{number}.example" for number, cell in enumerate(table) if cell.sender == POSTFIX}
    transports = {
        domain: f"{'impatient' if _gives_up(cell) else 'secure'}:[127.0.0.1]:{ports[cell]}"
        for cell, domain in domains.items()
    }
    options = {"impatient": f"smtp_starttls_timeout={IMPATIENT}s"}

    def one(sender: Sender, cell: Cell) -> None:
        told = sender.saying(name_of(sender.name), IMPATIENT if _gives_up(cell) else sender.patience)
        table[cell].said = told.send(ports[cell], certificates.ca, "b@domain1.com", MESSAGE).words

    with ExitStack() as stack:
        if domains:
            settings = postfixes.running(folder / "postfix", certificates, transports, ways, options=options)
            postfix = stack.enter_context(settings)
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        jobs = [pool.submit(one, sender, cell) for sender in senders for cell in table if cell.sender == sender.name]
        for domain in domains.values():
            postfix.submit(SENDER, f"b@{domain}", MESSAGE)
        for job in jobs:
            job.result()
        for cell, domain in domains.items():
            delivery = postfix.delivery(f"b@{domain}", 40)
            table[cell].said = f"{delivery.status}: {delivery.reason}" if delivery else "nothing came of it"


def _gives_up(cell: Cell) -> bool:
    return cell.what.lost == "client" and cell.what.how == "silence"


def _count(running: Running, table: Table) -> None:
    """Every sample of a cell's route that is not 0, of sessions and of STARTTLS."""
    by_route = {cell.route: came for cell, came in table.items()}
    keys = {"ehlo_proxy_sessions_total": ("outcome", "tls"), "ehlo_proxy_starttls_total": ("result",)}
    for family in text_string_to_metric_families(running.get("/metrics")[1].decode()):
        for sample in family.samples:
            if sample.name in keys and sample.value:
                labels = tuple(sample.labels[key] for key in keys[sample.name])
                by_route[sample.labels["route"]].metrics[sample.name, *labels] = sample.value


def wrong(cell: Cell, came: Came) -> list[str]:
    """What is not as it should be; empty when all is."""
    if len(came.ends) != 1:
        return [f"{len(came.ends)} sessions"]
    end, want = came.ends[0], expected(cell)
    tls = "none" if cell.version == CLEAR else "passthrough"
    found = []
    if end["outcome"] != want.outcome:
        found.append(f"outcome {end['outcome']}, not {want.outcome}")
    if end["by"] not in want.by:
        found.append(f"by {end['by']}, not {' or '.join(want.by)}")
    if end["level"] != want.level:
        found.append(f"level {end['level']}, not {want.level}")
    if end["tls"] != tls:
        found.append(f"tls {end['tls']}, not {tls}")
    if cell.what.at == "hello" and not re.fullmatch(r"the ClientHello of \d+ octets was never answered", end["reason"]):
        found.append(f"reason {end['reason']!r}")
    if cell.refuses == INSIDE and not re.search(_why_inside(cell), f"{end['alert']}: {end['reason']}"):
        found.append(f"alert {end['alert']!r}, reason {end['reason']!r}")
    counted = {
        ("ehlo_proxy_sessions_total", want.outcome, tls): 1.0,
        ("ehlo_proxy_starttls_total", want.starttls): 1.0,
    }
    if came.metrics != counted:
        found.append(f"metrics {came.metrics}, not {counted}")
    secured = [seen.secured for seen in came.seen]
    handshakes = cell.version != CLEAR and cell.what.at != "hello" and cell.refuses != INSIDE
    if secured != ([f"TLSv{cell.version}"] if handshakes else [""]):
        found.append(f"the server saw {secured or 'nothing'} of the handshake")
    if [seen.refused for seen in came.seen] != [cell.refuses == AFTER]:
        found.append("the server saw a sender that took the certificate, or the other way round")
    return found


def _why_inside(cell: Cell) -> str:
    """How a handshake that the client broke off is told: `alert: reason`."""
    if cell.sender == "aiosmtplib":  # asyncio goes without an alert
        return "the TLS handshake was not finished|the server sent the TLS alert"
    in_clear = "^(unknown_ca|bad_certificate): the client sent the TLS alert"
    if cell.version == "1.2":
        return in_clear
    return f"{in_clear}|^: the client ended the TLS handshake with an alert"  # OpenSSL 3.0 sends it in clear here, too


def markdown(table: Table) -> str:
    """Happenings downwards, senders across; where all is as expected one word stands for both versions."""
    senders = list(dict.fromkeys(cell.sender for cell in table))
    rows = [f"| what happens | {' | '.join(senders)} |", "|---" * (len(senders) + 1) + "|"]
    for what in HAPPENINGS:
        words = [
            _words({cell: table[cell] for cell in table if (cell.sender, cell.what) == (name, what)})
            for name in senders
        ]
        rows.append(f"| {what.name} | {' | '.join(words)} |")
    return "\n".join(rows)


def _words(of: Table) -> str:
    said = {cell.version: _word(cell, came) for cell, came in of.items()}
    if len({*said.values()}) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{version}: {word}" for version, word in said.items())


def _word(cell: Cell, came: Came) -> str:
    ends = [f"`{end['outcome']}` by {end['by']}" + ("!" if end["level"] == "warning" else "") for end in came.ends]
    when = f", {cell.refuses}" if cell.refuses != NEVER else ""
    return (" and ".join(ends) or "nothing") + when + (" WRONG" if wrong(cell, came) else "")


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="ehlo-outcomes-") as folder:
        table = measure(Path(folder))
    print(f"{markdown(table)}\n\n`!`: a warning. `inside`, `after`: when the sender refused the certificate.")
    failures = {cell: found for cell, came in table.items() if (found := wrong(cell, came))}
    for cell, found in failures.items():
        print(f"{cell.route}: {'; '.join(found)}\n    it said: {table[cell].said[-300:]!r}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
