"""docs/lab.md says what there is: its Python runs, with a client that sends, and its commands are ours."""

from __future__ import annotations

import re
import smtplib
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from proxy.cli_arguments import parse
from tests.readme_tables import TOP

PAGE = (TOP / "docs" / "lab.md").read_text()
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)
CLIENT = """
import smtplib

class my_client:
    def send(host, port):
        with smtplib.SMTP(host, port) as client:
            client.sendmail("a@b.example", ["c@d.example"], b"...")
"""


def test_the_pytest_plugin_works_in_two_lines(tmp_path: Path) -> None:
    (block,) = [text for kind, text in BLOCKS if kind == "python" and "pytest_plugins" in text]
    (tmp_path / "test_it.py").write_text(CLIENT + block.replace('b"..."', r'b"...\r\n"'))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
        env={"PYTHONPATH": str(TOP), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_context_manager_works_anywhere() -> None:
    (block,) = [text for kind, text in BLOCKS if kind == "python" and "with simulated_server" in text]
    sent: list[int] = []

    class Client:
        @staticmethod
        def send(host: str, port: int) -> None:
            with smtplib.SMTP(host, port) as client:
                sent.append(client.noop()[0])

    exec(textwrap.dedent(block), {"my_client": Client})
    assert sent == [250]


def test_every_command_of_the_page_is_one() -> None:
    commands = [
        line.partition("#")[0].split()[1:]
        for kind, text in BLOCKS
        for line in text.splitlines()
        if kind == "sh" and line.startswith("ehlo-proxy ")
    ]
    assert len(commands) > 5
    for words in commands:
        try:
            parse(words)
        except SystemExit:
            pytest.fail(" ".join(words))
