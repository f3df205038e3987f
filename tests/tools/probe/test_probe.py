"""`probe` names what is wrong with a server and nothing else, says QUIT and never MAIL, and always comes to an end."""

from __future__ import annotations

import io
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.settings import Destination
from proxy.smtp.reply.findings import CATALOGUE
from proxy.tools.probe import command as probe
from proxy.tools.probe.command import ProbeOptions
from proxy.tools.probe.converse import own_name
from proxy.tools.probe.seen import Asked, Target
from proxy.tools.simulate.faults import FAULTS as SIMULATED_FAULTS
from proxy.tools.simulate.replies import BROKEN
from tests.loopback import free_port
from tests.tools.probe.conftest import Simulated
from tests.tools.probe.looked import Looked, look

# What each simulated finding comes to where it is not pass-through.
VERDICTS = {
    "greeting-not-domain": "none",
    "keyword-case": "none",
    "keyword-duplicate": "none",
    "keyword-incomplete": "none",
    "keyword-invalid": "none",
    "keyword-masked": "add",
    "non-ascii": "none",
    "parameter-invalid": "none",
    "reply-too-long": "none",
    "starttls-inside-tls": "bridge",
    "xclient-offered": "server",
}

# ... and each fault beside the reply: its verdict, and what it is called.
FAULTS = {
    "banner-multiline": ("none", {"banner-multiline"}),
    "client-name-invalid": ("none", set()),  # of the client's, and probe's own is good
    "closes-after-220": ("server", set()),
    "dh-1024": ("bridge", {"tls-outdated"}),
    "ehlo-refused": ("server", {"ehlo-refused"}),
    "ehlo-repeat-refused": ("server", {"ehlo-repeat-refused"}),
    "expired": ("none", set()),
    "hello-too-large": ("bridge", {"hello-unanswered"}),
    "hello-unanswered": ("bridge", {"hello-unanswered"}),
    "keyword-incomplete": ("none", {"keyword-incomplete"}),
    "sha1": ("bridge", {"tls-outdated"}),
    "slow-banner": ("none", set()),
    "starttls-not-steady": ("server", {"starttls-not-steady"}),
    "starttls-refused": ("server", {"starttls-refused"}),
    "starttls-reply-code": ("server", {"starttls-reply-code"}),
    "tls-outdated": ("bridge", {"tls-outdated"}),
    "tls10-only": ("bridge", {"tls-outdated"}),
    "wrong-name": ("none", set()),
}


@pytest.fixture(scope="module")
def probed(simulated: Simulated) -> dict[str, Looked]:
    """Every server, probed: what was seen, and the report."""

    def one(name: str) -> Looked:
        timeout = 4.0 if name == "fault:slow-banner" else 1.5
        return look(simulated.ports[name], timeout, implicit_tls=name.startswith("implicit"))

    with ThreadPoolExecutor(32) as pool:
        seen = dict(zip(simulated.ports, pool.map(one, simulated.ports), strict=True))
    assert set(simulated.verbs) == {"EHLO", "HELO", "STARTTLS", "QUIT"}  # never MAIL
    assert simulated.verbs.count("QUIT") >= len(simulated.ports)
    return seen


@pytest.mark.parametrize("fault", sorted(SIMULATED_FAULTS))
def test_a_simulated_fault_is_named_and_no_other(fault: str, probed: dict[str, Looked]) -> None:
    looked = probed[f"fault:{fault}"]
    assert (looked.conclusion.verdict, looked.ids) == FAULTS[fault]
    for finding in looked.ids:
        assert f"  {finding}, " in looked.out
    assert bool(looked.conclusion.toml) is (looked.conclusion.verdict == "bridge")


@pytest.mark.parametrize(("fault", "told"), [("expired", "expired on"), ("wrong-name", "certificate is for")])
def test_a_certificate_that_does_not_verify_is_told(fault: str, told: str, simulated: Simulated) -> None:
    looked = look(simulated.ports[f"fault:{fault}"], name="mail.domain1.com")
    assert looked.conclusion.verdict == "none"
    assert looked.seen.tls is not None
    assert told in looked.seen.tls.reason


@pytest.mark.parametrize("finding", sorted(BROKEN))
def test_a_simulated_finding_is_named_and_no_other(finding: str, probed: dict[str, Looked]) -> None:
    looked = probed[finding]
    assert looked.ids == {finding}
    assert looked.seen.problem == ""
    assert f"  {finding}, " in looked.out
    assert looked.seen.after_tls is not None
    assert looked.conclusion.verdict == VERDICTS.get(finding, "passthrough")
    assert looked.conclusion.exit_code == (0 if looked.conclusion.verdict == "none" else 1)
    cured = finding == "keyword-case" or looked.conclusion.verdict in ("passthrough", "add", "bridge")
    assert bool(looked.conclusion.toml) is cured


def test_every_finding_of_a_reply_is_simulated() -> None:
    assert BROKEN.keys() <= CATALOGUE.keys()


def test_a_good_server_needs_nothing(probed: dict[str, Looked]) -> None:
    looked = probed["none"]
    assert (looked.ids, looked.conclusion.exit_code) == (set(), 0)
    tls = looked.seen.tls
    assert tls is not None
    assert (tls.version, tls.verified, tls.reason) == ("TLSv1.3", False, "self-signed certificate")
    assert "Verdict: none" in looked.out
    assert "you do not need this proxy" in looked.out


def test_a_reply_that_is_broken_inside_tls_needs_bridge_mode(probed: dict[str, Looked]) -> None:
    looked = probed["inside"]
    assert (looked.conclusion.verdict, looked.conclusion.exit_code) == ("bridge", 1)
    assert "inside TLS is broken (greeting-not-first)" in looked.conclusion.cause
    assert 'mode = "bridge"' in looked.conclusion.toml


def test_a_faultless_server_without_starttls_needs_nothing_and_is_told_so(probed: dict[str, Looked]) -> None:
    looked = probed["no-tls"]
    assert (looked.seen.tls, looked.seen.after_tls) == (None, None)
    assert (looked.conclusion.verdict, looked.conclusion.exit_code) == ("none", 0)
    assert "offers no STARTTLS" in looked.out


@pytest.mark.parametrize(
    ("server", "finding", "cause"),
    [
        ("refused", "starttls-refused", "STARTTLS is offered and then refused: '454 4.7.0 not today'"),
        ("other-code", "starttls-reply-code", "a code other than 220: '250 go ahead'"),
        ("mask-refused", "keyword-masked", "does not let the command through either: '500 what?'"),
        ("helo", "ehlo-refused", "EHLO is refused where HELO is taken"),
        ("injected", "", "bytes in clear stand behind the 220"),
    ],
)
def test_what_only_the_administrator_can_cure_is_said(
    server: str, finding: str, cause: str, probed: dict[str, Looked]
) -> None:
    looked = probed[server]
    assert looked.ids == ({finding} if finding else set())
    assert (looked.conclusion.verdict, looked.conclusion.exit_code, looked.conclusion.toml) == ("server", 1, "")
    assert cause.lower() in looked.conclusion.cause.lower()
    assert looked.seen.tls is None


def test_tls_from_the_first_byte_is_judged_inside_it(probed: dict[str, Looked]) -> None:
    good, bad = probed["implicit"], probed["implicit-broken"]
    assert (good.conclusion.verdict, good.ids, good.seen.before_tls) == ("none", set(), None)
    assert good.seen.after_tls is not None
    assert (bad.conclusion.verdict, bad.ids) == ("bridge", {"greeting-not-first"})
    assert 'server = "implicit"' in bad.conclusion.toml


def test_a_server_that_speaks_no_tls_from_the_first_byte_is_asked_once(serve: Callable[[Script], int]) -> None:
    looked = look(serve(lambda sock: sock.sendall(b"220 mail.example ESMTP\r\n")), implicit_tls=True)
    assert looked.conclusion.verdict == "server"
    assert "TLS does not come up, with the ClientHello: the server did not answer with TLS" in looked.conclusion.cause
    assert len(looked.seen.tried) == 1


def test_port_465_has_tls_from_the_first_byte() -> None:
    assert Target("h:465", "h", 465, Asked()).implicit_tls
    assert not Target("h:25", "h", 25, Asked()).implicit_tls


def test_the_report_has_what_a_vendor_needs(probed: dict[str, Looked]) -> None:
    out = probed["greeting-not-first"].out
    for text in (
        "by ehlo-proxy ",
        "2026-11-24 12:00 UTC",
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
        "Verdict: passthrough",
        "does not see STARTTLS",
        "\n[[route]]\n",
    ):
        assert text in out


def test_every_report_fits_80_columns(probed: dict[str, Looked]) -> None:
    for looked in probed.values():
        assert max(map(len, looked.out.splitlines())) <= 80


def test_json_is_one_document_with_stable_keys(probed: dict[str, Looked]) -> None:
    keys = None
    for looked in probed.values():
        document = looked.json
        assert keys in (None, document.keys())
        keys = document.keys()
        assert document["targets"][0].items() <= document.items()
    assert keys is not None
    assert {"tool", "version", "time", "schema", "targets", "verdict", "cause", "toml", "steps"} <= keys
    assert {"banner", "before_tls", "tls", "after_tls"} <= keys
    document = probed["greeting-not-first"].json
    assert document["time"] == "2026-11-24T12:00:00Z"
    assert document["banner"] == "220 mail.domain1.com ESMTP Service ready\r\n"
    before = document["before_tls"]
    assert before["changed"] is True
    assert before["reply"].startswith("250-mail.domain1.com\r\n250-STARTTLS\r\n")
    assert before["findings"][0].keys() == {"id", "line", "repaired", "message", "clause"}
    assert document["tls"].keys() == {"version", "cipher", "certificate", "verified", "reason"}
    assert document["tls"]["certificate"].keys() == {"subject", "names", "not_after", "sha256_spki"}
    assert document["after_tls"]["changed"] is False
    assert document["steps"].keys() >= {"connect", "banner", "ehlo", "starttls", "handshake", "ehlo_tls"}
    early = probed["line-before-banner"].json
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


def test_nobody_there_is_told_once_with_exit_code_3() -> None:
    port = free_port()
    server = Destination("address", "127.0.0.1", port)
    for format_ in ("text", "json", "prometheus"):
        out, err = io.StringIO(), io.StringIO()
        assert probe.run(ProbeOptions(server, format=format_), out, err) == 3
        assert err.getvalue() == (f"ehlo-proxy probe: can't connect to port {port} of 127.0.0.1: Connection refused\n")
        if format_ == "json":
            document = json.loads(out.getvalue())
            assert (document["before_tls"], document["verdict"]) == (None, None)
            assert "Connection refused" in document["problem"]


def test_a_name_that_is_not_found_is_told_with_exit_code_3() -> None:
    result = probe.probe(Target("no-such-host.invalid:25", "no-such-host.invalid", 25, Asked(timeout=1.0)))
    seen, conclusion = result.worst
    assert conclusion.exit_code == 3
    assert "no-such-host.invalid is not found" in seen.problem


@pytest.mark.parametrize(
    ("banner", "problem"),
    [
        (b"554 5.7.1 go away\r\n", "greets with '554 5.7.1 go away'"),
        (b"", "closed the connection"),
        (b"220-no end", "closed the connection"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\r\n", "no SMTP server; it says 'SSH-2.0-OpenSSH_9.2p1"),
        (b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n", "no SMTP server; it says 'HTTP/1.1 400 Bad Request'"),
    ],
)
def test_a_server_that_does_not_greet_gives_no_answer_and_what_came_is_shown(
    serve: Callable[[Script], int], banner: bytes, problem: str
) -> None:
    looked = look(serve(lambda sock: sock.sendall(banner)))
    assert looked.conclusion.exit_code == 3
    assert problem in looked.seen.problem


def test_a_silent_server_is_waited_for_no_longer_than_asked(serve: Callable[[Script], int]) -> None:
    looked = look(serve(silent), 0.3)
    assert looked.conclusion.exit_code == 3
    assert "no answer within 0.3 s" in looked.seen.problem
    assert "try --implicit-tls" in looked.seen.problem


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


def test_ehlo_and_helo_that_are_refused_are_the_administrators(serve: Callable[[Script], int]) -> None:
    looked = look(serve(dialogue(b"220 x\r\n", b"502 5.5.1 what?\r\n", b"502 5.5.1 what?\r\n", b"221 bye\r\n")))
    assert (looked.conclusion.exit_code, looked.conclusion.verdict, looked.seen.problem) == (1, "server", "")
    assert "refuses EHLO, and HELO as well" in looked.conclusion.cause
    assert looked.ids == set()


@pytest.mark.parametrize("refusal", [b"421 4.3.2 later\r\n", b"451 4.3.2 later\r\n"])
def test_a_server_that_is_not_available_gives_no_answer(serve: Callable[[Script], int], refusal: bytes) -> None:
    looked = look(serve(dialogue(b"220 x\r\n", refusal, refusal)))
    assert looked.conclusion.exit_code == 3
    assert "4.3.2 later" in looked.seen.problem


def test_a_reply_that_is_cut_off_is_no_answer(serve: Callable[[Script], int]) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(b"220 x\r\n")
        sock.recv(4096)
        sock.sendall(b"250-x.example\r\n250-STARTT")

    looked = look(serve(script))
    assert looked.conclusion.exit_code == 3
    assert "closed the connection instead of the EHLO reply" in looked.seen.problem


def test_a_goodbye_behind_the_reply_is_not_taken_for_a_part_of_it(serve: Callable[[Script], int]) -> None:
    said = dialogue(b"220 x.example\r\n", b"250-x.example\r\n250 HELP\r\n421 4.3.2 closing\r\n")
    looked = look(serve(said))
    assert (looked.conclusion.exit_code, looked.ids) == (0, set())


def test_lines_that_come_too_late_are_seen(serve: Callable[[Script], int]) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(b"220 x.example\r\n")
        sock.recv(4096)
        sock.sendall(b"250-x.example\r\n250 HELP\r\n")
        threading.Event().wait(0.05)
        sock.sendall(b"250 8BITMIME\r\n")
        until_closed(sock)

    looked = look(serve(script))
    assert (looked.conclusion.exit_code, looked.ids) == (1, {"final-line-early"})


def test_what_a_server_says_can_do_nothing_to_the_terminal(serve: Callable[[Script], int]) -> None:
    evil = b"\x1b[2J\x07\x9b\xe2\x80\xae"
    looked = look(serve(dialogue(b"220 x " + evil + b"\r\n", b"250-x " + evil + b"\r\n250 HELP" + evil + b"\r\n")))
    assert looked.out.replace("\n", "").isprintable()
    assert looked.out.isascii()


def test_aiosmtpd_needs_nothing(tmp_path: Path) -> None:
    controller_module = pytest.importorskip("aiosmtpd.controller")
    from aiosmtpd.handlers import Sink

    from proxy.net.tls.self_signed import make_self_signed

    certificate, key = make_self_signed(["localhost"])
    pem = tmp_path / "both.pem"
    pem.write_bytes(certificate + key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    port = free_port()
    controller = controller_module.Controller(Sink(), "127.0.0.1", port, tls_context=context)
    controller.start()
    try:
        looked = look(controller.port, 5.0)
    finally:
        controller.stop()
    assert (looked.conclusion.verdict, looked.seen.problem, looked.ids) == ("none", "", set())
    assert looked.seen.after_tls is not None


def test_a_flood_comes_to_an_end(serve: Callable[[Script], int]) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(b"220 x\r\n")
        sock.recv(4096)
        try:
            for _ in range(64):
                sock.sendall(b"250-x" * 8192)
        except OSError:
            pass

    assert look(serve(script), 0.5).conclusion.exit_code in (0, 1, 3)


def test_our_own_name_is_one_that_ehlo_allows() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        name = own_name(sock)
    assert name.startswith("[127.0.0.1") or "." in name
