"""XCLIENT with a real Postfix that trusts the proxy's address: no stranger speaks in it, and with `xclient = true`
Postfix sees each client's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.clients import postfix
from tests.clients.lab import make_certificates
from tests.loopback import free_port, public_folder, wait_until
from tests.proxy_process import Running, route, running_proxy
from tests.scripted import Peer, connect, greet, nameless

NOT_AVAILABLE = b"421 4.7.1 not available to this client\r\n"
CLIENT = "127.0.0.9"


@contextmanager
def trusting_postfix() -> Iterator[tuple[postfix.Postfix, int]]:
    port = free_port()
    settings = {
        "smtpd_authorized_xclient_hosts": "127.0.0.1",
        "mynetworks": "127.0.0.1/32",
        "smtpd_relay_restrictions": "permit_mynetworks, reject",
        "default_transport": "discard",
        "smtpd_banner": "mail.example ESMTP",
    }
    with public_folder() as folder:
        certificates = make_certificates(folder)
        with postfix.running(folder / "postfix", certificates, {}, {}, settings, listen=port) as running:
            yield running, port


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[postfix.Postfix, Running]]:
    if reason := postfix.missing():
        pytest.skip(reason)
    with trusting_postfix() as (server, port):
        routes = [
            route(port, name="plain"),
            route(port, name="tells", xclient=True),
            route(port, name="trusts", trusted_proxies=[f"{CLIENT}/32"]),
        ]
        with running_proxy({"route": routes}) as running:
            yield server, running


def client_of(running: Running, name: str) -> Peer:
    return connect(running.port_of(name), source=CLIENT)


def test_postfix_would_take_a_strangers_word_without_us(both: tuple[postfix.Postfix, Running]) -> None:
    with client_of(both[1], "trusts") as client:
        assert b"XCLIENT" in greet(client)
        assert client.say(b"XCLIENT ADDR=127.0.0.1 NAME=localhost")[:3] == b"220"


@pytest.mark.parametrize("hello", [b"EHLO a", b"HELO a"])
def test_stranger_cannot_use_it(both: tuple[postfix.Postfix, Running], hello: bytes) -> None:
    with client_of(both[1], "plain") as client:
        assert client.reply()[:4] == b"220 "
        client.send(hello + b"\r\nXCLIENT ADDR=127.0.0.1\r\nMAIL FROM:<a@example.org>\r\n")
        assert nameless(client.rest()).endswith(NOT_AVAILABLE)


def test_postfix_sees_the_clients_own_address_and_relays_nothing_for_it(
    both: tuple[postfix.Postfix, Running],
) -> None:
    server, running = both
    with client_of(running, "tells") as client:
        assert b"XCLIENT" not in greet(client)  # this client is nobody that Postfix would believe
        assert client.say(b"MAIL FROM:<a@example.org>")[:3] == b"250"
        # The proxy's own address may relay; this client's may not.
        assert client.say(b"RCPT TO:<b@example.net>")[:3] == b"554"
        assert client.say(b"QUIT")[:3] == b"221"
    said = rf"reject: RCPT from unknown\[{re.escape(CLIENT)}\]"
    wait_until(lambda: re.search(said, server.log), 10, "Postfix logs whose recipient it refused")


def test_repeated_ehlo_of_a_client_that_was_told_of_is_answered_as_before(
    both: tuple[postfix.Postfix, Running],
) -> None:
    with client_of(both[1], "tells") as client:
        first = greet(client)
        assert client.say(b"EHLO again") == first
        assert client.say(b"NOOP")[:3] == b"250"


@pytest.mark.parametrize("hello", [b"HELO a", b"NOOP"])
def test_stranger_without_ehlo_cannot_use_it_after_others_were_told_of(
    both: tuple[postfix.Postfix, Running], hello: bytes
) -> None:
    with client_of(both[1], "tells") as client:
        greet(client)  # its last reply has no XCLIENT in it, since it is told as itself
    with client_of(both[1], "tells") as client:
        assert client.reply()[:4] == b"220 "
        client.send(hello + b"\r\nXCLIENT ADDR=127.0.0.1\r\nMAIL FROM:<a@example.org>\r\n")
        assert nameless(client.rest()).endswith(NOT_AVAILABLE)
