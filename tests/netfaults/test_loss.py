"""Packets that are lost, late, doubled or out of order, on both sides of the proxy: each message arrives once."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import pytest

from tests.hosts.conftest import StartProxy, StartServer
from tests.hosts.network import Host, Network
from tests.loopback import wait_until
from tests.netfaults import weather
from tests.netfaults.mta import Mta, Sent, arrived
from tests.netfaults.weather import Weather
from tests.scripted import together

ALLOW = 'allow_clients = ["192.0.2.0/24", "10.77.0.0/16"]\n'
NEAR, PROXY_IN = "10.77.1.2", "10.77.1.1"  # a link with weather, client to proxy
PROXY_OUT, FAR = "10.77.2.1", "10.77.2.2"  # and proxy to server
ROUTE = f'listen = ["{PROXY_IN}:2525"]\ndestination = ["{FAR}:25"]\n{ALLOW}'


@contextmanager
def losing(host: Host, percent: float) -> Iterator[None]:
    """So many packets in a hundred that come to the host are lost, and counted."""
    limit = int(percent / 100 * (1 << 32))
    host.inside(
        "nft add table ip faults; nft 'add chain ip faults in { type filter hook input priority 0; }'; "
        f"nft add rule ip faults in iif != lo meta random \\< {limit} counter drop"
    )
    try:
        yield
        assert lost(host) > 0, "no packet was lost"
    finally:
        host.inside("nft delete table ip faults")


def lost(host: Host) -> int:
    """How many packets the rule has dropped."""
    told = json.loads(host.inside("nft -j list table ip faults"))["nftables"]
    return sum(
        part["counter"]["packets"]
        for each in told
        if "rule" in each
        for part in each["rule"]["expr"]
        if "counter" in part
    )


class StartLinks(Protocol):
    def __call__(self, **weather: float) -> tuple[Weather, Weather]: ...


@pytest.fixture
def links(network: Network) -> Iterator[StartLinks]:
    """Makes the links with weather: client to proxy, proxy to server."""
    if why := weather.missing():
        pytest.skip(why)
    made: list[Weather] = []

    def start(**how: float) -> tuple[Weather, Weather]:
        made.append(Weather((network.client, NEAR), (network.router, PROXY_IN), **how))
        made.append(Weather((network.router, PROXY_OUT), (network.server, FAR), **how))
        return made[0], made[1]

    yield start
    for link in made:
        link.remove()


def deliver_all(mta: Mta, address: tuple[str, int], number: int, size: int) -> list[str]:
    """So many messages, eight at a time; their subjects."""
    subjects = [f"message {one}" for one in range(number)]
    together([partial(mta.deliver, address, subject, size) for subject in subjects], 8)
    return subjects


@pytest.mark.parametrize(
    ("percent", "number", "size"),
    [(5, 12, 4000), pytest.param(12, 60, 50000, marks=pytest.mark.long)],
)
def test_with_packets_lost_every_message_arrives_once(
    network: Network,
    mta: Mta,
    server_tls: ssl.SSLContext,
    start_server: StartServer,
    start_proxy: StartProxy,
    percent: float,
    number: int,
    size: int,
) -> None:
    server = start_server(network.server, (network.SERVER, 25), context=server_tls)
    proxy = start_proxy(
        network.router, f'listen = ["{network.ROUTER_IN}:2525"]\ndestination = ["{network.SERVER}:25"]\n{ALLOW}'
    )
    with losing(network.client, percent), losing(network.router, percent), losing(network.server, percent):
        subjects = deliver_all(mta, (network.ROUTER_IN, 2525), number, size)
    assert arrived(server.mails) == dict.fromkeys(subjects, 1)
    assert not proxy.events("internal-error")


def test_a_blackout_in_the_middle_of_a_message_delays_it_and_no_more(
    network: Network,
    mta: Mta,
    links: StartLinks,
    server_tls: ssl.SSLContext,
    start_server: StartServer,
    start_proxy: StartProxy,
) -> None:
    both = links(delay=0.02)
    server = start_server(network.server, (FAR, 25), context=server_tls)
    start_proxy(network.router, ROUTE)
    sent: list[Sent] = []
    thread = threading.Thread(target=lambda: sent.append(mta.deliver((PROXY_IN, 2525), "long", 1_000_000)))
    thread.start()
    wait_until(lambda: both[1].carried > 50, 20, "the message is on its way")
    for link in both:
        link.lost = 1.0
    time.sleep(1.0)
    assert not sent
    for link in both:
        link.lost = 0.0
    thread.join(60)
    assert arrived(server.mails) == {"long": 1}
    assert sent[0].failures == []


@pytest.mark.parametrize(
    ("number", "size", "jitter"),
    [(8, 20000, 0.03), pytest.param(60, 200000, 0.2, marks=pytest.mark.long)],
)
def test_with_packets_late_doubled_and_out_of_order_every_message_arrives_once(
    network: Network,
    mta: Mta,
    links: StartLinks,
    server_tls: ssl.SSLContext,
    start_server: StartServer,
    start_proxy: StartProxy,
    number: int,
    size: int,
    jitter: float,
) -> None:
    both = links(delay=0.005, jitter=jitter, twice=0.03, lost=0.01)
    server = start_server(network.server, (FAR, 25), context=server_tls)
    proxy = start_proxy(network.router, ROUTE)
    subjects = deliver_all(mta, (PROXY_IN, 2525), number, size)
    assert arrived(server.mails) == dict.fromkeys(subjects, 1)
    assert not proxy.events("internal-error")
    for link in both:
        assert link.overtaken
        assert link.doubled
        assert link.dropped


def test_with_the_kernel_s_own_delay_and_reordering_every_message_arrives_once(
    network: Network,
    mta: Mta,
    server_tls: ssl.SSLContext,
    start_server: StartServer,
    start_proxy: StartProxy,
) -> None:
    if why := weather.netem_missing():
        pytest.skip(why)
    server = start_server(network.server, (network.SERVER, 25), context=server_tls)
    start_proxy(
        network.router, f'listen = ["{network.ROUTER_IN}:2525"]\ndestination = ["{network.SERVER}:25"]\n{ALLOW}'
    )
    for host, device in ((network.client, "eth0"), (network.router, "in"), (network.router, "out")):
        host.inside(f"tc qdisc add dev {device} root netem delay 20ms 15ms duplicate 2% reorder 25% loss 1%")
    subjects = deliver_all(mta, (network.ROUTER_IN, 2525), 8, 20000)
    assert arrived(server.mails) == dict.fromkeys(subjects, 1)
