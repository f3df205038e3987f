"""What is known of each destination: up or down and since when, its last EHLO reply, its certificate.

`Destinations` is the table of one process, filled by `proxy.daemon.reports`; `merge_destinations` makes one of the
tables of all workers, for `/status.json` and the status page.

Destinations are few where they are configured, but with interception a client chooses them: the table is bounded by
MAX_DESTINATIONS, those not seen for the longest going first, and of a reply only the first MAX_REPLY bytes are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from proxy.daemon.log.logs import MAX_PEER_TEXT, escape, utc

if TYPE_CHECKING:
    from proxy.smtp.reply.repair import RepairResult

MAX_DESTINATIONS = 256
MAX_REPLY = 4096  # bytes kept of a reply, in whole lines cut at 200; the log's 8 KiB hold no more of two either
_MAX_CACHED_REPLY = 4096  # bytes; what `repair_reply` caches anyway costs nothing to point to
_TELL_AGAIN_AFTER = 60.0
_FORGET_AFTER = 24 * 3600.0


def unique(ids: Iterable[str]) -> tuple[str, ...]:
    """Each id once, in the order of the first."""
    return tuple(dict.fromkeys(ids))


class EhloState:
    """The last EHLO reply of a destination, in one phase."""

    __slots__ = ("after", "at", "before", "findings", "result", "signature")

    def __init__(self) -> None:
        self.result: RepairResult | None = None
        self.signature = 0
        self.findings: tuple[str, ...] = ()
        self.before: tuple[bytes, ...] = ()
        self.after: tuple[bytes, ...] = ()
        self.at = 0.0

    def take(self, result: RepairResult, now: float) -> bool:
        """Keep `result`; true when it is not what came before."""
        self.at = now
        if result is self.result:
            return False
        self.result = result if len(result.reply) <= _MAX_CACHED_REPLY else None
        findings = unique(finding.id for finding in result.findings)
        signature = hash((findings, _without_greeting_text(result)))
        if signature == self.signature and self.before:
            return False
        self.signature = signature
        self.findings = findings
        self.before = _kept(result.before)
        self.after = _kept(result.after)
        return True


def _kept(lines: Sequence[bytes]) -> tuple[bytes, ...]:
    kept: list[bytes] = []
    size = 0
    for line in lines:
        cut = line[:MAX_PEER_TEXT]
        size += len(cut)
        if size > MAX_REPLY:
            break
        kept.append(cut)
    return tuple(kept)


def _without_greeting_text(result: RepairResult) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    # Exim and Exchange greet with the client's name and address ("250-mx.example Hello esa.com [192.0.2.3]"): that
    # changes from client to client and is no change of the reply.
    greeting = result.after[0][4:] if result.after else b""
    word = greeting.partition(b" ")[0]

    def stripped(lines: Sequence[bytes]) -> tuple[bytes, ...]:
        return tuple(line[:4] + word if line[4:] == greeting else line for line in lines)

    return stripped(result.before), stripped(result.after)


class DestinationState:
    """What is known of one destination; times are Unix times."""

    __slots__ = (
        "address",
        "certificate_not_after",
        "changed",
        "clear",
        "failures",
        "name",
        "route",
        "seen_at",
        "since",
        "tls",
        "told_at",
        "up",
    )

    def __init__(self, route: str, name: str, address: str) -> None:
        self.route = route
        self.name = name
        self.address = address
        self.up: bool | None = None
        self.since = 0.0
        self.changed = False  # `since` is a change that was seen, not only the first that is known
        self.seen_at = 0.0
        self.failures = 0  # since it was last told
        self.told_at = 0.0
        self.certificate_not_after = 0.0
        self.clear = EhloState()
        self.tls: EhloState | None = None

    def connected(self, now: float) -> None:
        self.seen_at = now
        if self.up is not True:
            self._turn(True, now)

    def failed(self, now: float) -> int:
        """Note a failure; how many there were since it was last told when it is news, else 0.

        News is the first failure, and once a minute that it goes on.
        """
        self.seen_at = now
        self.failures += 1
        if self.up is False and now - self.told_at < _TELL_AGAIN_AFTER:
            return 0
        if self.up is not False:
            self._turn(False, now)
        self.told_at = now
        failures, self.failures = self.failures, 0
        return failures

    def _turn(self, up: bool, now: float) -> None:
        self.changed = self.up is not None
        self.up = up
        self.since = now

    def ehlo(self, result: RepairResult, now: float, phase: str) -> bool:
        """Keep an EHLO reply; true when it is not like the last one of this phase (`clear`, `tls`)."""
        if phase == "clear":
            return self.clear.take(result, now)
        if self.tls is None:
            self.tls = EhloState()
        return self.tls.take(result, now)

    def snapshot(self) -> dict[str, Any]:
        # The reply inside TLS is the one to look at when only it has findings.
        shown = self.clear
        if self.tls is not None and ((self.tls.findings and not self.clear.findings) or not self.clear.at):
            shown = self.tls
        findings = self.clear.findings + (self.tls.findings if self.tls is not None else ())
        return {
            "route": self.route,
            "name": self.name,
            "address": self.address,
            "up": self.up,
            "since": self.since,
            "changed": self.changed,
            "seen_at": self.seen_at,
            "ehlo_at": shown.at,
            "findings": list(unique(findings)),
            "before": list(map(escape, shown.before)),
            "after": list(map(escape, shown.after)),
            "certificate_not_after": self.certificate_not_after,
        }


class Destinations:
    """All destinations that this process has met."""

    def __init__(self, max_destinations: int = MAX_DESTINATIONS) -> None:
        self._states: dict[tuple[str, str, str], DestinationState] = {}
        self._max = max_destinations

    def state(self, route: str, name: str, address: str) -> DestinationState:
        """The state of one destination of one route; new, if need be in place of those seen the longest ago."""
        key = (route, name, address)
        try:
            return self._states[key]
        except KeyError:
            pass
        if len(self._states) >= self._max:
            oldest = sorted(self._states, key=lambda key: self._states[key].seen_at)
            for old in oldest[: max(1, self._max // 8)]:
                del self._states[old]
        state = self._states[key] = DestinationState(route, name, address)
        if address and (route, name, "") in self._states:
            del self._states[route, name, ""]  # the name that did not resolve does now
        return state

    def snapshot(self, now: float) -> list[dict[str, Any]]:
        """JSON-able; addresses that a name no longer leads to (a day unseen, and another is in use) are dropped."""
        latest: dict[tuple[str, str], float] = {}
        for state in self._states.values():
            key = (state.route, state.name)
            latest[key] = max(latest.get(key, 0.0), state.seen_at)
        for full_key, state in list(self._states.items()):
            newest = latest[state.route, state.name]
            if state.seen_at < newest and now - state.seen_at > _FORGET_AFTER:
                del self._states[full_key]
        return [state.snapshot() for state in self._states.values()]


def merge_destinations(tables: Iterable[Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One table of many, in the form of `/status.json` plus `route`: what was seen last is what holds."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for table in tables:
        for row in table:
            groups.setdefault((row["route"], row["name"], row["address"]), []).append(row)
    return [_merged(rows) for _key, rows in sorted(groups.items())]


def _merged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    last = max(rows, key=lambda row: row["seen_at"])
    alike = [row for row in rows if row["up"] == last["up"] and row["since"]]
    changes = [row["since"] for row in alike if row["changed"]]
    # A worker that saw the change knows best; workers that only met it as it is know since when at the earliest.
    since = max(changes) if changes else min((row["since"] for row in alike), default=0.0)
    ehlo = max(rows, key=lambda row: row["ehlo_at"])
    not_after = max(rows, key=lambda row: (row["certificate_not_after"] > 0, row["seen_at"]))
    return {
        "route": last["route"],
        "name": last["name"] or last["address"],
        "address": last["address"],
        "up": last["up"],
        "since": utc(since) if since else None,
        "findings": ehlo["findings"],
        "before": ehlo["before"],
        "after": ehlo["after"],
        "certificate_not_after": _utc_or_none(not_after["certificate_not_after"]),
    }


def _utc_or_none(seconds: float) -> str | None:
    return utc(seconds) if seconds > 0 else None
