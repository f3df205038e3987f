"""The counters: their names, types and labels, that every series is there from the start, and the sum over workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.daemon.admin.figures import process
from proxy.daemon.admin.figures.counters import BUCKETS, Metrics, Snapshot, merge, retired
from proxy.daemon.admin.figures.declarations import METRICS, OUTCOMES, REFUSALS, STARTTLS, TLS
from proxy.daemon.admin.figures.exposition import Served, exposition
from proxy.net.waiting.turns import Turns
from proxy.smtp.reply.findings import CATALOGUE
from tests import metrics_page

TOP = Path(__file__).parents[3]
SERVED = Served("1.2.3", started=1000.0, limits={"domain1": 500}, destinations={("domain1", "192.0.2.1:25"): True})


def moved() -> Metrics:
    metrics = Metrics()
    route = metrics.route("domain1")
    for _ in range(5):
        route.began()
    route.flowed(110, 260)
    route.ended("completed", "passthrough", "accepted", 1.0, served=True)
    route.ended("completed", "none", "not_offered", 2.0, served=True)
    route.refused("not_allowed", 3.0)
    route.found(("greeting-not-first", True))
    route.found(("keyword-invalid", False))
    route.found(("keyword-invalid", False))
    route.connect.observe(0.003)
    route.connect.observe(120.0)
    route.ehlo.observe(0.001)
    turns = Turns()
    turns.ended(0.2, "somebody")
    metrics.watch_turns(turns)
    metrics.certificate("domain1", "server", "mx[192.0.2.1]:25", 2000.0, 10.0)
    metrics.certificate("domain1", "server", "mx[192.0.2.2]:25", 1500.0, 10.0)
    metrics.certificate("domain1", "client", "", 3000.0, 10.0)
    return metrics


def snapshot_of(metrics: Metrics) -> Snapshot:
    """A snapshot with figures of a process that do not move."""
    return {**metrics.snapshot(3), "process": {"cpu": 1.5, "resident": 10, "virtual": 20, "fds": 7, "max_fds": 1024}}


def samples(snapshot: Snapshot, served: Served = SERVED) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = exposition(snapshot, served).decode("utf-8")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(snapshot: Snapshot, name: str, **labels: str) -> float:
    return samples(snapshot)[name, tuple(sorted(labels.items()))]


def test_every_metric_has_its_name_type_and_labels() -> None:
    text = exposition(moved().snapshot(), SERVED).decode("utf-8")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    shapes = {
        name: (family.type, {tuple(sorted(set(sample.labels) - {"le"})) for sample in family.samples})
        for name, family in families.items()
    }
    plain = {()}
    assert shapes == {
        "ehlo_proxy_build_info": ("gauge", {("version",)}),
        "ehlo_proxy_sessions": ("counter", {("outcome", "route", "tls")}),
        "ehlo_proxy_sessions_open": ("gauge", {("route",)}),
        "ehlo_proxy_sessions_limit": ("gauge", {("route",)}),
        "ehlo_proxy_refused": ("counter", {("reason", "route")}),
        "ehlo_proxy_findings": ("counter", {("finding", "repaired", "route")}),
        "ehlo_proxy_starttls": ("counter", {("result", "route")}),
        "ehlo_proxy_bytes": ("counter", {("direction", "route")}),
        "ehlo_proxy_destination_up": ("gauge", {("destination", "route")}),
        "ehlo_proxy_destination_connect_seconds": ("histogram", {("route",)}),
        "ehlo_proxy_ehlo_seconds": ("histogram", {("route",)}),
        "ehlo_proxy_turn_seconds": ("histogram", plain),
        "ehlo_proxy_certificate_not_after_timestamp_seconds": ("gauge", {("route", "side")}),
        "ehlo_proxy_config_reloads": ("counter", {("result",)}),
        "ehlo_proxy_config_last_reload_success_timestamp_seconds": ("gauge", plain),
        "ehlo_proxy_workers": ("gauge", plain),
        "ehlo_proxy_worker_restarts": ("counter", plain),
        "ehlo_proxy_log_lines_lost": ("counter", plain),
        "process_cpu_seconds": ("counter", plain),
        "process_resident_memory_bytes": ("gauge", plain),
        "process_virtual_memory_bytes": ("gauge", plain),
        "process_open_fds": ("gauge", plain),
        "process_max_fds": ("gauge", plain),
        "process_start_time_seconds": ("gauge", plain),
    }
    for line in ("ehlo_proxy_sessions_total{", "ehlo_proxy_config_reloads_total{", "ehlo_proxy_bytes_total{"):
        assert line in text
    assert {metric.name for metric in METRICS} == {
        line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")
    }


SHOWN = (
    *CATALOGUE,
    "keyword-incomplete",
    "client-name-invalid",
    "starttls-refused",
    "starttls-reply-code",
    "ehlo-repeat-refused",
)  # by sessions


def test_every_series_of_a_configured_route_is_there_at_0_from_the_start() -> None:
    there = samples(Metrics().snapshot())
    expected = [
        *(("ehlo_proxy_sessions_total", {"outcome": o, "tls": t}) for o in OUTCOMES for t in TLS),
        *(("ehlo_proxy_refused_total", {"reason": r}) for r in REFUSALS),
        *(("ehlo_proxy_starttls_total", {"result": r}) for r in STARTTLS),
        *(("ehlo_proxy_findings_total", {"finding": f, "repaired": r}) for f in SHOWN for r in ("true", "false")),
        *(("ehlo_proxy_bytes_total", {"direction": d}) for d in ("from_client", "from_server")),
        ("ehlo_proxy_sessions_open", {}),
        ("ehlo_proxy_destination_connect_seconds_count", {}),
        ("ehlo_proxy_ehlo_seconds_bucket", {"le": "+Inf"}),
    ]
    for name, labels in expected:
        key = (name, tuple(sorted({**labels, "route": "domain1"}.items())))
        assert there[key] == 0, key
    for name, result in (("ok", 0), ("failed", 0)):
        assert there["ehlo_proxy_config_reloads_total", (("result", name),)] == result
    for plain in ("ehlo_proxy_worker_restarts_total", "ehlo_proxy_log_lines_lost_total", "ehlo_proxy_turn_seconds_sum"):
        assert there[plain, ()] == 0
    assert there["ehlo_proxy_sessions_limit", (("route", "domain1"),)] == 500
    assert there["ehlo_proxy_destination_up", (("destination", "192.0.2.1:25"), ("route", "domain1"))] == 1
    assert not any(name.startswith("ehlo_proxy_certificate") for name, _labels in there), "not known yet"


def test_the_values_are_those_that_were_counted() -> None:
    snapshot = snapshot_of(moved())
    route = {"route": "domain1"}
    for expected, name, labels in (
        (1, "ehlo_proxy_build_info", {"version": "1.2.3"}),
        (1, "ehlo_proxy_sessions_total", {"outcome": "completed", "tls": "passthrough", **route}),
        (1, "ehlo_proxy_sessions_total", {"outcome": "completed", "tls": "none", **route}),
        (1, "ehlo_proxy_sessions_total", {"outcome": "refused", "tls": "none", **route}),
        (1, "ehlo_proxy_refused_total", {"reason": "not_allowed", **route}),
        (3, "ehlo_proxy_sessions_open", route),
        (2, "ehlo_proxy_findings_total", {"finding": "keyword-invalid", "repaired": "false", **route}),
        (1, "ehlo_proxy_findings_total", {"finding": "greeting-not-first", "repaired": "true", **route}),
        (1, "ehlo_proxy_starttls_total", {"result": "accepted", **route}),
        (110, "ehlo_proxy_bytes_total", {"direction": "from_client", **route}),
        (260, "ehlo_proxy_bytes_total", {"direction": "from_server", **route}),
        (1, "ehlo_proxy_turn_seconds_count", {}),
        (3, "ehlo_proxy_log_lines_lost_total", {}),
        (1.5, "process_cpu_seconds_total", {}),
        (1000, "process_start_time_seconds", {}),
    ):
        assert value(snapshot, name, **labels) == expected, name


def test_of_several_certificates_the_first_to_expire_is_shown() -> None:
    snapshot = moved().snapshot()
    name = "ehlo_proxy_certificate_not_after_timestamp_seconds"
    assert value(snapshot, name, route="domain1", side="server") == 1500
    assert value(snapshot, name, route="domain1", side="client") == 3000


def test_a_servers_certificate_that_is_seen_no_more_is_not_shown_for_ever() -> None:
    metrics = moved()
    metrics.certificate("domain1", "server", "mx[192.0.2.1]:25", 2000.0, 10.0 + 2 * 24 * 3600)
    name = "ehlo_proxy_certificate_not_after_timestamp_seconds"
    assert value(metrics.snapshot(), name, route="domain1", side="server") == 2000


def test_our_certificate_takes_the_place_of_the_last() -> None:
    metrics = moved()
    metrics.certificate("domain1", "client", "/etc/new.pem", 9000.0, 20.0)
    name = "ehlo_proxy_certificate_not_after_timestamp_seconds"
    assert value(metrics.snapshot(), name, route="domain1", side="client") == 9000


def test_histograms_are_cumulative_and_count_what_is_above_the_last_bound() -> None:
    snapshot = moved().snapshot()
    name = "ehlo_proxy_destination_connect_seconds"
    route = {"route": "domain1"}
    assert value(snapshot, f"{name}_bucket", le="0.0025", **route) == 0
    assert value(snapshot, f"{name}_bucket", le="0.005", **route) == 1
    assert value(snapshot, f"{name}_bucket", le="60.0", **route) == 1
    assert value(snapshot, f"{name}_bucket", le="+Inf", **route) == 2
    assert value(snapshot, f"{name}_count", **route) == 2
    assert value(snapshot, f"{name}_sum", **route) == 120.003
    assert value(snapshot, "ehlo_proxy_ehlo_seconds_bucket", le=str(BUCKETS[0]), **route) == 1, "a bound is inclusive"


def test_a_snapshot_survives_json_and_the_sum_of_two_is_twice_one() -> None:
    one = json.loads(json.dumps(snapshot_of(moved())))
    both = merge([one, snapshot_of(moved())])
    single, double = samples(one), samples(both)
    for key, number in single.items():
        name = key[0]
        of_the_service = ("build_info", "not_after", "reload", "limit", "_up", "workers", "start_time")
        assert double[key] == (number if any(part in name for part in of_the_service) else number * 2), key


def test_merging_changes_none_of_the_snapshots() -> None:
    one, other = snapshot_of(moved()), snapshot_of(moved())
    merge([one, other])
    assert one == other == snapshot_of(moved())


def test_routes_findings_and_results_that_only_one_worker_saw_are_kept() -> None:
    other = Metrics()
    other.route("domain2").ended("completed", "none", "failed", 1.0, served=True)
    other.route("domain1").found(("final-line-missing", True))
    other.route("domain1").refused("proxy_header", 1.0)
    both = merge([moved().snapshot(), other.snapshot()])
    assert value(both, "ehlo_proxy_starttls_total", route="domain2", result="failed") == 1
    name = "ehlo_proxy_findings_total"
    assert value(both, name, route="domain1", finding="final-line-missing", repaired="true") == 1
    assert value(both, name, route="domain1", finding="greeting-not-first", repaired="true") == 1
    assert value(both, "ehlo_proxy_refused_total", route="domain1", reason="proxy_header") == 1
    assert value(both, "ehlo_proxy_refused_total", route="domain1", reason="not_allowed") == 1


def test_of_a_renewed_certificate_the_expiry_seen_last_holds_in_any_order() -> None:
    old, new = Metrics(), Metrics()
    old.certificate("r", "server", "mx", 100.0, 1.0)
    new.certificate("r", "server", "mx", 900.0, 2.0)
    for order in ([old, new], [new, old]):
        merged = merge(metrics.snapshot() for metrics in order)
        name = "ehlo_proxy_certificate_not_after_timestamp_seconds"
        assert value(merged, name, route="r", side="server") == 900


def test_a_worker_that_died_goes_on_counting_but_has_no_sessions_and_no_memory() -> None:
    left = merge([retired(snapshot_of(moved())), snapshot_of(moved())])
    assert value(left, "ehlo_proxy_sessions_open", route="domain1") == 3
    assert value(left, "ehlo_proxy_sessions_total", route="domain1", outcome="completed", tls="none") == 2
    assert value(left, "process_cpu_seconds_total") == 3
    assert value(left, "process_resident_memory_bytes") == 10


def test_certificates_are_bounded() -> None:
    metrics = Metrics()
    for number in range(3000):
        metrics.certificate("r", "server", str(number), 1.0, 1.0)
    assert len(metrics.snapshot()["certificates"]) <= 1024


def test_names_of_routes_are_escaped() -> None:
    metrics = Metrics()
    name = 'a "quoted"\nname\\'
    metrics.route(name).began()
    metrics.route(name).ended("completed", "none", "not_used", 1.0, served=True)
    labels = {"route": name, "outcome": "completed", "tls": "none"}
    assert value(metrics.snapshot(), "ehlo_proxy_sessions_total", **labels) == 1


def test_what_a_process_uses_is_read_from_the_kernel() -> None:
    told = process.Process().snapshot()
    assert told["cpu"] > 0
    assert 10_000_000 < told["resident"] < told["virtual"]
    assert abs(told["fds"] - len(os.listdir("/proc/self/fd"))) <= 2
    assert told["max_fds"] >= told["fds"]


def test_without_proc_a_process_still_tells_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(process.os, "stat", nothing)
    assert process.Process().snapshot()["cpu"] > 0


@pytest.mark.alone
def test_a_scrape_of_a_hundred_routes_takes_less_than_a_tenth_of_a_second() -> None:
    metrics = Metrics()
    names = [f"route{number}" for number in range(100)]
    for name in names:
        metrics.route(name)
    served = Served("1", limits=dict.fromkeys(names, 1000))
    best = 1.0
    for _ in range(5):
        began = time.perf_counter()
        exposition(metrics.snapshot(), served)
        best = min(best, time.perf_counter() - began)
    assert best < 0.1


def test_prometheus_client_is_not_wanted_by_the_service() -> None:
    code = "import sys, proxy.daemon.admin.site, proxy.daemon.reports; print('prometheus_client' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_the_tables_in_docs_are_those_of_the_declarations() -> None:
    text = (TOP / "docs/metrics.md").read_text()
    for made in (metrics_page.table(), metrics_page.values_of_labels()):
        assert made in text, "docs/metrics.md is old: python -m tests.metrics_page writes it"
