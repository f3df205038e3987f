"""What became of a session, as the log says it: who ended first, what is only a way of closing, and what is a fault."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue

import pytest

from proxy.net.relay.socket_ends import unacknowledged
from tests.certificates import NAME, root, stranger
from tests.end_to_end.lab import Lab, case, open_lab, tls_contexts
from tests.loopback import wait_until
from tests.proxy_process import allowed
from tests.scripted import BANNER, BROKEN, Mailbox, Peer, greet

SERVER_TLS, TRUSTING = tls_contexts()
READY = b"220 2.0.0 ready\r\n"


def peace(peer: Peer) -> None:
    raise AssertionError("no script was set")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    short = {"idle": 0.6, "half_closed": 0.6, "command": 2}
    with open_lab({"one": case(peace), "short": case(peace, timeouts=short)}) as lab:
        yield lab


def ended(lab: Lab, name: str, client: Callable[[Peer], object], server: Callable[[Peer], object]) -> dict[str, object]:
    """The end of one session between the two."""
    lab.server(name).script = lambda peer: (server(peer), None)[1]
    before = len(lab.running.of("session-end", route=name))
    with lab.connect(name) as peer:
        client(peer)
        end = lab.running.wait_for("session-end", route=name, count=before + 1)
    lab.server(name).settle()
    return lab.running.of("session-end", route=name)[-1] if end else {}


def starttls(peer: Peer) -> None:
    greet(peer)
    assert peer.say(b"STARTTLS") == READY


def takes_starttls(peer: Peer) -> None:
    peer.send(BANNER)
    peer.line()
    peer.send(BROKEN)
    peer.line()
    peer.send(READY)


def hello_of(context: ssl.SSLContext) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=NAME).do_handshake()
    return outgoing.read()


# -- ends and resets -------------------------------------------------------------------------------------------------


def unread(peer: Peer) -> None:
    """Wait until something has come, and close without reading it: the kernel says a reset."""
    peer.sock.settimeout(5)
    peer.sock.recv(1, socket.MSG_PEEK)
    time.sleep(0.1)
    peer.sock.close()


def test_a_client_that_closes_with_the_servers_last_words_unread_has_completed(lab: Lab) -> None:
    def client(peer: Peer) -> None:
        greet(peer)
        assert peer.say(b"MAIL FROM:<>")[:3] == b"250"
        peer.send(b"QUIT\r\n")
        unread(peer)

    end = ended(lab, "one", client, Mailbox())
    assert (end["outcome"], end["by"]) == ("completed", "server")


@pytest.mark.parametrize("let_go", [False, True])
def test_a_client_that_resets_while_neither_side_had_ended_is_a_reset(lab: Lab, let_go: bool) -> None:
    def client(peer: Peer) -> None:
        greet(peer)
        if let_go:
            assert peer.say(b"MAIL FROM:<>")[:3] == b"250"
        peer.reset()

    end = ended(lab, "one", client, Mailbox())
    assert (end["outcome"], end["by"]) == ("client-reset", "client")


def test_a_server_that_resets_after_the_clients_end_has_only_closed(lab: Lab) -> None:
    def client(peer: Peer) -> None:
        greet(peer)
        assert peer.say(b"MAIL FROM:<>")[:3] == b"250"
        peer.finish()
        peer.drain_to(5)

    def server(peer: Peer) -> None:
        peer.send(BANNER)
        for reply in (BROKEN, b"250 ok\r\n"):
            peer.line()
            peer.send(reply)
        assert peer.rest() == b""
        peer.reset()

    end = ended(lab, "one", client, server)
    assert (end["outcome"], end["by"]) == ("completed", "client")


def test_a_reset_before_the_letting_go_with_the_servers_end_waiting_is_the_servers(lab: Lab) -> None:
    def client(peer: Peer) -> None:
        greet(peer)
        peer.send(b"NOOP\r\n")
        unread(peer)

    def server(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        peer.send(BROKEN)
        peer.line()
        peer.send(b"250 ok\r\n")

    end = ended(lab, "one", client, server)
    assert (end["outcome"], end["by"]) == ("server-closed", "server")


def test_a_server_that_only_follows_a_client_that_is_gone_has_not_closed(lab: Lab) -> None:
    def client(peer: Peer) -> None:
        assert peer.reply()[:4] == b"220 "
        peer.send(b"EHLO a.example\r\n")
        peer.finish()
        peer.drain_to(5)

    def server(peer: Peer) -> None:
        peer.send(BANNER)
        peer.line()
        time.sleep(0.2)
        peer.send(BROKEN)
        peer.rest()

    end = ended(lab, "one", client, server)
    assert (end["outcome"], end["by"], end["level"], end["reason"]) == ("client-closed", "client", "info", "")


def test_221_is_completed_whoever_resets_behind_it(lab: Lab) -> None:
    def client(peer: Peer) -> None:
        greet(peer)
        peer.send(b"QUIT\r\n")
        unread(peer)

    assert ended(lab, "one", client, Mailbox())["outcome"] == "completed"


@pytest.mark.parametrize("reset", [True, False])
def test_a_client_that_is_gone_is_not_read_on_at_the_pace_of_one_that_says_too_much(lab: Lab, reset: bool) -> None:
    def client(peer: Peer) -> None:
        greet(peer)
        peer.send(b"NOOP\r\n" * 6000)  # 12 s at 500 a second
        peer.take(3000)
        peer.reset() if reset else peer.close()

    began = time.monotonic()
    end = ended(lab, "one", client, Mailbox())
    assert time.monotonic() - began < allowed(3)
    assert end["by"] == "client"
    assert end["outcome"] == "client-reset" or (not reset and end["outcome"] == "client-closed")


# -- ends and resets that the proxy finds in one turn: it is stopped while they come -----------------------------------

CLOSE_NOTIFY = b"\x17\x03\x03\x00\x13" + bytes(19)  # of TLS 1.3, as far as it can be seen
ORDERS = {
    "client: FIN, reset": ("completed", "client"),
    "client: reset": ("client-reset", "client"),
    "client: data, reset": ("client-reset", "client"),
    "server: FIN; client: reset": ("completed", "server"),
    "client: reset; server: FIN": ("completed", "server"),  # waiting to be read
    "client: reset; server: data, FIN": ("completed", "server"),
    "server: FIN, reset": ("completed", "server"),
    "client: FIN; server: reset": ("completed", "client"),
    "server: reset": ("server-reset", "server"),
    "server: 221; client: reset": ("completed", "server"),
    "server: 221, reset": ("completed", "server"),
    "server: 250; client: reset": ("client-reset", "client"),
}
INSIDE_TLS = {
    "client: close_notify, reset": ("completed", "client"),
    "client: close_notify; server: reset": ("completed", "client"),
    "server: close_notify; client: reset": ("completed", "server"),
    "client: close_notify, data, reset": ("client-reset", "client"),
    "client: reset": ("client-reset", "client"),
    "server: 221; client: reset": ("client-reset", "client"),  # in clear inside TLS: that is no reply
}
WORDS = {"data": b"x" * 3000, "221": b"221 2.0.0 bye\r\n", "250": b"250 ok\r\n", "close_notify": CLOSE_NOTIFY}


@pytest.mark.parametrize("in_one_turn", [True, False])
@pytest.mark.parametrize(
    ("tls", "order"), [*((False, order) for order in ORDERS), *((True, order) for order in INSIDE_TLS)]
)
def test_who_ended_first_is_known_and_not_guessed(lab: Lab, order: str, tls: bool, in_one_turn: bool) -> None:
    if not in_one_turn and order.startswith("client: reset; "):
        return  # the reset is alone
    expected = (INSIDE_TLS if tls else ORDERS)[order]
    servers: Queue[Peer] = Queue()
    over = threading.Event()

    def server(peer: Peer) -> None:
        takes_starttls(peer)
        peer.take(5)
        servers.put(peer)
        over.wait(10)

    def server_in_clear(peer: Peer) -> None:
        peer.send(BANNER)
        for reply in (BROKEN, b"250 ok\r\n"):
            peer.line()
            peer.send(reply)
        servers.put(peer)
        over.wait(10)

    def client(peer: Peer) -> None:
        if tls:
            starttls(peer)
            peer.send(b"\x17\x03\x03\x00\x00")
        else:
            greet(peer)
            assert peer.say(b"MAIL FROM:<>")[:3] == b"250"
        sides = {"client": peer, "server": servers.get(timeout=10)}
        # A kernel short of memory lets a FIN wait for the retransmission of what was sent before it.
        wait_until(lambda: not any(unacknowledged(one.sock) for one in sides.values()), 5, "all is confirmed")
        stopped = lab.running.process
        try:
            if in_one_turn:
                stopped.send_signal(signal.SIGSTOP)
            for part in order.split("; "):
                side, _, steps = part.partition(": ")
                for step in steps.split(", "):
                    if step == "FIN":
                        sides[side].finish()
                    elif step == "reset":
                        time.sleep(0.02)  # what was said before has arrived
                        sides[side].reset()
                    else:
                        sides[side].send(WORDS[step])
                    if not in_one_turn:
                        time.sleep(0.02)
        finally:
            stopped.send_signal(signal.SIGCONT)
            lab.running.wait_for("session-end", route="one", count=before + 1)
            over.set()

    before = len(lab.running.of("session-end", route="one"))
    end = ended(lab, "one", client, server if tls else server_in_clear)
    assert (end["outcome"], end["by"]) == expected


# -- handshakes that never came to their end -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "reset", "server", "timeout"])
def test_a_hello_that_is_never_answered_is_told_with_its_size(lab: Lab, how: str) -> None:
    hello = hello_of(TRUSTING)

    def client(peer: Peer) -> None:
        starttls(peer)
        peer.send(hello)
        if how == "fin":
            time.sleep(0.2)
            peer.finish()
        elif how == "reset":
            time.sleep(0.2)
            peer.reset()
        if how != "reset":
            peer.drain_to(5)

    def server(peer: Peer) -> None:
        takes_starttls(peer)
        assert peer.take(len(hello)) == hello
        if how != "server":
            peer.drain_to(5)

    end = ended(lab, "short", client, server)
    assert end["outcome"] == "tls-failed"
    assert end["reason"] == f"the ClientHello of {len(hello)} octets was never answered"
    assert end["by"] == {"fin": "client", "reset": "client", "server": "server", "timeout": "proxy"}[how]
    assert end["tls"] == "passthrough"


def test_an_alert_in_clear_is_told_by_its_name(lab: Lab) -> None:
    def client(peer: Peer) -> None:
        starttls(peer)
        peer.send(hello_of(TRUSTING))
        peer.drain_to(5)
        peer.close()

    def server(peer: Peer) -> None:
        takes_starttls(peer)
        peer.sock.settimeout(5)
        peer.sock.recv(65536)
        peer.send(b"\x15\x03\x03\x00\x02\x02\x28")

    end = ended(lab, "one", client, server)
    assert end["outcome"] == "tls-failed"
    assert "handshake_failure" in str(end["reason"])
    assert end.get("alert", "handshake_failure") == "handshake_failure"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("lost", ["client", "server"])
def test_a_handshake_that_is_broken_off_behind_the_servers_hello_is_tls_failed(
    lab: Lab, version: ssl.TLSVersion, lost: str
) -> None:
    """As Python's asyncio does with a certificate that it does not trust: it sends no alert."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = version
    hello = hello_of(context)

    def client(peer: Peer) -> None:
        starttls(peer)
        peer.send(hello)
        peer.take(200)
        if lost == "client":
            peer.finish()
        peer.drain_to(5)
        peer.close()

    def server(peer: Peer) -> None:
        takes_starttls(peer)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(peer.take(len(hello)))
        with suppress(ssl.SSLWantReadError):
            SERVER_TLS.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
        peer.send(outgoing.read())
        if lost == "client":
            peer.drain_to(5)

    end = ended(lab, "one", client, server)
    assert (end["outcome"], end["by"]) == ("tls-failed", lost)
    assert end["reason"] == "the TLS handshake was not finished: the client said no more behind the server's hello"


def test_an_alert_of_a_client_whose_hello_was_never_answered_is_not_the_reason(lab: Lab) -> None:
    """OpenSSL sends decode_error when the server ends instead."""
    hello = hello_of(TRUSTING)

    def client(peer: Peer) -> None:
        starttls(peer)
        peer.send(hello)
        peer.drain_to(5)
        peer.send(b"\x15\x03\x01\x00\x02\x02\x32")
        peer.close()

    def server(peer: Peer) -> None:
        takes_starttls(peer)
        peer.take(len(hello))
        peer.finish()
        peer.drain_to(5)

    end = ended(lab, "one", client, server)
    assert (end["outcome"], end["by"], end["alert"]) == ("tls-failed", "server", "decode_error")
    assert end["reason"] == f"the ClientHello of {len(hello)} octets was never answered"


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("trusts", [True, False])
def test_openssl_that_does_not_trust_the_certificate_is_tls_failed(
    lab: Lab, tmp_path: Path, version: str, trusts: bool
) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes((root() if trusts else stranger()).pem)
    lab.server("one").script = Mailbox(tls=SERVER_TLS)
    before = len(lab.running.of("session-end", route="one"))
    where = ["-connect", f"127.0.0.1:{lab.port('one')}", "-starttls", "smtp", "-servername", NAME]
    more = ["-CAfile", str(ca), "-verify_return_error", "-quiet", "-nocommands", version]
    subprocess.run(
        ["openssl", "s_client", *where, *more], input=b"QUIT\r\n", capture_output=True, timeout=20, check=False
    )
    with suppress(Exception):
        lab.server("one").settle()
    end = lab.running.wait_for("session-end", route="one", count=before + 1)
    assert end["outcome"] == ("completed" if trusts else "tls-failed"), end
    assert end["by"] in ("client", "server")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_that_is_rejected_after_the_handshake_is_completed(lab: Lab, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version

    def client(peer: Peer) -> None:
        greet(peer)
        assert peer.say(b"STARTTLS")[:3] == b"220"
        peer.start_tls(context, server=False, name=NAME)
        peer.send(b"QUIT\r\n")
        peer.drain_to(5)

    assert ended(lab, "one", client, Mailbox(tls=SERVER_TLS))["outcome"] == "completed"


def test_a_mail_over_tls_is_completed_with_the_ends_of_all_three_logs(lab: Lab) -> None:
    def client(peer: Peer) -> None:
        greet(peer, b"esa.example")
        assert peer.say(b"STARTTLS")[:3] == b"220"
        peer.start_tls(TRUSTING, server=False, name=NAME)
        assert send_mail_inside(peer)[:3] == b"250"
        peer.close()

    end = ended(lab, "one", client, Mailbox(tls=SERVER_TLS))
    assert (end["outcome"], end["tls"]) == ("completed", "passthrough")


def send_mail_inside(peer: Peer) -> bytes:
    peer.say(b"EHLO esa.example")
    for command in (b"MAIL FROM:<>", b"RCPT TO:<b@x>", b"DATA"):
        peer.say(command)
    reply = peer.say(b"hi\r\n.")
    peer.say(b"QUIT")
    return reply
