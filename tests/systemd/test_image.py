"""The image: built on Debian's tree, small, without a shell; the demo, a mail through it, SIGTERM, settings as a file.

buildah builds and runs it in a chroot of its own, which also works where containers can't be nested.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import __version__
from tests.loopback import TOP, free_port, wait_until
from tests.scripted import Mailbox, ScriptedServer, begin_message, connect, greet, send_mail
from tests.systemd.test_package import build

pytestmark = [pytest.mark.systemd, pytest.mark.root, pytest.mark.alone]

MAX_MEGABYTES = 120
PROGRAM = ["/usr/lib/ehlo-proxy/bin/python3", "-I", "/usr/lib/ehlo-proxy/bin/ehlo-proxy"]


def buildah(*arguments: str | Path, seconds: float = 300) -> str:
    done = subprocess.run(
        ["buildah", *map(str, arguments)], capture_output=True, text=True, timeout=seconds, check=False, cwd=TOP
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def container(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if shutil.which("buildah") is None:
        pytest.skip("buildah is not installed (apt-get install buildah)")
    context = tmp_path_factory.mktemp("context")
    build(TOP, context / "dist", tmp_path_factory.mktemp("wheels"))
    shutil.copytree(TOP / "config/packaging", context / "config/packaging")
    base = buildah("from", "scratch")
    buildah("copy", base, tree, "/")
    buildah("commit", base, "localhost/ehlo-proxy-base")
    buildah("rm", base)
    made = ""
    try:
        buildah(
            *("build", "--isolation=chroot", "--format=docker", "--build-arg=BASE=localhost/ehlo-proxy-base"),
            *("-t", "localhost/ehlo-proxy-test", "-f", context / "config/packaging/Containerfile", context),
        )
        made = buildah("from", "localhost/ehlo-proxy-test")
        yield made
    finally:
        if made:
            buildah("rm", made)
        buildah("rmi", "--force", "localhost/ehlo-proxy-test", "localhost/ehlo-proxy-base")


def inside(container: str, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["buildah", "run", "--isolation=chroot", *options, container, "--", *command],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def running(container: str, settings: Path) -> Iterator[subprocess.Popen[str]]:
    """The image's own command with these settings mounted; it is ready."""
    process = subprocess.Popen(
        ["buildah", "run", "--isolation=chroot", f"--volume={settings}:/etc/ehlo-proxy/ehlo-proxy.toml:ro",
         container, "--", *PROGRAM, "run"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert re.search(r"\bready ", line), line
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stderr.close()


def test_it_is_small_and_has_the_program_and_no_shell(container: str) -> None:
    (image,) = json.loads(buildah("images", "--json", "localhost/ehlo-proxy-test"))
    number, unit = image["size"].split()
    assert float(number) * {"KB": 0.001, "MB": 1, "GB": 1000}[unit] < MAX_MEGABYTES
    said = inside(container, *PROGRAM, "--version").stdout
    assert f"ehlo-proxy {__version__}" in said
    assert "build: compiled" in said
    assert inside(container, "/bin/sh", "-c", "true").returncode != 0


def test_the_demo_runs_in_it(container: str) -> None:
    done = inside(container, *PROGRAM, "demo")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_mail_goes_through_it_with_settings_from_a_file_and_sigterm_ends_it(container: str, tmp_path: Path) -> None:
    port = free_port()
    root = Path(buildah("mount", container))
    before = files_of(root)
    with ScriptedServer(Mailbox()) as server:
        file = tmp_path / "ehlo-proxy.toml"
        file.write_text(f'[[route]]\nlisten = ["127.0.0.1:{port}"]\ndestination = ["127.0.0.1:{server.port}"]\n')
        with running(container, file) as process:
            with connect(port) as client:
                assert send_mail(client)[:3] == b"250"
            (proxy,) = wait_until(lambda: listening(port), 5, "the proxy's process")
            os.kill(proxy, signal.SIGTERM)
            assert process.wait(20) == 0
            assert process.stderr is not None
            assert "stopped" in process.stderr.read()
    assert files_of(root) == before, "a read-only root is enough"


def files_of(root: Path) -> dict[str, int]:
    """Every file with the time of its last change; not what buildah itself lays in while something runs."""
    mounted = ("etc/ehlo-proxy/ehlo-proxy.toml", "etc/hosts", "etc/resolv.conf", "run/", "dev/", "proc/", "sys/")
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    return {name: path.stat().st_mtime_ns for name, path in found.items() if not name.startswith(mounted)}


def test_its_health_is_asked_of_the_proxy_that_accepts_and_of_none_that_drains(container: str, tmp_path: Path) -> None:
    (image,) = json.loads(f"[{buildah('inspect', '--type=image', 'localhost/ehlo-proxy-test')}]")
    check = image["Docker"]["config"]["Healthcheck"]["Test"]
    assert check[0] == "CMD"

    def health() -> int:
        return inside(container, *check[1:]).returncode

    assert health() != 0, "nobody is there"
    port = free_port()
    with ScriptedServer(Mailbox()) as server:
        file = tmp_path / "ehlo-proxy.toml"
        file.write_text(
            f'[admin]\nhealth_listen = "127.0.0.1:9926"\n'
            f'[[route]]\nlisten = ["127.0.0.1:{port}"]\ndestination = ["127.0.0.1:{server.port}"]\n'
        )
        with running(container, file) as process:
            assert health() == 0
            with connect(port) as client:
                greet(client)
                begin_message(client)
                (proxy,) = wait_until(lambda: listening(port), 5, "the proxy's process")
                os.kill(proxy, signal.SIGTERM)
                wait_until(lambda: not listening(port), 5, "it accepts no more")
                assert process.poll() is None, "a message is under way"
                assert health() != 0
                assert client.say(b"hello\r\n.")[:3] == b"250"
            assert process.wait(20) == 0
        assert health() != 0


def listening(port: int) -> list[int]:
    """The process that listens there, by its socket."""
    told = subprocess.run(["ss", "-Hltnp", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    return [int(pid) for pid in re.findall(r"pid=(\d+)", told)]
