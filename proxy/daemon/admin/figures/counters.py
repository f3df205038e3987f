"""The counters: cheap to move, whole over all workers.

Every process counts for itself, in plain integers; moving one costs a dictionary look-up and an addition.  A
`snapshot` is plain data that JSON carries to the parent, and `merge` adds snapshots up; what they are called in
Prometheus' text format, and the writing of it, is `proxy.daemon.admin.figures.exposition`'s.

Of a certificate the expiry that was seen last is the true one.  When a worker dies, its last snapshot goes on counting
through `retired`, so no counter ever falls.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from proxy.daemon.admin.figures.declarations import WELL
from proxy.daemon.admin.figures.process import NO_PROCESS, THIS, added, ended
from proxy.net.waiting.turns import BOUNDS as TURN_BUCKETS
from proxy.net.waiting.turns import Turns

Snapshot = dict[str, Any]
"""What `Metrics.snapshot` returns: dicts, lists, strings and numbers only."""

BUCKETS: Final[tuple[float, ...]] = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds in seconds: from a neighbour on the same wire to `unterminated_after` and beyond."""

NO_TURNS: list[Any] = [[0] * (len(TURN_BUCKETS) + 1), 0.0]
MAX_CERTIFICATES = 1024


class Histogram:
    """Observations in seconds, counted in BUCKETS and one more above them."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class RouteMetrics:
    """What is counted of one route."""

    __slots__ = (
        "connect", "ehlo", "failed_at", "failed_in_row", "findings", "from_client", "from_server", "open", "outcomes",
        "refusals", "served_at", "starttls", "unserved_at",
    )  # fmt: skip

    def __init__(self) -> None:
        self.open = 0
        self.outcomes: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.refusals: defaultdict[str, int] = defaultdict(int)
        self.findings: defaultdict[tuple[str, bool], int] = defaultdict(int)
        self.starttls: defaultdict[str, int] = defaultdict(int)
        self.from_client = 0
        self.from_server = 0
        self.connect = Histogram()
        self.ehlo = Histogram()
        self.served_at = 0.0  # when the last session ended that did what its client came for; Unix time
        self.failed_at = 0.0  # when the last failed or was refused
        self.failed_in_row = 0  # sessions that failed since the last that was served; refusals don't count
        self.unserved_at = 0.0  # when the last ended that had not failed and was not served: its client only looked in

    def began(self) -> None:
        """One session is open."""
        self.open += 1

    def flowed(self, from_client: int, from_server: int) -> None:
        """So many more bytes of payload each way."""
        self.from_client += from_client
        self.from_server += from_server

    def ended(self, outcome: str, tls: str, starttls: str, now: float, *, served: bool) -> None:
        """One session is over, and what became of STARTTLS in it.  `served`: it did what its client came for."""
        self.open -= 1
        self.outcomes[outcome, tls] += 1
        self.starttls[starttls] += 1
        if served:
            self.served_at = now
            self.failed_in_row = 0
        elif outcome == "server-closed" or outcome not in WELL:  # the server had no word for it but a goodbye
            self.failed_at = now
            self.failed_in_row += 1
        else:
            self.unserved_at = now

    def refused(self, reason: str, now: float) -> None:
        """A client got no session, by this rule."""
        self.outcomes["refused", "none"] += 1
        self.failed_at = now
        self.refused_by(reason)

    def refused_by(self, reason: str) -> None:
        """A session is refused by a rule, while it runs."""
        self.refusals[reason] += 1

    def found(self, found: tuple[str, bool]) -> None:
        """One EHLO reply had this finding, and whether it was repaired."""
        self.findings[found] += 1

    def snapshot(self) -> Snapshot:
        return {
            "open": self.open,
            "outcomes": [[outcome, tls, count] for (outcome, tls), count in self.outcomes.items()],
            "refusals": dict(self.refusals),
            "findings": [[finding, repaired, count] for (finding, repaired), count in self.findings.items()],
            "starttls": dict(self.starttls),
            "bytes": [self.from_client, self.from_server],
            "connect": [list(self.connect.counts), self.connect.total],
            "ehlo": [list(self.ehlo.counts), self.ehlo.total],
            "served_at": self.served_at,
            "failed_at": self.failed_at,
            "failed_in_row": self.failed_in_row,
            "unserved_at": self.unserved_at,
        }


class Metrics:
    """All counters of one process."""

    def __init__(self) -> None:
        self.routes: dict[str, RouteMetrics] = {}
        self.process = THIS
        self._turns: Turns | None = None
        self._certificates: dict[tuple[str, str, str], tuple[float, float]] = {}

    def route(self, name: str) -> RouteMetrics:
        """The counters of one route."""
        try:
            return self.routes[name]
        except KeyError:
            metrics = self.routes[name] = RouteMetrics()
            return metrics

    def watch_turns(self, turns: Turns) -> None:
        """From now on show how long this process's event loop is held."""
        self._turns = turns

    def certificate(self, route: str, side: str, subject: str, not_after: float, seen_at: float) -> None:
        """`side` is `client` (ours, one a route: it takes the place of the last) or `server` (theirs); Unix times."""
        key = (route, side, subject)
        if side == "client":
            for old in [old for old in self._certificates if old[:2] == key[:2] and old != key]:
                del self._certificates[old]
        if key not in self._certificates and len(self._certificates) >= MAX_CERTIFICATES:
            del self._certificates[next(iter(self._certificates))]
        self._certificates[key] = (not_after, seen_at)

    def snapshot(self, lines_lost: int = 0) -> Snapshot:
        return {
            "routes": {name: route.snapshot() for name, route in self.routes.items()},
            "certificates": [[*key, *times] for key, times in self._certificates.items()],
            "turns": [list(self._turns.counts), self._turns.total] if self._turns is not None else NO_TURNS,
            "lines_lost": lines_lost,
            "process": self.process.snapshot(),
        }


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot for all: sums, but of a certificate the latest."""
    routes: dict[str, Snapshot] = {}
    certificates: dict[tuple[str, str, str], tuple[float, float]] = {}
    turns = NO_TURNS
    process = dict(NO_PROCESS)
    lines_lost = 0
    for snapshot in snapshots:
        for name, route in snapshot["routes"].items():
            routes[name] = _add(routes[name], route) if name in routes else route
        turns = _add_histogram(turns, snapshot["turns"])
        process = added(process, snapshot["process"])
        lines_lost += snapshot["lines_lost"]
        for route_name, side, subject, not_after, seen_at in snapshot["certificates"]:
            key = (route_name, side, subject)
            if key not in certificates or certificates[key][1] <= seen_at:
                certificates[key] = (not_after, seen_at)
    told = [[*key, *times] for key, times in certificates.items()]
    return {"routes": routes, "certificates": told, "turns": turns, "lines_lost": lines_lost, "process": process}


def retired(snapshot: Snapshot) -> Snapshot:
    """What is left of a worker that has died: its counters; its sessions are gone."""
    routes = {name: {**route, "open": 0, "failed_in_row": 0} for name, route in snapshot["routes"].items()}
    return {**snapshot, "routes": routes, "certificates": [], "process": ended(snapshot["process"])}


def _add(one: Snapshot, other: Snapshot) -> Snapshot:
    return {
        "open": one["open"] + other["open"],
        "outcomes": _add_rows(one["outcomes"], other["outcomes"]),
        "refusals": _add_counts(one["refusals"], other["refusals"]),
        "findings": _add_rows(one["findings"], other["findings"]),
        "starttls": _add_counts(one["starttls"], other["starttls"]),
        "bytes": [a + b for a, b in zip(one["bytes"], other["bytes"], strict=True)],
        "connect": _add_histogram(one["connect"], other["connect"]),
        "ehlo": _add_histogram(one["ehlo"], other["ehlo"]),
        "served_at": max(one["served_at"], other["served_at"]),
        "failed_at": max(one["failed_at"], other["failed_at"]),
        "failed_in_row": one["failed_in_row"] + other["failed_in_row"],
        "unserved_at": max(one["unserved_at"], other["unserved_at"]),
    }


def _add_rows(one: list[list[Any]], other: list[list[Any]]) -> list[list[Any]]:
    counts: dict[tuple[Any, Any], int] = {}
    for first, second, count in (*one, *other):
        counts[first, second] = counts.get((first, second), 0) + count
    return [[*key, count] for key, count in counts.items()]


def _add_counts(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in (*one, *(k for k in other if k not in one))}


def _add_histogram(one: list[Any], other: list[Any]) -> list[Any]:
    return [[a + b for a, b in zip(one[0], other[0], strict=True)], one[1] + other[1]]
