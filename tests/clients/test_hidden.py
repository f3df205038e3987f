"""`remove` with real senders: what is hidden is not used, in clear and inside TLS in bridge mode.

The server offers CHUNKING and does not know BDAT.  Exim, which takes it up, bounces the mail.
"""

from __future__ import annotations

import smtplib
import ssl
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import lab as labs
from tests.clients.lab import HIDDEN, Lab
from tests.clients.matrix import MESSAGE
from tests.clients.senders import Exim

WAYS = pytest.mark.parametrize("server", HIDDEN)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="ehlo-lab-") as folder, labs.running(Path(folder), list(HIDDEN)) as running:
        yield running


@WAYS
@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "through the proxy"])
def test_exim_bounces_mail_for_a_server_that_offers_chunks_and_knows_none_unless_they_are_hidden(
    lab: Lab, server: str, proxied: bool
) -> None:
    exim = Exim().saying("sender.example", 3)
    if why := exim.missing():
        pytest.skip(why)
    if server.endswith("clear"):
        exim = exim.not_required()
    recipient = f"{uuid.uuid4().hex}@domain1.com"
    said = exim.send(lab.port(server, proxied), lab.certificates.ca, recipient, MESSAGE)
    arrived = lab.mail_to(recipient, 5 if proxied else 0.1)
    assert said.status == ("sent" if proxied else "bounced"), said.words
    assert (arrived is not None) is proxied
    if arrived is not None:
        assert arrived.data.endswith(MESSAGE)
        assert bool(arrived.tls) is (server == "chunks-unknown")


@WAYS
def test_no_client_is_shown_what_is_hidden_nor_what_is_nothing_without_it(lab: Lab, server: str) -> None:
    shown = []
    for proxied in (False, True):
        with smtplib.SMTP("127.0.0.1", lab.port(server, proxied), "sender.example", 10) as smtp:
            smtp.ehlo()
            shown.append(smtp.ehlo_resp or b"")
            if server == "chunks-unknown":
                smtp.starttls(context=ssl._create_unverified_context())
                smtp.ehlo()
                shown.append(smtp.ehlo_resp or b"")
    half = len(shown) // 2
    for direct, proxied_reply in zip(shown[:half], shown[half:], strict=True):
        gone = {b"CHUNKING", b"BINARYMIME", b"AUTH=NTLM", b"AUTH NTLM PLAIN"}
        assert gone <= {*direct.splitlines()}
        assert {*proxied_reply.splitlines()} == {*direct.splitlines()} - gone | {b"AUTH PLAIN"}
