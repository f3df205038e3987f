"""The real ehlo-proxy.service under the real systemd: it starts, tells, reloads, drains, and is watched."""

from __future__ import annotations

import os
import re
import time

import pytest

from proxy.tools.strict_client import StrictClient
from tests.loopback import wait_until
from tests.systemd.conftest import CERTIFICATE, MAIL
from tests.systemd.machine import CONFIGURATION, Machine
from tests.systemd.senders import InMessage, Senders, Waiting

pytestmark = [pytest.mark.systemd, pytest.mark.root, pytest.mark.alone]

UNIT = "ehlo-proxy.service"
EXPOSURE = 1.4
CONFIG = """
[admin]
listen = "127.0.0.1:9925"

[[route]]
name = "domain1"
listen = ["0.0.0.0:25", "[::]:25"]
destination = ["127.0.0.1:2530"]
"""
MESSAGE = b"Subject: hello\r\n\r\nThrough port 25.\r\n.dot\r\n"


@pytest.fixture
def running(machine: Machine) -> Machine:
    machine.write(CONFIGURATION, CONFIG)
    machine.start(UNIT)
    return machine


def pem(machine: Machine) -> str:
    return machine.path(CERTIFICATE).read_text()


def status_process(machine: Machine) -> dict[str, str]:
    """What the kernel says of the main process."""
    told = machine.run(f"cat /proc/{machine.main_pid(UNIT)}/status")
    return dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)


def test_systemd_knows_when_it_is_ready_and_shows_its_figures(running: Machine) -> None:
    assert running.show(UNIT, "ActiveState") == "active"
    assert len(running.events(UNIT, "ready")) == 1
    with Senders(running, 20) as senders:
        time.sleep(1.0)
    done = senders.ended["completed"]
    assert senders.ended == {"completed": done}
    waiting = Waiting(running)
    wait_until(
        lambda: f'Status: "1 sessions open, {done} ended"' in running.run(f"systemctl status --no-pager {UNIT}"),
        10,
        f"1 open and {done} ended in systemctl status",
    )
    stopping = running.command(f"systemctl stop {UNIT}")
    assert waiting.rest().startswith(b"421 4.3.2 ")
    assert stopping.communicate(timeout=20)[0] == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_mail_goes_through_port_25_in_the_servers_own_tls(running: Machine, host: str) -> None:
    with running.network():
        sent = StrictClient(host, 25, "mail.domain1.com", pem(running)).send("a@esa.com", "b@domain1.com", MESSAGE)
    assert sent.sent, sent
    (saved,) = running.path(MAIL).iterdir()
    assert saved.read_bytes().endswith(MESSAGE)
    (end,) = running.events(UNIT, "session-end")
    assert "outcome=completed" in end
    assert "ehlo=repaired" in end
    assert "tls=passthrough" in end


def test_ten_reloads_under_load_lose_no_session(running: Machine) -> None:
    with Senders(running, 100) as senders:
        for limit in range(10):
            running.write(CONFIGURATION, CONFIG + f"max_sessions = {500 + limit}\n")
            running.run(f"systemctl reload {UNIT}")
            time.sleep(0.3)
    assert senders.ended == {"completed": senders.ended["completed"]}
    assert senders.again == 0
    assert senders.ended["completed"] > 200
    assert len(running.events(UNIT, "reload")) == 10
    ends = running.events(UNIT, "session-end")
    assert len(ends) == senders.ended["completed"]
    assert all("outcome=completed" in end for end in ends)


def test_a_bad_file_fails_the_reload_with_every_error_and_changes_nothing(running: Machine) -> None:
    pid = running.main_pid(UNIT)
    running.write(CONFIGURATION, CONFIG + "max_sesions = 5\nmax_sessions_per_client = -1\n")
    said = running.run(f"systemctl reload {UNIT}", fails=True)
    assert f"Job for {UNIT} failed" in said
    assert "systemctl status" in said
    (failed,) = wait_until(lambda: running.events(UNIT, "reload-failed"), 10, "that it failed")
    assert "max_sesions" in failed
    assert "max_sessions_per_client" in failed
    assert running.events(UNIT, "reload") == []
    status = running.run(f"systemctl status --no-pager {UNIT} || true")
    assert "the last reload failed" in status
    assert "max_sesions" in status
    read = 'import urllib.request as u; print(u.urlopen("http://127.0.0.1:9925/metrics").read().decode())'
    metrics = running.run(f"python3 -c '{read}'")
    assert re.search(r'^ehlo_proxy_config_reloads_total\{result="failed"\} 1(\.0)?$', metrics, re.M)
    assert (running.show(UNIT, "ActiveState"), running.main_pid(UNIT)) == ("active", pid)
    with Senders(running, 20) as senders:
        time.sleep(0.5)
    assert senders.ended == {"completed": senders.ended["completed"]}
    running.write(CONFIGURATION, CONFIG)
    running.run(f"systemctl reload {UNIT}")
    wait_until(lambda: "failed" not in running.show(UNIT, "StatusText"), 10, "a status without it")


def test_stopping_lets_a_message_end_tells_who_waits_and_is_well(running: Machine) -> None:
    inside, waiting = InMessage(running, pem=pem(running)), Waiting(running)
    stopping = running.command(f"systemctl stop {UNIT}")
    assert waiting.rest().startswith(b"421 4.3.2 ")
    with running.network(), pytest.raises(ConnectionRefusedError):
        Waiting(running)
    assert "draining, 1 sessions open" in wait_until(
        lambda: (text := running.show(UNIT, "StatusText")).startswith("draining") and text, 10, "draining"
    )
    assert stopping.poll() is None
    assert inside.finish() == (250, 221)
    assert stopping.communicate(timeout=20)[0] == ""
    assert (running.show(UNIT, "Result"), running.show(UNIT, "ExecMainStatus")) == ("success", "0")
    (saved,) = running.path(MAIL).iterdir()
    assert saved.read_bytes().endswith(b"before\r\nafter\r\n")
    (stopped,) = running.events(UNIT, "stopped")
    assert "cut=0" in stopped


def test_a_drain_gets_the_time_that_it_may_take_from_a_unit_that_gives_less(machine: Machine) -> None:
    machine.write(CONFIGURATION, CONFIG)
    machine.drop_in(UNIT, TimeoutStopSec="2s")
    machine.start(UNIT)
    inside = InMessage(machine, pem=pem(machine))
    stopping = machine.command(f"systemctl stop {UNIT}")
    time.sleep(5)
    assert inside.finish() == (250, 221)
    assert stopping.communicate(timeout=20)[0] == ""
    assert (machine.show(UNIT, "Result"), machine.show(UNIT, "ExecMainStatus")) == ("success", "0")


def test_the_watchdog_starts_anew_what_stands_still(machine: Machine) -> None:
    machine.write(CONFIGURATION, CONFIG)
    machine.drop_in(UNIT, WatchdogSec="3s")
    machine.start(UNIT)
    pid = machine.main_pid(UNIT)
    time.sleep(7)
    assert (machine.main_pid(UNIT), machine.show(UNIT, "NRestarts")) == (pid, "0"), "it pings"
    machine.run(f"kill -STOP {pid}")
    wait_until(lambda: machine.main_pid(UNIT) not in (0, pid), 30, "another process")
    wait_until(lambda: machine.show(UNIT, "ActiveState") == "active", 20, "active")
    assert machine.show(UNIT, "NRestarts") == "1"
    assert "watchdog" in machine.run(f"journalctl --no-pager -o cat -u {UNIT}").lower()
    with Senders(machine, 20) as senders:
        time.sleep(0.5)
    assert senders.ended == {"completed": senders.ended["completed"]}


def test_what_dies_is_started_again(running: Machine) -> None:
    pid = running.main_pid(UNIT)
    running.run(f"kill -KILL {pid}")
    wait_until(lambda: running.main_pid(UNIT) not in (0, pid), 20, "another process")
    wait_until(lambda: running.show(UNIT, "ActiveState") == "active", 20, "active")
    assert running.show(UNIT, "NRestarts") == "1"
    with Senders(running, 20) as senders:
        time.sleep(0.5)
    assert set(senders.ended) == {"completed"}


def test_a_bad_configuration_is_told_and_not_tried_again(machine: Machine) -> None:
    machine.write(CONFIGURATION, CONFIG + "max_sesions = 5\n")
    machine.run(f"systemctl start {UNIT}", fails=True)
    time.sleep(3)
    assert (machine.show(UNIT, "ExecMainStatus"), machine.show(UNIT, "NRestarts")) == ("2", "0")
    assert "max_sesions" in machine.run(f"journalctl --sync; journalctl --no-pager -o cat -u {UNIT}")


def test_a_port_that_is_taken_is_told_and_tried_again_in_vain_five_times(machine: Machine) -> None:
    machine.write(CONFIGURATION, CONFIG)
    machine.run("systemd-run -q --unit=squatter python3 -m http.server --bind 127.0.0.1 25")
    try:
        wait_until(lambda: machine.run("ss -Hlnt sport = :25"), 10, "the squatter")
        machine.drop_in(UNIT, RestartSec="100ms")
        machine.run(f"systemctl start {UNIT}", fails=True)
        wait_until(lambda: machine.show(UNIT, "ActiveState") == "failed", 30, "that it is given up")
        told = machine.run(f"journalctl --sync; journalctl --no-pager -o cat -u {UNIT}")
        assert told.count("cannot start: cannot listen on 0.0.0.0:25") == 5
    finally:
        machine.run("systemctl stop squatter")


def test_it_has_one_right_and_is_nobody(running: Machine) -> None:
    told = status_process(running)
    uids = set(told["Uid"].split())
    assert len(uids) == 1
    assert 61184 <= int(uids.pop()) <= 65519, "a dynamic user"
    for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(told[kind], 16) == 1 << 10, f"{kind}: CAP_NET_BIND_SERVICE alone"
    assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")


def test_it_can_write_nowhere_but_in_a_tmp_of_its_own(running: Machine) -> None:
    uid = status_process(running)["Uid"].split()[0]
    inside = f"nsenter --target={running.main_pid(UNIT)} --mount setpriv --reuid={uid} --regid={uid} --clear-groups"
    found = r"find / \( -path /proc -o -path /dev/pts \) -prune -o \( -type d -o -type f \) -writable -print"
    writable = set(running.run(f"{inside} {found} 2>/dev/null || true").splitlines())
    assert writable <= {"/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue"}
    for hidden in (CERTIFICATE, "/etc/shadow", "/home", f"/proc/{running.leader}"):
        running.run(f"{inside} cat {hidden}", fails=True)
    running.run(f"touch /tmp/of-the-host; {inside} test ! -e /tmp/of-the-host")


def test_its_exposure_is_small(running: Machine) -> None:
    told = running.run(f"systemd-analyze security --no-pager {UNIT}")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert found, told
    print(f"{UNIT}: {found[1]}")
    assert float(found[1]) <= EXPOSURE


def test_the_journal_has_each_event_once_with_its_level(running: Machine) -> None:
    with Senders(running, 20) as senders:
        time.sleep(0.5)
    running.write(CONFIGURATION, CONFIG + "max_sesions = 5\n")
    running.run(f"kill -HUP {running.main_pid(UNIT)}")
    wait_until(lambda: running.events(UNIT, "reload-failed"), 10, "reload-failed")
    levels: dict[str, set[str]] = {}
    for entry in running.journal(UNIT):
        message = entry["MESSAGE"]
        assert not message.startswith("<"), message
        levels.setdefault(message.split(" ", 1)[0], set()).add(entry["PRIORITY"])
    assert levels["ready"] == levels["session-end"] == {"6"}
    assert levels["reload-failed"] == {"4"}
    assert len(running.events(UNIT, "session-end")) == senders.ended["completed"]
    warnings = [entry["MESSAGE"] for entry in running.journal(UNIT, "--priority=warning")]
    assert [line.split(" ", 1)[0] for line in warnings] == ["reload-failed"]


def test_workers_belong_to_the_service_and_end_with_it(machine: Machine) -> None:
    machine.write(CONFIGURATION, '[service]\nworkers = "auto"\n' + CONFIG)
    machine.start(UNIT)
    group = machine.show(UNIT, "ControlGroup")
    processes = machine.run(f"cat /sys/fs/cgroup{group}/cgroup.procs").split()
    assert len(processes) == 1 + len(os.sched_getaffinity(0))
    with Senders(machine, 50) as senders:
        time.sleep(1)
        machine.run(f"systemctl reload {UNIT}")
        time.sleep(1)
    assert senders.ended == {"completed": senders.ended["completed"]}
    inside = InMessage(machine, pem=pem(machine))
    stopping = machine.command(f"systemctl stop {UNIT}")
    time.sleep(1)
    assert inside.finish() == (250, 221)
    assert stopping.communicate(timeout=20)[0] == ""
    assert (machine.show(UNIT, "Result"), machine.show(UNIT, "ExecMainStatus")) == ("success", "0")
