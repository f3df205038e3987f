"""The rooms of the house: who may import whom, how long a module may be, what a command costs to start."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
MODULES = sorted(path.relative_to(TOP) for path in (TOP / "proxy").rglob("*.py"))
FORBIDDEN = {
    "twisted",
    "OpenSSL",
    "socket",
    "ssl",
    "time",
    "logging",
    "os",
    "asyncio",
    "threading",
    "select",
    "subprocess",
}

# A room, and the rooms of ours that it may use besides itself.
MAY_USE = {
    "smtp": {"smtp"},
    "settings": {"settings"},
    "net": {"net", "smtp", "settings"},
    "daemon": {"daemon", "net", "smtp", "settings"},
    "tools": {"tools", "net", "smtp", "settings", "cli_arguments"},
}


@functools.cache
def imports(module: Path) -> tuple[str, ...]:
    """Every name that the module imports, wherever in it, dotted and absolute."""
    package = ".".join(module.parent.parts)

    def found() -> Iterator[str]:
        for node in ast.walk(ast.parse((TOP / module).read_bytes())):
            if isinstance(node, ast.Import):
                yield from (name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    base = ".".join(
                        [*package.split(".")[: len(module.parent.parts) - node.level + 1], *base.split(".")]
                    )
                yield base.rstrip(".")
                yield from (f"{base.rstrip('.')}.{name.name}" for name in node.names)

    return tuple(found())


def room_of(name: str) -> str:
    """`proxy.net.tls.channel` is in `net`; what lies at the top is a room of its own."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("module", [m for m in MODULES if m.parts[1] == "smtp"], ids=str)
def test_the_core_knows_no_network_and_no_clock(module: Path) -> None:
    wrong = {name for name in imports(module) if name.split(".")[0] in FORBIDDEN}
    assert not wrong, f"{module} imports {sorted(wrong)}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_dependencies_between_the_rooms_go_one_way(module: Path) -> None:
    room = room_of(".".join(module.with_suffix("").parts))
    if room not in MAY_USE:
        assert room in {"cli", "__main__", "__init__"} or room.startswith("cli"), f"{module} is in no room"
        return
    ours = {name for name in imports(module) if name.startswith("proxy.")}
    wrong = {name for name in ours if room_of(name) not in MAY_USE[room] and name != "proxy.__version__"}
    assert not wrong, f"{module} imports {sorted(wrong)}"


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_only_the_command_line_imports_the_reactor(module: Path) -> None:
    takers = {"twisted.internet.reactor", "twisted.internet.default", "twisted.internet.epollreactor"}
    if takers & set(imports(module)):
        assert module == Path("proxy/cli.py")


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_a_module_has_one_subject_and_at_most_400_lines(module: Path) -> None:
    assert len((TOP / module).read_text().splitlines()) <= 400


@pytest.mark.parametrize("module", [m for m in MODULES if m.name not in {"__init__.py", "__main__.py"}], ids=str)
def test_a_module_begins_with_its_manual_page(module: Path) -> None:
    assert ast.get_docstring(ast.parse((TOP / module).read_bytes())), f"{module} has no docstring"


LIGHT = {
    "--help": ["--help"],
    "explain": ["explain", "greeting-not-first"],
    "repair": ["repair"],
    "check": ["check", "config/ehlo-proxy.toml"],
}
REPLY = b"250-STARTTLS\r\n250-mail.domain1.com\r\n250 8BITMIME\r\n"


@pytest.mark.parametrize("arguments", LIGHT.values(), ids=LIGHT)
def test_a_light_command_does_not_import_twisted(arguments: list[str]) -> None:
    program = (
        "import sys, proxy.cli\n"
        "try:\n    proxy.cli.main()\n"
        "except SystemExit:\n    pass\n"
        "heavy = [m for m in ('twisted', 'OpenSSL', 'cryptography') if m in sys.modules]\n"
        "sys.stderr.write('heavy: %s' % heavy)\n"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, input=REPLY, capture_output=True, timeout=30, check=False, cwd=TOP)
    assert done.stderr.endswith(b"heavy: []"), done.stderr.decode()


@pytest.mark.alone
@pytest.mark.parametrize("arguments", LIGHT.values(), ids=LIGHT)
def test_a_light_command_starts_and_ends_in_half_a_second(arguments: list[str]) -> None:
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "proxy", *arguments],
            input=REPLY,
            capture_output=True,
            timeout=30,
            check=False,
            cwd=TOP,
        )
        return time.perf_counter() - began

    assert min(seconds() for _ in range(5)) < 0.5 * float(os.environ.get("EHLO_SLOW_MACHINE", "1"))
