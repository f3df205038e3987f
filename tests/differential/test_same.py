"""The same scripts with and without the proxy in front of real servers: clients see the same, servers keep the same."""

from __future__ import annotations

import re

import pytest

from tests.differential.breaker import broken
from tests.differential.conftest import NAMES, Compared, Lab
from tests.differential.scripts import BRIDGED, BROKEN, CLEAR, INSIDE

GO, OURS = re.compile(rb"^220 (2\.0\.0 )?Ready to start TLS\r\n\Z"), b"220 2.0.0 Ready to start TLS\r\n"
# The server ends with bytes unread: whether that is a FIN or a reset depends on how they came in.
ENDS_ANYHOW = {("smtp-sink", "a line of 20000")}
WITH_TLS = ("postfix", "aiosmtpd")


def check(compared: Compared) -> None:
    assert compared.proxied.same_for_all() == compared.direct.same_for_all()
    assert compared.proxied_mails == compared.direct_mails


@pytest.mark.parametrize("script", CLEAR)
@pytest.mark.parametrize("server", NAMES)
def test_in_clear(lab: Lab, server: str, script: str) -> None:
    compared = lab.compared(server, "clear")[script]
    if (server, script) in ENDS_ANYHOW:
        assert compared.proxied.ending in ("fin", "reset")
        compared.proxied.ending = compared.direct.ending
    check(compared)


@pytest.mark.parametrize("script", INSIDE)
@pytest.mark.parametrize("server", WITH_TLS)
def test_through_tls(lab: Lab, server: str, script: str) -> None:
    check(lab.compared(server, "tls")[script])


@pytest.mark.parametrize("script", BRIDGED)
@pytest.mark.parametrize("server", WITH_TLS)
def test_over_a_bridge(lab: Lab, server: str, script: str) -> None:
    compared = lab.compared(server, "bridge")[script]
    # The 220 to STARTTLS is the proxy's own here: it has asked the server first.
    for seen in (compared.direct, compared.proxied):
        seen.parts = [GO.sub(OURS, part) for part in seen.parts]
    check(compared)


@pytest.mark.parametrize("script", BROKEN)
@pytest.mark.parametrize("server", WITH_TLS)
def test_only_the_broken_reply_differs(lab: Lab, server: str, script: str) -> None:
    compared = lab.compared(server, "broken")[script]
    assert b"250-STARTTLS\r\n250-mail" not in compared.proxied.text
    # What the proxy repaired, broken again, is what the server said.
    compared.proxied.parts = [broken(compared.proxied.text)]
    check(compared)


def test_the_comparison_sees_tls_mails_and_repairs(lab: Lab) -> None:
    """It would be worth nothing if nothing happened in it."""
    for server in WITH_TLS:
        if server not in lab.servers:
            continue
        mail = lab.compared(server, "tls")["TLS, a mail"]
        assert mail.direct.handshakes == 1
        assert len(mail.direct_mails) == 1
        assert "hello" in mail.direct_mails[0]
        reply = lab.compared(server, "broken")["EHLO"]
        assert reply.direct.parts[1].startswith(b"250-STARTTLS\r\n250-mail.domain1.com\r\n")
    for server in lab.servers:
        assert lab.compared(server, "clear")["mail: a mail"].direct_mails
