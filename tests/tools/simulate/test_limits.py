"""A simulated server under attack: its sessions, its octets and its time have an end, whatever its fault."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from proxy.tools.simulate import RunningServer
from proxy.tools.simulate.faults import FAULTS
from proxy.tools.simulate.incoming import MAX_RECIPIENTS
from proxy.tools.simulate.replies import GOOD_REPLIES
from proxy.tools.simulate.server import MAX_SESSIONS, SimulatedServer
from proxy.tools.simulate.session import SESSION_TIMEOUT, SimulatedSession
from tests.tools.simulate.test_simulate import BEGUN, Wire, connected

pytest_plugins = ["proxy.tools.simulate.plugin"]
Start = Callable[..., RunningServer]


def test_the_session_beyond_the_last_is_told_421_and_one_that_ends_makes_room() -> None:
    clock = Clock()
    server = SimulatedServer(clock)
    sessions = [server.buildProtocol(None) for _ in range(MAX_SESSIONS)]
    for session in sessions:
        session.makeConnection(Wire())

    def answer() -> bytes:
        session, wire = server.buildProtocol(None), Wire()
        session.makeConnection(wire)
        said = wire.said()
        if wire.disconnecting:
            session.connectionLost()
        return said

    assert [answer()[:4] for _ in range(3)] == [b"421 "] * 3
    sessions[0].connectionLost()
    assert answer()[:4] == b"220 "


def test_a_message_has_at_most_a_thousand_recipients() -> None:
    session, wire, mails, _ = connected()
    session.dataReceived(b"EHLO a\r\nMAIL FROM:<a@b.example>\r\n" + b"RCPT TO:<c@d.example>\r\n" * MAX_RECIPIENTS)
    wire.clear()
    session.dataReceived(b"RCPT TO:<c@d.example>\r\nDATA\r\n.\r\n")
    assert wire.said()[:4] == b"452 "
    assert len(mails[0].recipients) == MAX_RECIPIENTS


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_a_client_that_drips_is_cut_after_an_hour(fault: str) -> None:
    chosen = FAULTS.get(fault, FAULTS["banner-multiline"])
    clock = Clock()
    session, wire = SimulatedServer(clock, chosen.replies, fault=chosen).buildProtocol(None), Wire()
    session.makeConnection(wire)
    for _ in range(int(SESSION_TIMEOUT / 300) + 1):
        if not wire.disconnecting:
            session.dataReceived(b"N")
        clock.advance(300)
    assert wire.disconnecting
    session.connectionLost()
    assert clock.getDelayedCalls() == []


def test_a_client_that_talks_on_while_a_slow_reply_is_on_its_way_is_not_read() -> None:
    session, wire, _, clock = connected(FAULTS["slow-banner"].replies)
    session.dataReceived(b"NOOP\r\n" * 1000)
    assert wire.producerState == "producing"
    session.dataReceived(b"NOOP\r\n" * 1000)
    assert wire.producerState == "paused"
    assert wire.said() == b""
    clock.advance(10)
    assert wire.producerState == "producing"
    assert wire.said().count(b"250 OK") == 2000


def test_a_client_that_does_not_read_is_not_read_either_and_goes_on_where_it_was() -> None:
    session, wire, mails, _ = connected()
    session.dataReceived(b"NOOP\r\n")
    session.pauseProducing()
    session.dataReceived(BEGUN + b"DATA\r\nx\r\n.\r\n")
    assert (wire.producerState, mails) == ("paused", [])
    wire.clear()
    session.resumeProducing()
    assert (wire.producerState, len(mails)) == ("producing", 1)
    session.dataReceived(b"QUIT\r\n")
    assert (wire.disconnecting, wire.producer) == (True, None)


@pytest.mark.parametrize("inside_tls", [False, True])
def test_commands_without_end_whose_replies_nobody_reads_stop_at_a_few_mebioctets(
    simulated_server: Start, inside_tls: bool
) -> None:
    server = simulated_server("none")
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection((server.host, server.port), 10))
        assert sock.recv(100)[:4] == b"220 "
        if inside_tls:
            sock.sendall(b"STARTTLS\r\n")
            assert sock.recv(100)[:4] == b"220 "
            sock = stack.enter_context(ssl._create_unverified_context().wrap_socket(sock))
        sock.setblocking(False)
        sent, until = 0, time.monotonic() + 3
        while time.monotonic() < until and sent < 64 << 20:
            try:
                sent += sock.send((b"HELP\r\n" * 10_000)[sent % 6 :])
            except (BlockingIOError, ssl.SSLWantWriteError):
                time.sleep(0.01)
        assert sent < 32 << 20
        sock.settimeout(10)
        left = sent // len(b"HELP\r\n") * len(b"214 2.0.0 RFC 5321\r\n")
        while left > 0:  # and it goes on when it is read
            left -= len(sock.recv(1 << 16))
        assert left == 0 or (inside_tls and left > -(1 << 16)), "of a record that was half on its way, more came"


def test_no_fault_leaves_a_timer_behind_its_client() -> None:
    for fault in FAULTS.values():
        clock = Clock()
        session: SimulatedSession = SimulatedServer(clock, fault.replies or GOOD_REPLIES, fault=fault).buildProtocol(
            None
        )
        session.makeConnection(Wire())
        session.dataReceived(b"EHLO a\r\nSTARTTLS\r\n\x16\x03\x01\xff\xff\x01\xff\xff\xff")
        session.connectionLost()
        assert clock.getDelayedCalls() == []
