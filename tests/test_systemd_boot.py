"""The real units in a Debian 12 that boots: started, reloaded, restarted, stopped and watched by the real systemd.

Only with `tests/run --systemd`: it installs a system (debootstrap), which takes minutes and the network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests import certificates
from tests.debian import Debian, missing

pytestmark = [pytest.mark.systemd, pytest.mark.root]

CONFIGURATION = """
[admin]
listen = "127.0.0.1:9925"
[[route]]
name = "domain1"
listen = {listen}
destination = ["127.0.0.1:2526"]
"""
OWN = CONFIGURATION.format(listen='["0.0.0.0:25", "[::]:25"]')
PASSED = CONFIGURATION.format(listen='["systemd:ehlo-proxy-25-v4", "systemd:ehlo-proxy-25-v6"]')

BROKEN_SERVER = r"""
import socket, threading
def serve(client):
    client.sendall(b"220 mail.domain1.com ESMTP\r\n")
    for line in client.makefile("rb"):
        if line.startswith(b"EHLO"):
            client.sendall(b"250-STARTTLS\r\n250-mail.domain1.com\r\n250 HELP\r\n")
        elif line.startswith(b"QUIT"):
            client.sendall(b"221 bye\r\n")
            client.close()
            return
listening = socket.create_server(("127.0.0.1", 2526), backlog=1024)
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""

# sessions.py ADDRESS SECONDS RATE: so many sessions a second for so long; prints how they ended, as JSON.
SESSIONS = r"""
import json, socket, sys, threading, time
ended = []
def session():
    try:
        with socket.create_connection((sys.argv[1], 25), timeout=30) as sock:
            lines = sock.makefile("rb")
            banner = lines.readline()
            sock.sendall(b"EHLO esa.com\r\n")
            reply = [lines.readline() for _ in range(3)]
            sock.sendall(b"QUIT\r\n")
            last = lines.readline()
        told = [banner, *reply, last]
        well = reply == [b"250-mail.domain1.com\r\n", b"250-STARTTLS\r\n", b"250 HELP\r\n"] and last[:3] == b"221"
        # A session that came before the drain, and was between commands, is told so; it is not cut.
        drained = any(line.startswith(b"421 4.3.2") for line in told)
        ended.append("completed" if well else "drained" if drained else repr(told))
    except OSError as error:
        ended.append(repr(error))
threads, begun = [], time.monotonic()
for number in range(int(float(sys.argv[2]) * float(sys.argv[3]))):
    time.sleep(max(0, begun + number / float(sys.argv[3]) - time.monotonic()))
    threads.append(threading.Thread(target=session))
    threads[-1].start()
for thread in threads:
    thread.join(60)
print(json.dumps({kind: ended.count(kind) for kind in set(ended)}))
"""


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    if why := missing():
        pytest.skip(f"no system was booted: {why}")
    system = Debian(tmp_path_factory.mktemp("debian"))
    try:
        system.install()
        system.write("/root/broken.py", BROKEN_SERVER)
        system.write("/root/sessions.py", SESSIONS)
        system.boot()
        system.run("systemd-run -q --unit=broken python3 /root/broken.py")
        yield system
    finally:
        system.remove()


@pytest.fixture(autouse=True)
def stopped(debian: Debian) -> Iterator[None]:
    """Every test leaves the service stopped, without drop-ins, and what it logged is read by it alone."""
    yield
    debian.run("systemctl stop 'ehlo-proxy*.socket' 'ehlo-proxy*.service' 2>/dev/null; systemctl reset-failed")
    for unit in ("ehlo-proxy.service", "ehlo-proxy-activated.service"):
        debian.drop_ins(unit)
    debian.run("journalctl -q --rotate; journalctl -q --vacuum-time=1s >/dev/null 2>&1")


def sessions(debian: Debian, address: str = "127.0.0.1", seconds: float = 1, rate: float = 1) -> dict[str, int]:
    told = debian.run(f"python3 /root/sessions.py {address} {seconds} {rate}", timeout=seconds + 90)
    counts: dict[str, int] = json.loads(told)
    return counts


def capabilities(debian: Debian, unit: str) -> str:
    pid = debian.property(unit, "MainPID")
    return debian.run(f"sed -n 's/^CapEff:[[:space:]]*//p' /proc/{pid}/status")


def test_the_service_starts_with_one_right_and_repairs_on_both_families(debian: Debian) -> None:
    debian.write("/etc/ehlo-proxy/ehlo-proxy.toml", OWN)
    debian.start("ehlo-proxy")
    assert debian.property("ehlo-proxy", "ActiveState") == "active"
    assert int(capabilities(debian, "ehlo-proxy"), 16) == 1 << 10, "CAP_NET_BIND_SERVICE alone"
    for address in ("127.0.0.1", "::1"):
        assert sessions(debian, address) == {"completed": 1}
    debian.run("sleep 2")
    assert "2 ended" in debian.property("ehlo-proxy", "StatusText")
    journal = debian.journal("ehlo-proxy")
    assert "\nready listen=0.0.0.0:25,[::]:25 " in f"\n{journal}"
    assert journal.count("\nsession-end ") == 2
    debian.run("systemctl stop ehlo-proxy")
    assert debian.property("ehlo-proxy", "Result") == "success"
    assert debian.property("ehlo-proxy", "ExecMainStatus") == "0"
    assert debian.journal("ehlo-proxy").count("\nstopped ") == 1


def test_a_bad_file_fails_the_reload_with_every_error_and_changes_nothing(debian: Debian) -> None:
    debian.write("/etc/ehlo-proxy/ehlo-proxy.toml", OWN)
    debian.start("ehlo-proxy")
    debian.run("systemctl reload ehlo-proxy")
    debian.write("/etc/ehlo-proxy/ehlo-proxy.toml", OWN + "listn = 1\nmax_sessions = -1\n")
    assert debian.fails("systemctl reload ehlo-proxy")
    journal = debian.journal("ehlo-proxy")
    assert "listn" in journal
    assert "max_sessions" in journal
    debian.run("systemctl kill -s HUP --kill-who=main ehlo-proxy; sleep 1")
    assert "reload-failed " in debian.journal("ehlo-proxy", "-p", "err"), "with its level, for journalctl -p"
    assert sessions(debian) == {"completed": 1}


def test_a_bad_file_at_the_start_is_told_once_and_not_tried_again(debian: Debian) -> None:
    debian.write("/etc/ehlo-proxy/ehlo-proxy.toml", OWN + "listn = 1\n")
    assert debian.fails("systemctl start ehlo-proxy")
    debian.run("sleep 4")
    assert debian.property("ehlo-proxy", "ActiveState") == "failed"
    assert debian.property("ehlo-proxy", "ExecMainStatus") == "2"
    assert debian.property("ehlo-proxy", "NRestarts") == "0"


def test_activated_it_has_no_right_and_refuses_nobody_over_ten_reloads_and_a_restart(debian: Debian) -> None:
    debian.write("/etc/ehlo-proxy/ehlo-proxy.toml", PASSED)
    debian.run("systemctl enable -q --now ehlo-proxy-25-v4.socket ehlo-proxy-25-v6.socket ehlo-proxy-activated")
    assert int(capabilities(debian, "ehlo-proxy-activated"), 16) == 0
    assert sessions(debian, "::1") == {"completed": 1}
    first = debian.property("ehlo-proxy-activated", "MainPID")
    reloads = "for n in 1 2 3 4 5 6 7 8 9 10; do systemctl reload ehlo-proxy-activated; sleep 0.3; done"
    debian.run(f"({reloads}; systemctl restart ehlo-proxy-activated) >/tmp/orders 2>&1 & exit 0")
    ended = sessions(debian, seconds=20, rate=200)
    debian.run("sleep 1; test ! -s /tmp/orders || { cat /tmp/orders; exit 1; }")
    assert debian.property("ehlo-proxy-activated", "MainPID") != first
    assert set(ended) <= {"completed", "drained"}
    assert sum(ended.values()) == 4000
    assert ended["completed"] >= 3950
    journal = debian.journal("ehlo-proxy-activated")
    assert journal.count("\nreload ") == 10
    assert journal.count("\nready ") >= 1
    debian.run("systemctl disable -q ehlo-proxy-25-v4.socket ehlo-proxy-25-v6.socket ehlo-proxy-activated")


def test_a_reactor_that_does_not_turn_is_started_anew(debian: Debian) -> None:
    debian.write("/etc/ehlo-proxy/ehlo-proxy.toml", OWN)
    debian.write("/etc/systemd/system/ehlo-proxy.service.d/soon.conf", "[Service]\nWatchdogSec=3s\n")
    debian.run("systemctl daemon-reload; systemctl start ehlo-proxy; sleep 6")
    assert debian.property("ehlo-proxy", "NRestarts") == "0", "it pings"
    debian.run("systemctl kill -s STOP --kill-who=main ehlo-proxy; sleep 9")
    assert debian.property("ehlo-proxy", "NRestarts") == "1"
    assert debian.property("ehlo-proxy", "ActiveState") == "active"
    assert sessions(debian) == {"completed": 1}


def test_bridge_mode_runs_with_keys_that_only_root_can_read(debian: Debian) -> None:
    issued = certificates.make("good").write(debian.root / "tmp")
    debian.run("mkdir -p /etc/ehlo-proxy/tls")
    for source, name in ((issued.certificate, "certificate.pem"), (issued.key, "key.pem")):
        with open(source) as file:
            debian.write(f"/etc/ehlo-proxy/tls/{name}", file.read())
    debian.run("chmod 600 /etc/ehlo-proxy/tls/key.pem")
    where = "/run/credentials/ehlo-proxy.service"
    bridge = f"""
[route.tls]
mode = "bridge"
verify = "none"
certificate = "{where}/tls-certificate"
key = "{where}/tls-key"
"""
    debian.write("/etc/ehlo-proxy/ehlo-proxy.toml", OWN + bridge)
    assert debian.fails("systemctl start ehlo-proxy"), "not without the drop-in"
    debian.run("systemctl reset-failed")
    debian.drop_ins("ehlo-proxy.service", "bridge")
    debian.start("ehlo-proxy")
    debian.run("systemctl reload ehlo-proxy")
    assert sessions(debian) == {"completed": 1}


def test_workers_are_processes_of_the_service_and_end_with_it(debian: Debian) -> None:
    debian.write("/etc/ehlo-proxy/ehlo-proxy.toml", "[service]\nworkers = 3\n" + OWN)
    debian.start("ehlo-proxy")
    pid = debian.property("ehlo-proxy", "MainPID")
    assert debian.run(f"pgrep -c -P {pid}") == "3"
    assert sessions(debian, seconds=1, rate=30) == {"completed": 30}
    debian.run("systemctl stop ehlo-proxy")
    assert debian.property("ehlo-proxy", "Result") == "success"


def test_interception_and_records_run_as_a_user_of_their_own(debian: Debian) -> None:
    debian.run("systemd-sysusers")
    debian.drop_ins("ehlo-proxy.service", "interception", "record")
    more = '[route.record]\ndirectory = "/var/lib/ehlo-proxy"\n'
    intercepted = '[[route]]\nname = "all"\nlisten = ["127.0.0.1:2525"]\ndestination = ["original"]\n'
    debian.write("/etc/ehlo-proxy/ehlo-proxy.toml", OWN + more + intercepted)
    debian.start("ehlo-proxy")
    assert int(capabilities(debian, "ehlo-proxy"), 16) == 1 << 10 | 1 << 12, "and CAP_NET_ADMIN"
    assert sessions(debian) == {"completed": 1}
    assert debian.run("stat -c '%U %a' /var/lib/ehlo-proxy") == "ehlo-proxy 700"
    assert debian.run("ls /var/lib/ehlo-proxy | wc -l") == "1"
