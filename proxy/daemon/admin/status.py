"""The state of the service over all its processes: what `/status.json`, `/metrics` and the status page are made of.

Each process has a `Reports` and gives its snapshot; a `StatusBoard` asks for the snapshots (of one process, or of all
workers as the parent last heard them) and implements `proxy.daemon.admin.site.StatusSource` on their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.daemon.admin.destinations import merge_destinations
from proxy.daemon.admin.metrics import Snapshot, exposition, merge, retired
from proxy.daemon.log.logs import utc

MINUTES = 60


class LastHour:
    """Sessions that ended, and those of them that were repaired, in each of the last sixty minutes."""

    __slots__ = ("_minutes",)

    def __init__(self) -> None:
        self._minutes = [[0, 0, 0] for _ in range(MINUTES)]  # minute since 1970, sessions, repaired

    def count(self, now: float, repaired: bool) -> None:
        minute = int(now) // 60
        slot = self._minutes[minute % MINUTES]
        if slot[0] != minute:
            slot[0], slot[1], slot[2] = minute, 0, 0
        slot[1] += 1
        if repaired:
            slot[2] += 1

    def snapshot(self, now: float) -> list[list[int]]:
        """The minutes of the last hour in which there was a session, in no order."""
        oldest = int(now) // 60 - MINUTES
        return [list(slot) for slot in self._minutes if slot[0] > oldest]


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
    """A route as it is configured: its name, its addresses with the ports that were got, its destinations."""

    name: str
    listen: tuple[str, ...]
    destinations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CertificateShown:
    """A certificate in use; `side` is `client` (ours) or `server`, `not_after` a Unix time."""

    route: str
    side: str
    subject: str
    not_after: float


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
        self._snapshots = snapshots
        self._now = now

    def metrics_text(self) -> bytes:
        """`/metrics`, whole over all workers."""
        return exposition(self._merged_metrics(), self.version)

    def status(self) -> dict[str, Any]:
        """`/status.json`; times are RFC 3339 in UTC, null when unknown, and `up` is null until it was tried."""
        snapshots = self._snapshots()
        metrics = merge(snapshot["metrics"] for snapshot in snapshots)["routes"]
        rows = merge_destinations(snapshot["destinations"] for snapshot in snapshots)
        destinations: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            destinations.setdefault(row.pop("route"), []).append(row)
        return {
            "version": self.version,
            "started": utc(self.started),
            "workers": self.workers,
            "draining": self.draining,
            "routes": [
                {
                    "name": route.name,
                    "listen": list(route.listen),
                    "sessions_open": metrics[route.name]["open"] if route.name in metrics else 0,
                    "sessions_total": (sum(metrics[route.name]["outcomes"].values()) if route.name in metrics else 0),
                    "destinations": destinations.get(route.name) or list(map(_untried, route.destinations)),
                }
                for route in self.routes
            ],
        }

    @property
    def plot(self) -> list[list[int]]:
        """The last hour: sixty rows `[Unix time of the minute, sessions, repaired]`, oldest first."""
        return merge_hours((snapshot["hour"] for snapshot in self._snapshots()), self._now())

    @property
    def certificates(self) -> list[CertificateShown]:
        """The certificates in use, the first to expire first."""
        told = (CertificateShown(*row[:4]) for row in self._merged_metrics()["certificates"])
        return sorted(told, key=lambda certificate: certificate.not_after)

    def _merged_metrics(self) -> Snapshot:
        return merge(snapshot["metrics"] for snapshot in self._snapshots())


def _untried(destination: str) -> dict[str, Any]:
    return {
        "name": destination,
        "address": "",
        "up": None,
        "since": None,
        "findings": [],
        "before": [],
        "after": [],
        "certificate_not_after": None,
    }
