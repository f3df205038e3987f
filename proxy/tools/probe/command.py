"""`probe`: what a server says to EHLO, before and inside TLS, what is wrong with it, and what cures it.

Puts the room together: whom to ask (`targets`), the conversations (`converse`, over `wire` with `handshake`), DNS
(`names`), the judgement (`verdict`) and how it is shown (`report` for people, `formats` for programs).

Exit: 0 a sender gets all that the server offers; 1 one would stumble; 2 usage or configuration; 3 no answer.  Of
several targets the worst counts.  As `nagios` it is a plugin's: 0, 1 for findings that are only reported, 2, 3 usage.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TextIO

from proxy.net.tls.names import literal_address
from proxy.net.tls.problem import TlsProblem
from proxy.settings import Destination, Problem, Settings, SettingsError, parse
from proxy.tools.probe import formats, report
from proxy.tools.probe.converse import Progress, Seen, look_at
from proxy.tools.probe.handshake import TODAY
from proxy.tools.probe.names import Dane, Server, compared, dane, name_servers
from proxy.tools.probe.seen import Asked, Target
from proxy.tools.probe.targets import of_destination, of_settings
from proxy.tools.probe.verdict import Result, result_of
from proxy.tools.probe.wire import NoAnswer, addresses

DNS_TIMEOUT = 5.0  # seconds for TLSA, whatever `timeout` allows
AT_ONCE = 8  # targets; the addresses of one are asked one after the other, as they may be one host
WIDTH = 78  # of the line that says what is waited for


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """As on the command line: a server, or a configuration with perhaps one of its routes."""

    server: Destination | None = None
    config: str = ""
    route: str = ""
    asked: Asked = field(default_factory=Asked)
    format: str = "text"  # json, nagios, prometheus


class _Waiting:
    """On a terminal, one line that says what is waited for, and for longest; elsewhere nothing."""

    def __init__(self, err: TextIO, targets: int = 1) -> None:
        self._err = err if err.isatty() else None
        self._targets = targets
        self._left = targets
        self._steps: dict[object, tuple[float, str]] = {}  # by target: since when, and what
        self._lock = threading.Lock()

    def at(self, target: Target, address: str) -> Progress:
        """A function that takes the step that begins, or "" while it goes on."""

        where = target.label if address == target.host else f"{target.label}, {address}"

        def step(name: str) -> None:
            with self._lock:
                if name:
                    self._steps[id(target)] = (time.monotonic(), f"{where}: {name}")
                since, words = min(self._steps.values())
                left = f"{self._left} of {self._targets} to go; " if self._targets > 1 else ""
                self._say(f"{left}{words} ... {time.monotonic() - since:.0f} s")

        return step

    def over(self, target: Target) -> None:
        """Nothing is waited for there any more."""
        with self._lock:
            self._left -= 1
            self._steps.pop(id(target), None)
            self._say("")

    def _say(self, words: str) -> None:
        if self._err is not None:
            self._err.write(f"\r\x1b[2K{words[:WIDTH]}")
            self._err.flush()


def run(options: ProbeOptions, out: TextIO, err: TextIO) -> int:
    """Probe and show; the exit code."""
    servers = name_servers()
    usage = 3 if options.format == "nagios" else 2
    try:
        targets = _targets(options, servers)
    except SettingsError as error:
        for problem in error.problems:
            print(problem, file=err)
        return usage
    if not targets:
        print(f"ehlo-proxy probe: {options.config}: no route is called {options.route}", file=err)
        return usage
    if untrusted := _trust_problem(targets):
        print(f"ehlo-proxy probe: {untrusted}", file=err)
        return usage
    results = _probe_all(targets, servers, _Waiting(err, len(targets)))
    now = datetime.now(UTC)
    if options.format == "json":
        print(formats.as_json(results, now), file=out)
    elif options.format == "prometheus":
        print(formats.as_prometheus(results, now), end="", file=out)
    elif options.format == "nagios":
        print(formats.as_nagios(results), file=out)
        return formats.nagios_code(results)
    else:
        report.show(results, now, out)
    _tell_problems(options, results, err)
    return max(result.worst[1].exit_code for result in results)


def _targets(options: ProbeOptions, servers: list[Server]) -> list[Target]:
    if options.server is not None:
        return list(of_destination(options.server, options.asked, servers))
    return of_settings(_settings(options.config), options.route, options.asked, servers)


def _settings(path: str) -> Settings:
    """What the file says; what it names is not looked at, so that anybody may probe.  Raises SettingsError."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse(file.read(1 << 24), path)
    except (OSError, ValueError) as error:  # UnicodeDecodeError, a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingsError([Problem(path, "", None, f"a file that can be read: {reason}")]) from None


def _trust_problem(targets: list[Target]) -> str:
    """What is wrong with a file of authorities: a mistake of the person who asks, not of a server."""
    for ca_file in sorted({target.asked.ca_file for target in targets} - {""}):
        try:
            TODAY.context(ca_file)
        except TlsProblem as problem:
            return problem.reason
    return ""


def _tell_problems(options: ProbeOptions, results: list[Result], err: TextIO) -> None:
    """What the report has no place for: a server of which nothing was seen; for programs every problem."""
    for result in results:
        conclusion = result.worst[1]
        if conclusion.exit_code == 3 and (options.format != "text" or not report.has_body(result)):
            name = "" if len(results) == 1 else f"{result.target.label}: "
            problems = dict.fromkeys(seen.problem for seen, _ in result.addresses)
            print(f"ehlo-proxy probe: {name}{'; '.join(problems)}", file=err)


def _probe_all(targets: Sequence[Target], servers: list[Server], waiting: _Waiting) -> list[Result]:
    """Every target, `AT_ONCE` at a time, in their order: a dead one costs its own time-outs only."""
    results: dict[int, Result] = {}
    failures: list[BaseException] = []
    todo = deque(enumerate(targets))

    def work() -> None:
        with suppress(IndexError):  # nothing is left to do
            while not failures:
                number, target = todo.popleft()
                try:
                    results[number] = probe(target, servers, waiting)
                except BaseException as ours:
                    failures.append(ours)
                waiting.over(target)

    # Threads that do not keep the process: an interrupt ends all of it at once.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(AT_ONCE, len(targets)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(targets))]


def probe(target: Target, servers: list[Server] | None = None, waiting: _Waiting | None = None) -> Result:
    """One target, all its addresses.  Never raises for anything that a server does."""
    if target.problem:
        return result_of(target, [Seen(target, "", problem=target.problem)])
    try:
        found = addresses(target.host, target.port)
    except NoAnswer as problem:
        return result_of(target, [Seen(target, "", problem=str(problem))])
    seen = [
        look_at(target, address, waiting.at(target, address) if waiting else lambda step: None) for address in found
    ]
    return result_of(target, seen, _dane(target, seen, servers or []))


def _dane(target: Target, seen: list[Seen], servers: list[Server]) -> Dane | None:
    """TLSA of the name that was asked for; None where there is no name, or nobody to ask."""
    host = target.host if literal_address(target.host) is None else target.asked.name
    if not servers or "." not in host.strip(".") or literal_address(host) is not None:
        return None
    found = dane(host, target.port, servers, min(DNS_TIMEOUT, target.asked.timeout))
    chain = next((each.tls.chain for each in seen if each.tls is not None), ())
    return compared(found, chain)
