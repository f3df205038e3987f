"""Commands without need slow the session that says them.  That it slows no other is shown by `tests.attacks`."""

from __future__ import annotations

import time

import pytest

from tests.proxy_process import Running, allowed, route, running_proxy
from tests.scripted import Mailbox, ScriptedServer, connect, greet

pytestmark = pytest.mark.alone


def lock_step(running: Running, commands: int) -> float:
    with connect(running.port) as client:
        greet(client)
        began = time.monotonic()
        for _ in range(commands):
            client.say(b"NOOP")
        return time.monotonic() - began


def test_commands_beyond_a_hundred_slow_that_session_only() -> None:
    with ScriptedServer(Mailbox()) as server, running_proxy({"route": [route(server.port)]}) as running:
        assert lock_step(running, 90) < allowed(0.5)
        assert 0.5 < lock_step(running, 600) < allowed(4.0)
        assert lock_step(running, 90) < allowed(0.5)
