"""What is known of the client and of the server."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.parts.client import Client
from proxy.smtp.session.parts.server import NOTHING_LEARNT, Server
from proxy.smtp.session.policy import DestinationMemory, SessionPolicy


@pytest.mark.parametrize(
    ("line", "name", "mode", "goes_on", "repaired"),
    [
        (b"EHLO a.example\r\n", b"p.example", "repair", b"EHLO a.example\r\n", None),
        (b"EHLO localhost\r\n", b"p.example", "repair", b"EHLO p.example\r\n", True),
        (b"EHLO localhost\n", b"p.example", "observe", b"EHLO localhost\n", False),
        (b"EHLO localhost\r\n", b"", "repair", b"EHLO localhost\r\n", False),
        (b"EHLO localhost\r\n", b"p.example", "off", b"EHLO localhost\r\n", None),
        (b"EHLO " + b"a.b" * 100 + b"\n", b"p.example", "repair", b"EHLO p.example\n", True),
    ],
)
def test_it_greets_by_a_name_that_may_be_said_or_that_is_told(
    line: bytes, name: bytes, mode: str, goes_on: bytes, repaired: bool | None
) -> None:
    client = Client()
    after, found = client.greets(line, SessionPolicy(client_name=name, repair=RepairPolicy(mode=mode)))
    assert (after, client.greeting) == (goes_on, goes_on)
    assert client.name == line.split()[1]
    assert (found.repaired if found is not None else None) is repaired


def test_the_last_greeting_counts_and_what_was_said_to_it() -> None:
    client = Client()
    client.greets(b"EHLO a.example\r\n", SessionPolicy())
    client.greets(b"HELO b.example\r\n", SessionPolicy())
    assert (client.greeting, client.greeted_ok) == (b"HELO b.example\r\n", False)
    client.greeting_taken(550)
    assert not client.greeted_ok
    client.greeting_taken(250)
    assert client.greeted_ok
    client.in_tls()
    assert (client.name, client.greeting, client.greeted_ok, client.tls) == (b"", b"", False, True)


def test_a_command_waits_until_it_is_taken() -> None:
    client = Client()
    client.waits_with(b"MAIL FROM:<>\r\n")
    assert client.waiting is not None
    assert client.take_waiting() == b"MAIL FROM:<>\r\n"
    assert client.waiting is None


def test_it_ends_finishes_and_is_released_once_each() -> None:
    client = Client()
    assert (client.closed, client.finished, client.released) == (False, False, False)
    client.ended()
    client.finish()
    client.release()
    assert (client.closed, client.finished, client.released) == (True, True, True)


@pytest.mark.parametrize(
    ("name", "text", "known_as"),
    [
        ("mail.example.com", "mail.example.com (192.0.2.1) port 25", b"mail.example.com"),
        ("192.0.2.1", "192.0.2.1 port 25", b""),
    ],
)
def test_a_server_has_a_name_or_only_an_address(name: str, text: str, known_as: bytes) -> None:
    server = Server()
    memory = DestinationMemory()
    server.connected(name, "192.0.2.1", 25, memory, False)
    assert (server.text, server.name, server.address) == (text, known_as, b"192.0.2.1")
    assert server.memory is memory
    server.connected(name, "192.0.2.1", 25, None, False)
    assert server.memory is not NOTHING_LEARNT


def test_it_may_be_left_for_another_until_the_client_has_seen_something_of_it() -> None:
    server = Server()
    server.connected("a", "192.0.2.1", 25, None, True)
    assert server.may_be_left
    server.is_shown()
    assert not server.may_be_left


def test_what_it_said_is_forgotten_with_it() -> None:
    server = Server()
    server.greeted(b"220 a")
    server.is_shown()
    server.in_tls()
    server.said(421)
    assert server.said_its_last
    server.forget()
    assert (server.banner, server.shown, server.tls, server.last_code, server.said_its_last) == (
        b"", False, False, 0, False,
    )  # fmt: skip


def test_a_fresh_connection_is_one_until_the_server_is_greeted() -> None:
    server = Server()
    server.reopen()
    server.forget()
    assert server.fresh
    server.is_greeted()
    assert not server.fresh


def test_a_goodbye_completes_it_whatever_else_happened() -> None:
    server = Server()
    assert server.outcome("server-reset") == "server-reset"
    server.said(221, private=True)
    assert server.outcome("server-reset") == "server-reset"
    server.said(221)
    assert server.outcome("server-reset") == "completed"
    server.unreachable("nowhere")
    assert server.text == "nowhere"
