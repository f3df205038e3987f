"""config/monitoring: the alert rules by promtool, every query of the dashboard against a Prometheus.

The Prometheus is Debian's, and scrapes a proxy that runs.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.daemon.admin.figures.declarations import METRICS
from tests.loopback import child, free_port, wait_until
from tests.proxy_process import route, running_proxy
from tests.scripted import Mailbox, ScriptedServer, connect, send_mail

MONITORING = Path(__file__).parent.parent / "config/monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())
RULES = (MONITORING / "ehlo-proxy.rules.yml").read_text()
TARGETS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
ONLY_WITH_CERTIFICATES = "Next certificate"  # a panel that is empty where TLS only passes through
EVERYWHERE = {"$instance": ".*", "$route": ".*", "$__rate_interval": "10s"}


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool here: the alert rules were not tried (apt-get install prometheus)")
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "ehlo-proxy.rules.yml"),
        ("test", "rules", "ehlo-proxy.rules.test.yml"),
    ],
    ids=" ".join,
)
def test_the_rules_are_what_promtool_says_they_are(promtool: str, arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [promtool, *arguments], cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    alerts = re.findall(r"- alert: (\w+)", RULES)
    tested = re.findall(r'alertname="(\w+)"', (MONITORING / "ehlo-proxy.rules.test.yml").read_text())
    assert sorted(alerts) == sorted(tested)
    assert len(alerts) >= 8


def test_rules_and_dashboard_use_metrics_that_there_are_and_every_metric_is_on_the_dashboard() -> None:
    declared = {metric.name for metric in METRICS}
    queries = [query for _title, query in TARGETS]
    used = set(re.findall(r"\b((?:ehlo_proxy|process)_\w+)", " ".join([*queries, RULES])))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in used} <= declared
    shown = " ".join(queries)
    assert [name for name in declared if name not in shown] == []


def test_every_panel_has_a_title_a_unit_and_a_place_of_its_own() -> None:
    places = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert panel["title"]
        assert not cells & places
        assert max(x for x, _y in cells) < 24
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


# With a real Prometheus.


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[int]:
    """A Prometheus with our scrape example and rules, on that proxy and every second; its port."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus here: the dashboard was not tried (apt-get install prometheus)")
    for name in ("ehlo-proxy.rules.yml",):
        shutil.copy(MONITORING / name, folder)
    config = (MONITORING / "prometheus.yml").read_text().replace("15s", "1s")
    config = re.sub(r"targets: \[.*\]", f'targets: ["127.0.0.1:{target}"]', config)
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    command = [
        program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with child(command, folder / "prometheus.log") as process:

        def is_ready() -> bool:
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2) as answer:  # ours
                    return bool(answer.status == 200)
            except OSError:
                return False

        wait_until(is_ready, 30, "Prometheus is ready")
        yield port


def ask(port: int, path: str, **query: str) -> Any:
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=10) as answer:  # our own Prometheus
        told = json.load(answer)
    assert told["status"] == "success", told
    return told["data"]


def expression(query: str) -> str:
    for name, value in EVERYWHERE.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def test_every_query_of_the_dashboard_finds_something_in_a_prometheus_that_scrapes_a_proxy(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus here: the dashboard was not tried (apt-get install prometheus)")
    with ScriptedServer(Mailbox()) as server:
        strangers = route("127.0.0.1:9", name="strangers", allow_clients=["192.0.2.1/32"])
        config = {"admin": {"listen": "127.0.0.1:0"}, "route": [route(server.port), strangers]}
        with running_proxy(config) as running, prometheus(tmp_path, running.admin_port) as port:

            def mail() -> None:
                with connect(running.port_of("r")) as client:
                    send_mail(client)
                with connect(running.port_of("strangers")) as client:
                    client.rest()

            def unanswered() -> list[tuple[str, str]]:
                mail()
                time.sleep(0.5)
                return [
                    (title, query)
                    for title, query in TARGETS
                    if not _has_a_number(ask(port, "query", query=expression(query))["result"])
                    and title != ONLY_WITH_CERTIFICATES
                ]

            until = time.monotonic() + 40
            while left := unanswered():
                assert time.monotonic() < until, left
            rules = ask(port, "rules")["groups"][0]["rules"]
            assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}
            assert {rule["name"] for rule in rules} == set(re.findall(r"- alert: (\w+)", RULES))
            for variable in DASHBOARD["templating"]["list"][1:]:
                found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
                assert found is not None
                series = ask(port, "query", query=expression(found[1]))["result"]
                assert all(one["metric"][found[2]] for one in series)
                assert series


def _has_a_number(result: list[dict[str, Any]]) -> bool:
    return any(one["value"][1] != "NaN" for one in result)
