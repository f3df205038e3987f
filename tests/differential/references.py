"""The servers that the proxy is held against: Postfix's smtpd, aiosmtpd and smtp-sink, each in processes of its own.

Each keeps the mails that it took, and `mails()` gives them by the mark in their sender, with nothing in them that
differs from run to run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.clients import postfix
from tests.clients.lab import Certificates
from tests.loopback import child, free_port, wait_until

START_SECONDS = 15.0
Mails = dict[str, list[str]]  # of each run of a script, by its mark
_SENDER = re.compile(r"\b(\w+)@sender\.example")
PATH = os.environ["PATH"] + ":/usr/sbin"


@dataclass(frozen=True, slots=True)
class Reference:
    """A running server."""

    name: str
    port: int
    has_tls: bool
    repaired: tuple[bytes, bytes]  # what it says wrong in EHLO of its own, and what the proxy makes of it
    mails: Callable[[], Mails]


def missing(name: str) -> str:
    """Why it can't be had here, or empty."""
    if name.startswith("aiosmtpd"):
        return "" if importlib.util.find_spec("aiosmtpd") else "aiosmtpd is not installed"
    if name.startswith("postfix"):
        return postfix.missing()
    return "" if shutil.which("smtp-sink", path=PATH) else "smtp-sink is not installed (Debian: postfix)"


@contextlib.contextmanager
def running(name: str, folder: Path, certificates: Certificates) -> Iterator[Reference]:
    """That server; `folder` is reachable by every user, and holds server.pem and server.key."""
    mine = folder / name
    mine.mkdir()
    start = {"postfix": _postfix, "aiosmtpd": _aiosmtpd, "smtp-sink": _smtp_sink}[name]
    with start(mine, folder, certificates) as reference:
        yield reference


@contextlib.contextmanager
def _postfix(mine: Path, folder: Path, certificates: Certificates) -> Iterator[Reference]:
    port = free_port()
    settings = {
        "myhostname": "mail.domain1.com",
        "mynetworks": "127.0.0.0/8",
        "smtpd_tls_security_level": "may",
        "smtpd_tls_cert_file": str(folder / "server.pem"),
        "smtpd_tls_key_file": str(folder / "server.key"),
        "smtpd_error_sleep_time": "0",
        "smtpd_client_restrictions": "check_client_access static:HOLD",  # mails stay in the queue, where we read them
        "message_size_limit": "10240000",
        "transport_maps": "",
    }
    with postfix.running(mine, certificates, {}, {}, settings, listen=port) as running:

        def mails() -> Mails:
            files = [path.name for path in (running.folder / "queue" / "hold").rglob("*") if path.is_file()]
            command = ["/usr/sbin/postcat", "-c", str(running.config), "-ebhq", *files]
            text = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode("latin-1")
            return _by_mark(_plain_postfix(one) for one in re.split(r"(?m)^(?=\*\*\* ENVELOPE RECORDS )", text) if one)

        _await(port, mine / "postfix.log")
        yield Reference("postfix", port, True, (b"", b""), mails)


def _plain_postfix(mail: str) -> str:
    varies = ("message_arrival_time", "create_time", "message_size", "named_attribute: .*(_port|log_ident)")
    mail = re.sub(r"(?m)^Received: (.*\n)([ \t].*\n)*", "", mail)
    return re.sub(rf"(?mi)^({'|'.join(varies)}|Date|Message-Id|\*\*\* ).*\n", "", mail)


def _by_mark(mails: Iterable[str]) -> Mails:
    found: Mails = {}
    for mail in mails:
        if sender := _SENDER.search(mail):
            found.setdefault(sender[1], []).append(_SENDER.sub("@", mail))
    return {mark: sorted(of_one) for mark, of_one in found.items()}


@contextlib.contextmanager
def _aiosmtpd(mine: Path, folder: Path, certificates: Certificates) -> Iterator[Reference]:
    port, kept = free_port(), mine / "mails.jsonl"
    command = [sys.executable, "-m", "tests.differential.aiosmtpd_server", str(port), str(folder), str(kept)]
    with child(command, mine / "log"):

        def mails() -> Mails:
            return _by_mark(kept.read_text().splitlines() if kept.exists() else ())

        _await(port, mine / "log")
        yield Reference("aiosmtpd", port, True, (b"", b""), mails)


@contextlib.contextmanager
def _smtp_sink(mine: Path, folder: Path, certificates: Certificates) -> Iterator[Reference]:
    port, kept = free_port(), mine / "mails"
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    mine.chmod(0o777)
    program = shutil.which("smtp-sink", path=PATH) or "smtp-sink"
    command = [program, *user, "-D", str(kept), f"127.0.0.1:{port}", "500"]
    with child(command, mine / "log"):

        def mails() -> Mails:
            text = kept.read_bytes().decode("latin-1") if kept.exists() else ""
            varies = r"(?m)^(X-Client-Proto|Received|\t?by |\t?id |\tfor |\t).*\n"
            return _by_mark(re.sub(varies, "", one) for one in re.split(r"(?m)^(?=X-Client-Addr: )", text))

        _await(port, mine / "log")
        yield Reference("smtp-sink", port, False, (b"250-DSN\r\n250 \r\n", b"250 DSN\r\n"), mails)


def _await(port: int, log: Path) -> None:
    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
            return sock.recv(1) == b"2"
        return False

    try:
        wait_until(answers, START_SECONDS, f"port {port}")
    except AssertionError as error:
        raise AssertionError(f"{error}: {log.read_text() if log.exists() else 'no log'}") from None
