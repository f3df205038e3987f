"""`probe` names what is wrong with a server and nothing else, says QUIT and never MAIL, and always comes to an end."""

from __future__ import annotations

import io
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from proxy.smtp.reply.findings import CATALOGUE
from proxy.tools.probe import command as probe
from proxy.tools.probe import report as probe_report
from proxy.tools.probe.command import Probed, ProbeOptions
from proxy.tools.simulate.replies import BROKEN

# Found, told, and left as they are, with `strict` too
NEVER_REPAIRED = {
    "greeting-not-domain",
    "keyword-invalid",
    "keyword-masked",
    "parameter-invalid",
    "reply-too-long",
    "xclient-offered",
}

# Serves every finding at a port of its own, and the first one also broken inside TLS, without TLS, and a good one.
SERVERS = """
import json, sys
from twisted.internet import reactor
from proxy.net.tls.self_signed import make_self_signed
from proxy.tools.simulate.replies import BROKEN, GOOD_REPLIES, adapted
from proxy.tools.simulate.server import ServerSideTls, SimulatedServer

tls = ServerSideTls(*make_self_signed(["mail.domain1.com", "127.0.0.1"]))
servers = {finding: SimulatedServer(reactor, replies, tls) for finding, replies in BROKEN.items()}
servers["none"] = SimulatedServer(reactor, GOOD_REPLIES, tls)
bad = BROKEN["greeting-not-first"]
servers["inside"] = SimulatedServer(reactor, adapted(bad, broken_inside_tls=True), tls)
servers["no-tls"] = SimulatedServer(reactor, adapted(GOOD_REPLIES, tls=False))
servers["refused"] = SimulatedServer(reactor, GOOD_REPLIES, answers={b"STARTTLS": b"454 4.7.0 not today\\r\\n"})
servers["injected"] = SimulatedServer(reactor, GOOD_REPLIES, tls, behind_starttls=b"250 injected\\r\\n")
said = []
for server in servers.values():
    server.on_command = lambda line: print(line.decode().strip(), file=sys.stderr, flush=True)
ports = {n: reactor.listenTCP(0, s, interface="127.0.0.1").getHost().port for n, s in servers.items()}
print(json.dumps(ports), flush=True)
reactor.callLater(120, reactor.stop)
reactor.run()
"""


@pytest.fixture(scope="module")
def probed() -> dict[str, tuple[Probed, str]]:
    """Every server, probed: what was seen, and the report."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVERS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        ports: dict[str, int] = json.loads(process.stdout.readline())
        with ThreadPoolExecutor(12) as pool:
            seen = dict(zip(ports, pool.map(quick, ports.values()), strict=True))
    finally:
        process.terminate()
        commands = process.communicate(timeout=20)[1].splitlines()
    verbs = [line.split()[0] for line in commands]
    assert set(verbs) == {"EHLO", "STARTTLS", "QUIT"}  # never MAIL
    assert verbs.count("QUIT") >= len(ports) - 1  # the one that injects bytes may not hear it
    return seen


def quick(port: int, timeout: float = 1.5) -> tuple[Probed, str]:
    seen = probe.probe(ProbeOptions("127.0.0.1", port, ehlo="probe.example", timeout=timeout))
    out = io.StringIO()
    probe_report.show(seen, out)
    return seen, out.getvalue()


def ids(seen: Probed) -> set[str]:
    replies = [reply for reply in (seen.before_tls, seen.after_tls) if reply is not None]
    return {f.id for f in seen.banner_findings} | {f.id for reply in replies for f in reply.result.findings}


@pytest.mark.parametrize("finding", sorted(CATALOGUE))
def test_a_simulated_finding_is_named_and_no_other(finding: str, probed: dict[str, Any]) -> None:
    seen, out = probed[finding]
    assert ids(seen) == {finding}
    assert seen.problem == ""
    assert f"  {finding}, " in out
    assert seen.after_tls is not None
    assert seen.exit_code == (0 if finding in NEVER_REPAIRED else 1)


def test_every_finding_is_simulated() -> None:
    assert BROKEN.keys() == CATALOGUE.keys()


def test_a_good_server_needs_nothing(probed: dict[str, Any]) -> None:
    seen, out = probed["none"]
    assert (ids(seen), seen.exit_code) == (set(), 0)
    assert seen.tls is not None
    assert seen.tls.version == "TLSv1.3"
    assert not seen.tls.verified
    assert seen.tls.reason == "self-signed certificate"
    assert "pass-through is enough" in out


def test_a_reply_that_is_broken_inside_tls_needs_bridge_mode(probed: dict[str, Any]) -> None:
    seen, out = probed["inside"]
    assert seen.after_tls is not None
    assert seen.after_tls.result.changed
    assert seen.exit_code == 1
    assert "needs bridge mode" in out


def test_a_server_without_starttls_is_judged_in_clear(probed: dict[str, Any]) -> None:
    seen, out = probed["no-tls"]
    assert (seen.tls, seen.after_tls, seen.exit_code) == (None, None, 0)
    assert "offers no STARTTLS" in out


def test_starttls_that_is_refused_leaves_a_question(probed: dict[str, Any]) -> None:
    seen, _ = probed["refused"]
    assert seen.exit_code == 3
    assert "454 4.7.0 not today" in seen.problem


def test_bytes_behind_the_220_to_starttls_end_the_probe(probed: dict[str, Any]) -> None:
    seen, _ = probed["injected"]
    assert seen.exit_code == 3
    assert seen.tls is None
    assert "behind its 220" in seen.problem


def test_the_report_has_what_a_vendor_needs(probed: dict[str, Any]) -> None:
    out = probed["greeting-not-first"][1]
    for text in (
        "S: 220 mail.domain1.com ESMTP Service ready",
        "C: EHLO probe.example",
        "S: 250-STARTTLS",
        "<-- greeting-not-first",
        "RFC 5321 4.1.1.1",
        "Who breaks on it: ",
        "A correct reply",
        "TLSv1.3, TLS_AES_256_GCM_SHA384",
        "Certificate: CN=mail.domain1.com, for mail.domain1.com, 127.0.0.1",
        "It would NOT be verified for 127.0.0.1: self-signed certificate.",
    ):
        assert text in out
    assert max(map(len, out.splitlines())) <= 100


def test_json_is_one_document_with_stable_keys(probed: dict[str, Any]) -> None:
    keys = None
    for seen, *_ in probed.values():
        document = json.loads(probe_report.as_json(seen))
        assert keys in (None, document.keys())
        keys = document.keys()
        assert {"banner", "before_tls", "tls", "after_tls"} <= keys
    document = json.loads(probe_report.as_json(probed["greeting-not-first"][0]))
    assert document["banner"] == "220 mail.domain1.com ESMTP Service ready\r\n"
    before = document["before_tls"]
    assert before["changed"] is True
    assert before["reply"].startswith("250-mail.domain1.com\r\n250-STARTTLS\r\n")
    assert before["findings"][0].keys() == {"id", "line", "repaired", "message", "clause"}
    assert document["tls"].keys() == {"version", "cipher", "certificate", "verified", "reason"}
    assert document["tls"]["certificate"].keys() == {"subject", "names", "not_after", "sha256_spki"}
    assert document["after_tls"]["changed"] is False
    early = json.loads(probe_report.as_json(probed["line-before-banner"][0]))
    assert {f["id"] for f in early["before_tls"]["findings"]} == {"line-before-banner"}


# --------------------------------------------------- servers of a few lines

Script = Callable[[socket.socket], None]


@pytest.fixture
def serve() -> Iterator[Callable[[Script], int]]:
    """Runs a function for the one client of a server; gives its port."""
    threads: list[threading.Thread] = []

    def start(script: Script) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(10)

        def run() -> None:
            with listener:
                sock, _ = listener.accept()
                with sock:
                    sock.settimeout(10)
                    script(sock)

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
        return int(listener.getsockname()[1])

    yield start
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def until_closed(sock: socket.socket) -> bytes:
    data = b""
    while part := sock.recv(4096):
        data += part
    return data


def test_nobody_there_is_told_with_exit_code_3() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    out, err = io.StringIO(), io.StringIO()
    assert probe.run(ProbeOptions("127.0.0.1", port), out, err) == 3
    assert "Connection refused" in err.getvalue()
    assert "The probe ended early" in out.getvalue()
    out = io.StringIO()
    assert probe.run(ProbeOptions("127.0.0.1", port, as_json=True), out, err) == 3
    assert json.loads(out.getvalue())["before_tls"] is None


def test_a_name_that_is_not_found_is_told_with_exit_code_3() -> None:
    seen = probe.probe(ProbeOptions("no-such-host.invalid", timeout=1.0))
    assert seen.exit_code == 3
    assert "no-such-host.invalid is not found" in seen.problem


@pytest.mark.parametrize(
    ("banner", "problem"),
    [
        (b"554 5.7.1 go away\r\n", "554 5.7.1 go away"),
        (b"", "closed the connection"),
        (b"220-no end", "closed the connection"),
    ],
)
def test_a_server_that_does_not_greet_gives_no_answer(
    serve: Callable[[Script], int], banner: bytes, problem: str
) -> None:
    seen, _ = quick(serve(lambda sock: sock.sendall(banner)))
    assert seen.exit_code == 3
    assert problem in seen.problem


def test_a_silent_server_is_waited_for_no_longer_than_asked(serve: Callable[[Script], int]) -> None:
    seen, _ = quick(serve(silent), 0.3)
    assert seen.exit_code == 3
    assert "no answer within 0.3 s" in seen.problem


def silent(sock: socket.socket) -> None:
    until_closed(sock)


def dialogue(*replies: bytes) -> Script:
    """Says the first, and after each chunk of the client's the next; then waits for the client's end."""

    def script(sock: socket.socket) -> None:
        for number, reply in enumerate(replies):
            if number:
                sock.recv(4096)
            sock.sendall(reply)
        until_closed(sock)

    return script


def test_ehlo_that_is_refused_needs_no_repair(serve: Callable[[Script], int]) -> None:
    seen, out = quick(serve(dialogue(b"220 x\r\n", b"502 5.5.1 what?\r\n", b"221 bye\r\n")))
    assert (seen.exit_code, seen.problem) == (0, "")
    assert "refuses EHLO" in out


def test_a_server_that_is_not_available_gives_no_answer(serve: Callable[[Script], int]) -> None:
    seen, _ = quick(serve(dialogue(b"220 x\r\n", b"421 4.3.2 later\r\n")))
    assert seen.exit_code == 3
    assert "421 4.3.2 later" in seen.problem


def test_a_reply_that_is_cut_off_is_no_answer(serve: Callable[[Script], int]) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(b"220 x\r\n")
        sock.recv(4096)
        sock.sendall(b"250-x.example\r\n250-STARTT")

    seen, _ = quick(serve(script))
    assert seen.exit_code == 3
    assert "closed the connection instead of the EHLO reply" in seen.problem


def test_a_goodbye_behind_the_reply_is_not_taken_for_a_part_of_it(serve: Callable[[Script], int]) -> None:
    said = dialogue(b"220 x.example\r\n", b"250-x.example\r\n250 HELP\r\n421 4.3.2 closing\r\n")
    seen, _ = quick(serve(said))
    assert (seen.exit_code, ids(seen)) == (0, set())


def test_lines_that_come_too_late_are_seen(serve: Callable[[Script], int]) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(b"220 x.example\r\n")
        sock.recv(4096)
        sock.sendall(b"250-x.example\r\n250 STARTTLS\r\n")
        threading.Event().wait(0.05)
        sock.sendall(b"250 8BITMIME\r\n")
        until_closed(sock)

    seen, _ = quick(serve(script))
    assert (seen.exit_code, ids(seen)) == (1, {"final-line-early"})


def test_what_a_server_says_can_do_nothing_to_the_terminal(serve: Callable[[Script], int]) -> None:
    evil = b"\x1b[2J\x07\x9b\xe2\x80\xae"
    _, out = quick(serve(dialogue(b"220 x " + evil + b"\r\n", b"250-x " + evil + b"\r\n250 HELP" + evil + b"\r\n")))
    assert out.replace("\n", "").isprintable()
    assert out.isascii()


def test_aiosmtpd_needs_nothing(tmp_path: Path) -> None:
    controller_module = pytest.importorskip("aiosmtpd.controller")
    from aiosmtpd.handlers import Sink

    from proxy.net.tls.self_signed import make_self_signed

    certificate, key = make_self_signed(["localhost"])
    pem = tmp_path / "both.pem"
    pem.write_bytes(certificate + key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    controller = controller_module.Controller(Sink(), "127.0.0.1", port, tls_context=context)
    controller.start()
    try:
        seen, _ = quick(controller.port, 5.0)
    finally:
        controller.stop()
    assert (seen.exit_code, seen.problem, ids(seen)) == (0, "", set())
    assert seen.after_tls is not None


def test_a_flood_comes_to_an_end(serve: Callable[[Script], int]) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(b"220 x\r\n")
        sock.recv(4096)
        try:
            for _ in range(64):
                sock.sendall(b"250-x" * 8192)
        except OSError:
            pass

    seen, _ = quick(serve(script), 0.5)
    assert seen.exit_code in (0, 1, 3)


def test_our_own_name_is_one_that_ehlo_allows() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        name = probe.own_name(sock)
    assert name.startswith("[127.0.0.1") or "." in name
