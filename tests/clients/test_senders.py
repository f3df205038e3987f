"""Real mail programs against the broken server: what fails without the proxy, and arrives through it.

TLS is required of each, and checked against the server's own name and authority where the program can: a message that
arrived came over a TLS session that ends at the server and nowhere before.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.clients import postfix as postfixes
from tests.clients.lab import Lab
from tests.clients.matrix import MESSAGE
from tests.clients.postfix import Postfix
from tests.clients.senders import ALL, SENDER, Sender

BROKEN = "greeting-not-first"

# Whether a program that wants TLS finds STARTTLS in front of the greeting, without the proxy. Those that take the first
# line for the greeting, as RFC 5321 says, do not.
FAIL_TODAY = {"Exim", "Python smtplib", "aiosmtplib"}
# And which are misled by `250-starttls`, which is legal (RFC 5321 2.4).
FAIL_ON_LOWER_CASE = {"swaks", "Twisted"}


def usable(sender: Sender) -> Sender:
    if why := sender.missing():
        pytest.skip(why)
    return sender


def send(lab: Lab, sender: Sender, finding: str, proxied: bool) -> tuple[str, str]:
    """The recipient, and what the program said."""
    recipient = f"{uuid.uuid4().hex}@domain1.com"
    said = sender.send(lab.port(finding, proxied), lab.certificates.ca, recipient, MESSAGE)
    return recipient, said.words


each_sender = pytest.mark.parametrize("sender", ALL, ids=lambda sender: sender.name)


@each_sender
@pytest.mark.parametrize("finding", [BROKEN, "keyword-case", "none"])
def test_through_the_proxy_the_message_arrives_over_tls_and_byte_for_byte(
    lab: Lab, sender: Sender, finding: str
) -> None:
    recipient, words = send(lab, usable(sender), finding, proxied=True)
    arrived = lab.mail_to(recipient, 5)
    assert arrived is not None, words
    assert arrived.tls.startswith("TLSv1.")
    assert arrived.data == MESSAGE if sender.exact else arrived.data.endswith(MESSAGE)


@each_sender
def test_without_the_proxy_what_fails_today_fails(lab: Lab, sender: Sender) -> None:
    recipient, words = send(lab, usable(sender), BROKEN, proxied=False)
    arrived = lab.mail_to(recipient, 0.3 if sender.name in FAIL_TODAY else 5)
    assert (arrived is None) == (sender.name in FAIL_TODAY), words


@pytest.mark.parametrize("sender", [s for s in ALL if s.name in FAIL_ON_LOWER_CASE], ids=lambda sender: sender.name)
def test_without_the_proxy_lower_case_keywords_are_missed(lab: Lab, sender: Sender) -> None:
    recipient, words = send(lab, usable(sender), "keyword-case", proxied=False)
    assert lab.mail_to(recipient, 0.3) is None, words


@each_sender
def test_a_good_server_gets_mail_without_the_proxy_too(lab: Lab, sender: Sender) -> None:
    """What shows that the failures above are the server's, not the lab's."""
    recipient, words = send(lab, usable(sender), "none", proxied=False)
    arrived = lab.mail_to(recipient, 5)
    assert arrived is not None, words
    assert arrived.data == MESSAGE if sender.exact else arrived.data.endswith(MESSAGE)


# ---- Postfix, with TLS required: `encrypt` takes any certificate, `secure` only the server's own name ----------------

LEVELS = {
    "any": "encrypt",
    "secure": "secure match=mail.domain1.com servername=mail.domain1.com",
    "other": "secure match=other.domain1.com servername=mail.domain1.com",
}


@pytest.fixture(scope="module")
def postfix(lab: Lab) -> Iterator[Postfix]:
    if why := postfixes.missing():
        pytest.skip(why)
    transports = {
        f"{level}-{'proxied' if proxied else 'direct'}.example": f"{level}:[127.0.0.1]:{lab.port(BROKEN, proxied)}"
        for level in LEVELS
        for proxied in (False, True)
    }
    relayhost = {"relayhost": f"[127.0.0.1]:{lab.port(BROKEN, True)}"}
    with postfixes.running(lab.folder / "postfix", lab.certificates, transports, LEVELS, relayhost) as running:
        yield running


def mail(postfix: Postfix, domain: str) -> tuple[str, postfixes.Delivery]:
    recipient = f"{uuid.uuid4().hex}@{domain}"
    postfix.submit(SENDER, recipient, MESSAGE)
    delivery = postfix.delivery(recipient, 20)
    assert delivery is not None, postfix.log
    return recipient, delivery


@pytest.mark.root
@pytest.mark.parametrize("domain", ["any-proxied.example", "secure-proxied.example", "by-relayhost.example"])
def test_postfix_delivers_over_tls_through_the_proxy(lab: Lab, postfix: Postfix, domain: str) -> None:
    recipient, delivery = mail(postfix, domain)
    assert delivery.status == "sent", delivery.reason
    arrived = lab.mail_to(recipient, 5)
    assert arrived is not None
    assert arrived.tls == "TLSv1.3"
    assert arrived.data.endswith(MESSAGE)
    assert arrived.data.removesuffix(MESSAGE).startswith(b"Received: ")


@pytest.mark.root
def test_postfix_verifies_the_servers_own_certificate_through_the_proxy(lab: Lab, postfix: Postfix) -> None:
    """`secure` proves that TLS is end to end: the proxy has no key for that name."""
    mail(postfix, "secure-proxied.example")
    port = lab.port(BROKEN, True)
    assert f"Verified TLS connection established to 127.0.0.1[127.0.0.1]:{port}" in postfix.log


@pytest.mark.root
def test_postfix_refuses_another_name_through_the_proxy(lab: Lab, postfix: Postfix) -> None:
    recipient, delivery = mail(postfix, "other-proxied.example")
    assert (delivery.status, delivery.reason) == ("deferred", "Server certificate not verified")
    assert lab.mail_to(recipient) is None


@pytest.mark.root
@pytest.mark.parametrize("level", LEVELS)
def test_postfix_without_the_proxy_is_not_offered_tls(lab: Lab, postfix: Postfix, level: str) -> None:
    recipient, delivery = mail(postfix, f"{level}-direct.example")
    assert delivery.status == "deferred"
    assert delivery.reason.startswith("TLS is required, but was not offered by host"), delivery.reason
    assert lab.mail_to(recipient) is None
