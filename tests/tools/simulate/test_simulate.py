"""The simulated server: what it takes, what it says wrongly, and that it holds no plaintext across STARTTLS."""

from __future__ import annotations

import io
import json
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from proxy.tools.simulate import command as simulate
from proxy.tools.simulate.incoming import Mail
from proxy.tools.simulate.replies import BROKEN, GOOD, GOOD_REPLIES, NAME, adapted, without_starttls
from proxy.tools.simulate.server import SimulatedServer
from proxy.tools.simulate.session import SimulatedSession

pytestmark = pytest.mark.filterwarnings("error")


class Wire(StringTransport):
    """A transport that keeps what is said."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def said(self) -> bytes:
        data: bytes = self.value()
        self.clear()
        return data


def connected(replies: Any = GOOD_REPLIES, **options: Any) -> tuple[SimulatedSession, Wire, list[Mail], Clock]:
    mails: list[Mail] = []
    clock = Clock()
    session = SimulatedServer(clock, replies, on_mail=mails.append, **options).buildProtocol(None)
    wire = Wire()
    session.makeConnection(wire)
    return session, wire, mails, clock


BEGUN = b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"


def test_a_message_arrives_byte_for_byte_with_its_dots_undone() -> None:
    session, wire, mails, _ = connected()
    session.dataReceived(BEGUN + b"DATA\r\n")
    session.dataReceived(b"..dot\r\nnul \0 \xff\r\nbare\nlf\n.\nnot the end\r\n.\rnor\r\n....\r\n\r\n.\r\nQUIT\r\n")
    (mail,) = mails
    assert mail.data == b".dot\r\nnul \0 \xff\r\nbare\nlf\n.\nnot the end\r\n\rnor\r\n...\r\n\r\n"
    assert (mail.sender, mail.recipients, mail.tls, mail.helo) == ("a@b.example", ("c@d.example",), "", "a")
    assert wire.said().endswith(b"250 OK, message accepted\r\n221 2.0.0 Goodbye\r\n")
    assert wire.disconnecting


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_a_message_does_not_depend_on_its_segments(size: int) -> None:
    session, _, mails, _ = connected()
    stream = BEGUN + b"DATA\r\n..\r\n\r\n..x\r\n.\r\n" + b"MAIL FROM:<>\r\nRCPT TO:<e@f>\r\nDATA\r\n.\r\n"
    for start in range(0, len(stream), size):
        session.dataReceived(stream[start : start + size])
    assert [mail.data for mail in mails] == [b".\r\n\r\n.x\r\n", b""]


def test_a_message_in_chunks_is_their_bytes() -> None:
    session, wire, mails, _ = connected()
    session.dataReceived(BEGUN + b"BDAT 5\r\n.\r\n..BDAT 0\r\nBDAT 3 LAST\r\n\0\r\nNOOP\r\n")
    assert [mail.data for mail in mails] == [b".\r\n..\0\r\n"]
    assert wire.said().endswith(b"250 OK, go on\r\n250 OK, go on\r\n250 OK, message accepted\r\n250 OK\r\n")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"HELO a\r\n", b"250"),
        (b"VRFY x\r\n", b"252"),
        (b"rset\n", b"250"),
        (b"FOO\r\n", b"500"),
        (b"RCPT TO:<a@b>\r\n", b"503"),
        (b"DATA\r\n", b"503"),
        (b"MAIL TO:\r\n", b"501"),
        (b"STARTTLS\r\n", b"502"),
        (b"BDAT 10 LAST\r\n", b"503"),
        (b"BDAT x\r\n", b"501"),
        (b"AUTH PLAIN AGEAYg==\r\n", b"235"),
        (b"AUTH PLAIN\r\nAGEAYg==\r\n", b"334 \r\n235"),
        (b"AUTH LOGIN\r\nYQ==\r\nYg==\r\n", b"334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235"),
        (b"AUTH LOGIN\r\n*\r\n", b"334 VXNlcm5hbWU6\r\n501"),
        (b"AUTH X\r\n", b"504"),
        (b"XCLIENT NAME=a\r\n", b"220"),
        (b"x" * 9000, b"500"),
    ],
)
def test_commands_get_the_usual_replies(said: bytes, code: bytes) -> None:
    session, wire, _, _ = connected()
    wire.said()
    session.dataReceived(said)
    assert wire.said().startswith(code)


def test_answers_of_a_test_stand_in_for_the_usual_ones() -> None:
    heard: list[bytes] = []
    session, wire, _, _ = connected(answers={b"STARTTLS": b"454 no\r\n"}, on_command=heard.append)
    wire.said()
    session.dataReceived(b"starttls \r\n")
    assert wire.said() == b"454 no\r\n"
    assert heard == [b"starttls \r\n"]


def test_a_reply_in_pieces_comes_in_pieces_and_what_is_said_meanwhile_waits() -> None:
    session, wire, _, clock = connected(BROKEN["final-line-early"])
    wire.said()
    session.dataReceived(b"EHLO a\r\nNOOP\r\n")
    assert wire.said() == b"250 mail.domain1.com\r\n"
    clock.advance(1)
    assert wire.said() == b"250 STARTTLS\r\n250 8BITMIME\r\n250 HELP\r\n250 OK\r\n"


def test_a_client_that_leaves_between_two_pieces_leaves_no_timer_behind() -> None:
    session, _, _, clock = connected(BROKEN["final-line-early"])
    session.dataReceived(b"EHLO a\r\n")
    session.connectionLost()
    assert clock.getDelayedCalls() == []


def test_a_silent_client_is_cut() -> None:
    session, wire, _, clock = connected()
    clock.advance(599)
    session.dataReceived(b"NOOP\r\n")
    clock.advance(599)
    assert not wire.disconnecting
    clock.advance(1)
    assert wire.disconnecting
    session.dataReceived(b"NOOP\r\n")
    assert wire.said().endswith(b"220 mail.domain1.com ESMTP Service ready\r\n250 OK\r\n")


def test_every_finding_departs_from_the_good_reply() -> None:
    for finding, replies in BROKEN.items():
        said = (replies.banner, replies.ehlo, replies.inside_tls)
        assert said != (GOOD_REPLIES.banner, GOOD_REPLIES.ehlo, GOOD_REPLIES.inside_tls), finding


def test_replies_can_be_renamed_and_stripped_of_tls() -> None:
    changed = adapted(BROKEN["greeting-not-first"], b"mx.example", tls=False, broken_inside_tls=True)
    assert changed.banner[0].data == b"220 mx.example ESMTP Service ready\r\n"
    assert changed.ehlo[0].data.startswith(b"250-ENHANCEDSTATUSCODES\r\n250-mx.example\r\n")
    assert changed.inside_tls == changed.ehlo
    assert without_starttls(GOOD_REPLIES.ehlo)[0].data == GOOD.replace(b"STARTTLS", b"ENHANCEDSTATUSCODES")


def test_an_unknown_finding_is_a_mistake_with_the_nearest_name() -> None:
    with pytest.raises(simulate.Mistake, match="did you mean greeting-not-first"):
        simulate.replies_for(simulate.SimulateOptions(finding="greeting-not-frist"))
    with pytest.raises(simulate.Mistake, match="is no finding but a fault: --fault sha1"):
        simulate.fault_for(simulate.SimulateOptions(finding="sha1"))
    with pytest.raises(simulate.Mistake, match="is no fault but a finding: --finding blank-line"):
        simulate.fault_for(simulate.SimulateOptions(fault="blank-line"))
    err = io.StringIO()
    assert simulate.run(simulate.SimulateOptions(finding="?"), None, io.StringIO(), err) == 2
    assert "explain" in err.getvalue()


def test_a_reply_from_a_file_is_served_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "reply"
    path.write_bytes(b"250-STARTTLS\n\xff\0" + NAME)
    options = simulate.SimulateOptions(reply=str(path), tls=False, name="x.example")
    assert simulate.replies_for(options).ehlo[0].data == b"250-STARTTLS\n\xff\0" + NAME
    with pytest.raises(simulate.Mistake):
        simulate.replies_for(simulate.SimulateOptions(reply=str(tmp_path / "none")))


def test_mail_is_shown_without_letting_an_address_forge_a_line(tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    show = simulate.Shown(simulate.SimulateOptions(save=str(tmp_path / "gone")), out, err)
    show.mail(Mail("a\x1b[2J\n", ("b@c", "d"), b"x" * 9, "", "h", "c"))
    assert out.getvalue() == "mail from <a\\x1b[2J\\x0a> to <b@c>, <d>, 9 bytes, in clear\n"
    assert "not saved" in err.getvalue()


# ------------------------------------------------------- as a person runs it


class Running:
    """`simulate` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "simulate", "--listen", "127.0.0.1:0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def stop(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        _, err = self.process.communicate(timeout=20)
        return self.process.returncode, err


@pytest.fixture
def save(tmp_path: Path) -> Path:
    return tmp_path / "mail"


@pytest.fixture
def running(save: Path, tmp_path: Path) -> Iterator[Running]:
    server = Running(
        "--finding", "none", "--save", str(save), "--save-certificate", str(tmp_path / "certificate.pem"), "--json"
    )  # fmt: skip
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate(timeout=20)


def test_it_takes_mail_over_tls_shows_it_saves_it_and_ends_well(running: Running, save: Path, tmp_path: Path) -> None:
    told = json.loads(running.line())
    assert told["event"] == "listening"
    context = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    context.set_alpn_protocols(["http/1.1"])  # an offer that means nothing here is ignored
    with smtplib.SMTP("127.0.0.1", told["port"], timeout=10) as client:
        client._host = "mail.domain1.com"  # type: ignore[attr-defined]  # the name to verify
        client.starttls(context=context)
        assert not client.has_extn("starttls")
        client.ehlo()
        assert not client.has_extn("starttls")
        client.sendmail("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\n.one\r\n")
        mail = json.loads(running.line())
    assert (mail["event"], mail["from"], mail["to"], mail["size"]) == ("mail", "a@b.example", ["c@d.example"], 20)
    assert mail["tls"].startswith("TLSv1.")
    assert Path(mail["file"]) == save / "0001.eml"
    assert (save / "0001.eml").read_bytes() == b"Subject: x\r\n\r\n.one\r\n"
    assert running.stop() == (0, "")


def test_plaintext_behind_starttls_is_forgotten(running: Running) -> None:
    port = json.loads(running.line())["port"]
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        assert sock.recv(1000).startswith(b"220 ")
        sock.sendall(b"EHLO a\r\n")
        assert b"STARTTLS" in sock.recv(1000)
        sock.sendall(b"STARTTLS\r\nMAIL FROM:<injected@b>\r\nRCPT TO:<c@d>\r\n")
        assert sock.recv(1000).startswith(b"220 ")
        context = ssl._create_unverified_context()
        with context.wrap_socket(sock) as inside:
            inside.sendall(b"DATA\r\n")
            assert inside.recv(1000).startswith(b"503 ")
            inside.sendall(b"STARTTLS\r\n")
            assert inside.recv(1000).startswith(b"503 ")


def test_a_port_that_is_taken_is_told_with_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "proxy", "simulate", "--listen", f"127.0.0.1:{port}"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_an_output_that_takes_nothing_is_the_end_with_exit_code_1(json_option: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "proxy", "simulate", "--listen", "127.0.0.1:0", "--no-tls", *json_option],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=20, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
