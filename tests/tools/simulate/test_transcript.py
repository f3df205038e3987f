"""`simulate --transcript`: a vendor's server again, from what `[route.record]` wrote of a session with it."""

from __future__ import annotations

import io
import json
import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.net.carrier.record import Recorder
from proxy.net.observer import Story
from proxy.tools.replay import NotATranscript
from proxy.tools.simulate import RunningServer
from proxy.tools.simulate import command as simulate
from proxy.tools.simulate.replies import Piece
from proxy.tools.simulate.transcript import fault_of

pytest_plugins = ["proxy.tools.simulate.plugin"]
Start = Callable[..., RunningServer]
HEAD = {"time": 0, "side": "proxy", "note": "session", "transcript": 1, "session": 1}
BANNER = "220 vendor.example ESMTP\r\n"
REPLY = ("250-STARTTLS\r\n", "250-vendor.example\r\n", "250 8BITMIME\r\n")


def transcript(*said: tuple[float, str, str]) -> bytes:
    entries = [HEAD, *({"time": at, "side": side, "line": line, "note": ""} for at, side, line in said)]
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


BEGUN = (
    (0.01, "server", BANNER),
    (0.02, "client", "EHLO client.example\r\n"),
    *((0.03, "server", line) for line in REPLY),
)


def test_what_the_server_said_is_said_again_where_it_was_said() -> None:
    fault = fault_of(
        transcript(
            *BEGUN,
            (1.0, "client", "ehlo again.example\r\n"),
            (1.01, "server", "503 once\r\n"),
            (1.02, "client", "MAIL FROM:<a@b>\r\n"),
            (1.03, "server", "250 2.1.0 our own words\r\n"),
            (1.04, "client", "RCPT TO:<c@d>\r\n"),
            (1.05, "server", "550 5.1.1 not here\r\n"),
            (1.06, "client", "STARTTLS\r\n"),
            (1.07, "server", "220 2.0.0 vendor is ready\r\n"),
        )
    )
    assert fault.replies.banner == (Piece(BANNER.encode()),)
    assert fault.script == {
        b"EHLO": ((Piece("".join(REPLY).encode()),), (Piece(b"503 once\r\n"),)),
        b"RCPT": ((Piece(b"550 5.1.1 not here\r\n"),),),
    }
    assert fault.ready == b"220 2.0.0 vendor is ready\r\n"


def test_pauses_are_kept_and_cut_at_a_minute() -> None:
    fault = fault_of(
        transcript(
            (2.0, "server", BANNER),
            (2.1, "client", "EHLO a.example\r\n"),
            (2.11, "server", "250 vendor.example\r\n"),
            (2.51, "server", "250 HELP\r\n"),
            (500.0, "server", "250 LATE\r\n"),
        )
    )
    assert fault.replies.banner == (Piece(BANNER.encode(), 2.0),)
    ((first, second, third),) = fault.script[b"EHLO"]
    assert (first, second.data, third) == (
        Piece(b"250 vendor.example\r\n"),
        b"250 HELP\r\n",
        Piece(b"250 LATE\r\n", 60),
    )
    assert second.pause == pytest.approx(0.4)


def test_replies_to_pipelined_commands_and_replies_without_an_end_are_told_apart() -> None:
    fault = fault_of(
        transcript(
            (0.0, "server", "220-vendor.example\r\n"),
            (0.0, "client", "EHLO a.example\r\n"),
            (0.0, "client", "NOOP\r\n"),
            (0.1, "server", "220 ready\r\n"),
            (0.2, "server", "250-vendor.example\r\n"),
            (0.2, "server", "250 HELP\r\n"),
            (0.2, "server", "250 noop\r\n"),
            (0.3, "client", "EHLO b.example\r\n"),
            (0.4, "server", "250-vendor.example\r\n"),
            (15.4, "client", "RSET\r\n"),
            (15.5, "server", "250 reset\r\n"),
        )
    )
    assert b"".join(piece.data for piece in fault.replies.banner) == b"220-vendor.example\r\n220 ready\r\n"
    said = {verb: [b"".join(piece.data for piece in turn) for turn in turns] for verb, turns in fault.script.items()}
    assert said == {
        b"EHLO": [b"250-vendor.example\r\n250 HELP\r\n", b"250-vendor.example\r\n"],
        b"NOOP": [b"250 noop\r\n"],
        b"RSET": [b"250 reset\r\n"],
    }


def test_what_is_no_transcript_or_has_no_server_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(NotATranscript):
        fault_of(b"220 hi\r\n")
    with pytest.raises(ValueError, match="says nothing"):
        fault_of(transcript((0.1, "client", "EHLO a\r\n"), (0.2, "client", "\r\n")))
    for path in (tmp_path / "none", tmp_path):
        err = io.StringIO()
        assert simulate.run(simulate.SimulateOptions(transcript=str(path)), None, io.StringIO(), err) == 2
        assert err.getvalue().startswith("ehlo-proxy simulate: --transcript: ")


def test_a_session_that_was_recorded_is_a_server_again(simulated_server: Start, tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    with path.open("wb") as file:
        recorder = Recorder(file, 0, Story("a1", "lab", "192.0.2.1", 1, 0.0), 0.0, pytest.fail)
        recorder.server_bytes(b"220 vendor.example ESMTP\r\n", 0.01)
        recorder.client_bytes(b"EHLO client.example\r\n", 0.02)
        recorder.server_bytes("".join(REPLY).encode(), 0.03)
        recorder.client_bytes(b"STARTTLS\r\n", 0.04)
        recorder.server_bytes(b"220 2.0.0 vendor is ready\r\n", 0.05)
        recorder.inside_tls(0.1)
        recorder.client_bytes(b"EHLO client.example\r\n", 0.2)
        recorder.server_bytes(b"250-vendor.example inside\r\n250 VENDOR\r\n", 0.3)
        recorder.end(1.0)
    server = simulated_server(transcript=str(path))
    with socket.create_connection((server.host, server.port), 5) as sock:
        assert sock.recv(1000) == b"220 vendor.example ESMTP\r\n"
        sock.sendall(b"EHLO x.example\r\n")
        time.sleep(0.3)
        assert sock.recv(1000) == "".join(REPLY).encode()
    with smtplib.SMTP(server.host, server.port, "client.example", 5) as smtp:
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        smtp.ehlo()
        assert not smtp.has_extn("starttls"), "the greeting is not first, as it was"
        smtp.esmtp_features["starttls"] = ""
        assert smtp.starttls(context=unverified) == (220, b"2.0.0 vendor is ready")
        smtp.ehlo()
        assert smtp.has_extn("vendor")
        smtp.sendmail("a@b.example", ["c@d.example"], b"x\r\n")
    assert server.wait_for_mail().data == b"x\r\n"
