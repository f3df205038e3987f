"""Real Postfix on both sides: what it delivers is `completed` in our log, however it closes its connections."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.clients import postfix as postfixes
from tests.clients.lab import make_certificates
from tests.clients.postfix import Postfix
from tests.loopback import free_port
from tests.proxy_process import Running, route, running_proxy

# On a quiet machine a session between two Postfixes still ends as a reset now and then: an end and a reset that come in
# one turn are told apart by luck.  It is to be `completed` each time; until then this shows how often it is.
pytestmark = [
    pytest.mark.root,
    pytest.mark.xfail(raises=AssertionError, reason="a reset right behind an end is sometimes taken for a reset"),
]

LEVELS = {"any": "encrypt", "clear": "none", "other": "secure match=other.domain1.com"}


@pytest.fixture(scope="module")
def three() -> Iterator[tuple[Postfix, Running, Postfix]]:
    if reason := postfixes.missing():
        pytest.skip(reason)
    port = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ehlo-outcomes-")))
        folder.chmod(0o755)
        certificates = make_certificates(folder)
        takes = postfixes.receiver(folder) | {"smtpd_tls_loglevel": "1"}
        server = stack.enter_context(postfixes.running(folder / "server", certificates, {}, {}, takes, listen=port))
        running = stack.enter_context(running_proxy({"route": [route(port)]}))
        ways = {f"{level}.example": f"{level}:[127.0.0.1]:{running.port}" for level in LEVELS}
        client = stack.enter_context(postfixes.running(folder / "client", certificates, ways, LEVELS))
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


@pytest.mark.parametrize("way", ["any", "clear"])
def test_five_mails_through_two_real_postfixes_are_five_times_completed(
    three: tuple[Postfix, Running, Postfix], way: str
) -> None:
    told = [mail(three, way) for _ in range(5)]
    assert [status for status, _ in told] == ["sent"] * 5
    assert [end["outcome"] for _, end in told] == ["completed"] * 5  # type: ignore[index]


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
