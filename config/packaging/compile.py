"""The compiled build: `EHLO_PROXY_COMPILED=1 pip wheel .` compiles the modules below with mypyc, from the same source.

A hook of hatchling's.  Without that variable it does nothing, and the wheel is pure Python, which does everything that
the compiled one does; with it the wheel has both, an extension module beside each of these sources, and is for one
Python and one platform.  It needs a C compiler and the headers of that Python.  `config/packaging/build-wheels` makes
wheels for several Pythons; `python config/packaging/compile.py FOLDER` makes FOLDER a copy of this tree with a compiled
`proxy`, for the tests and the benchmark.

What is compiled believes its annotations: a wrong one is a TypeError, and a class of these modules can neither be
subclassed nor patched by Python that is not compiled.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import sysconfig
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Folders mean all of their modules.  What is not here runs once a session or more seldom, is Twisted's or OpenSSL's
# own work, or is dearer compiled: `coming_in/listeners.py` meets an exception each time (no more clients), and in
# compiled code one takes 10,000 instructions, for its traceback.
COMPILED = {
    "proxy/smtp": "the core: every command and every reply of a session is read here",
    "proxy/net/waiting": "every event of a socket and every deadline goes through here",
    "proxy/net/relay": "every byte does",
    "proxy/net/carrier": "joins the core and the sockets: some thirty calls a session",
    "proxy/net/coming_in/admission.py": "each client is admitted here",
    "proxy/net/going_out/attempt.py": "each session dials",
    "proxy/net/going_out/dial.py": "... to an address that is known, mostly",
    "proxy/net/going_out/dialer.py": "... of the route's",
    "proxy/net/tls/channel.py": "bridge mode: every record",
    "proxy/net/tls/client_hello.py": "pass-through: both hellos, octet by octet",
    "proxy/net/tls/problem.py": "an exception that the relay names",
    "proxy/net/tls/records.py": "bridge mode: the head of every record",
    "proxy/net/observer.py": "the story of a session, with a dozen notes",
    "proxy/daemon/log": "a line a session, of twenty fields",
    "proxy/daemon/reports.py": "what is told and counted of a session: half a dozen calls",
    "proxy/daemon/admin/destinations.py": "the state of the destination, twice a session",
    "proxy/daemon/admin/figures/counters.py": "a dozen additions a session",
}
NEEDS = ("twisted", "pyopenssl", "service-identity", "mypy", "mypy-zope", "setuptools")  # pinned by the tests' lock
# Nobody looks into the library from outside, so its functions may be inlined and need no table to be called by.
FLAGS = ["-fvisibility=hidden", "-fno-semantic-interposition", "-fno-plt"]
NO_SOURCE = (".*", "__pycache__", "build", "dist")
LIBRARY = "proxy.compiled"  # one shared library, proxy/compiled__mypyc.*.so, so that calls between modules are C calls


def sources(root: Path, places: Iterable[str] = COMPILED) -> list[str]:
    """The files to compile; a package's `__init__` holds nothing but words."""
    found: list[Path] = []
    for place in places:
        path = root / place
        found += path.rglob("*.py") if path.is_dir() else [path]
    return sorted(str(path.relative_to(root)) for path in found if path.name != "__init__.py")


def compiled(root: Path, build: Path) -> dict[str, str]:
    """Compile; the extension modules, each with its place in the wheel.  What has not changed is not compiled again."""
    import setuptools  # before mypyc, which looks whether it is there
    from mypyc.build import mypycify

    os.environ.setdefault("LDSHARED", "cc -shared")  # without the search paths of a Python of one's own
    before = os.getcwd()
    os.chdir(root)  # mypyc writes the sources' names into its tracebacks as it finds them
    try:
        extensions = mypycify(
            ["--config-file=pyproject.toml", f"--python-executable={sys.executable}", *sources(root)],
            group_name=LIBRARY,
            target_dir=str(build / "c"),
            debug_level="0",
        )
        for extension in extensions:
            extension.extra_compile_args += FLAGS
        distribution = setuptools.Distribution({"name": "ehlo-proxy", "ext_modules": extensions})
        command: Any = distribution.get_command_obj("build_ext")
        command.build_lib, command.build_temp = str(build / "lib"), str(build / "temp")
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    names = [f"{extension.name.replace('.', '/')}{suffix}" for extension in extensions]
    return {str(build / "lib" / name): name for name in names}


def cache(root: Path) -> Path:
    """Where this Python's build by these rules lies, so that the next one has less to do."""
    rules = zlib.crc32(Path(__file__).read_bytes())
    return root / "build" / f"compiled-{sys.implementation.cache_tag}-{rules:08x}"


def copied(root: Path, folder: Path) -> None:
    """A copy of the tree with the extension modules in their places."""
    files = compiled(root, cache(root))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(root, folder, ignore=shutil.ignore_patterns(*NO_SOURCE), symlinks=True)
    for file, name in files.items():
        shutil.copy(file, folder / name)


class CompiledBuild(BuildHookInterface[Any]):
    """What hatchling calls."""

    def _wanted(self) -> bool:
        return os.environ.get("EHLO_PROXY_COMPILED", "") not in ("", "0") and self.target_name == "wheel"

    def dependencies(self) -> list[str]:
        """What the build needs beside hatchling: the compiler, and whatever has types that the sources name."""
        if not self._wanted():
            return []
        lock = (Path(self.root) / "requirements-test.lock").read_text()
        return [f"{name}=={version}" for name, version in re.findall(r"^([\w-]+)==(\S+)", lock, re.M) if name in NEEDS]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and have the wheel hold it."""
        if version == "editable" or not self._wanted():
            return
        root = Path(self.root)
        build_data["force_include"].update(compiled(root, cache(root)))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


if __name__ == "__main__":
    copied(Path(__file__).resolve().parents[2], Path(sys.argv[1]).resolve())
