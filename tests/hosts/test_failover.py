"""The whole proxy with destinations that fail, and with name servers that lie or die."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
from twisted.names import dns

from tests.hosts.conftest import StartProxy, StartServer, text_of
from tests.hosts.name_server import NameServer, of_the_router
from tests.hosts.network import Network

SECOND = "198.51.100.11"
ALLOW = 'allow_clients = ["192.0.2.0/24"]\n'


@pytest.fixture
def names(network: Network) -> Iterator[NameServer]:
    with of_the_router(network, SECOND, NameServer) as names:
        yield names


def first_words(network: Network, port: int = 2525) -> tuple[bytes, float]:
    """What the client hears first, and after how many seconds."""
    start = time.monotonic()
    with network.client.entered(), socket.create_connection((network.ROUTER_IN, port), timeout=45) as sock:
        words = sock.recv(4096)
        if words.startswith(b"220"):
            sock.sendall(b"QUIT\r\n")
            assert sock.recv(4096).startswith(b"221")
    return words, time.monotonic() - start


@pytest.mark.parametrize(
    ("fault", "destination", "reason"),
    [
        ("refused", "198.51.100.10:25", "connection refused"),
        ("black hole", "198.51.100.10:25", "no connection within 10 s"),
        ("421", "198.51.100.10:25", "421"),
        ("no address", "empty.example:25", "no address"),
        ("no such name", "nowhere.example:25", "no such name"),
        ("null MX", "mx:null.example", "null MX"),
        ("not routed", "203.0.113.1:25", "unreachable"),
        pytest.param("silent", "198.51.100.10:25", "", marks=pytest.mark.long),
    ],
)
def test_when_the_first_destination_is_of_no_use_the_second_is_used(
    network: Network,
    names: NameServer,
    start_server: StartServer,
    start_proxy: StartProxy,
    fault: str,
    destination: str,
    reason: str,
) -> None:
    names.table["empty.example"] = []
    names.table["null.example"] = [dns.Record_MX(0, "")]
    if fault == "black hole":
        network.server.inside(
            "nft add table ip t; nft 'add chain ip t i { type filter hook input priority 0; }';"
            "nft add rule ip t i ip daddr 198.51.100.10 tcp dport 25 drop"
        )
    elif fault in ("421", "silent"):
        start_server(network.server, (network.SERVER, 25), banner=None if fault == "silent" else b"421 4.3.2 not now")
    second = start_server(network.server, (SECOND, 25))
    proxy = start_proxy(
        network.router,
        f'listen = ["{network.ROUTER_IN}:2525"]\ndestination = ["{destination}", "{SECOND}:25"]\n{ALLOW}',
    )
    words, seconds = first_words(network)
    assert words.startswith(b"220 ")
    assert seconds < (10.5 if fault == "black hole" else 30.5 if fault == "silent" else 1.0)
    [failure] = proxy.await_event("destination-failed")
    assert reason in failure["reason"]
    # It is not tried first again.
    words, seconds = first_words(network)
    assert words.startswith(b"220 ")
    assert seconds < 1.0
    assert len(proxy.events("destination-failed")) == 1
    assert len(second.sessions) == 2


def test_a_name_that_leads_into_this_host_s_own_trust_is_not_connected(
    network: Network, names: NameServer, start_server: StartServer, start_proxy: StartProxy
) -> None:
    network.router.inside("ip address add 169.254.7.7/32 dev lo")
    addresses = ("127.0.0.1", "::1", network.ROUTER_IN, "169.254.7.7")
    inside = start_server(network.router, *[(address, 25) for address in addresses])
    names.table = {
        "loopback.example": [dns.Record_A("127.0.0.1"), dns.Record_AAAA("::1")],
        "mapped.example": [dns.Record_AAAA("::ffff:127.0.0.1")],
        "unspecified.example": [dns.Record_A("0.0.0.0")],
        "link-local.example": [dns.Record_A("169.254.7.7")],
        "own.example": [dns.Record_A(network.ROUTER_IN)],
        "mx-own.example": [dns.Record_MX(10, "own.example")],
        "itself.example": [dns.Record_A(network.ROUTER_IN)],
        "hosts.example": [],
    }
    network.router.etc("hosts", "127.0.0.1 localhost hosts.example\n")
    routes = {
        "loopback.example:25": "4.4.1",
        "mapped.example:25": "4.4.1",
        "unspecified.example:25": "4.4.1",
        "link-local.example:25": "4.4.1",
        "own.example:25": "4.4.1",
        "mx:mx-own.example": "4.4.1",
        "itself.example:2525": "4.4.6",
        "hosts.example:25": "4.4.1",
        "nowhere.example:25": "4.4.3",
        f"{network.ROUTER_IN}:25": "",  # a literal is meant as it is written
    }
    text = ('[[route]]\nname = "r{0}"\nlisten = ["0.0.0.0:{1}"]\ndestination = ["{2}"]\n' + ALLOW).format
    tables = "\n".join(text(n, 2525 + n, destination) for n, destination in enumerate(routes))
    start_proxy(network.router, tables.split("\n", 2)[2])
    for number, (destination, status) in enumerate(routes.items()):
        words, _ = first_words(network, 2525 + number)
        if status:
            assert text_of(words).startswith(status + " "), destination
        else:
            assert words.startswith(b"220 ")
    assert {session.peer for session in inside.sessions} == {network.ROUTER_IN}  # for the literal


def test_with_the_name_server_dead_known_names_go_on_and_nobody_else_waits(
    network: Network, names: NameServer, start_server: StartServer, start_proxy: StartProxy
) -> None:
    names.table["known.example"] = [dns.Record_A(network.SERVER)]
    names.table["domain.example"] = [dns.Record_MX(10, "known.example")]
    start_server(network.server, (network.SERVER, 25))
    listen = f'listen = ["{network.ROUTER_IN}'
    proxy = start_proxy(
        network.router,
        f'{listen}:2525"]\ndestination = ["known.example:25"]\n{ALLOW}'
        f'[[route]]\nname = "mx"\n{listen}:2526"]\ndestination = ["mx:domain.example"]\n{ALLOW}'
        f'[[route]]\nname = "literal"\n{listen}:2527"]\ndestination = ["{network.SERVER}:25"]\n{ALLOW}'
        f'[[route]]\nname = "unknown"\n{listen}:2528"]\ndestination = ["unknown.example:25"]\n{ALLOW}'
        f'[route.timeouts]\nresolve = "3s"\n',
    )
    for port in (2525, 2526):
        assert first_words(network, port)[0].startswith(b"220 ")
    names.dead = True
    time.sleep(1.2)  # the answers are not fresh any more
    with network.client.entered(), socket.create_connection((network.ROUTER_IN, 2528), timeout=20) as waiting:
        start = time.monotonic()
        for port in (2527, 2525, 2526, 2525, 2526, 2527):
            words, seconds = first_words(network, port)
            assert words.startswith(b"220 ")
            assert seconds < (0.5 if port == 2527 else 4.5)
        assert text_of(waiting.recv(1000)).startswith("4.4.3 ")
        assert time.monotonic() - start < 12
    for port in (2525, 2526):  # meanwhile it is known that nobody answers
        assert first_words(network, port)[1] < 0.5
    names.dead = False
    names.table.clear()
    assert proxy.process.poll() is None
