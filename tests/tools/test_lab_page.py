"""docs/lab.md: what happens inside a STARTTLS session is seen, as the page says, with the real tshark."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.certificates import make
from tests.loopback import TOP, free_port, wait_until
from tests.pages import block, blocks


@pytest.mark.root
@pytest.mark.long
def test_a_capture_is_read_with_the_keys_that_the_proxy_wrote(tmp_path: Path) -> None:
    """The page's own settings and commands, on ports of the test's own."""
    for program in ("tshark", "swaks"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    ports = {"2525": str(free_port()), "2526": str(free_port())}

    def put(text: str) -> str:
        return re.sub("2525|2526", lambda found: ports[found[0]], text)

    (tmp_path / "ehlo-proxy").write_text(f'#!/bin/sh\nPYTHONPATH={TOP} exec {sys.executable} -m proxy "$@"\n')
    (tmp_path / "ehlo-proxy").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    (config,) = [one.text for one in blocks("docs/lab.md") if one.language == "toml" and "keylog" in one.text]
    (tmp_path / "lab.toml").write_text(put(config))
    make("good").write(tmp_path, "proxy")
    assert {path.name for path in tmp_path.glob("proxy.*")} == {"proxy.pem", "proxy.key"}
    *behind, send, read = map(put, block("docs/lab.md", "ehlo-proxy simulate --listen").commands)

    def seen() -> str:
        """What the page's last command shows; a capture that still runs has its packets a moment late."""
        return subprocess.run(
            ["sh", "-c", read], capture_output=True, text=True, timeout=30, cwd=tmp_path, env=environment, check=False
        ).stdout

    ready = ("listening ", " ready ", "Capture started|Capturing on")
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number, (command, sign) in enumerate(zip(behind, ready, strict=True)):
            assert command.endswith(" &")
            log = tmp_path / f"log{number}"
            with log.open("wb") as output:
                started.append(
                    subprocess.Popen(
                        ["sh", "-c", f"exec {command.removesuffix(' &')}"],
                        cwd=tmp_path,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                    )
                )
            wait_until(lambda log=log, sign=sign: re.search(sign, log.read_text()), 20, command)  # type: ignore[misc]
        wait_until(lambda: (tmp_path / "session.pcap").exists(), 10, "the capture has begun")
        subprocess.run(send.split(), check=True, capture_output=True, timeout=30, cwd=tmp_path)
        wait_until(lambda: re.search("MAIL FROM:.*354 ", seen(), re.DOTALL), 30, "the session inside TLS")
    finally:
        for process in started:
            process.terminate()
            process.wait(10)
