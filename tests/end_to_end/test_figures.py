"""/metrics and /status.json of a running service: from the start, while bytes flow, over all workers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.loopback import wait_until
from tests.proxy_process import Running, route, running_proxy
from tests.scripted import Mailbox, ScriptedServer, begin_message, connect, greet, send_mail


def status_of(running: Running) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(running.get("/status.json")[1])
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_every_series_is_there_before_the_first_client_and_counts_what_happens(workers: int) -> None:
    with ScriptedServer(Mailbox()) as server:
        config = {
            "service": {"workers": workers},
            "admin": {"listen": "127.0.0.1:0"},
            "route": [
                route(server.port, max_sessions=7),
                route("127.0.0.1:9", name="strangers", allow_clients=["192.0.2.1/32"]),
            ],
        }
        with running_proxy(config) as running:
            text = running.get("/metrics")[1].decode()
            for line in (
                'ehlo_proxy_sessions_total{outcome="completed",route="r",tls="none"} 0.0',
                'ehlo_proxy_refused_total{reason="not_allowed",route="strangers"} 0.0',
                'ehlo_proxy_starttls_total{result="accepted",route="r"} 0.0',
                'ehlo_proxy_bytes_total{direction="from_client",route="r"} 0.0',
                'ehlo_proxy_sessions_limit{route="r"} 7.0',
                f'ehlo_proxy_destination_up{{destination="127.0.0.1:{server.port}",route="r"}} 1.0',
                f"ehlo_proxy_workers {float(workers)}",
                "ehlo_proxy_log_lines_lost_total 0.0",
                'ehlo_proxy_config_reloads_total{result="failed"} 0.0',
            ):
                assert line in text, line
            for _ in range(3):
                with connect(running.port_of("r")) as client:
                    send_mail(client)
            for _ in range(2):
                with connect(running.port_of("strangers")) as client:
                    assert client.rest().startswith(b"421 4.7.1 ")
            wait_until(lambda: running.metric("ehlo_proxy_sessions_total") == 5, 5, "five sessions")
            assert running.metric("ehlo_proxy_refused_total", route="strangers", reason="not_allowed") == 2
            assert running.metric("ehlo_proxy_starttls_total", route="r", result="not_used") == 3
            assert running.metric("ehlo_proxy_turn_seconds_count") > 0
            assert running.metric("process_resident_memory_bytes") > workers * 10_000_000
            served, strangers = status_of(running)["routes"]
            assert {key: served[key] for key in served if key not in ("listen", "destinations")} == {
                "name": "r", "mode": "passthrough", "sessions_open": 0, "sessions_limit": 7, "sessions_total": 3,
                "refused_total": 0, "failed_total": 0, "tls_total": 0,
            }  # fmt: skip
            assert (strangers["sessions_total"], strangers["refused_total"]) == (2, 2)
            assert strangers["destinations"][0]["up"] is None


@pytest.mark.parametrize("workers", [1, 2])
def test_bytes_count_while_they_flow(workers: int) -> None:
    with ScriptedServer(Mailbox()) as server:
        config = {
            "service": {"workers": workers},
            "admin": {"listen": "127.0.0.1:0"},
            "route": [route(server.port)],
        }
        with running_proxy(config) as running, connect(running.port) as client:
            greet(client)
            begin_message(client)
            client.send(b"x" * 70 + b"\r\n")
            for _ in range(100):
                client.send((b"y" * 998 + b"\r\n") * 10)

            def flowed() -> bool:
                return running.metric("ehlo_proxy_bytes_total", direction="from_client") > 1_000_000

            wait_until(flowed, 10, "the bytes of a mail that is not over")
            assert running.metric("ehlo_proxy_sessions_open") == 1


def test_a_destination_that_is_down_says_why_and_since_when() -> None:
    with running_proxy({"admin": {"listen": "127.0.0.1:0"}, "route": [route("127.0.0.1:9")]}) as running:
        with connect(running.port) as client:
            client.rest()
        wait_until(lambda: running.metric("ehlo_proxy_destination_up") == 0, 5, "down")
        (destination,) = status_of(running)["routes"][0]["destinations"]
        assert destination["up"] is False
        assert destination["reason"] == "connection refused"
        assert destination["since"]
        assert status_of(running)["routes"][0]["failed_total"] == 1
