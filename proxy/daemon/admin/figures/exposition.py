"""Prometheus' text format 0.0.4 of what was counted, with every series of a configured route from the start.

Written here and not by `prometheus_client`, which the tests read it with: that takes 10 µs a sample, this 3, and the
143 samples of each of 100 routes would hold the sessions' event loop for 0.14 s at every scrape.  The format is two
lines of comment a metric and one line a sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from proxy.daemon.admin.figures.counters import BUCKETS, NO_TURNS, RouteMetrics, Snapshot
from proxy.daemon.admin.figures.declarations import BY_NAME, Metric
from proxy.net.waiting.turns import BOUNDS as TURN_BUCKETS

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_DAY = 24 * 3600.0

Sample = tuple[str, Iterable[tuple[str, str]], float]
"""What is behind the metric's name (`_bucket`, ...), its labels, its value."""


@dataclass(frozen=True, slots=True)
class Served:
    """What no worker counts: the service as a whole, and what is configured."""

    version: str
    started: float = 0.0
    workers: int = 1
    worker_restarts: int = 0
    reloads: Mapping[str, int] = field(default_factory=lambda: {"ok": 0, "failed": 0})
    last_reload: float = 0.0
    limits: Mapping[str, int] = field(default_factory=dict)  # max_sessions of each configured route
    destinations: Mapping[tuple[str, str], bool] = field(default_factory=dict)  # route, destination: is it up


def exposition(snapshot: Snapshot, served: Served) -> bytes:
    """The whole document."""
    return "".join(_text(snapshot, served)).encode("utf-8")


def _text(snapshot: Snapshot, served: Served) -> Iterator[str]:
    for name, samples in _values(snapshot, served):
        metric = BY_NAME[name]
        yield f"# HELP {name} {metric.text}\n# TYPE {name} {metric.kind}\n"
        for suffix, labels, value in samples:
            shown = ",".join([f'{label}="{_escaped(text)}"' for label, text in sorted(labels)])
            yield f"{name}{suffix}{{{shown}}} {float(value)!r}\n" if shown else f"{name}{suffix} {float(value)!r}\n"


def _values(snapshot: Snapshot, served: Served) -> Iterator[tuple[str, Iterable[Sample]]]:
    nothing = RouteMetrics().snapshot()
    routes: dict[str, Snapshot] = dict.fromkeys(served.limits, nothing)
    routes.update(snapshot["routes"])
    routes = dict(sorted(routes.items()))

    yield "ehlo_proxy_build_info", [("", [("version", served.version)], 1)]
    for name, values in (
        ("ehlo_proxy_sessions_total", {r: _pairs(one["outcomes"]) for r, one in routes.items()}),
        ("ehlo_proxy_refused_total", {r: _singles(one["refusals"]) for r, one in routes.items()}),
        ("ehlo_proxy_findings_total", {r: _pairs(one["findings"]) for r, one in routes.items()}),
        ("ehlo_proxy_starttls_total", {r: _singles(one["starttls"]) for r, one in routes.items()}),
    ):
        yield name, _filled(BY_NAME[name], values)
    yield "ehlo_proxy_sessions_open", [("", [("route", r)], one["open"]) for r, one in routes.items()]
    yield "ehlo_proxy_sessions_limit", [("", [("route", r)], most) for r, most in sorted(served.limits.items())]
    yield (
        "ehlo_proxy_bytes_total",
        [
            ("", [("route", r), ("direction", direction)], octets)
            for r, one in routes.items()
            for direction, octets in zip(("from_client", "from_server"), one["bytes"], strict=True)
        ],
    )
    yield (
        "ehlo_proxy_destination_up",
        [
            ("", [("route", r), ("destination", destination)], up)
            for (r, destination), up in sorted(served.destinations.items())
        ],
    )
    for key, name in (("connect", "ehlo_proxy_destination_connect_seconds"), ("ehlo", "ehlo_proxy_ehlo_seconds")):
        yield name, [s for r, one in routes.items() for s in _histogram([("route", r)], one[key], BUCKETS)]
    yield "ehlo_proxy_turn_seconds", _histogram([], snapshot.get("turns", NO_TURNS), TURN_BUCKETS)
    yield (
        "ehlo_proxy_certificate_not_after_timestamp_seconds",
        [
            ("", [("route", r), ("side", side)], not_after)
            for (r, side), not_after in sorted(first_expiry(snapshot).items())
        ],
    )
    yield "ehlo_proxy_config_reloads_total", [("", [("result", r)], n) for r, n in served.reloads.items()]
    process = snapshot["process"]
    for name, value in (
        ("ehlo_proxy_config_last_reload_success_timestamp_seconds", served.last_reload),
        ("ehlo_proxy_workers", served.workers),
        ("ehlo_proxy_worker_restarts_total", served.worker_restarts),
        ("ehlo_proxy_log_lines_lost_total", snapshot["lines_lost"]),
        ("process_cpu_seconds_total", process["cpu"]),
        ("process_resident_memory_bytes", process["resident"]),
        ("process_virtual_memory_bytes", process["virtual"]),
        ("process_open_fds", process["fds"]),
        ("process_max_fds", process["max_fds"]),
        ("process_start_time_seconds", served.started),
    ):
        yield name, [("", [], value)]


def _pairs(rows: list[list[Any]]) -> dict[tuple[str, ...], int]:
    return {(str(one), _word(other)): count for one, other, count in rows}


def _singles(counts: dict[str, int]) -> dict[tuple[str, ...], int]:
    return {(key,): count for key, count in counts.items()}


def _word(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _filled(metric: Metric, routes: Mapping[str, Mapping[tuple[str, ...], int]]) -> Iterator[Sample]:
    """A counter of each route, with every series that there can be; then whatever else was counted."""
    names = [name for name, _values in metric.labels[1:]]
    series = list(product(*(values for _name, values in metric.labels[1:])))
    for route, counts in routes.items():
        for key in (*series, *(key for key in counts if key not in series)):
            yield "", [("route", route), *zip(names, key, strict=True)], counts.get(key, 0)


def _histogram(labels: list[tuple[str, str]], told: list[Any], bounds: tuple[float, ...]) -> list[Sample]:
    counts, total = told
    samples: list[Sample] = []
    so_far = 0
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        so_far += count
        samples.append(("_bucket", [*labels, ("le", bound)], so_far))
    return [*samples, ("_count", labels, so_far), ("_sum", labels, total)]


def first_expiry(snapshot: Snapshot) -> dict[tuple[str, str], float]:
    """When the first certificate of each route and side expires, of those that are in use.

    A server's that was not seen for a day, while others of its route were, is in use no more: its host may be gone.
    """
    latest: dict[tuple[str, str], float] = {}
    for route, side, _subject, _not_after, seen_at in snapshot["certificates"]:
        latest[route, side] = max(latest.get((route, side), seen_at), seen_at)
    first: dict[tuple[str, str], float] = {}
    for route, side, _subject, not_after, seen_at in snapshot["certificates"]:
        key = (route, side)
        if latest[key] - seen_at <= _DAY:
            first[key] = min(not_after, first.get(key, not_after))
    return first


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
