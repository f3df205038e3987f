"""Interception over three hosts: client, router with the proxy, server; the packet filter files as they are shipped."""

from __future__ import annotations

import contextlib
import ctypes
import encodings.idna  # noqa: F401  # before the file system is another user's
import smtplib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import certificates
from tests.clients import postfix
from tests.hosts.broken_server import NAME, BrokenServer
from tests.hosts.conftest import StartProxy, StartServer, nftables, text_of
from tests.hosts.network import Host, Network
from tests.loopback import public_folder, wait_until

MAIL = b"Subject: intercepted\r\n\r\nfirst line\r\n..leading dot\r\n\xe4\r\n"

ROUTE = """
listen = ["0.0.0.0:2525", "[::]:2525"]
destination = "original"
allow_clients = ["192.0.2.0/24", "2001:db8:1::/64"]
"""

MARKED = (
    "ip rule add fwmark 1 lookup 100; ip route add local default dev lo table 100;"
    "ip -6 rule add fwmark 1 lookup 100; ip -6 route add local default dev lo table 100"
)

families = pytest.mark.parametrize("family", [4, 6])
ways = pytest.mark.parametrize("way", ["redirect-router", "tproxy", "tproxy-spoof"])


def intercept(host: Host, way: str) -> None:
    host.inside(f"nft -f {nftables(way + '.nft')}")
    if way.startswith("tproxy"):
        host.inside(MARKED)


@contextlib.contextmanager
def sockets_of(user: int) -> Iterator[None]:
    """Sockets that this thread makes belong to that user, as far as a packet filter can tell."""
    library = ctypes.CDLL(None)
    library.setfsuid(user)
    try:
        yield
    finally:
        library.setfsuid(0)


def send(host: Host, address: str, tls: ssl.SSLContext, user: int = 0) -> None:
    """One message over verified TLS, from that host; raises when the client sees no STARTTLS."""
    with host.entered(), smtplib.SMTP(local_hostname="client.example", timeout=20) as client:
        with sockets_of(user):
            code, text = client.connect(address, 25)
        assert code == 220, text
        client._host = NAME  # type: ignore[attr-defined]  # the name that the certificate has to show
        client.ehlo("client.example")
        client.starttls(context=tls)
        client.ehlo("client.example")
        client.sendmail("a@client.example", ["b@domain1.com"], MAIL)


def first_words(host: Host, address: str, port: int) -> bytes:
    with host.entered(), socket.create_connection((address, port), timeout=20) as sock:
        return sock.recv(4096)


@pytest.fixture
def server(network: Network, start_server: StartServer, server_tls: ssl.SSLContext) -> BrokenServer:
    return start_server(network.server, ("0.0.0.0", 25), ("::", 25), context=server_tls)


def test_without_the_proxy_the_client_finds_no_starttls(
    network: Network, server: BrokenServer, client_tls: ssl.SSLContext
) -> None:
    with pytest.raises(smtplib.SMTPNotSupportedError):
        send(network.client, network.SERVER, client_tls)
    assert server.sessions[0].peer == network.CLIENT


@families
@ways
def test_an_intercepted_client_sends_over_verified_tls(
    network: Network,
    server: BrokenServer,
    start_proxy: StartProxy,
    client_tls: ssl.SSLContext,
    way: str,
    family: int,
) -> None:
    client, _, router, address = network.addresses(family)
    spoofed = way == "tproxy-spoof"
    intercept(network.router, way)
    proxy = start_proxy(network.router, ROUTE + ('source = "client"\n' if spoofed else ""))
    send(network.client, address, client_tls)
    assert server.mails == [MAIL]
    [session] = server.sessions
    assert session.tls
    assert session.local == address
    assert session.peer == (client if spoofed else router)
    [end] = proxy.await_event("session-end")
    assert end["client"].startswith((client, f"[{client}]"))
    assert end["outcome"] == "completed"
    assert end["ehlo"] == "repaired"


@families
@ways
def test_who_connects_to_the_listener_itself_is_told_of_the_loop(
    network: Network, server: BrokenServer, start_proxy: StartProxy, way: str, family: int
) -> None:
    _, router, router_out, _ = network.addresses(family)
    intercept(network.router, way)
    start_proxy(network.router, ROUTE)
    for address in (router, router_out):
        assert text_of(first_words(network.client, address, 2525)).startswith("4.4.6 ")
    assert server.sessions == []


@families
@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        ("original_ports = [587]", False),
        ('original_networks = ["203.0.113.0/24", "2001:db8:9::/64"]', False),
        ('original_networks = ["198.51.100.0/24", "2001:db8:2::/64"]', True),
    ],
)
def test_ports_and_networks_are_kept_to(
    network: Network, server: BrokenServer, start_proxy: StartProxy, family: int, rule: str, allowed: bool
) -> None:
    address = network.addresses(family)[3]
    intercept(network.router, "redirect-router")
    start_proxy(network.router, ROUTE + rule)
    words = first_words(network.client, address, 25)
    if allowed:
        assert words.startswith(b"220 ")
    else:
        assert text_of(words).startswith("4.4.1 ")
        assert server.sessions == []


def test_the_router_s_own_port_25_is_not_intercepted(network: Network, start_proxy: StartProxy) -> None:
    intercept(network.router, "redirect-router")
    start_proxy(network.router, ROUTE)
    with pytest.raises(ConnectionRefusedError):
        first_words(network.client, network.ROUTER_IN, 25)


@families
def test_a_server_that_is_not_there_is_told(network: Network, start_proxy: StartProxy, family: int) -> None:
    intercept(network.router, "tproxy")
    start_proxy(network.router, ROUTE)
    text = text_of(first_words(network.client, network.addresses(family)[3], 25))
    assert text.startswith("4.4.1 ")
    assert "refused" in text


@families
def test_on_the_sender_s_own_host_only_the_proxy_gets_out(
    network: Network, server: BrokenServer, start_proxy: StartProxy, client_tls: ssl.SSLContext, family: int
) -> None:
    client, _, _, address = network.addresses(family)
    # The file knows the proxy by its user's name; here that is root, under which the test runs it, and the sender's
    # sockets are somebody else's.
    network.client.etc("passwd", "root:x:0:0::/:/bin/sh\nehlo-proxy:x:0:0::/:/bin/false\n")
    intercept(network.client, "redirect-local")
    proxy = start_proxy(
        network.client,
        'listen = ["127.0.0.1:2525", "[::1]:2525"]\ndestination = "original"\n'
        'allow_clients = ["192.0.2.40/32", "2001:db8:1::40/128"]',
    )
    send(network.client, address, client_tls, user=65534)
    assert server.mails == [MAIL]
    assert [session.peer for session in server.sessions] == [client]
    assert len(proxy.await_event("session-end")) == 1


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that Postfix's user can reach."""
    with public_folder() as found:
        yield found


@pytest.mark.parametrize("way", ["redirect-router", "tproxy-spoof"])
def test_postfix_behind_it_verifies_the_real_server_under_its_real_name(
    network: Network, server: BrokenServer, start_proxy: StartProxy, folder: Path, way: str
) -> None:
    if why := postfix.missing():
        pytest.skip(why)
    authority = folder / "ca.pem"
    authority.write_bytes(certificates.root().pem)
    recipient = f"b@{NAME.partition('.')[2]}"
    with contextlib.ExitStack() as stack:
        stack.enter_context(network.client.entered())
        sender = stack.enter_context(
            postfix.running(
                folder / "postfix",
                SimpleNamespace(ca=authority),  # type: ignore[arg-type]  # all that a sender needs
                {"domain1.com": f"secure:[{network.SERVER}]:25"},
                {"secure": f"secure match={NAME}"},
            )
        )
        # Without the proxy: no STARTTLS is seen, so nothing is sent.
        sender.submit("a@client.example", "without@domain1.com", MAIL)
        outcome = sender.delivery("without@domain1.com", 30)
        assert outcome is not None
        assert outcome.status == "deferred"
        assert server.mails == []
        intercept(network.router, way)
        start_proxy(network.router, ROUTE + ('source = "client"\n' if way == "tproxy-spoof" else ""))
        sender.submit("a@client.example", recipient, MAIL)
        outcome = sender.delivery(recipient, 30)
        assert outcome is not None, sender.log
        assert outcome.status == "sent", sender.log
        assert f"Verified TLS connection established to {network.SERVER}" in sender.log
    [mail] = server.mails
    assert mail.endswith(b"first line\r\n..leading dot\r\n\xe4\r\n")
    assert wait_until(lambda: [s for s in server.sessions if s.tls and s.mails], 5, "a session over TLS")
