"""The admin listener of a running service: UNIX socket, health port, who may ask, and what a restart finds."""

from __future__ import annotations

import http.client
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.proxy_process import route, running_proxy


def ask(path: str, where: str | int, host: str = "localhost") -> tuple[int, bytes]:
    """One request, to a port or to a UNIX socket."""
    with socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET) as sock:
        sock.settimeout(10)
        sock.connect(where if isinstance(where, str) else ("127.0.0.1", where))
        connection = http.client.HTTPConnection(host)
        connection.sock = sock
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def config(**admin: Any) -> dict[str, Any]:
    return {"admin": admin, "route": [route("127.0.0.1:9")]}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unix_socket_has_its_mode_and_answers_any_name(tmp_path: Path, workers: int) -> None:
    path = str(tmp_path / "admin.sock")
    with running_proxy({**config(listen=f"unix:{path}", mode="0600"), "service": {"workers": workers}}) as running:
        assert running.wait_for("admin-ready")["listen"] == f"unix:{path}"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert ask("/readyz", path, "status.example")[0] == 200
        assert b"ehlo_proxy_build_info" in ask("/metrics", path)[1]
        assert running.stop(10) == 0
    assert not os.path.exists(path)


def test_a_stale_socket_is_removed_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "admin.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with running_proxy(config(listen=f"unix:{path}")) as running:
        running.wait_for("admin-ready")
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
        with running_proxy(config(listen=f"unix:{path}"), ready=False, quiet=False) as second:
            assert second.wait(10) == 1
            assert any("another process listens there" in line for line in second.lines)
        assert ask("/healthz", path)[0] == 200


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with running_proxy(config(listen=f"unix:{path}"), ready=False, quiet=False) as running:
        assert running.wait(10) == 1
        assert any("is no socket" in line for line in running.lines)
    assert path.read_text() == "precious"


def test_the_health_port_says_only_that_and_to_anybody() -> None:
    with running_proxy(config(listen="127.0.0.1:0", health_listen="127.0.0.1:0", host_names=["a.example"])) as running:
        port = int(running.wait_for("health-ready")["listen"].rpartition(":")[2])
        assert ask("/readyz", port, "balancer.example") == (200, b"ready\n")
        assert ask("/healthz", port, "")[0] == 200
        for path in ("/", "/metrics", "/status.json"):
            assert ask(path, port)[0] == 404
        assert ask("/readyz", running.admin_port, "balancer.example")[0] == 421
        assert ask("/readyz", running.admin_port, "a.example")[0] == 200


def test_a_reload_changes_who_may_ask() -> None:
    with running_proxy(config(listen="127.0.0.1:0", allow_clients=["192.0.2.0/24"])) as running:
        assert ask("/metrics", running.admin_port)[0] == 403
        running.reload(config(listen="127.0.0.1:0", allow_clients=["127.0.0.0/8"]))
        assert ask("/metrics", running.admin_port)[0] == 200
