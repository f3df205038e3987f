"""Several processes on one port: clients spread, figures whole, limits exact, and one service to look at."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.loopback import wait_until
from tests.proxy_process import Running, route, running_proxy
from tests.scripted import (
    BANNER,
    Mailbox,
    Peer,
    ScriptedServer,
    begin_message,
    connect,
    greet,
    nameless,
    send_mail,
    together,
)


@contextmanager
def workers(count: int | str, *, environment: Mapping[str, str] | None = None, **keys: object) -> Iterator[Running]:
    with ScriptedServer(Mailbox()) as server:
        config = {
            "service": {"workers": count},
            "admin": {"listen": "127.0.0.1:0"},
            "log": {"level": "debug"},
            "route": [route(server.port, **keys)],
        }
        with running_proxy(config, environment=environment) as running:
            yield running


WATCHED = {"WATCHDOG_USEC": "2000000"}  # two seconds without a word are a hang


def by_worker(running: Running, event: str) -> dict[str, int]:
    """How many such events each worker told; it is named in the middle of the sessions' ids."""
    found: dict[str, int] = {}
    for one in running.of(event):
        name = one["session"][7:9]
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


FULL = b"421 4.3.2 ehlo-proxy route r: too many sessions, try again"


@pytest.mark.parametrize("most", [1, 6])
def test_limits_are_those_of_all_workers_together(most: int) -> None:
    with workers(2, max_sessions=most) as running, ExitStack() as stack:
        said = together([lambda: stack.enter_context(connect(running.port)).reply() for _ in range(40)], 8)
        assert said.count(BANNER) == most
        assert all(one == BANNER or one.startswith(FULL) for one in said)
        stack.close()
        running.wait_for("session-end", count=most, outcome="client-closed")
        # Those places are free again, and again exactly so many.
        with ExitStack() as again:
            said = [again.enter_context(connect(running.port)).reply() for _ in range(20)]
            assert said.count(BANNER) == most


def test_a_client_has_its_limit_over_all_workers() -> None:
    with workers(2, max_sessions_per_client=3, allow_clients=["127.0.0.0/8"]) as running, ExitStack() as stack:

        def banner(source: str) -> bytes:
            return stack.enter_context(connect(running.port, source=source)).reply()

        for source in ("127.0.0.2", "127.0.0.3"):
            said = together([lambda source=source: banner(source) for _ in range(20)], 4)
            assert said.count(BANNER) == 3
            assert {one[:9] for one in said if one != BANNER} == {b"421 4.7.0"}


def test_a_worker_that_dies_gives_its_places_back() -> None:
    with workers(2, max_sessions=8) as running, ExitStack() as stack:
        said = [stack.enter_context(connect(running.port)).reply() for _ in range(30)]
        assert said.count(BANNER) == 8
        for pid in running.children:
            os.kill(pid, signal.SIGKILL)
        running.wait_for("worker-died", count=2)
        wait_until(lambda: len(running.children) == 2, 10, "they are replaced")
        stack.close()
        with ExitStack() as again:
            said = [again.enter_context(connect(running.port)).reply() for _ in range(30)]
            assert said.count(BANNER) == 8


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
            assert (
                nameless(client.rest(3)) == b"421 4.3.2 ehlo-proxy route r: the proxy is being stopped, try again\r\n"
            )
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


# -- workers that hang, or that can't be started ----------------------------------------------------------------------


@pytest.mark.alone  # the scripted peers wait ten seconds for a line
def test_a_worker_that_hangs_loses_its_clients_to_others_and_keeps_its_sessions() -> None:
    with workers(2, environment=WATCHED) as running, ExitStack() as stack:
        hung, well = running.children
        inside: dict[int, list[Peer]] = {hung: [], well: []}
        for _ in range(30):
            client = stack.enter_context(connect(running.port))
            greet(client)
            begin_message(client)
            inside[worker_of(client, running)].append(client)
        assert inside[hung]
        assert inside[well]
        os.kill(hung, signal.SIGSTOP)
        try:
            running.wait_for("worker-hangs", 30, pid=hung)
            wait_until(lambda: len(running.children) == 3, 10, "it is replaced")
            time.sleep(1)
            for _ in range(12):
                mail(running)
            for client in inside[well]:
                end_message(client)
            assert hung in running.children, "it was killed"
        finally:
            os.kill(hung, signal.SIGCONT)
        # It comes to itself: every message that it holds gets through, and new clients are not its own.
        for client in inside[hung]:
            end_message(client)
        for _ in range(12):
            mail(running)
        stack.close()
        wait_until(lambda: hung not in running.children, 10, "it ends by itself")
        assert running.of("worker-died") == []
        wait_until(lambda: running.metric("ehlo_proxy_sessions_open") == 0, 5, "nothing is open")


def test_a_worker_that_hangs_for_good_is_killed_when_its_sessions_have_had_their_time() -> None:
    with ScriptedServer(Mailbox()) as server:
        config = {"service": {"workers": 2, "drain_timeout": 2}, "route": [route(server.port)]}
        with running_proxy(config, environment=WATCHED) as running:
            hung = running.children[0]
            os.kill(hung, signal.SIGSTOP)
            running.wait_for("worker-hangs", 30, pid=hung)
            began = time.monotonic()
            wait_until(lambda: hung not in running.children, 10, "it is killed")
            assert time.monotonic() - began > 1.5


def test_a_worker_that_hangs_does_not_keep_the_service_from_its_end() -> None:
    with ScriptedServer(Mailbox()) as server:
        config = {"service": {"workers": 2, "drain_timeout": 1}, "route": [route(server.port)]}
        with running_proxy(config) as running:
            children = running.children
            os.kill(children[0], signal.SIGSTOP)
            running.signal(signal.SIGTERM)
            assert running.wait(15) == 0
            assert not any(exists(pid) for pid in children)


def worker_of(client: Peer, running: Running) -> int:
    """The process that has the other end of this connection."""
    port = client.sock.getsockname()[1]
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == port and int(fields[1].rpartition(":")[2], 16) == running.port:
            inodes.add(f"socket:[{fields[9]}]")
    for pid in running.children:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(descriptor) in inodes:
                return pid
    raise AssertionError("nobody has it")


def end_message(client: Peer) -> None:
    client.send(b"Subject: one\r\n\r\nbody\r\n.\r\n")
    assert client.reply() == b"250 2.0.0 taken\r\n"
    client.say(b"QUIT")


@contextmanager
def with_an_interpreter_that_goes(tmp_path: Path) -> Iterator[tuple[Running, Path]]:
    """Two workers, and the interpreter that others are started with: a link that can be taken away."""
    link = tmp_path / "bin" / "python"
    link.parent.mkdir()
    link.symlink_to(sys.executable)
    (tmp_path / "pyvenv.cfg").write_text((Path(sys.executable).parent.parent / "pyvenv.cfg").read_text())
    (tmp_path / "lib").symlink_to(Path(sys.executable).parent.parent / "lib")
    with ScriptedServer(Mailbox()) as server:
        config = {"service": {"workers": 2}, "route": [route(server.port)]}
        with running_proxy(config, interpreter=str(link)) as running:
            yield running, link


def test_a_worker_that_cannot_be_started_is_tried_again_ever_more_slowly(tmp_path: Path) -> None:
    with with_an_interpreter_that_goes(tmp_path) as (running, link):
        link.unlink()
        os.kill(running.children[0], signal.SIGKILL)
        told = running.wait_for("worker-not-started", 10, count=3)
        assert told["again"] > 0.5
        assert len(running.children) == 1
        for _ in range(8):
            mail(running)
        link.symlink_to(sys.executable)
        wait_until(lambda: len(running.children) == 2, 15, "it is replaced")
        mail(running)
        assert running.stop(5) == 0


def test_a_service_without_any_worker_left_still_ends(tmp_path: Path) -> None:
    with with_an_interpreter_that_goes(tmp_path) as (running, link):
        link.unlink()
        for pid in running.children:
            os.kill(pid, signal.SIGKILL)
        running.wait_for("worker-not-started", 10, count=2)
        running.signal(signal.SIGTERM)
        assert running.wait(5) == 0
        running.wait_for("stopped")


def test_nothing_that_lies_in_the_working_directory_is_executed(tmp_path: Path) -> None:
    for name in ("proxy", "twisted", "json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("open('executed', 'w').close()\n")
        (tmp_path / name / "__main__.py").write_text("open('executed', 'w').close()\n")
    with ScriptedServer(Mailbox()) as server:
        config = {"service": {"workers": 2}, "route": [route(server.port)]}
        with running_proxy(config, directory=tmp_path) as running:
            mail(running)
    assert not (tmp_path / "executed").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("count", [1, 2])
def test_root_is_given_up_behind_a_low_port(count: int) -> None:
    """Also by workers that are started later, and for ports that stay at a reload."""
    with ScriptedServer(Mailbox()) as server:
        config = {
            "service": {"workers": count, "user": "nobody"},
            "route": [route(server.port, listen="127.0.0.77:25")],
        }
        with running_proxy(config) as running:
            running.path.parent.chmod(0o755)  # for the reload
            running.path.chmod(0o644)
            pids = running.children or [running.pid]
            assert {uids(pid) for pid in (running.pid, *pids)} == {uids_of("nobody")}
            running.reload(config)
            if count > 1 and may_run(sys.executable, "nobody"):
                os.kill(pids[0], signal.SIGKILL)
                running.wait_for("worker-died")
                wait_until(lambda: len(running.children) == 2, 10, "it is replaced")
                time.sleep(1)
            for _ in range(8):
                with connect(25, host="127.0.0.77") as client:
                    assert send_mail(client) == b"250 2.0.0 taken\r\n"


def may_run(program: str, user: str) -> bool:
    """Where the interpreter lies below /root, workers can be started by root only: those at the start."""
    command = [program, "-c", ""]
    try:
        return subprocess.run(command, user=user, group="nogroup", cwd="/", check=False, timeout=20).returncode == 0
    except PermissionError:
        return False


def uids(pid: int) -> str:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
    return " ".join(line.split()[1:])


def uids_of(name: str) -> str:
    return " ".join([str(pwd.getpwnam(name).pw_uid)] * 4)


def test_idle_workers_are_quiet() -> None:
    """Two of them made 20 switches a second together when each told a snapshot five times a second."""
    with workers(2) as running:
        mail(running)
        time.sleep(2)
        processes = [running.pid, *running.children]
        before = sum(map(switches, processes))
        time.sleep(3)
        assert (sum(map(switches, processes)) - before) / 3 < 10


def switches(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
