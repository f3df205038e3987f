"""What is known of each destination: up or down and since when, its last EHLO reply, its certificate.

`Destinations` is the table of one process, filled by `proxy.daemon.reports`; `merge_destinations` makes one of the
tables of all workers, for `/status.json` and the status page.

Destinations are few where they are configured, but with interception a client chooses them: the table is bounded by
MAX_DESTINATIONS, those not seen for the longest going first, and of a reply only the first MAX_REPLY bytes are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from proxy.daemon.log.values import MAX_PEER_TEXT, escape, utc

if TYPE_CHECKING:
    from proxy.smtp.reply.repair import RepairResult

MAX_DESTINATIONS = 256
MAX_REPLY = 4096  # characters kept of a reply as it is shown, in whole lines of at most 200 bytes; the log's 8 KiB hold
# no more of two either, and with 256 destinations two such replies each are 2 MiB of status
_MAX_CACHED_REPLY = 4096  # bytes; what `repair_reply` caches anyway costs nothing to point to
_FORGET_AFTER = 24 * 3600.0


class EhloState:
    """The last EHLO reply of a destination, in one phase."""

    __slots__ = ("_after", "_before", "_lines", "_result", "at", "findings")

    def __init__(self) -> None:
        self._result: RepairResult | None = None
        self._lines: tuple[tuple[bytes, ...], tuple[bytes, ...]] = ((), ())
        self._before: list[str] | None = None  # as they are shown, made when they are asked for
        self._after: list[str] | None = None
        self.findings: tuple[tuple[str, bool], ...] = ()  # each id, and whether it was repaired anywhere
        self.at = 0.0

    def take(self, result: RepairResult, now: float) -> bool:
        """Keep `result`; true when its findings are not those of the last one."""
        self.at = now
        if result is self._result:
            return False
        self._result = result if len(result.reply) <= _MAX_CACHED_REPLY else None
        lines = (_kept(result.before), _kept(result.after))
        if lines != self._lines:
            self._lines = lines
            self._before = self._after = None
        found: dict[str, bool] = {}  # in the reply's order
        for finding in result.findings:
            found[finding.id] = found.get(finding.id, False) or finding.repaired
        before, self.findings = self.findings, tuple(found.items())
        return self.findings != before

    @property
    def before(self) -> list[str]:
        """The reply as the server sent it, escaped."""
        if self._before is None:
            self._before = _shown(self._lines[0])
        return self._before

    @property
    def after(self) -> list[str]:
        """The reply as the client was shown it, escaped."""
        if self._after is None:
            self._after = self.before if self._lines[0] == self._lines[1] else _shown(self._lines[1])
        return self._after


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


def _shown(lines: Sequence[bytes]) -> list[str]:
    shown: list[str] = []
    size = 0
    for line in map(escape, lines):
        size += len(line)
        if size > MAX_REPLY:
            break
        shown.append(line)
    return shown


class DestinationState:
    """What is known of one destination; times are Unix times."""

    __slots__ = (
        "_certificate_not_after", "_changed", "_clear", "_failures", "_late", "_tls", "address", "name", "reason",
        "route", "seen_at", "since", "up",
    )  # fmt: skip

    def __init__(self, route: str, name: str, address: str) -> None:
        self.route = route
        self.name = name
        self.address = address
        self.up: bool | None = None
        self.since = 0.0
        self.reason = ""  # why it is down
        self.seen_at = 0.0
        self._changed = False  # `since` is a change that was seen, not only the first that is known
        self._failures = 0  # since it went down
        self._certificate_not_after = 0.0
        self._clear = EhloState()
        self._tls: EhloState | None = None
        self._late: set[tuple[str, bool]] = set()  # findings outside of a reply

    def inherit(self, unresolved: DestinationState) -> None:
        """Be down for as long as the name has had no address."""
        self.up, self.since, self.reason = unresolved.up, unresolved.since, unresolved.reason
        self._changed, self._failures = unresolved._changed, unresolved._failures

    def connected(self, now: float) -> tuple[float, int] | None:
        """Note that it answers; when that is news after failures, how long they went on and how many there were."""
        self.seen_at = now
        if self.up:
            return None
        told = (now - self.since, self._failures) if self.up is False else None
        self._turn(True, now)
        self.reason = ""
        self._failures = 0
        return told

    def failed(self, reason: str, now: float) -> int:
        """Note a failure; how many there were since it went down when that is news, else 0.

        News is the first failure, and another reason.
        """
        self.seen_at = now
        self._failures += 1
        if self.up is not False:
            self._turn(False, now)
        elif reason == self.reason:
            return 0
        self.reason = reason
        return self._failures

    def _turn(self, up: bool, now: float) -> None:
        self._changed = self.up is not None
        self.up = up
        self.since = now

    def certificate(self, not_after: float) -> None:
        """Its certificate is good until then."""
        self._certificate_not_after = not_after

    def ehlo(self, phase: str) -> EhloState:
        """The last EHLO reply of this phase: `clear` or `tls`."""
        if phase == "clear":
            return self._clear
        if self._tls is None:
            self._tls = EhloState()
        return self._tls

    def late(self, findings: Iterable[tuple[str, bool]]) -> bool:
        """Findings outside of an EHLO reply; true when one of them is new."""
        new = set(findings) - self._late
        self._late |= new
        return bool(new)

    def snapshot(self) -> dict[str, Any]:
        # The reply inside TLS is the one to look at when only it has findings.
        shown = self._clear
        if self._tls is not None and ((self._tls.findings and not self._clear.findings) or not self._clear.at):
            shown = self._tls
        findings = self._clear.findings + (self._tls.findings if self._tls is not None else ())
        return {
            "route": self.route,
            "name": self.name,
            "address": self.address,
            "up": self.up,
            "since": self.since,
            "changed": self._changed,
            "reason": self.reason,
            "seen_at": self.seen_at,
            "ehlo_at": shown.at,
            "findings": list(dict.fromkeys(finding for finding, _repaired in findings)),
            "before": shown.before,
            "after": shown.after,
            "certificate_not_after": self._certificate_not_after,
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
        if address and (unresolved := self._states.pop((route, name, ""), None)) is not None:
            state.inherit(unresolved)  # the name that did not resolve does now
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
        "reason": (last["reason"] or None) if last["up"] is False else None,
        "findings": ehlo["findings"],
        "before": ehlo["before"],
        "after": ehlo["after"],
        "certificate_not_after": _utc_or_none(not_after["certificate_not_after"]),
    }


def _utc_or_none(seconds: float) -> str | None:
    return utc(seconds) if seconds > 0 else None
