"""Nobody holds the others: floods on one route, mails on another, which are served within a second throughout."""

from __future__ import annotations

import time

import pytest

from tests.end_to_end.control import control_process
from tests.end_to_end.flood import flooding
from tests.proxy_process import Running, allowed, route, running_proxy
from tests.scripted import Mailbox, ScriptedServer, connect, greet

pytestmark = pytest.mark.alone

SECONDS = 1.5  # of each flood
SERVED_WITHIN = 1.0

FLOODS = {
    "20 clients with NOOP": ("NOOP", 20),
    "150 clients with NOOP": ("NOOP", 150),
    "150 clients with little at a time": ("NOOP", 150, "small"),
    "150 clients with RSET": ("RSET", 150),
    "150 clients with EHLO": ("EHLO a", 150),
    "150 clients with lines for a relay": ("MAIL", 150),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_commands_does_not_hold_an_innocent_mail(name: str) -> None:
    word, clients, *more = FLOODS[name]
    with control_process() as control, flooding(word, clients, *more, seconds=SECONDS) as flood:
        routes = [route(flood.port, name="flood"), route(control.port, name="control")]
        with running_proxy({"route": routes}) as running:
            control.begin(running.port_of("control"))
            control.slowest_since(0)
            before = len(control.took)
            flood.begin(running.port_of("flood"))
            replies = flood.replies()
            slowest = control.slowest_since(before)
            assert slowest < allowed(SERVED_WITHIN), f"a mail took {slowest:.2f} s; {replies} replies to the flood"
            assert replies > 5 * clients


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
