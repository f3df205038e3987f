"""Name servers that are dead, slow or lie: each message arrives once, and never where a lie would lead it."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.hosts.broken_server import BrokenServer
from tests.hosts.conftest import Proxy, StartProxy, StartServer
from tests.hosts.name_server import of_the_router
from tests.hosts.network import Network
from tests.netfaults.liar import Liar
from tests.netfaults.mta import Mta, Sent, arrived
from tests.scripted import together

EVIL = "198.51.100.66"
ALLOW = 'allow_clients = ["192.0.2.0/24"]\n'
HELD_UP = ("dead", "servfail", "refused", "garbage", "other-id", "other-name", "cut", "nowhere")
EMPTY = ("unasked", "loop", "empty")  # good answers that the name has no address; they hold for half a minute
HARMLESS = ("slow", "other-port", "forged", "good")


@pytest.fixture
def names(network: Network) -> Iterator[Liar]:
    """It runs on the server's host; that has the evil address, too."""
    with of_the_router(network, EVIL, lambda address: Liar(address, network.SERVER, EVIL)) as liar:
        yield liar


@pytest.fixture
def good(network: Network, server_tls: ssl.SSLContext, start_server: StartServer) -> BrokenServer:
    return start_server(network.server, (network.SERVER, 25), (network.SERVER6, 25), context=server_tls)


@pytest.fixture
def evil(network: Network, server_tls: ssl.SSLContext, start_server: StartServer) -> BrokenServer:
    """Where nothing may come."""
    return start_server(network.server, (EVIL, 25), context=server_tls)


def routes(network: Network, names: tuple[str, ...]) -> str:
    """One for each name, from port 2525 on; the first without its header, which `start_proxy` writes."""
    tables = [
        f'name = "{name}"\nlisten = ["{network.ROUTER_IN}:{2525 + number}"]\n'
        f'destination = ["{name}.example:25"]\n{ALLOW}[route.timeouts]\nresolve = "2s"\n'
        for number, name in enumerate(names)
    ]
    return "\n[[route]]\n".join(tables).partition("\n")[2]


@pytest.mark.parametrize("held_up", [HELD_UP, pytest.param(EMPTY, marks=pytest.mark.long)], ids=["no answer", "empty"])
def test_whatever_a_name_server_does_every_message_arrives_once_and_at_the_right_place(
    network: Network,
    names: Liar,
    good: BrokenServer,
    evil: BrokenServer,
    mta: Mta,
    start_proxy: StartProxy,
    held_up: tuple[str, ...],
) -> None:
    hows = (*held_up, *HARMLESS)
    proxy = start_proxy(network.router, routes(network, hows))
    honest = threading.Timer(3.5, setattr, (names, "honest", True))
    honest.start()
    sent: list[Sent] = together(
        [partial(mta.deliver, (network.ROUTER_IN, 2525 + number), how) for number, how in enumerate(hows)]
    )
    honest.join()
    assert arrived(good.mails) == dict.fromkeys(hows, 1)
    assert not evil.sessions
    for one in sent:
        if one.subject in HARMLESS:
            assert not one.failures, one
        else:
            assert one.failures, one
            assert all("4.4.3" in failure or "4.4.1" in failure for failure in one.failures), one
    assert not proxy.events("internal-error")


def test_a_known_name_goes_on_when_its_name_server_fails_or_lies(
    network: Network, names: Liar, good: BrokenServer, evil: BrokenServer, mta: Mta, start_proxy: StartProxy
) -> None:
    hows = ("dead", "servfail", "refused", "garbage", "other-id", "other-name", "cut")
    start_proxy(network.router, routes(network, hows))
    names.honest = True
    expected: dict[str, int] = {}
    for what in ("before", "meanwhile"):
        subjects = [f"{how} {what}" for how in hows]
        sent = together(
            [
                partial(mta.deliver, (network.ROUTER_IN, 2525 + number), subject)
                for number, subject in enumerate(subjects)
            ]
        )
        expected |= dict.fromkeys(subjects, 1)
        assert [one.failures for one in sent] == [[]] * len(hows)
        names.honest = False
        time.sleep(1.2)  # what was answered is not fresh any more
    assert arrived(good.mails) == expected
    assert not evil.sessions


def test_a_name_that_turns_from_a_public_address_to_our_own_is_not_connected(
    network: Network,
    names: Liar,
    good: BrokenServer,
    mta: Mta,
    start_server: StartServer,
    start_proxy: StartProxy,
    server_tls: ssl.SSLContext,
) -> None:
    lures = ("127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", network.ROUTER_IN, "224.0.0.1", "255.255.255.255")
    trap = start_server(network.router, ("0.0.0.0", 25), ("::1", 25), context=server_tls)
    turning = [f"turning-{number}" for number in range(len(lures))]
    proxy: Proxy = start_proxy(network.router, routes(network, tuple(turning)))
    public = (network.SERVER, network.SERVER6)  # both: that there is none of a kind is believed for a while

    def deliver(when: str) -> list[Sent]:
        to = [(network.ROUTER_IN, 2525 + number) for number in range(len(lures))]
        return together([partial(mta.deliver, *one) for one in zip(to, subjects(when), strict=True)])

    def subjects(when: str) -> list[str]:
        return [f"{lure} {when}" for lure in lures]

    def lead_to(*addresses: tuple[str, ...]) -> None:
        names.now = {f"{name}.example": one for name, one in zip(turning, addresses, strict=True)}

    lead_to(*[public] * len(lures))
    assert [sent.failures for sent in deliver("before")] == [[]] * len(lures)
    lead_to(*((lure,) for lure in lures))
    asked = names.asked.copy()
    time.sleep(1.2)
    back = threading.Timer(1.5, lead_to, [public] * len(lures))
    back.start()
    for sent in deliver("turned"):
        assert sent.failures, sent
        assert all("4.4.1" in failure for failure in sent.failures), sent
    back.join()
    assert all(names.asked[name] > asked[name] for name in asked)
    assert not trap.sessions
    assert arrived(good.mails) == dict.fromkeys(subjects("before") + subjects("turned"), 1)
    assert not proxy.events("internal-error")
