"""TLS from the first byte: relayed at once where the destination's port is 465, an unknown command elsewhere."""

from __future__ import annotations

import itertools
import os
import socket
import ssl
import time

import pytest

from tests.end_to_end.lab import tls_contexts
from tests.proxy_process import route, running_proxy
from tests.scripted import BANNER, Mailbox, Peer, ScriptedServer, connect

pytestmark = pytest.mark.root  # port 465

SERVER_TLS, TRUSTING = tls_contexts()
_addresses = (f"127.46.5.{number}" for number in itertools.count(os.getpid() % 200 + 1))  # no two tests have one


def speaks_tls(peer: Peer) -> None:
    peer.start_tls(SERVER_TLS, server=True)
    Mailbox()(peer)


@pytest.mark.parametrize("early", [True, False])
def test_towards_port_465_a_tls_record_is_relayed_at_once(early: bool) -> None:
    address = next(_addresses)
    with ScriptedServer(speaks_tls, host=address, port=465), running_proxy({"route": [route(f"{address}:465")]}) as run:
        with connect(run.port) as client:
            if not early:
                time.sleep(0.3)  # the server is connected by now
            began = time.monotonic()
            client.start_tls(TRUSTING, server=False, name="mail.domain1.com")
            assert client.reply()[:4] == b"220 "
            assert time.monotonic() - began < 2
            assert client.say(b"QUIT")[:3] == b"221"
            client.close()
        end = run.wait_for("session-end")
        assert (end["outcome"], end["tls"], end["sni"]) == ("completed", "passthrough", "mail.domain1.com")
        assert run.of("xclient-offered") == []


def test_a_hello_to_port_465_that_nobody_answers_is_told() -> None:
    def silent(peer: Peer) -> None:
        peer.drain_to(5)

    address = next(_addresses)
    with ScriptedServer(silent, host=address, port=465), running_proxy({"route": [route(f"{address}:465")]}) as run:
        with connect(run.port) as client:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            with pytest.raises(ssl.SSLWantReadError):
                TRUSTING.wrap_bio(incoming, outgoing, server_hostname="a.example").do_handshake()
            hello = outgoing.read()
            for at in range(0, len(hello), 200):
                client.send(hello[at : at + 200])
            time.sleep(0.2)
            client.sock.shutdown(socket.SHUT_RDWR)
        end = run.wait_for("session-end")
        assert end["outcome"] == "tls-failed"
        assert str(len(hello)) in end["reason"]


def test_towards_port_465_a_client_in_clear_is_a_session_like_any_other() -> None:
    address = next(_addresses)
    with ScriptedServer(Mailbox(), host=address, port=465), running_proxy({"route": [route(f"{address}:465")]}) as run:
        with connect(run.port) as client:
            assert client.reply() == BANNER
            assert client.say(b"QUIT")[:3] == b"221"
        assert run.wait_for("session-end")["tls"] == "none"


def test_towards_another_port_a_tls_record_is_an_unknown_command() -> None:
    with ScriptedServer(Mailbox()) as server, running_proxy({"route": [route(server.port)]}) as run:
        with connect(run.port) as client:
            client.send(b"\x16\x03\x01\x00\x05hello\r\n")
            assert client.reply() == BANNER
            assert client.reply()[:3] == b"250"  # the mailbox says so to any word
            assert client.say(b"QUIT")[:3] == b"221"
        assert run.wait_for("session-end")["tls"] == "none"
