"""Pass-through is a wire: the TLS session is the two peers' own, and the program runs as a command would start it."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.certificates import NAME
from tests.clients.lab import Lab
from tests.loopback import child, wait_until

BANNER = b"220 mail.domain1.com ESMTP Service ready\r\n"
BROKEN = b"250-STARTTLS\r\n250-mail.domain1.com\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-HELP\r\n250 DELIVERBY 300\r\n"
REPAIRED = (
    b"250-mail.domain1.com\r\n250-STARTTLS\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-HELP\r\n250 DELIVERBY 300\r\n"
)
READY = b"220 2.0.0 Ready to start TLS\r\n"


@dataclass(slots=True)
class Recorder:
    """A server that says the broken lines one after the other and keeps every byte that comes after STARTTLS."""

    port: int
    commands: list[bytes] = field(default_factory=list)
    after_starttls: bytearray = field(default_factory=bytearray)
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def recorder(reply_to_hello: bytes) -> Iterator[Recorder]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)
    record = Recorder(listener.getsockname()[1])

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb", buffering=0) as lines:
            connection.settimeout(20)
            connection.sendall(BANNER)
            for reply in (BROKEN, READY):
                record.commands.append(lines.readline())
                connection.sendall(reply)
            answered = False
            while data := connection.recv(65536):
                record.after_starttls += data
                if not answered:
                    answered = True
                    connection.sendall(reply_to_hello)
        record.ended.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield record
    finally:
        listener.close()
        thread.join(20)


@contextmanager
def proxy(destination: int, folder: Path, *more: str) -> Iterator[int]:
    """`ehlo-proxy run` without a file, on a free port, which its `ready` event tells."""
    log = folder / "run.log"
    command = [
        sys.executable,
        "-m",
        "proxy",
        "run",
        "--listen",
        "127.0.0.1:0",
        "--destination",
        f"127.0.0.1:{destination}",
    ]
    with child([*command, *more], log):
        ready = wait_until(
            lambda: re.search(r"^\S+ info ready .*listen=\"?\S*127\.0\.0\.1:(\d+)", log.read_text(), re.MULTILINE),
            20,
            "ready",
        )
        assert ready is not None
        yield int(ready[1])


def read_reply(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size and (data := connection.recv(size - len(got))):
        got += data
    return got


def client_hello() -> bytes:
    """A real one, as Python's TLS makes it for this name; no two are alike."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=NAME)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def test_the_client_hello_arrives_at_the_server_as_the_client_sent_it(tmp_path: Path) -> None:
    alert = b"\x15\x03\x03\x00\x02\x02\x28"  # handshake_failure: enough of an answer to see the way back
    hello = client_hello()
    assert len(hello) > 200
    with (
        recorder(alert) as record,
        proxy(record.port, tmp_path) as port,
        socket.create_connection(("127.0.0.1", port), 10) as client,
    ):
        assert read_reply(client, len(BANNER)) == BANNER
        client.sendall(b"EHLO esa.com\r\n")
        assert read_reply(client, len(REPAIRED)) == REPAIRED
        client.sendall(b"STARTTLS\r\n")
        assert read_reply(client, len(READY)) == READY
        client.sendall(hello)
        assert read_reply(client, len(alert)) == alert
        client.shutdown(socket.SHUT_WR)
        assert record.ended.wait(10)
    assert record.commands == [b"EHLO esa.com\r\n", b"STARTTLS\r\n"]
    assert bytes(record.after_starttls) == hello


def test_the_certificate_that_the_client_sees_is_the_servers(lab: Lab) -> None:
    trust = ssl.create_default_context(cafile=str(lab.certificates.ca))
    trust.check_hostname = True
    with smtplib.SMTP("127.0.0.1", lab.port("greeting-not-first", True), timeout=10) as smtp:
        smtp.starttls(context=trust)
        assert isinstance(smtp.sock, ssl.SSLSocket)
        assert smtp.sock.getpeercert(binary_form=True) == lab.certificates.der


def test_the_log_of_a_session_names_what_was_repaired_and_that_tls_passed_through(lab: Lab) -> None:
    before = lab.proxy_log().count("\n")
    trust = ssl.create_default_context(cafile=str(lab.certificates.ca))
    with smtplib.SMTP("127.0.0.1", lab.port("greeting-not-first", True), timeout=10) as smtp:
        smtp.starttls(context=trust)
    wait_until(lambda: "session-end" in "\n".join(lab.proxy_log().splitlines()[before:]), 5, "session-end")
    end = next(line for line in lab.proxy_log().splitlines()[before:] if " session-end " in line)
    for field_ in ("route=greeting-not-first", "ehlo=repaired", "tls=passthrough", "repaired=greeting-not-first"):
        assert field_ in end
