"""The counters: their names, types and labels, and that the sum over workers is right."""

from __future__ import annotations

import json
import subprocess
import sys

from prometheus_client.parser import text_string_to_metric_families

from proxy.daemon.admin.metrics import BUCKETS, Metrics, Snapshot, exposition, merge, retired


def moved() -> Metrics:
    metrics = Metrics()
    route = metrics.route("domain1")
    route.open = 3
    route.ended("completed", 100, 200)
    route.ended("completed", 10, 20)
    route.ended("refused", 0, 40)
    route.found(("greeting-not-first", True))
    route.found(("keyword-invalid", False))
    route.found(("keyword-invalid", False))
    route.starttls_answered("accepted")
    route.connect.observe(0.003)
    route.connect.observe(120.0)
    route.ehlo.observe(0.001)
    metrics.reloads["ok"] += 1
    metrics.certificate("domain1", "server", "mx[192.0.2.1]:25", 2000.0, 10.0)
    metrics.certificate("domain1", "server", "mx[192.0.2.2]:25", 1500.0, 10.0)
    metrics.certificate("domain1", "client", "", 3000.0, 10.0)
    return metrics


def samples(snapshot: Snapshot) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = exposition(snapshot, "1.2.3").decode("utf-8")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(snapshot: Snapshot, name: str, **labels: str) -> float:
    return samples(snapshot)[name, tuple(sorted(labels.items()))]


def test_every_metric_has_its_name_type_and_labels() -> None:
    text = exposition(moved().snapshot(), "1.2.3").decode("utf-8")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    shapes = {
        name: (family.type, {tuple(sorted(set(sample.labels) - {"le"})) for sample in family.samples})
        for name, family in families.items()
    }
    assert shapes == {
        "ehlo_proxy_build_info": ("gauge", {("version",)}),
        "ehlo_proxy_sessions": ("counter", {("outcome", "route")}),
        "ehlo_proxy_sessions_open": ("gauge", {("route",)}),
        "ehlo_proxy_findings": ("counter", {("finding", "repaired", "route")}),
        "ehlo_proxy_starttls": ("counter", {("result", "route")}),
        "ehlo_proxy_bytes": ("counter", {("direction", "route")}),
        "ehlo_proxy_destination_connect_seconds": ("histogram", {("route",)}),
        "ehlo_proxy_ehlo_seconds": ("histogram", {("route",)}),
        "ehlo_proxy_turn_seconds": ("histogram", {()}),
        "ehlo_proxy_certificate_expiry_seconds": ("gauge", {("route", "side")}),
        "ehlo_proxy_config_reloads": ("counter", {("result",)}),
    }
    for line in ("ehlo_proxy_sessions_total{", "ehlo_proxy_config_reloads_total{", "ehlo_proxy_bytes_total{"):
        assert line in text


def test_the_values_are_those_that_were_counted() -> None:
    snapshot = moved().snapshot()
    route = {"route": "domain1"}
    assert value(snapshot, "ehlo_proxy_build_info", version="1.2.3") == 1
    assert value(snapshot, "ehlo_proxy_sessions_total", outcome="completed", **route) == 2
    assert value(snapshot, "ehlo_proxy_sessions_total", outcome="refused", **route) == 1
    assert value(snapshot, "ehlo_proxy_sessions_open", **route) == 3
    assert value(snapshot, "ehlo_proxy_findings_total", finding="keyword-invalid", repaired="false", **route) == 2
    assert value(snapshot, "ehlo_proxy_findings_total", finding="greeting-not-first", repaired="true", **route) == 1
    assert value(snapshot, "ehlo_proxy_starttls_total", result="accepted", **route) == 1
    assert value(snapshot, "ehlo_proxy_bytes_total", direction="from_client", **route) == 110
    assert value(snapshot, "ehlo_proxy_bytes_total", direction="from_server", **route) == 260
    assert value(snapshot, "ehlo_proxy_config_reloads_total", result="ok") == 1
    assert value(snapshot, "ehlo_proxy_config_reloads_total", result="failed") == 0


def test_of_several_certificates_the_first_to_expire_is_shown() -> None:
    snapshot = moved().snapshot()
    assert value(snapshot, "ehlo_proxy_certificate_expiry_seconds", route="domain1", side="server") == 1500
    assert value(snapshot, "ehlo_proxy_certificate_expiry_seconds", route="domain1", side="client") == 3000


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
    one = json.loads(json.dumps(moved().snapshot()))
    both = merge([one, moved().snapshot()])
    single, double = samples(one), samples(both)
    for key, number in single.items():
        name = key[0]
        alone = any(part in name for part in ("build_info", "expiry", "reloads"))
        assert double[key] == (number if alone else number * 2), key


def test_merging_changes_none_of_the_snapshots() -> None:
    one, other = moved().snapshot(), moved().snapshot()
    merge([one, other])
    assert one == other == moved().snapshot()


def test_routes_findings_and_results_that_only_one_worker_saw_are_kept() -> None:
    other = Metrics()
    other.route("domain2").starttls_answered("failed")
    other.route("domain1").starttls_answered("refused")
    both = merge([moved().snapshot(), other.snapshot()])
    assert value(both, "ehlo_proxy_starttls_total", route="domain2", result="failed") == 1
    assert value(both, "ehlo_proxy_starttls_total", route="domain1", result="refused") == 1
    assert value(both, "ehlo_proxy_starttls_total", route="domain1", result="accepted") == 1


def test_of_a_renewed_certificate_the_expiry_seen_last_holds_in_any_order() -> None:
    old, new = Metrics(), Metrics()
    old.certificate("r", "server", "mx", 100.0, 1.0)
    new.certificate("r", "server", "mx", 900.0, 2.0)
    for order in ([old, new], [new, old]):
        merged = merge(metrics.snapshot() for metrics in order)
        assert value(merged, "ehlo_proxy_certificate_expiry_seconds", route="r", side="server") == 900


def test_a_worker_that_died_goes_on_counting_but_has_no_sessions() -> None:
    left = merge([retired(moved().snapshot()), moved().snapshot()])
    assert value(left, "ehlo_proxy_sessions_open", route="domain1") == 3
    assert value(left, "ehlo_proxy_sessions_total", route="domain1", outcome="completed") == 4


def test_certificates_are_bounded_and_can_be_forgotten() -> None:
    metrics = Metrics()
    for number in range(3000):
        metrics.certificate("r", "server", str(number), 1.0, 1.0)
    metrics.certificate("r", "client", "ours", 1.0, 1.0)
    assert len(metrics.snapshot()["certificates"]) <= 1024
    metrics.forget_certificates("r", "server")
    assert metrics.snapshot()["certificates"] == [["r", "client", "ours", 1.0, 1.0]]


def test_names_of_routes_are_escaped() -> None:
    metrics = Metrics()
    metrics.route('a "quoted"\nname\\').ended("completed", 0, 0)
    name = 'a "quoted"\nname\\'
    assert value(metrics.snapshot(), "ehlo_proxy_sessions_total", route=name, outcome="completed") == 1


def test_prometheus_client_is_not_imported_before_it_is_wanted() -> None:
    code = "import sys, proxy.daemon.admin.status; print('prometheus_client' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
