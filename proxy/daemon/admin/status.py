"""The state of the service over all its processes: what `/status.json`, `/metrics` and the status page are made of.

Each process has a `Reports` and gives its snapshot; a `StatusBoard` asks for the snapshots (of one process, or of all
workers and the parent as the parent last heard them) and implements `proxy.daemon.admin.site.StatusSource` on the sum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.daemon.admin.destinations import merge_destinations
from proxy.daemon.admin.figures.counters import Metrics, RouteMetrics, Snapshot, merge, retired
from proxy.daemon.admin.figures.declarations import WELL
from proxy.daemon.admin.figures.exposition import Served, exposition
from proxy.daemon.log.values import utc

MINUTES = 60


class LastHour:
    """Sessions that ended, and those of them that were repaired, in each of the last sixty minutes."""

    __slots__ = ("_began_at", "_minutes", "_running")

    def __init__(self) -> None:
        self._running = [0, 0, 0]  # minute since 1970, sessions, repaired
        self._minutes = deque([self._running], MINUTES)
        self._began_at = 0.0  # the running minute

    def count(self, now: float, repaired: bool) -> None:
        if not 0 <= now - self._began_at < 60:
            minute = int(now) // 60
            self._began_at = minute * 60.0
            self._running = [minute, 0, 0]
            self._minutes.append(self._running)
        self._running[1] += 1
        if repaired:
            self._running[2] += 1

    def snapshot(self, now: float) -> list[list[int]]:
        """The minutes of the last hour in which there was a session, in no order."""
        oldest = int(now) // 60 - MINUTES
        return [list(minute) for minute in self._minutes if minute[0] > oldest]


def merge_hours(hours: Iterable[Iterable[Sequence[int]]], now: float) -> list[list[int]]:
    """Sixty rows `[Unix time of the minute, sessions, repaired]`, oldest first, the running minute last."""
    last = int(now) // 60
    rows = {minute: [minute * 60, 0, 0] for minute in range(last - MINUTES + 1, last + 1)}
    for hour in hours:
        for minute, sessions, repaired in hour:
            if minute in rows:
                rows[minute][1] += sessions
                rows[minute][2] += repaired
    return list(rows.values())


def retired_reports(snapshot: Snapshot) -> Snapshot:
    """What a worker that has died leaves behind: its counters, its minutes, and what it knew of the destinations."""
    return {**snapshot, "metrics": retired(snapshot["metrics"])}


def merge_retired(snapshots: Iterable[Snapshot], now: float) -> Snapshot:
    """One snapshot in place of those of several dead workers, so that they do not pile up."""
    kept = list(snapshots)
    destinations: dict[tuple[str, str, str], dict[str, Any]] = {}
    for snapshot in kept:
        for row in snapshot["destinations"]:
            key = (row["route"], row["name"], row["address"])
            if key not in destinations or destinations[key]["seen_at"] <= row["seen_at"]:
                destinations[key] = row
    hour = merge_hours((snapshot["hour"] for snapshot in kept), now)
    return {
        "metrics": retired(merge(snapshot["metrics"] for snapshot in kept)),
        "destinations": list(destinations.values()),
        "hour": [[at // 60, sessions, repaired] for at, sessions, repaired in hour if sessions],
    }


@dataclass(frozen=True, slots=True)
class RouteShown:
    """A route as it is configured: its name, its addresses with the ports that were got, its destinations, its ways."""

    name: str
    listen: tuple[str, ...]
    destinations: tuple[str, ...] = ()
    mode: str = "passthrough"  # of TLS
    repair: str = "repair"  # mode of the repair
    max_sessions: int = 0


@dataclass(frozen=True, slots=True)
class RouteCauses:
    """What a person wants to know of a route beyond `/status.json`: why, and how it does now; times are Unix times."""

    repair: str  # mode of the repair
    refused: dict[str, int]  # by rule
    failed: dict[str, int]  # by outcome
    served_at: float  # the last session that did what its client came for
    failed_at: float  # the last that failed, was refused, or was turned away by the server
    failed_in_row: int
    unserved_at: float = 0.0  # the last whose client went without a word that counts


@dataclass(frozen=True, slots=True)
class CertificateShown:
    """A certificate in use; `side` is `client` (ours) or `server`, `not_after` a Unix time."""

    route: str
    side: str
    subject: str
    not_after: float


def own_snapshot(metrics: Metrics, lines_lost: int) -> Snapshot:
    """What a process without sessions adds: the parent's memory, its time, the log lines that it lost."""
    return {"metrics": metrics.snapshot(lines_lost), "destinations": [], "hour": []}


class StatusBoard:
    """Everything that the admin listener shows.  `snapshots` is called at each request and returns at once."""

    def __init__(
        self, version: str, started: float, snapshots: Callable[[], Sequence[Snapshot]], now: Callable[[], float]
    ) -> None:
        self.version = version
        self.started = started
        self.routes: tuple[RouteShown, ...] = ()
        self.workers = 1
        self.draining = False
        self._worker_restarts = 0
        self._reloads = {"ok": 0, "failed": 0}
        self._last_reload = started
        self._snapshots = snapshots
        self._now = now

    # What the service tells.

    def show(self, routes: Sequence[RouteShown]) -> None:
        """These are the routes now."""
        self.routes = tuple(routes)

    def serve_with(self, workers: int) -> None:
        """So many processes serve."""
        self.workers = workers

    def drain(self) -> None:
        """No new sessions are accepted."""
        self.draining = True

    def reloaded(self, well: bool) -> None:
        """The configuration was read again, and is in force or not."""
        self._reloads["ok" if well else "failed"] += 1
        if well:
            self._last_reload = self._now()

    def worker_restarted(self) -> None:
        """A worker had to be replaced."""
        self._worker_restarts += 1

    # What is shown.

    def metrics_text(self) -> bytes:
        """`/metrics`, whole over all workers."""
        snapshots = self._snapshots()
        rows = self._destinations(snapshots)
        served = Served(
            self.version,
            self.started,
            self.workers,
            self._worker_restarts,
            self._reloads,
            self._last_reload,
            {route.name: route.max_sessions for route in self.routes},
            {
                (route.name, configured): _is_up(configured, route, rows.get(route.name, ()))
                for route in self.routes
                for configured in route.destinations
                if configured != "original"
            },
        )
        return exposition(_merged(snapshots), served)

    def status(self) -> dict[str, Any]:
        """`/status.json`; times are RFC 3339 in UTC, null when unknown, and `up` is null until it was tried."""
        snapshots = self._snapshots()
        metrics = _merged(snapshots)["routes"]
        rows = self._destinations(snapshots)
        return {
            "version": self.version,
            "started": utc(self.started),
            "workers": self.workers,
            "draining": self.draining,
            "routes": [
                _route_status(route, metrics.get(route.name) or _NOTHING, rows.get(route.name, []))
                for route in self.routes
            ],
        }

    @property
    def causes(self) -> dict[str, RouteCauses]:
        """Of each route, why sessions were refused or failed, and how it does now."""
        metrics = _merged(self._snapshots())["routes"]
        return {route.name: _causes(route, metrics.get(route.name) or _NOTHING) for route in self.routes}

    @property
    def plot(self) -> list[list[int]]:
        """The last hour: sixty rows `[Unix time of the minute, sessions, repaired]`, oldest first."""
        return merge_hours((snapshot["hour"] for snapshot in self._snapshots()), self._now())

    @property
    def certificates(self) -> list[CertificateShown]:
        """The certificates in use, the first to expire first."""
        told = (CertificateShown(*row[:4]) for row in _merged(self._snapshots())["certificates"])
        return sorted(told, key=lambda certificate: certificate.not_after)

    def _destinations(self, snapshots: Sequence[Snapshot]) -> dict[str, list[dict[str, Any]]]:
        """The destinations of each route."""
        by_route: dict[str, list[dict[str, Any]]] = {}
        for row in merge_destinations(snapshot["destinations"] for snapshot in snapshots):
            by_route.setdefault(row.pop("route"), []).append(row)
        return by_route


_NOTHING = RouteMetrics().snapshot()


def _merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    return merge(snapshot["metrics"] for snapshot in snapshots)


def _route_status(route: RouteShown, counts: Snapshot, rows: list[dict[str, Any]]) -> dict[str, Any]:
    untried = [one for one in route.destinations if not any(_is_of(row, one, route) for row in rows)]
    outcomes: list[list[Any]] = counts["outcomes"]
    return {
        "name": route.name,
        "mode": route.mode,
        "listen": list(route.listen),
        "sessions_open": counts["open"],
        "sessions_limit": route.max_sessions,
        "sessions_total": sum(count for _outcome, _tls, count in outcomes),
        "refused_total": sum(count for outcome, _tls, count in outcomes if outcome == "refused"),
        "failed_total": sum(count for outcome, _tls, count in outcomes if _is_failure(outcome)),
        "tls_total": sum(count for _outcome, tls, count in outcomes if tls != "none"),
        "destinations": [*rows, *map(_untried, untried)],
    }


def _causes(route: RouteShown, counts: Snapshot) -> RouteCauses:
    failed: dict[str, int] = {}
    for outcome, _tls, count in counts["outcomes"]:
        if _is_failure(outcome):
            failed[outcome] = failed.get(outcome, 0) + count
    refused = {rule: count for rule, count in counts["refusals"].items() if count}
    times = (counts["served_at"], counts["failed_at"], counts["failed_in_row"], counts["unserved_at"])
    return RouteCauses(route.repair, refused, failed, *times)


def _is_failure(outcome: str) -> bool:
    return outcome not in WELL and outcome != "refused"


def _is_of(row: dict[str, Any], configured: str, route: RouteShown) -> bool:
    """Whether this is the state of a configured destination, or of one of its addresses."""
    if configured == "original":
        return True
    if configured.startswith("mx:"):
        others = (one for one in route.destinations if not one.startswith("mx:"))
        return not any(_is_of(row, other, route) for other in others)
    host, _, port = configured.rpartition(":")
    address = row["address"]
    return bool(
        configured in (row["name"], address) or (row["name"] == host and (not address or address.endswith(f":{port}")))
    )


def _is_up(configured: str, route: RouteShown, rows: Iterable[dict[str, Any]]) -> bool:
    """Up until a failure; with several addresses, as long as one of them is."""
    states = [row["up"] for row in rows if _is_of(row, configured, route)]
    return False not in states or True in states


def _untried(destination: str) -> dict[str, Any]:
    return {
        "name": destination,
        "address": "",
        "up": None,
        "since": None,
        "reason": None,
        "findings": [],
        "before": [],
        "after": [],
        "certificate_not_after": None,
    }
