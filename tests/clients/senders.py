"""Real senders, each told to send one message over TLS or not at all, or over TLS where it is offered.

A sender gets a port of 127.0.0.1 where `mail.domain1.com` is to be found, the certificate authority to trust, and the
message with CRLF line ends. Where the program can check the server's name it does, so a session that succeeded through
the proxy had TLS from end to end. Whether the message arrived is the server's to say, not the sender's.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib.metadata
import platform
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiosmtplib

from tests.certificates import NAME
from tests.clients import exim
from tests.loopback import TOP

SENDER = "anna@sender.example"
HELO = "sender.example"
LIMIT = 45.0  # seconds for one message, its program's start on a busy machine included; its own time-outs are 15


@dataclass(frozen=True, slots=True)
class Said:
    """What a sender reported of its own: whether it was content, its words, and what its queue made of it, if any."""

    content: bool
    words: str
    status: str = ""


class Sender(ABC):
    """One program.

    `exact`: it sends the message's bytes as they are and adds no header.  `helo`: its name in EHLO.  `patience`: how
    many seconds it waits for its peer.  `required`: TLS, with a certificate that verifies, or not at all; else TLS
    where it is offered, with any certificate, as mail systems do by default; `only_required` for a program that can't.
    """

    name: str
    exact = True
    helo = HELO
    patience = 15
    required = True
    only_required = False

    def saying(self, helo: str, patience: int = patience) -> Sender:
        """The same program under another name, and as patient as told."""
        other = copy.copy(self)
        other.helo, other.patience = helo, patience
        return other

    def not_required(self) -> Sender:
        """The same program with TLS where it is offered."""
        other = copy.copy(self)
        other.required = False
        return other

    def missing(self) -> str:
        """Why it can't be used here, or empty."""
        return ""

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def send(self, port: int, ca: Path, recipient: str, message: bytes) -> Said: ...


def first_version(*command: str) -> str:
    """The first thing in what the command prints that looks like a version, or `?`."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "?"


def _command(command: list[str], stdin: bytes, limit: float) -> Said:
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=limit, check=False, cwd=TOP)
    except subprocess.TimeoutExpired as late:
        return Said(False, f"hung: {(late.stdout or b'')[-300:]!r}")
    return Said(done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace"))


class Program(Sender):
    """A sender that is a command."""

    program: str

    def version(self) -> str:
        return first_version(self.program, "--version")

    def missing(self) -> str:
        return "" if shutil.which(self.program) else f"{self.program} is not installed"

    def send(self, port: int, ca: Path, recipient: str, message: bytes) -> Said:
        command = [self.program, *self.arguments(port, ca, recipient)]
        # msmtp and swaks wait in the TLS handshake for ever: whoever started them ends them.
        return _command(command, self.stdin(recipient, message), self.patience + 3)

    def stdin(self, recipient: str, message: bytes) -> bytes:
        return message

    @abstractmethod
    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]: ...


class Swaks(Program):
    name = program = "swaks"

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        where = ["--server", "127.0.0.1", "--port", str(port), "--helo", self.helo, "--from", SENDER, "--to", recipient]
        tls = ["--tls", "--tls-verify", "--tls-ca-path", str(ca)] if self.required else ["--tls-optional-strict"]
        tls += ["--tls-sni", NAME, "--timeout", str(self.patience)]
        return [*where, *tls, "--no-data-fixup", "--suppress-data", "--data", "-"]

    def stdin(self, recipient: str, message: bytes) -> bytes:
        # Without its fix-up swaks sends what it is given: the dots doubled and the end are ours then.
        return message.replace(b"\r\n.", b"\r\n..") + b"."


class Curl(Program):
    name = program = "curl"

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        where = ["--resolve", f"{NAME}:{port}:127.0.0.1", f"smtp://{NAME}:{port}/{self.helo}"]
        mail = ["--mail-from", SENDER, "--mail-rcpt", recipient, "--upload-file", "-"]
        tls = ["--ssl-reqd", "--cacert", str(ca)] if self.required else ["--ssl", "--insecure"]
        return ["--silent", "--show-error", *tls, "--max-time", str(self.patience), *where, *mail]


class Msmtp(Program):
    name = program = "msmtp"
    only_required = True

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        where = [
            "--host=127.0.0.1",
            f"--port={port}",
            f"--domain={self.helo}",
            f"--from={SENDER}",
            f"--timeout={self.patience}",
        ]
        tls = ["--tls=on", "--tls-starttls=on", f"--tls-trust-file={ca}", f"--tls-host-override={NAME}"]
        return ["--file=/dev/null", *where, *tls, "--set-date-header=off", "--", recipient]

    def stdin(self, recipient: str, message: bytes) -> bytes:
        return message.replace(b"\r\n", b"\n")


class OpenSSL(Program):
    """Not a sender but the tool that every admin reaches for: it says STARTTLS whatever it was shown."""

    name = "openssl s_client"
    program = "openssl"
    only_required = True

    def version(self) -> str:
        return first_version("openssl", "version")

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        where = [
            "s_client",
            "-connect",
            f"127.0.0.1:{port}",
            "-starttls",
            "smtp",
            "-name",
            self.helo,
            "-servername",
            NAME,
        ]
        return [*where, "-CAfile", str(ca), "-verify_return_error", "-verify_hostname", NAME, "-quiet", "-nocommands"]

    def stdin(self, recipient: str, message: bytes) -> bytes:
        envelope = f"EHLO {self.helo}\r\nMAIL FROM:<{SENDER}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
        return envelope + message.replace(b"\r\n.", b"\r\n..") + b".\r\nQUIT\r\n"


def trusting(ca: Path, required: bool) -> ssl.SSLContext:
    """A client's context that verifies, or takes any certificate."""
    context = ssl.create_default_context(cafile=str(ca))
    if not required:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class _ByName(smtplib.SMTP):
    """smtplib's client for mail.domain1.com, which is on 127.0.0.1 here; the name is what TLS checks."""

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout)


class Smtplib(Sender):
    name = "Python smtplib"

    def version(self) -> str:
        return platform.python_version()

    def send(self, port: int, ca: Path, recipient: str, message: bytes) -> Said:
        try:
            with _ByName(NAME, port, self.helo, self.patience) as smtp:
                smtp.ehlo_or_helo_if_needed()
                if self.required or smtp.has_extn("starttls"):
                    smtp.starttls(context=trusting(ca, self.required))
                smtp.sendmail(SENDER, [recipient], message)
        except (OSError, smtplib.SMTPException) as refused:
            return Said(False, repr(refused))
        return Said(True, "")


@contextlib.asynccontextmanager
async def _aborted(transport: asyncio.BaseTransport | None) -> AsyncIterator[None]:
    """aiosmtplib lets go of the transport of a handshake that failed, and does not close it."""
    try:
        yield
    except (OSError, aiosmtplib.SMTPException):
        if isinstance(transport, asyncio.Transport):
            transport.abort()
        raise


class Aiosmtplib(Sender):
    name = "aiosmtplib"

    def version(self) -> str:
        return importlib.metadata.version("aiosmtplib")

    def send(self, port: int, ca: Path, recipient: str, message: bytes) -> Said:
        async def mail() -> None:
            client = aiosmtplib.SMTP(
                hostname="127.0.0.1", port=port, local_hostname=self.helo, timeout=self.patience,
                start_tls=False, use_tls=False,
            )  # fmt: skip
            try:
                async with client, _aborted(client.transport):
                    with contextlib.suppress(aiosmtplib.SMTPHeloError):
                        await client.ehlo()
                    if self.required or client.supports_extension("starttls"):
                        await client.starttls(tls_context=trusting(ca, self.required), server_hostname=NAME)
                    await client.sendmail(SENDER, [recipient], message)
            finally:
                await asyncio.sleep(0.01)  # its transport closes in a turn of its own

        try:
            asyncio.run(asyncio.wait_for(mail(), LIMIT))
        except (OSError, aiosmtplib.SMTPException, ValueError, TimeoutError) as refused:
            return Said(False, repr(refused))
        return Said(True, "")


class TwistedClient(Program):
    """Twisted's ESMTPClient, in a process of its own, since there is one reactor a process."""

    name = "Twisted"
    program = sys.executable

    def version(self) -> str:
        return importlib.metadata.version("twisted")

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        return ["-W", "ignore", "-m", "tests.clients.twisted_sender", str(port), str(ca), SENDER, recipient, self.helo,
                "required" if self.required else "offered"]  # fmt: skip

    def stdin(self, recipient: str, message: bytes) -> bytes:
        return message.replace(b"\r\n", b"\n")


class PerlNetSmtp(Program):
    name = "Perl Net::SMTP"
    program = "perl"
    SCRIPT = """
        use Net::SMTP; my ($port, $ca, $name, $helo, $from, $to, $required) = @ARGV;
        my $message = do { local $/; <STDIN> };
        my $smtp = Net::SMTP->new("127.0.0.1", Port => $port, Hello => $helo, Timeout => 15) or die "no session: $@";
        my $offered = defined $smtp->supports("STARTTLS"); die "STARTTLS is not offered" if $required and not $offered;
        my @how = $required ? (SSL_ca_file => $ca, SSL_verifycn_name => $name) : (SSL_verify_mode => 0);
        $smtp->starttls(@how, SSL_hostname => $name) or die $smtp->message if $offered;
        $smtp->mail($from) && $smtp->to($to) && $smtp->data or die $smtp->message;
        $smtp->datasend($message); $smtp->dataend or die $smtp->message; $smtp->quit;
    """

    def version(self) -> str:
        return first_version("perl", "-MNet::SMTP", "-e", "print $Net::SMTP::VERSION")

    def missing(self) -> str:
        if not shutil.which("perl"):
            return "perl is not installed"
        found = subprocess.run(
            ["perl", "-MNet::SMTP", "-MIO::Socket::SSL", "-e", "1"], capture_output=True, check=False
        )
        return "" if found.returncode == 0 else "Perl's Net::SMTP or IO::Socket::SSL is not installed"

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        return ["-e", self.SCRIPT, str(port), str(ca), NAME, self.helo, SENDER, recipient, "1" * self.required]

    def stdin(self, recipient: str, message: bytes) -> bytes:
        return message.replace(b"\r\n", b"\n")


class Exim(Sender):
    """The second great mail system, in the foreground; it adds Received."""

    name = "Exim"
    exact = False

    def missing(self) -> str:
        return exim.missing()

    def version(self) -> str:
        return exim.version()

    def send(self, port: int, ca: Path, recipient: str, message: bytes) -> Said:
        options = {"helo_data": self.helo, "command_timeout": f"{self.patience}s"}
        if self.required:
            options |= {"hosts_require_tls": "*", "tls_verify_hosts": "*", "tls_verify_cert_hostnames": "*"}
            options["tls_verify_certificates"] = str(ca)
        delivery = exim.deliver(port, SENDER, recipient, message, options)
        return Said(delivery.status == "sent", delivery.reason, delivery.status)


class PosttlsFinger(Program):
    """Postfix's probe: all of a session up to the message, which it never sends. `config` is a Postfix's folder."""

    name = "posttls-finger"
    program = "env"

    def __init__(self, config: Path) -> None:
        self.config = config

    def version(self) -> str:
        return first_version("/usr/sbin/postconf", "-d", "mail_version")

    def arguments(self, port: int, ca: Path, recipient: str) -> list[str]:
        command = [f"MAIL_CONFIG={self.config}", "/usr/sbin/posttls-finger", "-c", "-l", "secure", "-F", str(ca)]
        return [*command, "-T", str(self.patience), "-o", f"myhostname={self.helo}", f"[127.0.0.1]:{port}", NAME]


ALL: tuple[Sender, ...] = (
    Exim(), Smtplib(), Aiosmtplib(), Swaks(), Curl(), Msmtp(), PerlNetSmtp(), TwistedClient(), OpenSSL(),
)  # fmt: skip
