"""A Debian 12 on disk (or 13, or an Ubuntu), and the proxy's wheels for it: what `machine` boots.

The tree is made by debootstrap from the mirror that this machine's own apt is set up with, an Ubuntu from Ubuntu's.
That takes minutes, so it is kept, outside the repository, in $XDG_CACHE_HOME or ~/.cache; nothing ever writes to it
afterwards.  It is made again when the list of packages changes, and once a month.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.loopback import TOP

SUITE = "bookworm"
UBUNTUS_MIRROR = "http://archive.ubuntu.com/ubuntu/"
UBUNTUS_KEYRING = "usr/share/keyrings/ubuntu-archive-keyring.gpg"  # in Debian 13, whose own key vouches for it
# What a Debian server has anyway, what the README tells to install, and nft for interception.
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,ca-certificates,procps,iproute2,nftables"
PROGRAMS = {"debootstrap": "debootstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
MANYLINUX = ("2_36", "2_34", "2_31", "2_28", "2_27", "2_24", "2_17")  # its C library, and older
TO_BUILD = ("hatchling", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers")  # as build-deb has it
KEPT_FOR = 30 * 86400.0  # seconds
KEPT_IN = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ehlo-proxy-tests"


@dataclass(frozen=True, slots=True)
class System:
    """One that can be booted: its name at the mirror, its Python, and what it has beyond PACKAGES."""

    suite: str
    python: str
    more: str = ""
    options: tuple[str, ...] = ()


DEBIAN_12 = System(SUITE, "3.11")
DEBIAN_13 = System("trixie", "3.13", ",ubuntu-keyring")
UBUNTU_24_04 = System("noble", "3.12", options=("--components=main,universe",))


def missing() -> str:
    """Why no system can be booted here, or empty."""
    if os.geteuid() != 0:
        return "it needs root"
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    lacking = [package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    if shutil.which("apt-get") is None or not mirror():
        return f"apt has no mirror of Debian's {SUITE}"
    return ""


def mirror() -> str:
    """Where this machine's apt gets Debian 12 from, or empty."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    for line in told.stdout.splitlines():
        release, component, where = line.split(" ", 2)
        if (release, component) == (SUITE, "main"):
            return where
    return ""


def tree(system: System = DEBIAN_12) -> Path:
    """The system's root directory."""
    packages = PACKAGES + system.more
    name = f"{system.suite}-{hashlib.sha256(packages.encode()).hexdigest()[:12]}"
    options: tuple[str, ...] = system.options
    where: tuple[str, ...] = (mirror(),)
    if system is UBUNTU_24_04:  # Debian 12's debootstrap does not know it by name
        options += (f"--keyring={tree(DEBIAN_13) / UBUNTUS_KEYRING}",)
        where = (UBUNTUS_MIRROR, "/usr/share/debootstrap/scripts/jammy")
    KEPT_IN.mkdir(parents=True, exist_ok=True)
    with (KEPT_IN / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made, unfinished = KEPT_IN / name, KEPT_IN / f"{name}.unfinished"
        if not made.is_dir() or time.time() - made.stat().st_mtime > KEPT_FOR:
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.rmtree(made, ignore_errors=True)
            do(
                *("debootstrap", "--variant=minbase", f"--include={packages}", *options),
                *(system.suite, unfinished, *where),
                seconds=1200,
            )
            os.utime(unfinished)
            unfinished.rename(made)
    return made


def wheels(folder: Path, system: System = DEBIAN_12, lock: Path = TOP / "requirements.lock") -> None:
    """The wheels of the lock, hashes checked, that fit the system."""
    machine = platform.machine()
    fits = [f"--platform=manylinux_{libc}_{machine}" for libc in MANYLINUX]
    fits += [
        f"--platform=manylinux2014_{machine}",
        f"--abi=cp{system.python.replace('.', '')}",
        "--abi=abi3",
        "--abi=none",
    ]
    do(
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"),
        *(f"--python-version={system.python}", "--implementation=cp", *fits),
        *("--requirement", lock, "--dest", folder),
        seconds=600,
    )


def wheels_to_build(folder: Path, system: System) -> None:
    """Also what build-deb wants where nothing else is there: hatchling and what that needs."""
    lock = folder / "builder.lock"
    pins = re.findall(r"^\S.*\n(?: .*\n)*", (TOP / "requirements-test.lock").read_text(), re.MULTILINE)
    lock.write_text("".join(pin for pin in pins if pin.partition("==")[0] in TO_BUILD))
    wheels(folder, system)
    wheels(folder, system, lock)
    lock.unlink()


def build_release(folder: Path) -> None:
    """The proxy's wheel and sdist."""
    do(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, TOP, seconds=300)


def build_wheel(source: Path, folder: Path) -> None:
    """The wheel of another copy of the repository."""
    do(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, source, seconds=300)


def do(*command: str | Path, seconds: float) -> str:
    """Run a program to its good end; its output."""
    ran = subprocess.run(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=TOP,
        env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"},
        timeout=seconds,
        check=False,
    )
    assert ran.returncode == 0, f"{' '.join(map(str, command))}\n{ran.stdout[-4000:]}"
    return ran.stdout
