"""Listeners on "any free port" at a reload: each stays where it is, and with its own route."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.loopback import wait_until
from tests.proxy_process import route, running_proxy
from tests.scripted import Mailbox, connect, greet, servers


def served_by(ports: Sequence[int]) -> list[bytes]:
    """The first line of each EHLO reply."""
    found = []
    for port in ports:
        with connect(port) as client:
            found.append(greet(client).split(b"\r\n")[0])
            assert client.say(b"QUIT")[:3] == b"221"
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_free_ports_stay_with_their_routes_and_nothing_is_opened_anew(workers: int) -> None:
    replies = [b"250-%b.example\r\n250 HELP\r\n" % name for name in (b"one", b"two")]
    with servers([Mailbox(reply) for reply in replies]) as (one, two):
        config = {
            "service": {"workers": workers},
            "route": [
                route(one.port, name="one", listen=["127.0.0.1:0", "127.0.0.1:0"]),
                route(two.port, name="two"),
            ],
        }
        with running_proxy(config) as running:
            ports = running.ports
            assert len(set(ports)) == 3
            expected = [b"250-one.example", b"250-one.example", b"250-two.example"]
            assert served_by(ports) == expected
            before = running.descriptors
            for _ in range(3):
                running.reload(config)
                assert running.ports == ports
                assert served_by(ports) == expected
            wait_until(lambda: running.descriptors <= before, 5, "no descriptor is left of the reloads")
