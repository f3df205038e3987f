"""What is wrong beyond the EHLO reply is named, each fault by its one name, with what cures it."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.smtp.reply.findings import FINDINGS
from tests.certificates import Authority
from tests.loopback import free_port
from tests.scripted import Ended, Peer, ScriptedServer
from tests.tools.probe.conftest import Simulated
from tests.tools.probe.looked import Looked, look

BANNER = b"220 mail.example ESMTP\r\n"
OFFER = b"250-mail.example\r\n250-STARTTLS\r\n250 8BITMIME\r\n"
INSIDE = b"250-mail.example\r\n250 8BITMIME\r\n"
GO_AHEAD = b"220 go ahead\r\n"


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return server_context(tmp_path_factory.mktemp("tls"))


def server_context(directory: Path) -> ssl.SSLContext:
    paths = Authority("Test Root").issue("mail.example").write(directory)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(paths.certificate, paths.key)
    return made


def rsa_context(directory: Path, ciphers: str) -> ssl.SSLContext:
    """With an RSA certificate, as an old server has one."""
    certificate, key = directory / "rsa.pem", directory / "rsa.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "3",
         "-subj", "/CN=mail.example"],
        check=True, capture_output=True,
    )  # fmt: skip
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.set_ciphers(ciphers)
    made.load_cert_chain(certificate, key)
    return made


class Server:
    """Answers by verb; `number` of the connection, from 1 on."""

    def __init__(self, **replies: bytes | Callable[[int, int, bool], bytes | None]) -> None:
        """A reply, or a function of the connection's number, how often the verb was said, and whether inside TLS, that
        gives one, or None to close."""
        self.replies: dict[str, bytes | Callable[[int, int, bool], bytes | None]] = {
            "EHLO": lambda number, said, inside: INSIDE if inside else OFFER,
            "HELO": b"250 mail.example\r\n",
            "QUIT": b"221 bye\r\n",
            "STARTTLS": GO_AHEAD,
        } | replies
        self.number = 0
        self.commands: list[str] = []
        self.hellos: list[int] = []

    def script(
        self, context: ssl.SSLContext, answers: Callable[[int], bool] = lambda octets: True
    ) -> Callable[[Peer], None]:
        """`answers`: is a ClientHello of this size answered?"""

        def script(peer: Peer) -> None:
            self.number += 1
            number, inside = self.number, False
            said: dict[str, int] = {}
            peer.send(BANNER)
            while True:
                try:
                    verb = peer.line().split()[0].decode().upper()
                except Ended:
                    return
                self.commands.append(verb)
                said[verb] = said.get(verb, 0) + 1
                answer = self.replies[verb]
                reply = answer(number, said[verb], inside) if callable(answer) else answer
                if reply is None:
                    return
                peer.send(reply)
                if verb == "QUIT":
                    return
                if verb == "STARTTLS" and reply == GO_AHEAD:
                    time.sleep(0.15)  # all of the ClientHello
                    octets = len(peer.sock.recv(65536, socket.MSG_PEEK))
                    self.hellos.append(octets)
                    if not answers(octets):
                        peer.rest()
                        return
                    try:
                        peer.start_tls(context, server=True)
                    except (OSError, ssl.SSLError):
                        return
                    inside, said = True, {}

        return script


def looked_at(
    server: Server, context: ssl.SSLContext, answers: Callable[[int], bool] = lambda octets: True, **asked: Any
) -> Looked:
    with ScriptedServer(server.script(context, answers)) as running:
        looked = look(running.port, **asked)
    assert "MAIL" not in server.commands
    return looked


def test_a_server_without_a_fault_has_none(context: ssl.SSLContext) -> None:
    server = Server()
    looked = looked_at(server, context)
    assert (looked.ids, looked.conclusion.verdict) == (set(), "none")
    assert server.commands == ["EHLO", "STARTTLS", "EHLO", "QUIT", "EHLO", "EHLO", "QUIT"]


def test_a_client_hello_over_one_segment_that_is_never_answered_is_named_with_its_size(
    context: ssl.SSLContext,
) -> None:
    server = Server()
    looked = looked_at(server, context, lambda octets: octets < 1400)
    assert looked.ids == {"hello-unanswered"}
    assert looked.conclusion.verdict == "bridge"
    assert 'groups = "classic"' in looked.conclusion.toml
    large, small = server.hellos
    assert large > 1460 > small
    assert f"{large} octets" in looked.out
    assert f"{small} octets" in looked.out
    assert looked.seen.tls is not None
    assert looked.seen.after_tls is not None


@pytest.mark.parametrize(
    ("minimum", "maximum", "line"),
    [
        (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1, 'server_minimum_version = "1.0"'),
        (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1, 'server_minimum_version = "1.1"'),
    ],
)
def test_an_old_version_of_tls_is_named(
    minimum: ssl.TLSVersion, maximum: ssl.TLSVersion, line: str, tmp_path: Path
) -> None:
    old = rsa_context(tmp_path, "ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        old.minimum_version, old.maximum_version = minimum, maximum
    looked = looked_at(Server(), old)
    assert looked.ids == {"tls-outdated"}
    assert looked.conclusion.verdict == "bridge"
    assert line in looked.conclusion.toml
    assert looked.seen.tls is not None
    assert looked.seen.tls.version in looked.conclusion.cause


def test_a_small_diffie_hellman_group_is_named(tmp_path: Path) -> None:
    old = rsa_context(tmp_path, "DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0")
    parameters = tmp_path / "dh.pem"
    subprocess.run(["openssl", "dhparam", "-dsaparam", "-out", parameters, "1024"], check=True, capture_output=True)
    old.load_dh_params(parameters)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    looked = looked_at(Server(), old)
    assert looked.ids == {"tls-outdated"}
    assert looked.conclusion.verdict == "bridge"
    assert "security_level = " in looked.conclusion.toml
    assert "DHE-RSA-AES128-GCM-SHA256" in looked.out


def test_a_handshake_that_never_succeeds_is_the_administrators(context: ssl.SSLContext) -> None:
    looked = looked_at(Server(), context, lambda octets: False, timeout=0.4)
    assert looked.ids == set()
    assert (looked.conclusion.verdict, looked.conclusion.toml) == ("server", "")
    assert "TLS does not come up" in looked.conclusion.cause


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (lambda number, said, inside: b"503 5.5.1 again?\r\n" if inside else OFFER, "server"),
        (lambda number, said, inside: b"503 5.5.1 again?\r\n" if said > 1 else INSIDE if inside else OFFER, "none"),
        (lambda number, said, inside: None if said > 1 else INSIDE if inside else OFFER, "none"),
    ],
)
def test_a_second_ehlo_that_is_refused_is_named(
    reply: Callable[[int, int, bool], bytes | None], verdict: str, context: ssl.SSLContext
) -> None:
    looked = looked_at(Server(EHLO=reply), context)
    assert looked.ids == {"ehlo-repeat-refused"}
    assert looked.conclusion.verdict == verdict


@pytest.mark.parametrize("repeat", [1, 4])
def test_starttls_that_is_offered_now_and_then_is_named(repeat: int, context: ssl.SSLContext) -> None:
    def ehlo(number: int, said: int, inside: bool) -> bytes:
        return INSIDE if inside or number == max(repeat, 2) else OFFER

    server = Server(EHLO=ehlo)
    looked = looked_at(server, context, repeat=repeat)
    assert looked.ids == {"starttls-not-steady"}
    assert looked.conclusion.verdict == "server"
    assert server.number == max(repeat, 2)


@pytest.mark.parametrize("refusal", [b"502 5.5.1 what?\r\n", None])
def test_ehlo_that_is_refused_or_dropped_where_helo_works_is_named(
    refusal: bytes | None, context: ssl.SSLContext
) -> None:
    looked = looked_at(Server(EHLO=lambda number, said, inside: refusal), context)
    assert looked.ids == {"ehlo-refused"}
    assert (looked.conclusion.verdict, looked.conclusion.exit_code) == ("server", 1)


def test_a_name_of_the_clients_that_is_refused_is_told_from_a_refusal_of_ehlo(simulated: Simulated) -> None:
    port = simulated.ports["fault:client-name-invalid"]
    bad, good = look(port, ehlo="localhost"), look(port, ehlo="printer.example")
    assert (bad.ids, bad.conclusion.verdict) == ({"client-name-invalid"}, "passthrough")
    assert "client_name = " in bad.conclusion.toml
    assert bad.seen.after_tls is not None
    assert (good.ids, good.conclusion.verdict) == (set(), "none")


def test_a_connection_that_ends_on_starttls_is_the_administrators(context: ssl.SSLContext) -> None:
    looked = looked_at(Server(STARTTLS=lambda number, said, inside: None), context)
    assert looked.conclusion.verdict == "server"
    assert "there is no answer to it" in looked.conclusion.cause


@pytest.mark.parametrize(
    ("offer", "verdict", "finding"),
    [
        (b"250-mail.example\r\n250-STARTTLS\r\n250 XCLIENT NAME ADDR\r\n", "server", "xclient-offered"),
        (b"250-mail.example\r\n250-STARTTLS\r\n250 XFORWARD NAME ADDR\r\n", "server", "xclient-offered"),
        (b"250-STARTTLS\r\n250-mail.example\r\n250 XCLIENT NAME ADDR\r\n", "passthrough", "greeting-not-first"),
        (b"250-STARTTLS\r\n250-mail.example\r\n250 XFORWARD NAME ADDR\r\n", "server", "greeting-not-first"),
        (b"250-mail.example\r\n250-STARTTLS\r\n250 SMTPUTF8\r\n", "none", "keyword-incomplete"),
    ],
)
def test_what_the_reply_offers_is_weighed(offer: bytes, verdict: str, finding: str, context: ssl.SSLContext) -> None:
    looked = looked_at(Server(EHLO=lambda number, said, inside: INSIDE if inside else offer), context)
    assert looked.conclusion.verdict == verdict
    assert finding in looked.ids
    assert ("xclient = true" in looked.conclusion.toml) is (verdict == "passthrough")


def test_xclient_inside_tls_alone_is_told_as_what_it_is(context: ssl.SSLContext) -> None:
    inside = b"250-mail.example\r\n250 XCLIENT NAME ADDR\r\n"
    looked = looked_at(Server(EHLO=lambda number, said, tls: inside if tls else OFFER), context)
    assert (looked.ids, looked.conclusion.verdict) == ({"xclient-offered"}, "server")
    assert "Inside TLS the server offers XCLIENT" in looked.conclusion.cause
    assert "in pass-through any client could use it" in looked.conclusion.cause


def test_a_banner_of_several_lines_is_told_and_needs_nothing() -> None:
    def script(peer: Peer) -> None:
        peer.send(b"220-mail.example ESMTP\r\n220 no spam, please\r\n")
        peer.line()
        peer.send(INSIDE)
        peer.rest()

    with ScriptedServer(script) as running:
        looked = look(running.port, 1.0)
    assert (looked.ids, looked.conclusion.verdict) == ({"banner-multiline"}, "none")


@contextmanager
def on_address(address: str, port: int, reply: bytes) -> Iterator[None]:
    def script(peer: Peer) -> None:
        peer.send(BANNER)
        while True:
            try:
                verb = peer.line()[:4]
            except Ended:
                return
            peer.send(reply if verb == b"EHLO" else b"221 bye\r\n")

    with ScriptedServer(script, host=address, port=port):
        yield


def test_every_address_of_a_name_is_asked_and_the_worst_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.tools.probe import command

    port = free_port()
    monkeypatch.setattr(command, "addresses", lambda host, port: ["127.0.0.2", "127.0.0.1", "127.0.0.3"])
    with on_address("127.0.0.1", port, INSIDE), on_address("127.0.0.2", port, b"250-8BITMIME\r\n250 HELP\r\n"):
        looked = look(port, host="mail.example")
    verdicts = [(seen.address, made.verdict) for seen, made in looked.result.addresses]
    assert verdicts == [("127.0.0.2", "passthrough"), ("127.0.0.1", "none"), ("127.0.0.3", "")]
    assert looked.conclusion.verdict == "passthrough"  # one that nobody reaches has no say
    assert [each["address"] for each in looked.json["addresses"]] == ["127.0.0.2", "127.0.0.1", "127.0.0.3"]
    assert "All its addresses" in looked.out


def test_starttls_at_one_address_and_not_at_another_is_named(
    monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext
) -> None:
    from proxy.tools.probe import command

    server = Server()
    with ScriptedServer(server.script(context)) as running:
        monkeypatch.setattr(command, "addresses", lambda host, port: ["127.0.0.1", "127.0.0.2"])
        with on_address("127.0.0.2", running.port, INSIDE):
            looked = look(running.port, host="mail.example")
    assert {each.id for each in looked.result.findings} == {"starttls-not-steady"}
    assert (looked.conclusion.verdict, looked.seen.address) == ("server", "127.0.0.2")


def test_every_finding_that_is_named_is_in_the_catalogue() -> None:
    named = {
        "ehlo-refused", "ehlo-repeat-refused", "starttls-refused", "starttls-reply-code", "starttls-not-steady",
        "hello-unanswered", "tls-outdated", "banner-multiline", "keyword-incomplete",
    }  # fmt: skip
    assert named <= FINDINGS.keys()
