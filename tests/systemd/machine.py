"""A machine that boots: `debian`'s tree in a container, under the real systemd, with a network of its own.

Its disk is the kept tree with a layer in memory above, so that every machine begins anew and leaves nothing.  Its
network has nothing but loopback.  It lives no longer than the test's process, and is in a control group of its own that
is removed with it.  Every command in it has a time limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hosts.network import entered
from tests.loopback import TOP, wait_until

BOOT_SECONDS = 60.0
END_SECONDS = 30.0
PREFIX = "/opt/ehlo-proxy"
CONFIGURATION = "/etc/ehlo-proxy/ehlo-proxy.toml"
UNITS = "/etc/systemd/system"
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}

# Where systemd does not run around us (in a container, as a rule) there is no one control group tree to give a part of:
# a second, unified one is mounted, which nobody else sees, as Debian 12 has it. nspawn also wants a /run in memory.
_BOOT = """
set -e
nspawn="systemd-nspawn --quiet --boot --directory=$1 --volatile=overlay --register=no --private-network --console=pipe"
nspawn="$nspawn --machine=$2 --link-journal=no --resolv-conf=off --timezone=off"
if [ ! -d /run/systemd/system ]; then
    mount --make-rprivate /
    umount --recursive /sys/fs/cgroup 2>/dev/null || true
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t tmpfs tmpfs /run
    mkdir "/sys/fs/cgroup/$2"
    echo $$ >"/sys/fs/cgroup/$2/cgroup.procs"
    nspawn="$nspawn --keep-unit"
fi
exec $nspawn
"""
_TIDY = """
[ ! -d /run/systemd/system ] || exit 0
mount --make-rprivate /
umount --recursive /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} +
"""


class Machine:
    """One container.  `run` and `write` do what root would do there; `network` is for sockets of the test's own."""

    def __init__(self, tree: Path, log: Path) -> None:
        """Boot it.  `log` takes what its console says."""
        self.name = f"ehlo-proxy-test-{os.getpid()}-{time.monotonic_ns() % 100000}"
        self.log = log
        self.leader = 0
        with log.open("wb") as console:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-c", _BOOT, "sh", str(tree), self.name],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd="/",
            )
        try:
            self.leader = wait_until(self._leader, BOOT_SECONDS, "the container")
            wait_until(self._is_up, BOOT_SECONDS, "systemd is up")
        except BaseException:
            self.end()
            raise

    def _leader(self) -> int:
        """Process id of the container's systemd, seen from here."""
        self._still_there()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    return int(child)
        return 0

    def _is_up(self) -> bool:
        self._still_there()
        time.sleep(0.2)
        return self.run("systemctl is-system-running || true") in ("running", "degraded")

    def _still_there(self) -> None:
        assert self.process.poll() is None, f"the container ended:\n{self.log.read_text()}"

    def end(self) -> None:
        """Switch it off, and take away what is left of it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)  # nspawn passes on "power off"
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(END_SECONDS)
        subprocess.run(["unshare", "--mount", "sh", "-c", _TIDY, "sh", self.name], capture_output=True, timeout=30)

    # -- commands ----------------------------------------------------------------------------------------------------

    def command(self, script: str, **environment: str) -> subprocess.Popen[str]:
        """A shell script on its way; wait for it with a time limit."""
        return subprocess.Popen(
            ["nsenter", f"--target={self.leader}", "--all", "sh", "-ec", f"cd /root; {script}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**ENVIRONMENT, **environment},
            cwd=TOP,
        )

    def run(self, script: str, seconds: float = 60.0, *, fails: bool = False, **environment: str) -> str:
        """What a shell script says; it must end well, or, with `fails`, not."""
        process = self.command(script, **environment)
        try:
            said = process.communicate(timeout=seconds)[0].strip()
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[0]
            raise AssertionError(f"{script}: not within {seconds} s\n{said}") from None
        assert (process.returncode != 0) == fails, f"{script}: {process.returncode}\n{said}"
        return said

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """A file in it."""
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(mode)

    def path(self, path: str) -> Path:
        """A path in it, seen from here."""
        return Path(f"/proc/{self.leader}/root{path}")

    # -- units -------------------------------------------------------------------------------------------------------

    def start(self, unit: str) -> None:
        """Start a unit; what it said if it does not."""
        self.run(f"systemctl start {unit} || {{ journalctl --no-pager -n 30 -u {unit}; false; }}", 90)

    def show(self, unit: str, key: str) -> str:
        return self.run(f"systemctl show --value --property={key} {unit}")

    def main_pid(self, unit: str) -> int:
        """Inside."""
        return int(self.show(unit, "MainPID"))

    def drop_in(self, unit: str, *names: str, **lines: str) -> None:
        """Copy drop-ins of ours to a unit, and make one of `[Service]` lines; the unit has no others."""
        folder = f"{UNITS}/{unit}.d"
        self.run(f"rm -rf {folder}")
        for name in names:
            self.write(f"{folder}/{name}.conf", (TOP / f"systemd/drop-ins/{name}.conf").read_text())
        if lines:
            self.write(f"{folder}/test.conf", "[Service]\n" + "".join(f"{k}={v}\n" for k, v in lines.items()))
        self.run("systemctl daemon-reload")

    def journal(self, unit: str, *arguments: str) -> list[dict[str, Any]]:
        """The entries of a unit's own processes since it was last started anew by `clean_journal`."""
        self.run("journalctl --sync")
        words = " ".join(map(shlex.quote, arguments))
        told = self.run(f"journalctl --no-pager --all -o json --identifier=ehlo-proxy -u {unit} {words}")
        return [json.loads(line) for line in told.splitlines() if line.startswith("{")]

    def events(self, unit: str, name: str) -> list[str]:
        """The lines of that event, as they stand in the journal."""
        lines = [entry["MESSAGE"] for entry in self.journal(unit)]
        return [line for line in lines if line.split(" ", 1)[0] == name]

    def clean_journal(self) -> None:
        self.run("journalctl -q --sync --rotate && journalctl -q --vacuum-time=1us 2>/dev/null || true")

    # -- network -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """Sockets that this thread makes meanwhile are the machine's."""
        with entered(Path(f"/proc/{self.leader}/ns/net")):
            yield
