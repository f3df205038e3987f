"""docs/lab.md: what happens inside a STARTTLS session is seen, as the page says, with the real tshark."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.certificates import make
from tests.loopback import TOP, free_port
from tests.proxy_process import running_proxy
from tests.scripted import connect

PAGE = (TOP / "docs/lab.md").read_text()


@pytest.mark.root
@pytest.mark.long
def test_a_capture_is_read_with_the_keys_that_the_proxy_wrote(tmp_path: Path) -> None:
    for program in ("tshark", "swaks"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    import sys
    import tomllib

    (text,) = re.findall(r"```toml\n(\[\[route\]\].*?keylog.*?)```", PAGE, re.DOTALL)
    config = tomllib.loads(text)
    paths = make("good").write(tmp_path, "proxy")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "proxy", "simulate", "--listen", f"127.0.0.1:{port}",
         "--save-certificate", str(tmp_path / "server.pem")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    capture = None
    try:
        assert server.stdout.readline().startswith("listening ")
        (route,) = config["route"]
        route |= {"listen": ["127.0.0.1:0"], "destination": [f"127.0.0.1:{port}"], "name": "lab"}
        route["tls"] |= {"certificate": str(paths.certificate), "key": str(paths.key),
                         "ca_file": str(tmp_path / "server.pem"), "keylog": str(tmp_path / "keys")}  # fmt: skip
        route["record"]["directory"] = str(tmp_path)
        pcap = tmp_path / "session.pcap"
        with running_proxy(config, quiet=False) as running:
            capture = subprocess.Popen(
                ["tshark", "-q", "-i", "lo", "-f", f"tcp port {port}", "-a", "duration:8", "-w", str(pcap)],
                stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert capture.stderr is not None
            while "Capture started" not in (line := capture.stderr.readline()):
                assert line, "tshark ended"
            connect(running.port_of("lab")).close()
            subprocess.run(
                ["swaks", "--server", f"127.0.0.1:{running.port_of('lab')}", "--tls", "--to", "b@domain1.com"],
                check=True, capture_output=True, timeout=30,
            )  # fmt: skip
            capture.communicate(timeout=30)
        read = subprocess.run(
            ["tshark", "-r", str(pcap), "-d", f"tcp.port=={port},smtp", "-o", f"tls.keylog_file:{tmp_path}/keys",
             "-Y", "smtp"],
            check=True, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    finally:
        for process in (server, capture):
            if process is not None:
                process.terminate()
                process.communicate(timeout=10)
    assert "MAIL FROM:" in read.stdout
    assert re.search(r"354", read.stdout)
