"""Real programs on both sides of a bridge: what sends today, and what receives.

Each must deliver one message, byte for byte, with TLS required of it and the proxy's certificate checked by name where
the program can. A program that is missing is skipped, and said so.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import ssl
import subprocess
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from cryptography.hazmat.primitives.hashes import SHA256

from tests.bridge.parties import Keys, Scene, Server, Stage, secure
from tests.certificates import NAME, Issued, make, root
from tests.clients import postfix as postfixes
from tests.clients.lab import Certificates
from tests.clients.matrix import MESSAGE
from tests.clients.postfix import Postfix
from tests.clients.senders import ALL, HELO, SENDER, Curl, Msmtp, OpenSSL, Program, Said, Sender, Smtplib, Swaks
from tests.loopback import free_port, public_folder, wait_until

# aiosmtplib leaves a transport open when it is refused; that is told when the rubbish is collected.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

STUFFED = MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n"


class Nodemailer(Program):
    """Node's mailer, found among npm's global modules."""

    name = "nodemailer"
    program = "node"
    implicit = False
    SCRIPT = """
        const [port, ca, secure, name, helo, from, to] = process.argv.slice(1);
        const raw = require('fs').readFileSync(0);
        const transport = require('nodemailer').createTransport({
            host: '127.0.0.1', port: +port, secure: secure === 'implicit', requireTLS: true, name: helo,
            tls: { servername: name, ca: require('fs').readFileSync(ca) },
        });
        transport.sendMail({ envelope: { from, to }, raw }, (error) => {
            if (error) console.error(error.message);
            process.exit(error ? 1 : 0);
        });
    """

    def missing(self) -> str:
        return nodemailer_missing()

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        kind = "implicit" if self.implicit else "starttls"
        return ["-e", self.SCRIPT, "--", str(port), str(ca), kind, NAME, HELO, SENDER, recipient]

    def send(self, port: int, ca: Path, recipient: str, message: bytes) -> Said:
        os.environ["NODE_PATH"] = global_modules()
        return super().send(port, ca, recipient, message)


@cache
def global_modules() -> str:
    done = subprocess.run(["npm", "root", "-g"], capture_output=True, check=False, text=True, timeout=30)
    return done.stdout.strip()


@cache
def nodemailer_missing() -> str:
    if not shutil.which("node") or not shutil.which("npm"):
        return "node or npm is not installed"
    path = {**os.environ, "NODE_PATH": global_modules()}
    done = subprocess.run(["node", "-e", "require('nodemailer')"], env=path, capture_output=True, check=False)
    return "" if done.returncode == 0 else "nodemailer is not installed (npm install -g nodemailer)"


class ImplicitCurl(Curl):
    name = "curl smtps"

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        return [part.replace("smtp://", "smtps://") for part in super().arguments(port, ca, recipient)]


class ImplicitMsmtp(Msmtp):
    name = "msmtp, starttls off"

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        return [part.replace("starttls=on", "starttls=off") for part in super().arguments(port, ca, recipient)]


class ImplicitSwaks(Swaks):
    name = "swaks --tls-on-connect"

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        return ["--tls-on-connect" if part == "--tls" else part for part in super().arguments(port, ca, recipient)]


class ImplicitOpenSSL(OpenSSL):
    name = "openssl s_client, no starttls"

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        parts = super().arguments(port, ca, recipient)
        at = parts.index("-starttls")
        return [*parts[:at], *parts[at + 4 :]]


class ImplicitNodemailer(Nodemailer):
    name = "nodemailer, secure"
    implicit = True


class ClearCurl(Curl):
    """A device that has no TLS at all."""

    name = "curl without TLS"

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        return [part for part in super().arguments(port, ca, recipient) if part != "--ssl-reqd"]


BY_STARTTLS: tuple[Sender, ...] = (*ALL, Nodemailer())
BY_IMPLICIT: tuple[Sender, ...] = (
    ImplicitCurl(), ImplicitMsmtp(), ImplicitSwaks(), ImplicitOpenSSL(), ImplicitNodemailer(),
)  # fmt: skip


def sent_by(sender: Sender, scene: Scene, keys: Keys, recipient: str = "bert@domain1.com") -> Said:
    if why := sender.missing():
        pytest.skip(why)
    said = sender.send(scene.port, Path(keys.ca), recipient, MESSAGE)
    gc.collect()
    return said


def server_for(server_side: str, keys: Keys) -> Server:
    return Server(None if server_side == "none" else keys.server(make("good")), implicit=server_side == "implicit")


@pytest.mark.parametrize("server_side", ["starttls", "implicit"])
@pytest.mark.parametrize("sender", BY_STARTTLS, ids=lambda sender: sender.name)
def test_who_sends_by_starttls(sender: Sender, server_side: str, keys: Keys, stage: Stage) -> None:
    server = server_for(server_side, keys)
    with stage.scene(server, {"server": server_side}) as scene:
        said = sent_by(sender, scene, keys)
        assert said.content, said.words
        end = scene.wait_for("session-end")
        # Whoever closes with a close_notify unread does so by a reset.
        assert end["outcome"] in ("completed", "client-reset", "server-reset")
        assert end["tls"] == "bridge"
    [mail] = server.mails
    assert mail == STUFFED if sender.exact else mail.endswith(STUFFED), said.words


@pytest.mark.parametrize("server_side", ["starttls", "implicit", "none"])
@pytest.mark.parametrize("sender", BY_IMPLICIT, ids=lambda sender: sender.name)
def test_who_sends_by_implicit_tls(sender: Sender, server_side: str, keys: Keys, stage: Stage) -> None:
    server = server_for(server_side, keys)
    with stage.scene(server, {"client": "implicit", "server": server_side}) as scene:
        said = sent_by(sender, scene, keys)
        assert said.content, said.words
        assert scene.wait_for("session-end")["tls"] == "bridge"
    assert server.mails == [STUFFED], said.words


@pytest.mark.parametrize("server_side", ["starttls", "implicit"])
def test_a_device_without_tls_reaches_a_server_that_wants_it(server_side: str, keys: Keys, stage: Stage) -> None:
    server = server_for(server_side, keys)
    with stage.scene(server, {"client": "none", "server": server_side}) as scene:
        said = sent_by(ClearCurl(), scene, keys)
        assert said.content, said.words
    assert server.mails == [STUFFED]


@pytest.mark.parametrize("sender", [*BY_STARTTLS, *BY_IMPLICIT], ids=lambda sender: sender.name)
def test_nobody_sends_to_a_server_that_is_not_the_one(sender: Sender, keys: Keys, stage: Stage) -> None:
    server = Server(keys.server(make("expired")))
    side = "implicit" if sender in BY_IMPLICIT else "starttls"
    with stage.scene(server, {"client": side}) as scene:
        said = sent_by(sender, scene, keys)
        assert not said.content or isinstance(sender, OpenSSL)  # openssl takes what it is told for success
        scene.wait_for("session-end", outcome="tls-failed")
    assert server.mails == []
    assert not any(line[:4].upper() in (b"MAIL", b"RCPT", b"DATA") for line in (*server.clear, *server.inside))


# -- Postfix as the client ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def postfix(keys: Keys, **how: Any) -> Iterator[Postfix]:
    if why := postfixes.missing():
        pytest.skip(why)
    with public_folder() as folder:
        shutil.copy(keys.ca, folder / "ca.pem")
        certificates = Certificates(folder / "ca.pem", b"")
        with postfixes.running(folder / "postfix", certificates, how.pop("transports"), how.pop("levels"), **how) as it:
            yield it


def fingerprint(issued: Issued) -> str:
    return ":".join(f"{octet:02X}" for octet in issued.certificate.fingerprint(SHA256()))


@pytest.mark.root
def test_postfix_sends_with_secure_and_fingerprint_and_wrapper_mode(keys: Keys, stage: Stage, ours: Issued) -> None:
    """One Postfix, one route for each way, and a wrong name and a wrong fingerprint that must not get through."""
    other = root().issue("mx.other.example")
    names = ("secure", "fingerprint", "wrapped", "wrong", "pinned")
    taking = {name: Server(keys.server(make("good"))) for name in names}
    ways = {name: (server, {"client": "implicit"} if name == "wrapped" else {}) for name, server in taking.items()}
    with contextlib.ExitStack() as stack:
        scenes = stack.enter_context(stage.scenes(ways))
        levels = {
            "secure": f"secure match={NAME}",
            "fingerprint": f"fingerprint match={fingerprint(ours)}",
            "wrapped": f"secure match={NAME}",
            "wrong": "secure match=mx.other.example",
            "pinned": f"fingerprint match={fingerprint(other)}",
        }
        transports = {f"{name}.example": f"{name}:[127.0.0.1]:{scenes[name].port}" for name in levels}
        options = {"wrapped": "smtp_tls_wrappermode = yes"}
        settings = {"smtp_tls_fingerprint_digest": "sha256"}
        how = {"transports": transports, "levels": levels, "settings": settings, "options": options}
        running = stack.enter_context(postfix(keys, **how))
        for name in levels:
            running.submit(SENDER, f"bert@{name}.example", MESSAGE)
        for name in levels:
            delivery = running.delivery(f"bert@{name}.example", 15)
            assert delivery is not None, running.log
            good = name not in ("wrong", "pinned")
            assert (delivery.status == "sent") is good, (name, delivery, running.log)
            assert [b"byte for byte" in mail for mail in taking[name].mails] == ([True] if good else [])
            assert "bounced" not in delivery.status
        assert "Verified TLS connection established to 127.0.0.1" in running.log
        end = scenes["secure"].wait_for("session-end")
        assert (end["outcome"], end["tls"]) == ("completed", "bridge")


@pytest.mark.root
def test_postfix_keeps_a_mail_in_its_queue_while_the_server_is_not_the_one(keys: Keys, stage: Stage) -> None:
    """454, then 421: deferred, not bounced and not in clear, also with a policy that would send in clear."""
    server = Server(keys.server(make("wrong-name")))
    with stage.scene(server) as scene:
        levels = {"must": f"secure match={NAME}", "might": "may"}
        transports = {f"{name}.example": f"{name}:[127.0.0.1]:{scene.port}" for name in levels}
        with postfix(keys, transports=transports, levels=levels) as running:
            for name in levels:
                running.submit(SENDER, f"bert@{name}.example", MESSAGE)
            for name in levels:
                delivery = running.delivery(f"bert@{name}.example", 15)
                assert delivery is not None, running.log
                assert delivery.status == "deferred", delivery
            assert "certificate is for mx.other.example" in running.log
    assert server.mails == []
    assert not any(line[:4] == b"MAIL" for line in (*server.clear, *server.inside))


# -- programs as the server --------------------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.parametrize("server_side", ["starttls", "implicit"])
def test_postfix_smtpd_is_the_server(server_side: str, keys: Keys, stage: Stage) -> None:
    certificate, key = keys.files(make("good"))
    port = free_port()
    settings = {
        "smtpd_tls_cert_file": certificate,
        "smtpd_tls_key_file": key,
        "smtpd_tls_security_level": "encrypt",
        "smtpd_tls_wrappermode": "yes" if server_side == "implicit" else "no",
        "smtpd_tls_loglevel": "1",
        "smtpd_relay_restrictions": "permit_mynetworks, reject",
    }
    with postfix(keys, transports={"domain1.com": "discard:"}, levels={}, settings=settings, listen=port) as running:
        for client_side, sender in (("starttls", Smtplib()), ("implicit", ImplicitCurl())):
            recipient = f"{uuid.uuid4().hex}@domain1.com"
            tls = {"client": client_side, "server": server_side}
            with stage.scene(Server(None), tls, destination=f"127.0.0.1:{port}") as scene:
                said = sent_by(sender, scene, keys, recipient)
                assert said.content, (said.words, running.log)
            delivery = running.delivery(recipient, 10)
            assert delivery is not None, running.log
            assert delivery.status == "sent"
        assert "TLS connection established from" in running.log


class Taken:
    """What aiosmtpd has taken."""

    def __init__(self) -> None:
        self.data: list[bytes] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # aiosmtpd's name
        assert session.ssl is not None or server.transport.get_extra_info("ssl_object") is not None
        self.data.append(envelope.original_content)
        return "250 taken"


@pytest.mark.parametrize("server_side", ["starttls", "implicit"])
@pytest.mark.parametrize("client_side", ["starttls", "implicit", "none"])
def test_aiosmtpd_is_the_server(client_side: str, server_side: str, keys: Keys, stage: Stage) -> None:
    context = keys.server(make("good"))
    taken = Taken()
    how: dict[str, Any] = (
        {"ssl_context": context} if server_side == "implicit" else {"tls_context": context, "require_starttls": True}
    )
    controller = Controller(taken, hostname="127.0.0.1", port=free_port(), **how)
    controller.start()
    try:
        destination = f"127.0.0.1:{controller.port}"
        tls = {"client": client_side, "server": server_side}
        with stage.scene(Server(None), tls, destination=destination) as scene:
            sender = {"starttls": Smtplib(), "implicit": ImplicitCurl(), "none": ClearCurl()}[client_side]
            said = sent_by(sender, scene, keys)
            assert said.content, said.words
    finally:
        controller.stop()
    assert taken.data == [MESSAGE]


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_s_server_is_the_server(version: str, keys: Keys, stage: Stage) -> None:
    """It speaks no SMTP: what the server says is typed into it."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    certificate, key = keys.files(make("good"))
    port = free_port()
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", certificate, "-key", key, "-quiet"]
    with subprocess.Popen([*command, version], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            wait_until(lambda: listens(port), 10, "openssl s_server listens")
            tls = {"client": "none", "server": "implicit"}
            with stage.scene(Server(None), tls, destination=f"127.0.0.1:{port}") as scene, scene.connect() as client:
                typed, told = process.stdin, process.stdout
                assert typed is not None
                assert told is not None
                scene.wait_for("tls", side="server")
                typed.write(b"220 mail.example ESMTP\r\n")
                assert client.reply() == b"220 mail.example ESMTP\r\n"
                client.send(b"EHLO client.example\r\n")
                assert told.readline() == b"EHLO client.example\r\n"
                typed.write(b"250-STARTTLS\r\n250-mail.example\r\n250 HELP\r\n")
                assert client.reply() == b"250-mail.example\r\n250 HELP\r\n"
                client.send(b"MAIL FROM:<a@example.org>\r\n")
                assert told.readline() == b"MAIL FROM:<a@example.org>\r\n"
        finally:
            process.kill()


def listens(port: int) -> bool:
    """Whether something listens there, without connecting to it."""
    wanted = f"0100007F:{port:04X}"
    return any(line.split()[1] == wanted for line in Path("/proc/net/tcp").read_text().splitlines()[1:])


def test_the_clients_of_one_server_do_not_share_what_openssl_knows(keys: Keys, stage: Stage) -> None:
    """Two sessions at once, one of which breaks its handshake: the other's TLS does not hear of it."""
    with stage.scene(Server(keys.server(make("good")))) as scene, scene.connect() as one, scene.connect() as two:
        for client in (one, two):
            assert client.reply()[:4] == b"220 "
            client.say(b"EHLO a")
            assert client.say(b"STARTTLS")[:4] == b"220 "
        secure(one, keys.client())
        two.send(b"this is no TLS at all\r\n")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            two.rest()
        assert one.say(b"EHLO a")[:3] == b"250"
