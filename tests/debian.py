"""A Debian 12 that boots in a container, with the proxy installed from its wheel and its units in place.

`Debian(directory)` needs root, debootstrap and systemd-nspawn, and minutes.  It has a network of its own with nothing
but loopback.  `run` runs a shell command inside and returns what it printed.  Every wait is bounded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).parents[1]
PROGRAMS = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,procps,util-linux"
MIRROR = "http://deb.debian.org/debian"
PREFIX = "/opt/ehlo-proxy"


def missing() -> str:
    """What stands in the way, or an empty string."""
    if os.geteuid() != 0:
        return "needs root"
    lacking = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if lacking:
        return f"apt-get install {' '.join(lacking)}"
    if sys.version_info[:2] != (3, 11):
        return "needs Python 3.11, Debian 12's, to fetch wheels that fit it"
    return ""


class Debian:
    """One container, booted."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self._log = directory / "console"
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0

    def install(self) -> None:
        """The system, and the proxy in its virtual environment as the README has it."""
        _do(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(self.root), MIRROR], 1200)
        wheels = self.root / "wheels"
        _do([sys.executable, "-m", "pip", "wheel", "-q", "-w", str(wheels), str(TOP)], 600)
        _do(["chroot", str(self.root), "python3", "-m", "venv", PREFIX], 300)
        pip = ["chroot", str(self.root), f"{PREFIX}/bin/pip", "install", "-q", "--no-index"]
        clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        _do([*pip, "--find-links", "/wheels", "ehlo-proxy"], 300, clean)
        for unit in (*(TOP / "systemd").glob("*.service"), *(TOP / "systemd").glob("*.socket")):
            shutil.copy(unit, self.root / "etc/systemd/system")
        (self.root / "etc/sysusers.d").mkdir(exist_ok=True)
        shutil.copy(TOP / "systemd/sysusers.d/ehlo-proxy.conf", self.root / "etc/sysusers.d")
        (self.root / "etc/ehlo-proxy").mkdir()

    def boot(self) -> None:
        """Start it and wait until its systemd says that it runs."""
        # nspawn refuses a /run on disk, which is what a container around us has; ours gets one in memory.
        nspawn = f"systemd-nspawn -q -D {self.root} --private-network --register=no --keep-unit --boot --console=pipe"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", f"mount -t tmpfs tmpfs /run; exec {nspawn}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + 60
        while time.monotonic() < until:
            time.sleep(0.5)
            assert self._process.poll() is None, self._log.read_text()
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            for child in children:
                if "systemd" in Path(f"/proc/{child}/comm").read_text():
                    self._init = int(child)
            if self._init and self.run("systemctl is-system-running || true") in ("running", "degraded"):
                return
        raise TimeoutError(self._log.read_text())

    def run(self, command: str, timeout: float = 60) -> str:
        """What a shell command inside prints; it must end well."""
        inside = ["nsenter", "-t", str(self._init), "-m", "-u", "-i", "-n", "-p", "--", "/bin/sh", "-c", command]
        ran = subprocess.run(inside, capture_output=True, text=True, timeout=timeout)
        assert ran.returncode == 0, f"{command}: {ran.stdout}{ran.stderr}"
        return ran.stdout.strip()

    def start(self, *units: str) -> None:
        """`systemctl start`, and the journal when it fails."""
        if self.fails(f"systemctl start {' '.join(units)}"):
            raise AssertionError("\n".join(self.journal(unit) for unit in units))

    def fails(self, command: str) -> bool:
        """Whether a shell command inside ends badly."""
        return self.run(f"{command} >/dev/null 2>&1 && echo well || echo badly") == "badly"

    def property(self, unit: str, name: str) -> str:
        """`systemctl show`."""
        return self.run(f"systemctl show -P {name} {unit}")

    def journal(self, unit: str, *options: str) -> str:
        """What a unit has logged, the messages alone."""
        return self.run(f"journalctl --sync; journalctl --no-pager -o cat -u {unit} {' '.join(options)}")

    def write(self, path: str, text: str) -> None:
        """A file inside."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def drop_ins(self, unit: str, *names: str) -> None:
        """Exactly these of our drop-ins for a unit."""
        directory = self.root / f"etc/systemd/system/{unit}.d"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        for name in names:
            shutil.copy(TOP / f"systemd/drop-ins/{name}.conf", directory)
        self.run("systemctl daemon-reload")

    def remove(self) -> None:
        """End it, by force if it does not end, and take its half gigabyte off the disk."""
        if self._process is not None:
            self._power_off(self._process)
        shutil.rmtree(self.root, ignore_errors=True)

    def _power_off(self, process: subprocess.Popen[bytes]) -> None:
        if self._init and process.poll() is None:
            inside = ["nsenter", "-t", str(self._init), "-m", "-p", "-i", "--", "systemctl", "poweroff"]
            subprocess.run(inside, capture_output=True, timeout=30)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _do(command: list[str], timeout: float, environment: dict[str, str] | None = None) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)
    assert ran.returncode == 0, f"{' '.join(command)}:\n{ran.stdout[-3000:]}{ran.stderr[-3000:]}"
