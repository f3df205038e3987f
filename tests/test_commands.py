"""Every command in README and docs/ is run by a test, or says where it stands that it is untried.

`tests.pages.RUN` names for each block who runs it: a test here, or another; tests/test_readme.py sees that every block
is in it or marked. What is run here is run as it stands, but for addresses, ports and spans of time, which are
put in by `put`, and must be there to be replaced.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.cli_arguments import parse
from tests.loopback import free_port, wait_until
from tests.pages import PAGES, TOP, Block, block
from tests.scripted import Mailbox, ScriptedServer, connect, send_mail

SHIPPED = [
    "proxy",
    "tests",
    "config",
    "systemd",
    "docs",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "SECURITY.md",
    "*.lock",
]


def test_every_command_of_ours_that_stands_in_a_sentence_is_one() -> None:
    said = [
        (page, words)
        for page in PAGES
        for words in re.findall(
            r"`(?:\.venv/bin/)?ehlo-proxy ([a-z][^`]*)`", (TOP / page).read_text().replace("\n", " ")
        )
        if not re.search(r"[…\[|]|^route", words)
    ]
    assert len(said) > 20
    wrong = []
    for page, words in said:
        try:
            parse(words.split() if " " in words else [words, "--help"])
        except SystemExit as end:
            if end.code != 0:
                wrong.append((page, words))
    assert wrong == []


def test_the_greps_of_a_mail_find_the_lines_that_the_page_shows() -> None:
    """Each command with the lines that stand below it, as the log; that real logs look so, tests/clients shows."""
    page = (TOP / "docs/find-a-mail.md").read_text()
    found = re.findall(r"^    (?:sender|server|proxy)\$ (.*)\n((?:    (?!\w+\$).*\n)*)", page, re.MULTILINE)
    assert len(found) > 8
    lost = []
    for command, shown in found:
        words, log = re.sub(r"  +#.*", "", command), "\n".join(line[4:] for line in shown.splitlines())
        first, _, second = words.partition(" | ")
        assert re.fullmatch(r"grep (?:'[^']+'|\S+)(?: mail\.log| log)", first), command
        if log:
            got = subprocess.run(["sh", "-c", re.sub(r" (?:mail\.)?log\b", "", words)], input=f"other\n{log}\n",
                                 capture_output=True, text=True, check=False)  # fmt: skip
            if got.stdout.strip() != log:
                lost.append((command, log))
        elif second:
            assert second.startswith("grep "), command
    assert lost == []


# -- README ------------------------------------------------------------------------------------------------------------


def put(command: str, **instead: str) -> str:
    """The command with other words in it."""
    for old, new in instead.items():
        assert old in command, f"{command!r} has no {old!r}"
        command = command.replace(old, new)
    return command


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What git would ship, in a folder of its own."""
    if not (TOP / ".git").exists():
        pytest.skip("no git work tree: what would be shipped is not known")
    copy = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SHIPPED],
        cwd=TOP, capture_output=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.decode().split("\0"):
        if name and (TOP / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def installed(checkout: Path) -> tuple[Path, str]:
    """The checkout after README's first command, and what that said; the interpreter is this one."""
    one = block("README.md", "python3 -m venv")
    (checkout / "bin").mkdir()
    (checkout / "bin/python3").symlink_to(Path(sys.executable).resolve())
    environment = {"PATH": f"{checkout}/bin:/usr/bin:/bin", "HOME": str(checkout)} | {
        key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_", "HTTP", "http"))
    }
    done = subprocess.run(
        ["sh", "-ec", one.text], cwd=checkout, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    if "NewConnectionError" in done.stderr or "Temporary failure in name resolution" in done.stderr:
        pytest.skip("no package registry to be reached")
    assert done.returncode == 0, done.stderr
    return checkout, done.stdout


def test_the_first_command_of_the_readme_shows_the_demo(installed: tuple[Path, str]) -> None:
    said = installed[1]
    assert "250-STARTTLS" in said
    assert "Successfully installed" in said


def shell(command: str, folder: Path) -> subprocess.Popen[str]:
    """One command of ours, typed there; the process is the program itself."""
    return subprocess.Popen(
        ["sh", "-c", f"exec {command}"], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PATH": f"{folder}/.venv/bin:{os.environ['PATH']}"},
    )  # fmt: skip


@contextlib.contextmanager
def running(command: str, folder: Path, first: str, *, on: str = "stdout") -> Iterator[str]:
    """A command that stays; its first line, which begins so. It ends by SIGTERM, well."""
    process = shell(command, folder)
    try:
        stream = getattr(process, on)
        line = stream.readline()
        assert re.search(first, line), line + (process.stderr.read() if process.stderr and on == "stdout" else "")
        yield line
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `.venv/bin/ehlo-proxy` is this checkout's."""
    folder = tmp_path_factory.mktemp("ours")
    program = folder / ".venv/bin/ehlo-proxy"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nPYTHONPATH={TOP} exec {sys.executable} -m proxy "$@"\n')
    program.chmod(0o755)
    return folder


def simulated(folder: Path, more: str = "--finding greeting-not-first") -> contextlib.AbstractContextManager[str]:
    return running(f"ehlo-proxy simulate --listen 127.0.0.1:0 {more}", folder, "^listening ")


def test_the_probe_of_the_readme(ours: Path) -> None:
    (command,) = block("README.md", ".venv/bin/ehlo-proxy probe").commands
    with simulated(ours) as line:
        process = shell(put(command, **{"mail.domain1.com": line.split()[1]}), ours)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "greeting-not-first" in said
    assert "[[route]]" in said


def test_the_first_try_of_the_readme(ours: Path) -> None:
    (command,) = block("README.md", ".venv/bin/ehlo-proxy run").commands
    with ScriptedServer(Mailbox()) as server:
        port = free_port()
        instead = {"0.0.0.0:2525": f"127.0.0.1:{port}", "192.0.2.10": f"127.0.0.1:{server.port}"}
        command = put(command, **instead, **{"198.51.100.40": "127.0.0.1"})
        with running(command, ours, r"\bready ", on="stderr"), connect(port) as client:
            assert send_mail(client)[:3] == b"250"


# -- docs/install.md ---------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_wheels_are_built_by_one_command(checkout: Path) -> None:
    """For this Python alone, each some 70 s; what is told is what the page shows, but for version and platform."""
    one = block("docs/install.md", "config/packaging/build-wheels")
    (command,) = one.commands
    done = subprocess.run(
        ["sh", "-c", f"{command} {sys.executable}"],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kinds = [re.sub(r"^.*ehlo_proxy-[0-9.]+-", "", line) for line in done.stdout.split()]
    assert len(kinds) == len(one.text.splitlines()) - 1
    assert kinds[0] == "py3-none-any.whl"
    assert kinds[1].startswith("cp3")


# -- docs/architecture.md ----------------------------------------------------------------------------------------------


def test_the_commands_of_who_works_on_it(tmp_path: Path) -> None:
    """The long ones for a second only, or by the option's name; nothing is installed, since nobody here is root."""
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "VENV": sys.prefix,
        "PYTHON": sys.executable,
    }

    def said(command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command], cwd=TOP, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    options = said("tests/run --help")
    for command in block("docs/architecture.md", "tests/run").commands:
        if command == "tests/run":
            continue  # this very command
        if found := re.fullmatch(r"tests/run (--\w+)", command):
            assert f"tests/run {found[1]} " in options
        elif found := re.search(r" --seconds (\d+)", command):
            said(put(command, **{found[0]: " --seconds 1"}))
        elif command.startswith("tests/run -- "):
            assert " passed" in said(f"{command} -p no:cacheprovider")
        else:
            assert command == "tests/bench/run --help"
            assert "--quick" in said(command)


# -- docs/lab.md -------------------------------------------------------------------------------------------------------


def greets(command: str, folder: Path) -> None:
    """It listens, greets, and ends; on a port of its own, as the one that is meant is one for all."""
    with (
        running(f"{command} --listen 127.0.0.1:0", folder, "^listening ") as line,
        connect(int(line.rpartition(":")[2])) as client,
    ):
        assert client.line().startswith(b"220 ")


def test_the_broken_servers_of_the_lab(ours: Path) -> None:
    (ours / "FILE").write_bytes(b"250-STARTTLS\r\n250 mail.domain1.com\r\n")
    commands = block("docs/lab.md", "ehlo-proxy simulate --finding").commands
    assert len(commands) == 3
    for command in commands:
        greets(command, ours)


def test_a_vendors_server_is_recorded_and_played_again(ours: Path) -> None:
    if shutil.which("swaks") is None:
        pytest.skip("swaks is not installed")
    make, record, send, replay, again = block("docs/lab.md", "mkdir recorded").commands
    assert make == "mkdir recorded"
    (ours / "recorded").mkdir()
    port = free_port()
    with simulated(ours) as line:
        server = line.split()[1]
        record = put(record, **{"127.0.0.1:2500": f"127.0.0.1:{port}", "mail.domain1.com:25": server})
        with running(record, ours, r"\bready ", on="stderr"):
            process = shell(put(send, **{"--port 2500": f"--port {port}"}), ours)
            said = process.communicate(timeout=60)
            assert process.returncode == 0, said
        wait_until(lambda: list((ours / "recorded").glob("*.jsonl")), 5, "the transcript")
    process = shell(replay, ours)
    said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "250-STARTTLS" in said[0]
    greets(again, ours)


def test_a_block_that_nobody_runs_is_found() -> None:
    """The net itself: comments and prompts are no commands, a mark is seen."""
    one = Block("x.md", "X", "sh", "# untried: no server\na \\\n    b  # c\n")
    assert (one.untried, one.commands) == ("no server", ["a b"])
    assert Block("x.md", "X", "console", "$ a\nsaid\n# b\n").commands == ["a", "b"]
