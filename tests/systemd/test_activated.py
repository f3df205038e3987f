"""The real ehlo-proxy-activated.service and its sockets: no right at all, and a restart that refuses nobody."""

from __future__ import annotations

import re
import time

import pytest

from tests.loopback import wait_until
from tests.systemd.conftest import CERTIFICATE
from tests.systemd.machine import CONFIGURATION, Machine
from tests.systemd.senders import InMessage, Senders, Waiting

pytestmark = [pytest.mark.systemd, pytest.mark.root, pytest.mark.alone]

UNIT = "ehlo-proxy-activated.service"
SOCKETS = "ehlo-proxy-25-v4.socket ehlo-proxy-25-v6.socket"
EXPOSURE = 1.1
RATE = 200.0  # connections a second
CONFIG = """
[[route]]
name = "domain1"
listen = ["systemd:ehlo-proxy-25-v4", "systemd:ehlo-proxy-25-v6"]
destination = ["127.0.0.1:2530"]
"""


@pytest.fixture
def running(machine: Machine) -> Machine:
    machine.write(CONFIGURATION, CONFIG)
    machine.run(f"systemctl enable -q --now {SOCKETS} {UNIT}")
    return machine


def test_systemds_sockets_are_taken_by_name_on_both_families(running: Machine) -> None:
    for host in ("127.0.0.1", "::1"):
        with Senders(running, 20, host) as senders:
            time.sleep(0.5)
        assert senders.ended == {"completed": senders.ended["completed"]}
    assert "25" in running.run("ss -Hlnt sport = :25")


def test_it_has_no_right_and_its_exposure_is_small(running: Machine) -> None:
    pid = running.main_pid(UNIT)
    told = dict(line.split(":\t", 1) for line in running.run(f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
    for kind in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(told[kind], 16) == 0, kind
    assert "0" not in told["Uid"].split()
    assert running.run(f"readlink /proc/{pid}/ns/user") != running.run("readlink /proc/1/ns/user"), "users of its own"
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", running.run(f"systemd-analyze security {UNIT}"))
    assert found
    print(f"{UNIT}: {found[1]}")
    assert float(found[1]) <= EXPOSURE


def test_ten_reloads_and_three_restarts_at_200_connections_a_second_refuse_and_reset_nobody(running: Machine) -> None:
    first = running.main_pid(UNIT)
    with Senders(running, RATE) as senders:
        for limit in range(10):
            running.write(CONFIGURATION, CONFIG + f"max_sessions = {900 + limit}\n")
            running.run(f"systemctl reload {UNIT}")
            time.sleep(0.5)
        for _ in range(3):
            running.run(f"systemctl restart {UNIT}", 90)
            time.sleep(1.5)
    done = senders.ended["completed"]
    print(f"{done} sessions, {senders.again} came again after 421 4.3.2, the longest took {senders.longest:.1f} s")
    assert senders.ended == {"completed": done}
    assert done > 1000
    # Those that stood between two commands at the moment of a restart: a few, not the backlog.
    assert senders.again < done / 20
    assert running.main_pid(UNIT) not in (0, first)
    assert len(running.events(UNIT, "reload")) == 10
    assert len(running.events(UNIT, "ready")) == 4
    assert not [end for end in running.events(UNIT, "session-end") if re.search("outcome=(client|server)-reset", end)]


def test_a_restart_waits_for_a_message_and_who_comes_meanwhile_waits_too(running: Machine) -> None:
    inside, waiting = InMessage(running, pem=running.path(CERTIFICATE).read_text()), Waiting(running)
    restarting = running.command(f"systemctl restart {UNIT}")
    assert waiting.rest().startswith(b"421 4.3.2 ")
    with Senders(running, 50) as senders:
        time.sleep(3)
        assert not senders.ended, "nobody accepts"
        assert restarting.poll() is None
        assert inside.finish() == (250, 221)
        assert restarting.communicate(timeout=60)[0] == ""
        time.sleep(1)
    assert senders.ended == {"completed": senders.ended["completed"]}
    assert senders.ended["completed"] > 100
    assert senders.longest > 2.0


def test_a_service_that_is_down_is_started_by_the_first_connection(running: Machine) -> None:
    running.run(f"systemctl stop {UNIT}")
    assert running.show(UNIT, "ActiveState") == "inactive"
    with Senders(running, 10) as senders:
        time.sleep(1)
    assert senders.ended == {"completed": senders.ended["completed"]}
    assert running.show(UNIT, "ActiveState") == "active"


def test_a_process_that_is_killed_leaves_the_sockets_and_is_replaced(running: Machine) -> None:
    running.run(f"systemctl kill --signal=KILL {UNIT}")
    time.sleep(0.2)  # those that it had accepted are lost; none is refused afterwards
    with Senders(running, 50) as senders:
        time.sleep(4)
    assert senders.ended == {"completed": senders.ended["completed"]}
    wait_until(lambda: running.show(UNIT, "ActiveState") == "active", 10, "active")


def test_the_two_services_do_not_run_side_by_side(running: Machine) -> None:
    running.write(CONFIGURATION, CONFIG.replace("systemd:ehlo-proxy-25-v4", "127.0.0.1:2599"))
    running.run("systemctl start ehlo-proxy.service || true")
    assert running.show(UNIT, "ActiveState") == "inactive"
