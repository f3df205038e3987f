"""Real Postfix on both sides: what it delivers is `completed` in our log, however it closes its connections."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.clients import postfix as postfixes
from tests.clients.lab import make_certificates
from tests.clients.postfix import Postfix
from tests.loopback import free_port, public_folder
from tests.proxy_process import Running, route, running_proxy

pytestmark = pytest.mark.root

LEVELS = {
    "any": "encrypt",
    "old": "encrypt protocols=TLSv1.2",
    "clear": "none",
    "other": "secure match=other.domain1.com",
}
MANY = 25
# A destination that fails is not given up, and a session is for one mail.
ALL_AT_ONCE = {
    "default_destination_concurrency_failed_cohort_limit": "1000",
    "smtp_connection_cache_on_demand": "no",
    "smtp_tls_connection_reuse": "no",
}


@pytest.fixture(scope="module")
def three() -> Iterator[tuple[Postfix, Running, Postfix]]:
    if reason := postfixes.missing():
        pytest.skip(reason)
    port = free_port()
    with ExitStack() as stack:
        folder = stack.enter_context(public_folder())
        certificates = make_certificates(folder)
        takes = postfixes.receiver(folder) | {"smtpd_tls_loglevel": "1"}
        server = stack.enter_context(postfixes.running(folder / "server", certificates, {}, {}, takes, listen=port))
        running = stack.enter_context(running_proxy({"route": [route(port)]}))
        ways = {f"{level}.example": f"{level}:[127.0.0.1]:{running.port}" for level in LEVELS}
        client = stack.enter_context(postfixes.running(folder / "client", certificates, ways, LEVELS, ALL_AT_ONCE))
        yield client, running, server


def mail(three: tuple[Postfix, Running, Postfix], way: str, sender: str = "a@sender.example") -> tuple[str, object]:
    """How Postfix says that it went, and what our log says."""
    client, running, _ = three
    before = len(running.of("session-end"))
    recipient = f"{uuid.uuid4().hex}@{way}.example"
    client.submit(sender, recipient, b"Subject: hi\r\n\r\nhello\r\n")
    delivery = client.delivery(recipient, 20)
    assert delivery is not None, client.log
    end = running.wait_for("session-end", count=before + 1)
    return delivery.status, end


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Quiet, or with programs that want all processors, so that anybody may be kept waiting at any point."""
    with ExitStack() as stack:
        if request.param == "busy":
            for _ in range(2 * (os.cpu_count() or 1)):
                loop = subprocess.Popen(["timeout", "60", sys.executable, "-c", "while True: pass"])
                stack.callback(loop.wait)
                stack.callback(loop.terminate)
        yield request.param


@pytest.mark.parametrize(
    ("way", "sender", "machine"),
    [
        *((way, sender, "quiet") for way in LEVELS for sender in ("a@sender.example", "a@refused.example")),
        *((way, "a@sender.example", "busy") for way in LEVELS),
    ],
    indirect=["machine"],
)
def test_each_of_many_sessions_between_two_real_postfixes_is_completed(
    three: tuple[Postfix, Running, Postfix], machine: str, way: str, sender: str
) -> None:
    client, running, _ = three
    before = len(running.of("session-end"))
    for number in range(MANY):
        recipient = f"{uuid.uuid4().hex}@{way}.example"
        client.submit(sender, recipient, b"Subject: hi\r\n\r\n" + b"hello\r\n" * (number % 5) ** 8)
    running.wait_for("session-end", 60, count=before + MANY)
    told = [(end["outcome"], end["by"] in ("client", "server")) for end in running.of("session-end")[before:]]
    assert told == [("completed", True)] * MANY


def test_a_mail_that_the_server_refuses_is_completed_too(three: tuple[Postfix, Running, Postfix]) -> None:
    status, end = mail(three, "any", "a@refused.example")
    assert status == "bounced"
    assert end["outcome"] == "completed"  # type: ignore[index]


def test_a_certificate_that_postfix_rejects_after_the_handshake_is_completed(
    three: tuple[Postfix, Running, Postfix],
) -> None:
    status, end = mail(three, "other")
    assert status == "deferred"
    assert end["outcome"] == "completed"  # type: ignore[index]


def test_posttls_finger_is_completed(three: tuple[Postfix, Running, Postfix]) -> None:
    client, running, _ = three
    before = len(running.of("session-end"))
    settings = {**os.environ, "MAIL_CONFIG": str(client.config)}
    command = ["/usr/sbin/posttls-finger", "-c", "-l", "may", f"[127.0.0.1]:{running.port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=settings)
    assert re.search("TLS connection established", done.stdout + done.stderr), done
    assert running.wait_for("session-end", count=before + 1)["outcome"] == "completed"
