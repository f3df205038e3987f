"""The counters: cheap to move, whole over all workers, shown in Prometheus' text format.

Every process counts for itself, in plain integers; moving one costs a dictionary look-up and an addition.  A
`snapshot` is plain data that JSON carries to the parent, `merge` adds snapshots up, and `exposition` prints one
through `prometheus_client`, which is imported only then: the custom collector keeps its registry and its locks off
the path of the mail.

Bytes count when their session ends.  Two numbers are not sums over the workers: a reload is one reload however many
processes followed it, and of a certificate the expiry that was seen last is the true one.  When a worker dies, its
last snapshot goes on counting through `retired`, so no counter ever falls.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Any

from proxy.net.waiting.turns import BOUNDS, Turns

Snapshot = dict[str, Any]
"""What `Metrics.snapshot` returns: dicts, lists, strings and numbers only."""

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds: from a neighbour on the same wire to `unterminated_after` and beyond."""

NO_TURNS: list[Any] = [[0] * (len(BOUNDS) + 1), 0.0]

MAX_CERTIFICATES = 1024
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


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

    __slots__ = ("connect", "ehlo", "findings", "from_client", "from_server", "open", "outcomes", "starttls")

    def __init__(self) -> None:
        self.open = 0
        self.outcomes: dict[str, int] = {}
        self.findings: dict[tuple[str, bool], int] = {}
        self.starttls: dict[str, int] = {}
        self.from_client = 0
        self.from_server = 0
        self.connect = Histogram()
        self.ehlo = Histogram()

    def ended(self, outcome: str, from_client: int, from_server: int) -> None:
        """One session is over, with so many bytes of payload each way."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.from_client += from_client
        self.from_server += from_server

    def found(self, found: tuple[str, bool]) -> None:
        """One EHLO reply had this finding, and whether it was repaired."""
        self.findings[found] = self.findings.get(found, 0) + 1

    def starttls_answered(self, result: str) -> None:
        self.starttls[result] = self.starttls.get(result, 0) + 1

    def snapshot(self) -> Snapshot:
        return {
            "open": self.open,
            "outcomes": dict(self.outcomes),
            "findings": [[finding, repaired, count] for (finding, repaired), count in self.findings.items()],
            "starttls": dict(self.starttls),
            "bytes": [self.from_client, self.from_server],
            "connect": [list(self.connect.counts), self.connect.total],
            "ehlo": [list(self.ehlo.counts), self.ehlo.total],
        }


class Metrics:
    """All counters of one process."""

    def __init__(self) -> None:
        self.routes: dict[str, RouteMetrics] = {}
        self.reloads = {"ok": 0, "failed": 0}
        self._turns: Turns | None = None
        self._certificates: dict[tuple[str, str, str], tuple[float, float]] = {}

    def route(self, name: str) -> RouteMetrics:
        """The counters of one route, which begin to be shown when they are first asked for."""
        try:
            return self.routes[name]
        except KeyError:
            metrics = self.routes[name] = RouteMetrics()
            return metrics

    def watch_turns(self, turns: Turns) -> None:
        """From now on show how long this process's event loop is held."""
        self._turns = turns

    def certificate(self, route: str, side: str, subject: str, not_after: float, seen_at: float) -> None:
        """`side` is `client` (ours) or `server` (theirs); the times are Unix times."""
        key = (route, side, subject)
        if key not in self._certificates and len(self._certificates) >= MAX_CERTIFICATES:
            del self._certificates[next(iter(self._certificates))]
        self._certificates[key] = (not_after, seen_at)

    def forget_certificates(self, route: str, side: str) -> None:
        """Before a reload tells which there are now: those of before are not shown any more."""
        for key in [key for key in self._certificates if key[:2] == (route, side)]:
            del self._certificates[key]

    def snapshot(self) -> Snapshot:
        return {
            "routes": {name: route.snapshot() for name, route in self.routes.items()},
            "reloads": dict(self.reloads),
            "certificates": [[*key, *times] for key, times in self._certificates.items()],
            "turns": [list(self._turns.counts), self._turns.total] if self._turns is not None else NO_TURNS,
        }


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """One snapshot for all: sums, but for the reloads (the most that one saw) and the certificates (the latest)."""
    routes: dict[str, Snapshot] = {}
    reloads = {"ok": 0, "failed": 0}
    certificates: dict[tuple[str, str, str], tuple[float, float]] = {}
    turns = NO_TURNS
    for snapshot in snapshots:
        turns = _add_histogram(turns, snapshot.get("turns", NO_TURNS))
        for name, route in snapshot["routes"].items():
            routes[name] = _add(routes[name], route) if name in routes else route
        for result, count in snapshot["reloads"].items():
            reloads[result] = max(reloads.get(result, 0), count)
        for route_name, side, subject, not_after, seen_at in snapshot["certificates"]:
            key = (route_name, side, subject)
            if key not in certificates or certificates[key][1] <= seen_at:
                certificates[key] = (not_after, seen_at)
    told = [[*key, *times] for key, times in certificates.items()]
    return {"routes": routes, "reloads": reloads, "certificates": told, "turns": turns}


def retired(snapshot: Snapshot) -> Snapshot:
    """What is left of a worker that has died: its counters; its sessions are gone."""
    routes = {name: {**route, "open": 0} for name, route in snapshot["routes"].items()}
    return {**snapshot, "routes": routes, "certificates": []}


def _add(one: Snapshot, other: Snapshot) -> Snapshot:
    findings: dict[tuple[str, bool], int] = {}
    for finding, repaired, count in (*one["findings"], *other["findings"]):
        findings[finding, repaired] = findings.get((finding, repaired), 0) + count
    return {
        "open": one["open"] + other["open"],
        "outcomes": _add_counts(one["outcomes"], other["outcomes"]),
        "findings": [[finding, repaired, count] for (finding, repaired), count in findings.items()],
        "starttls": _add_counts(one["starttls"], other["starttls"]),
        "bytes": [a + b for a, b in zip(one["bytes"], other["bytes"], strict=True)],
        "connect": _add_histogram(one["connect"], other["connect"]),
        "ehlo": _add_histogram(one["ehlo"], other["ehlo"]),
    }


def _add_counts(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in (*one, *(k for k in other if k not in one))}


def _add_histogram(one: list[Any], other: list[Any]) -> list[Any]:
    return [[a + b for a, b in zip(one[0], other[0], strict=True)], one[1] + other[1]]


def exposition(snapshot: Snapshot, version: str) -> bytes:
    """`snapshot` in Prometheus' text format 0.0.4."""
    from prometheus_client.exposition import generate_latest
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot, version))
    return generate_latest(registry)


class _Collector:
    """A custom collector in prometheus_client's sense: one snapshot."""

    def __init__(self, snapshot: Snapshot, version: str) -> None:
        self._snapshot = snapshot
        self._version = version

    def describe(self) -> list[Any]:
        return []

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily as Counter
        from prometheus_client.core import GaugeMetricFamily as Gauge
        from prometheus_client.core import HistogramMetricFamily

        routes = sorted(self._snapshot["routes"].items())

        info = Gauge("ehlo_proxy_build_info", "The version that runs.", labels=["version"])
        info.add_metric([self._version], 1)
        yield info

        sessions = Counter("ehlo_proxy_sessions", "Sessions that ended.", labels=["route", "outcome"])
        findings = Counter(
            "ehlo_proxy_findings", "EHLO replies with a finding.", labels=["route", "finding", "repaired"]
        )
        starttls = Counter("ehlo_proxy_starttls", "Answers to STARTTLS.", labels=["route", "result"])
        octets = Counter("ehlo_proxy_bytes", "Bytes received in sessions that ended.", labels=["route", "direction"])
        opened = Gauge("ehlo_proxy_sessions_open", "Sessions that run now.", labels=["route"])
        for name, route in routes:
            opened.add_metric([name], route["open"])
            for outcome, count in sorted(route["outcomes"].items()):
                sessions.add_metric([name, outcome], count)
            for finding, repaired, count in sorted(route["findings"]):
                findings.add_metric([name, finding, "true" if repaired else "false"], count)
            for result, count in sorted(route["starttls"].items()):
                starttls.add_metric([name, result], count)
            octets.add_metric([name, "from_client"], route["bytes"][0])
            octets.add_metric([name, "from_server"], route["bytes"][1])
        yield from (sessions, opened, findings, starttls, octets)

        for key, metric, text in (
            ("connect", "ehlo_proxy_destination_connect_seconds", "Time to connect to the destination."),
            ("ehlo", "ehlo_proxy_ehlo_seconds", "Time from EHLO to the whole reply."),
        ):
            histogram = HistogramMetricFamily(metric, text, labels=["route"])
            for name, route in routes:
                counts, total = route[key]
                histogram.add_metric([name], _cumulative(counts), sum_value=total)
            yield histogram

        counts, total = self._snapshot.get("turns", NO_TURNS)
        turns = HistogramMetricFamily("ehlo_proxy_turn_seconds", "How long the event loop was held by one turn.")
        turns.add_metric([], _cumulative(counts, BOUNDS), sum_value=total)
        yield turns

        expiry = Gauge(
            "ehlo_proxy_certificate_expiry_seconds",
            "When the certificate expires, as Unix time; of several, the first to expire.",
            labels=["route", "side"],
        )
        for (name, side), not_after in sorted(_first_expiry(self._snapshot).items()):
            expiry.add_metric([name, side], not_after)
        yield expiry

        reloads = Counter("ehlo_proxy_config_reloads", "Reloads of the configuration.", labels=["result"])
        for result, count in sorted(self._snapshot["reloads"].items()):
            reloads.add_metric([result], count)
        yield reloads


def _cumulative(counts: list[int], upper: tuple[float, ...] = BUCKETS) -> list[tuple[str, float]]:
    bounds = [*map(str, upper), "+Inf"]
    told: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        told.append((bound, total))
    return told


def _first_expiry(snapshot: Snapshot) -> dict[tuple[str, str], float]:
    first: dict[tuple[str, str], float] = {}
    for route, side, _subject, not_after, _seen_at in snapshot["certificates"]:
        key = (route, side)
        first[key] = min(not_after, first.get(key, not_after))
    return first
