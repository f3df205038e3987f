"""Several processes on one port: clients spread, figures whole, limits divided, and one service to look at."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.loopback import wait_until
from tests.proxy_process import Running, route, running_proxy
from tests.scripted import BANNER, Mailbox, ScriptedServer, connect, greet, send_mail, together


@contextmanager
def workers(count: int | str, **keys: object) -> Iterator[Running]:
    with ScriptedServer(Mailbox()) as server:
        config = {
            "service": {"workers": count},
            "admin": {"listen": "127.0.0.1:0"},
            "log": {"level": "debug"},
            "route": [route(server.port, **keys)],
        }
        with running_proxy(config) as running:
            yield running


def by_worker(running: Running, event: str) -> dict[str, int]:
    """How many such events each worker told; its name is the first part of the sessions'."""
    found: dict[str, int] = {}
    for one in running.of(event):
        name = one["session"].rpartition("-")[0]
        found[name] = found.get(name, 0) + 1
    return found


def test_clients_are_spread_figures_are_whole_and_every_session_has_one_end() -> None:
    with workers(3) as running:
        assert running.of("ready")[0]["workers"] == 3
        assert len(running.children) == 3
        together([lambda: mail(running)] * 90, 8)
        running.wait_for("session-end", count=90)
        shares = by_worker(running, "session-end")
        assert len(shares) == 3
        assert min(shares.values()) >= 10, shares
        wait_until(lambda: running.metric("ehlo_proxy_sessions_total", outcome="completed") == 90, 5, "the sum")
        assert running.metric("ehlo_proxy_findings_total", finding="greeting-not-first", repaired="true") == 90
        assert running.metric("ehlo_proxy_sessions_open") == 0
        assert running.metric("ehlo_proxy_ehlo_seconds_count") == 90
        status = json.loads(running.get("/status.json")[1])
        assert status["workers"] == 3
        assert status["routes"][0]["sessions_total"] == 90
        assert len(status["routes"][0]["destinations"]) == 1
        # One more that stays is seen by whoever asks.
        with connect(running.port) as client:
            greet(client)
            wait_until(lambda: running.sessions_open() == 1, 3, "it is seen")
            running.signal(signal.SIGUSR1)
            assert running.wait_for("status-route")["sessions_open"] == 1


def mail(running: Running) -> None:
    with connect(running.port) as client:
        assert send_mail(client) == b"250 2.0.0 taken\r\n"


def test_limits_are_divided_among_the_workers() -> None:
    # Each has its share, so that all of them never exceed the limit; one may be full before the others.
    with workers(2, max_sessions=6) as running, ExitStack() as stack:
        said = []
        for _ in range(40):
            client = stack.enter_context(connect(running.port))
            said.append(client.reply())
        assert said.count(BANNER) == 6
        assert set(said) == {BANNER, b"421 4.3.2 ehlo-proxy route r: too many sessions, try again\r\n"}
        assert sorted(by_worker(running, "session-start").values()) == [3, 3]


def test_figures_of_a_worker_that_died_stay_counted() -> None:
    with workers(2) as running:
        together([lambda: mail(running)] * 20, 4)
        running.wait_for("session-end", count=20)
        wait_until(lambda: running.metric("ehlo_proxy_sessions_total") == 20, 5, "the sum")
        victim = running.children[0]
        os.kill(victim, signal.SIGKILL)
        running.wait_for("worker-died", pid=victim)
        wait_until(lambda: len(running.children) == 2, 10, "it is replaced")
        assert running.metric("ehlo_proxy_sessions_total") == 20
        together([lambda: mail(running)] * 10, 4)
        wait_until(lambda: running.metric("ehlo_proxy_sessions_total") == 30, 5, "the sum")


def test_signals_to_the_parent_reach_all_and_no_process_is_left() -> None:
    with workers(2) as running, ExitStack() as stack:
        children = running.children
        clients = [stack.enter_context(connect(running.port)) for _ in range(12)]
        for client in clients:
            greet(client)
        assert len(by_worker(running, "session-start")) == 2
        running.signal(signal.SIGTERM)
        for client in clients:
            assert client.rest(3) == b"421 4.3.2 ehlo-proxy route r: the proxy is being stopped, try again\r\n"
            client.close()
        assert running.wait(5) == 0
        running.wait_for("stopped")
        assert len(running.of("session-end")) == 12
        wait_until(lambda: not any(exists(pid) for pid in children), 3, "no worker is left")


def exists(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_signals_that_a_terminal_sends_to_all_are_taken_by_the_parent_alone() -> None:
    # Ctrl-C reaches the whole group: it must drain, not end at once as a second signal would.
    with workers(2) as running, connect(running.port) as client:
        greet(client)
        assert client.say(b"MAIL FROM:<>")[:3] == b"250"
        for pid in [running.pid, *running.children]:
            os.kill(pid, signal.SIGINT)
        running.wait_for("drain")
        time.sleep(0.3)
        assert running.process.poll() is None
        assert client.say(b"RCPT TO:<b@x>")[:3] == b"250"
        assert client.say(b"QUIT") == b"221 bye\r\n"
        client.close()
        assert running.wait(5) == 0
        assert len(running.of("session-end", outcome="completed")) == 1


def test_auto_is_one_for_each_processor() -> None:
    with workers("auto") as running:
        assert len(running.children) == len(os.sched_getaffinity(0)) or len(os.sched_getaffinity(0)) == 1


def test_worker_that_cannot_start_fails_the_service_with_a_reason() -> None:
    tls = {"mode": "bridge", "client": "none", "server": "starttls", "ca_file": "/dev/null"}
    config = {"service": {"workers": 2}, "route": [route(25, tls=tls)]}
    with running_proxy(config, ready=False, quiet=False) as running:
        assert running.wait(20) in (1, 2)
    assert "/dev/null" in "\n".join(running.noise) or "ca_file" in "\n".join(running.noise)


@pytest.mark.long
@pytest.mark.alone
def test_worker_that_dies_again_and_again_is_replaced_ever_more_slowly() -> None:
    with workers(2) as running:
        for number in range(4):
            wait_until(lambda: len(running.children) == 2, 20, "it is replaced")
            os.kill(running.children[-1], signal.SIGKILL)
            told = running.wait_for("worker-died", count=number + 1)
        assert told["again"] > 0.5
        mail(running)
