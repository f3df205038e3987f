"""What the settings of bridge mode do in a running proxy: ALPN, versions, certificates, renewal, expiry, key log."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridge.parties import (
    MESSAGE,
    VERSIONS,
    Keys,
    Scene,
    Server,
    Stage,
    bridge,
    ending,
    hello,
    secure,
    starttls,
)
from tests.certificates import NAME, NOW, Issued, make, root
from tests.loopback import TOP, free_port
from tests.proxy_process import Running, running_proxy, toml
from tests.scripted import LIMIT, Peer, ScriptedServer, begin_message, connect

DAY = datetime.timedelta(days=1)


@pytest.fixture
def good(keys: Keys, stage: Stage) -> Iterator[Scene]:
    with stage.scene(Server(keys.server(make("good")))) as scene:
        yield scene


# -- ALPN, RFC 7301 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(["smtp"], "smtp"), (["h2", "smtp"], "smtp"), (["smtp", "http/1.1"], "smtp"), (None, None)],
)
def test_a_client_gets_smtp_if_it_offers_it_and_is_served_if_it_offers_nothing(
    offered: list[str] | None, agreed: str | None, version: str, keys: Keys, good: Scene
) -> None:
    with starttls(good.port, keys.client(version, alpn=offered)) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.selected_alpn_protocol() == agreed
        assert client.say(b"EHLO a")[:3] == b"250"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_client_that_offers_only_other_protocols_gets_the_alert(version: str, keys: Keys, good: Scene) -> None:
    client, _ = hello(good.port)
    with client:
        assert client.say(b"STARTTLS")[:4] == b"220 "
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
            secure(client, keys.client(version, alpn=["h2", "http/1.1"]))
    end = good.wait_for("session-end")
    assert (end["outcome"], end["by"]) == ("tls-failed", "client")
    assert end["reason"] == "the client offers ALPN protocols, but not smtp"


def test_alpn_is_not_offered_to_the_server(keys: Keys, stage: Stage) -> None:
    """One that insists on a protocol of its own would refuse a proxy that offered smtp."""
    context = keys.server(make("good"))
    context.set_alpn_protocols(["h2"])
    with stage.scene(Server(context)) as scene, starttls(scene.port, keys.client()) as client:
        assert client.say(b"EHLO a")[:3] == b"250"


# -- versions and renegotiation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("minimum", ["", "1.2", "1.3"])
def test_minimum_version_holds_on_both_sides(minimum: str, keys: Keys, stage: Stage) -> None:
    tls = {"minimum_version": minimum} if minimum else {}
    old = "TLSv1.2"
    with stage.scene(Server(keys.server(make("good"), old)), tls) as scene:
        client, _ = hello(scene.port)
        with client:
            said = client.say(b"STARTTLS")
            assert (said[:4] == b"220 ") is (minimum != "1.3")
            if minimum == "1.3":
                assert b"the server sent the TLS alert 'protocol version'" in said
    with stage.scene(Server(keys.server(make("good"))), tls) as scene:
        client, _ = hello(scene.port)
        with client:
            assert client.say(b"STARTTLS")[:4] == b"220 "
            if minimum == "1.3":
                with pytest.raises(ssl.SSLError):
                    secure(client, keys.client(old))
            else:
                secure(client, keys.client(old))


def test_tls_1_1_is_refused_on_both_sides_unless_the_operator_says_so(keys: Keys, stage: Stage) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    for minimum, served in (("1.2", False), ("1.1", True)):
        with stage.scene(Server(keys.server(make("good"))), {"minimum_version": minimum}) as scene:
            command = ["openssl", "s_client", "-connect", f"127.0.0.1:{scene.port}", "-starttls", "smtp", "-tls1_1"]
            done = subprocess.run(
                [*command, "-cipher", "DEFAULT@SECLEVEL=0", "-quiet", "-nocommands"],
                input=b"EHLO a\r\nQUIT\r\n",
                capture_output=True,
                timeout=LIMIT,
                check=False,
            )
            if served and b"unsupported protocol" in done.stderr + done.stdout:
                pytest.skip("this openssl has no TLS 1.1")
            assert (b"221 bye" in done.stdout) is served, done


@contextlib.contextmanager
def s_client(port: int, version: str, keys: Keys) -> Iterator[subprocess.Popen[bytes]]:
    """OpenSSL's own client behind STARTTLS, for what only its keys can do."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-starttls", "smtp", version, "-crlf"]
    with subprocess.Popen(
        [*command, "-CAfile", keys.ca], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process
        finally:
            process.kill()


def test_renegotiation_is_off_towards_the_client(keys: Keys, good: Scene) -> None:
    """`R` in openssl's s_client asks for it."""
    with s_client(good.port, "-tls1_2", keys) as process:
        assert process.stdin is not None
        good.wait_for("tls", side="client")
        process.stdin.write(b"EHLO a\n")
        process.stdin.flush()
        good.wait_for("ehlo-findings", phase="tls")
        process.stdin.write(b"R\n")
        process.stdin.flush()
        process.wait(LIMIT)  # it takes the alert for the end; its stdin must stay open until then
        assert process.stdout is not None
        out = process.stdout.read()
    assert b"RENEGOTIATING" in out
    assert b"no renegotiation" in out


def test_a_key_update_changes_nothing_for_the_dialogue(keys: Keys, good: Scene) -> None:
    """`K` in openssl's s_client sends one and asks for ours (RFC 8446 4.6.3)."""
    with s_client(good.port, "-tls1_3", keys) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        out = b""
        for typed, awaited in (
            (b"", b"---\n250"),
            (b"EHLO a\n", b"8BITMIME"),
            (b"K\n", b"KEYUPDATE"),
            (b"NOOP\n", b"well"),
        ):
            process.stdin.write(typed)
            process.stdin.flush()
            while awaited not in out:
                out += process.stdout.readline()


def test_no_session_is_resumed(keys: Keys, good: Scene) -> None:
    context = keys.client("TLSv1.2")
    session = None
    for _ in range(2):
        client, _ = hello(good.port)
        assert client.say(b"STARTTLS")[:4] == b"220 "
        with context.wrap_socket(client.sock, server_hostname=NAME, session=session) as sock:
            assert not sock.session_reused
            session = sock.session


def test_a_route_that_authenticates_nobody_says_so(keys: Keys, stage: Stage) -> None:
    for verify, told in (("none", 1), ("hostname", 0)):
        server = Server(keys.server(make("self-signed" if told else "good")))
        with stage.scene(server, {"verify": verify}) as scene, starttls(scene.port, keys.client()) as client:
            assert client.say(b"EHLO a")[:3] == b"250"
            scene.wait_for("tls", side="server", verified=verify)
            notices = scene.of("tls-unverified")
            assert len(notices) == told
            assert all(one["level"] == "warning" for one in notices)


# -- client certificates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_our_client_certificate_is_shown_to_a_server_that_asks(version: str, keys: Keys, stage: Stage) -> None:
    from cryptography.x509.oid import ExtendedKeyUsageOID

    shown = root().issue("proxy.example", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    certificate, key = keys.files(shown)
    context = keys.server(make("good"), version)
    context.load_verify_locations(keys.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    seen: list[str] = []

    class Asks(Server):
        def _secure(self, peer: Peer) -> None:
            super()._secure(peer)
            assert isinstance(peer.sock, ssl.SSLSocket)
            told = peer.sock.getpeercert()
            assert told is not None
            seen.append(str(told["subject"]))

    with (
        stage.scene(Asks(context), {"client_certificate": certificate, "client_key": key}) as scene,
        starttls(scene.port, keys.client()) as client,
    ):
        assert client.say(b"EHLO a")[:3] == b"250"
    assert "proxy.example" in seen[0]
    # and without one the server does not let us in; in TLS 1.3 it says so only after our side has finished
    with stage.scene(Asks(context)) as scene:
        client, _ = hello(scene.port)
        with client:
            said = client.say(b"STARTTLS")
            if version == "TLSv1.2":
                assert said[:4] == b"454 "
            else:
                assert said[:4] in (b"454 ", b"220 ")
            assert scene.server.connections == 1
    assert len(seen) == 1


# -- renewal -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def renewing(
    tmp_path: Path, keys: Keys, tls: dict[str, object] | None = None
) -> Iterator[tuple[Running, Server, Path]]:
    """A proxy whose certificate lies in files of its own."""
    root().issue(NAME, not_after=NOW + 100 * DAY).write(tmp_path, "own")
    files = {"certificate": str(tmp_path / "own.pem"), "key": str(tmp_path / "own.key")}
    script = Server(keys.server(make("good")))
    with ScriptedServer(script) as server:
        route = bridge(server.port, keys=keys, issued=make("good"), tls={**files, **(tls or {})})
        config = {"log": {"level": "debug"}, "admin": {"listen": "127.0.0.1:0"}, "route": [route]}
        with running_proxy(config) as running:
            yield running, script, tmp_path


def shown_by(port: int, keys: Keys) -> int:
    """Serial number of the certificate that the proxy shows."""
    with starttls(port, keys.client()) as client:
        return serial(client)


def serial(client: Peer) -> int:
    from cryptography import x509

    assert isinstance(client.sock, ssl.SSLSocket)
    der = client.sock.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def test_a_renewed_certificate_is_served_after_sighup_and_running_sessions_stay(tmp_path: Path, keys: Keys) -> None:
    with renewing(tmp_path, keys) as (running, server, folder):
        with starttls(running.port, keys.client()) as client:
            first = serial(client)
            assert client.say(b"EHLO a")[:3] == b"250"
            begin_message(client)
            renewed = root().issue(NAME, not_after=NOW + 200 * DAY)
            renewed.write(folder, "own")
            running.reload()
            assert shown_by(running.port, keys) == renewed.certificate.serial_number != first
            client.send(MESSAGE + b".\r\n")
            assert client.reply() == b"250 2.0.0 taken\r\n"
            assert client.say(b"QUIT") == b"221 bye\r\n"
            assert ending(client) == "close_notify"
        expiry = running.metric("ehlo_proxy_certificate_not_after_timestamp_seconds", side="client")
        assert expiry == renewed.certificate.not_valid_after_utc.timestamp()
    assert server.mails == [MESSAGE + b".\r\n"]


def wrong_key(folder: Path) -> str:
    (folder / "own.key").write_bytes(root().issue(NAME).key_pem)
    return "expected the private key of the first certificate"


def no_key(folder: Path) -> str:
    (folder / "own.key").unlink()
    return "own.key"


def no_certificate(folder: Path) -> str:
    (folder / "own.pem").write_text("nothing")
    return "own.pem"


@pytest.mark.parametrize("spoil", [wrong_key, no_key, no_certificate])
def test_a_bad_key_fails_the_reload_and_nothing_changes(spoil, tmp_path: Path, keys: Keys) -> None:  # type: ignore[no-untyped-def]  # each of the three above
    with renewing(tmp_path, keys) as (running, _, folder):
        with starttls(running.port, keys.client()) as client:
            first = serial(client)
            words = spoil(folder)
            failed = running.reload(fails=True)
            assert words in " ".join(failed["errors"])
            assert shown_by(running.port, keys) == first
            assert client.say(b"EHLO a")[:3] == b"250"
        assert running.metric("ehlo_proxy_config_reloads_total", result="failed") == 1
        root().issue(NAME).write(folder, "own")
        running.reload()
        assert shown_by(running.port, keys) != first


@pytest.mark.parametrize("spoil", [wrong_key, no_key, no_certificate])
def test_a_bad_key_at_start_is_exit_2_as_check_would_find(spoil, tmp_path: Path, keys: Keys, ours: Issued) -> None:  # type: ignore[no-untyped-def]
    root().issue(NAME).write(tmp_path, "own")
    words = spoil(tmp_path)
    files = {"certificate": str(tmp_path / "own.pem"), "key": str(tmp_path / "own.key")}
    config = {"route": [bridge(25, keys=keys, issued=ours, tls=files)]}
    with running_proxy(config, ready=False, quiet=False) as running:
        assert running.wait() == 2
        assert words in "\n".join(running.lines)


# -- expiry ------------------------------------------------------------------------------------------------------------


def test_expiry_is_a_metric_and_a_warning_for_both_sides(tmp_path: Path, keys: Keys) -> None:
    ours = root().issue(NAME, not_after=NOW + 5 * DAY)
    theirs = root().issue(NAME, not_after=NOW + 3 * DAY)
    with ScriptedServer(Server(keys.server(theirs))) as server:
        route = bridge(server.port, keys=keys, issued=ours)
        with running_proxy({"admin": {"listen": "127.0.0.1:0"}, "route": [route]}) as running:
            told = running.wait_for("certificate-expires", side="client")
            assert (told["route"], told["days"], told["level"]) == ("r", 4, "warning")
            shown_by(running.port, keys)
            told = running.wait_for("certificate-expires", side="server")
            assert (told["days"], told["subject"]) == (2, f"127.0.0.1:{server.port}")
            shown_by(running.port, keys)
            for side, issued in (("client", ours), ("server", theirs)):
                expiry = running.metric("ehlo_proxy_certificate_not_after_timestamp_seconds", side=side, route="r")
                assert expiry == issued.certificate.not_valid_after_utc.timestamp()
            assert len(running.of("certificate-expires")) == 2  # not at each session
            assert b"certificate_not_after" in running.get("/status.json")[1]


def test_a_certificate_that_has_expired_is_told_also_when_the_server_is_refused_for_it(
    keys: Keys, ours: Issued
) -> None:
    with ScriptedServer(Server(keys.server(make("expired")))) as server:
        route = bridge(server.port, keys=keys, issued=ours)
        with running_proxy({"admin": {"listen": "127.0.0.1:0"}, "route": [route]}) as running:
            client, _ = hello(running.port)
            with client:
                assert client.say(b"STARTTLS")[:4] == b"454 "
            assert running.wait_for("certificate-expired", side="server")["level"] == "warning"
            expiry = running.metric("ehlo_proxy_certificate_not_after_timestamp_seconds", side="server")
            assert expiry == make("expired").certificate.not_valid_after_utc.timestamp()


# -- key log -----------------------------------------------------------------------------------------------------------


def test_the_key_log_has_the_secrets_of_both_sides_and_is_told_loudly(tmp_path: Path, keys: Keys) -> None:
    log = tmp_path / "keys.log"
    with renewing(tmp_path, keys, {"keylog": str(log)}) as (running, _, _folder):
        told = running.of("keylog")
        assert told
        assert (told[0]["level"], told[0]["file"]) == ("warning", str(log))
        for version in VERSIONS:
            with starttls(running.port, keys.client(version)) as client:
                assert client.say(b"EHLO a")[:3] == b"250"
                assert isinstance(client.sock, ssl.SSLSocket)
        time.sleep(0.05)
    lines = log.read_text().splitlines()
    assert stat.S_IMODE(os.stat(log).st_mode) == 0o600
    labels = [line.split()[0] for line in lines]
    assert all(re.fullmatch(r"[A-Z0-9_]+ [0-9a-f]{64} [0-9a-f]{64,96}", line) for line in lines)
    # towards the server always TLS 1.3 here, towards the client once each
    assert labels.count("CLIENT_RANDOM") == 1
    assert labels.count("CLIENT_TRAFFIC_SECRET_0") == 3
    assert labels.count("SERVER_TRAFFIC_SECRET_0") == 3


def test_the_key_log_decrypts_what_was_captured(tmp_path: Path, keys: Keys) -> None:
    """The bytes on the wire and the log's secret give the client's command back: TLS 1.3, AES-GCM, by hand."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

    def expand(secret: bytes, label: bytes, size: int) -> bytes:
        # HkdfLabel of RFC 8446 7.1
        full = b"tls13 " + label
        info = size.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0"
        return HKDFExpand(hashes.SHA384(), size, info).derive(secret)

    log = tmp_path / "keys.log"
    with renewing(tmp_path, keys, {"keylog": str(log)}) as (running, _, _folder):
        client, _ = hello(running.port)
        with client:
            assert client.say(b"STARTTLS")[:4] == b"220 "
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            context = keys.client("TLSv1.3")
            inside = context.wrap_bio(incoming, outgoing, server_hostname=NAME)
            while True:
                try:
                    inside.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    client.send(outgoing.read())
                    incoming.write(client.sock.recv(65536))
            cipher = inside.cipher()
            assert cipher is not None
            assert cipher[0] == "TLS_AES_256_GCM_SHA384"
            client.send(outgoing.read())
            inside.write(b"EHLO seen.example\r\n")
            record = outgoing.read()
            client.send(record)
            running.wait_for("ehlo-findings", phase="tls")
    client_side = [line for line in log.read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0")]
    plain = []
    for line in client_side:
        secret = bytes.fromhex(line.split()[2])
        key, iv = expand(secret, b"key", 32), expand(secret, b"iv", 12)
        with contextlib.suppress(Exception):  # the other one is the server's side
            plain.append(AESGCM(key).decrypt(iv, record[5:], record[:5]))
    assert plain == [b"EHLO seen.example\r\n\x17"]


# -- a session's transcript --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tls", [{}, {"client": "implicit"}, {"required": False}], ids=["starttls", "implicit", "clear"]
)
def test_a_transcript_holds_no_credential_of_a_session_that_authenticates_after_an_unknown_command(
    tls: dict[str, object], tmp_path: Path, keys: Keys, stage: Stage
) -> None:
    secret = b"AG1lAHNlY3JldA=="
    server = Server(keys.server(make("good")))
    record = {"directory": str(tmp_path), "bytes": 100000}
    with stage.scene(server, tls, record=record) as scene:
        if tls == {}:
            client = starttls(scene.port, keys.client())
        else:
            client = connect(scene.port)
            if "client" in tls:
                secure(client, keys.client())
            client.reply()
        with client:
            client.say(b"EHLO client.example")
            assert client.say(b"XYZZY")[:3] == b"250"
            assert client.say(b"AUTH PLAIN " + secret)[:3] == b"250"
            assert client.say(b"AUTH LOGIN")[:3] == b"250"
            assert client.say(secret)[:3] == b"250"
            begin_message(client)
            client.send(b"Subject: secret subject\r\n\r\n" + secret + b"\r\n.\r\n")
            assert client.reply()[:3] == b"250"
            client.say(b"QUIT")
        scene.wait_for("session-end")
    [transcript] = tmp_path.iterdir()
    text = transcript.read_text()
    assert "XYZZY" not in text  # an unknown command may hold anything
    assert secret.decode() not in text
    assert "secret subject" not in text
    assert "AUTH PLAIN " not in text
    assert "EHLO client.example" in text


@pytest.mark.parametrize("tls", [{}, {"client": "implicit"}, {"client": "none"}], ids=["starttls", "implicit", "none"])
def test_a_transcript_keeps_nothing_behind_mail_inside_tls(
    tls: dict[str, object], tmp_path: Path, keys: Keys, stage: Stage
) -> None:
    """`bytes` is for what follows MAIL in clear; a session that either side has protected is nothing of that kind."""
    server = Server(keys.server(make("good")))
    with stage.scene(server, tls, record={"directory": str(tmp_path), "bytes": 100000}) as scene:
        if tls == {}:
            client = starttls(scene.port, keys.client())
        else:
            client = connect(scene.port)
            if tls["client"] == "implicit":
                secure(client, keys.client())
            client.reply()
        with client:
            client.say(b"EHLO client.example")
            begin_message(client)
            client.send(b"Subject: secret subject\r\n\r\n.\r\n")
            assert client.reply()[:3] == b"250"
            client.say(b"QUIT")
        scene.wait_for("session-end")
    [transcript] = tmp_path.iterdir()
    assert "secret subject" not in transcript.read_text()


# -- MemoryDenyWriteExecute --------------------------------------------------------------------------------------------


def test_with_memory_deny_write_execute_it_does_not_start_and_names_the_directive(
    tmp_path: Path, keys: Keys, ours: Issued
) -> None:
    """As systemd sets it: prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN) before the program is started."""
    denied = (
        "import ctypes, os, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    path = tmp_path / "ehlo-proxy.toml"
    path.write_text(toml({"route": [bridge(free_port(), keys=keys, issued=ours)]}))
    done = subprocess.run(
        [sys.executable, "-c", denied, "-m", "proxy", "run", "--config", str(path)],
        capture_output=True,
        timeout=20,
        cwd=TOP,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert done.returncode == 1
    assert b"MemoryDenyWriteExecute=no" in done.stderr
    assert b"ready" not in done.stderr


def test_a_socket_of_the_clients_is_not_read_before_its_handshake(keys: Keys, stage: Stage) -> None:
    """A ClientHello that came early, in one piece with STARTTLS, is not a handshake but an injection."""
    with stage.scene(Server(keys.server(make("good")))) as scene:
        client, _ = hello(scene.port)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        inside = keys.client().wrap_bio(incoming, outgoing, server_hostname=NAME)
        with contextlib.suppress(ssl.SSLWantReadError):
            inside.do_handshake()
        with client:
            client.send(b"STARTTLS\r\n" + outgoing.read())
            assert client.reply()[:4] == b"454 "
            client.sock.shutdown(socket.SHUT_WR)
            client.rest()
