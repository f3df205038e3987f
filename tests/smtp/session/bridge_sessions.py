"""Beginnings of conversations in bridge mode, and what the tests of it share."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.events import (
    End,
    FreshConnection,
    Injected,
    ServerTls,
    ToClient,
    ToServer,
)
from proxy.smtp.session.policy import BridgePolicy, SessionPolicy
from tests.playbook import (
    BANNER,
    EHLO,
    GOOD,
    Client,
    Connected,
    Notice,
    Playbook,
    Server,
)

STARTTLS = b"STARTTLS\r\n"
READY = b"220 2.0.0 Ready to start TLS\r\n"
GO_AHEAD = b"220 go ahead\r\n"
OWN_EHLO = b"EHLO proxy.example\r\n"
WITHOUT = b"250-mail.example.com\r\n250 8BITMIME\r\n"
PLAIN = b"250-mail.example.com\r\n250-STARTTLS\r\n250 8BITMIME\r\n"
MAIL = b"MAIL FROM:<>\r\n"
PIPELINED = Injected("starttls-pipelined", "bytes of the client behind STARTTLS, before the 220")
REPLIED = Injected("starttls-response-injection", "bytes of the server behind its 220 to STARTTLS")
EARLY = Injected("starttls-response-injection", "bytes of the server while TLS was being set up")
BOTH = pytest.mark.parametrize("required", [True, False])


def bridge(
    client: str = "starttls", server: str = "starttls", *, required: bool = True, **repair: object
) -> SessionPolicy:
    return SessionPolicy(
        bridge=BridgePolicy(client, server, required),
        ehlo_name=b"proxy.example",
        repair=RepairPolicy(**repair),  # type: ignore[arg-type]  # as the test says
    )


def opened(policy: SessionPolicy, *, trusted: bool = True, loud: bool = False) -> Playbook:
    """Connected, the banner shown, EHLO answered with an offer of STARTTLS."""
    book = Playbook(policy, trusted=trusted)
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER)
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(GOOD) << ToClient(GOOD)
    book.loud = loud
    return book


def securing(policy: SessionPolicy, *, loud: bool = False) -> Playbook:
    """The server has said 220; its handshake is under way."""
    book = opened(policy, loud=loud)
    assert book >> Client(STARTTLS) << ToServer(STARTTLS) >> Server(GO_AHEAD) << ServerTls()
    return book


def no_tls(*words: str, behind: bytes = b"") -> Notice:
    return Notice("454 4.7.0", "TLS not available", "route default", *words, behind=behind)


def ended(cause: str, outcome: str = "tls-failed", by: str = "proxy") -> tuple[Notice, End]:
    return Notice("421 4.7.0", cause), End(outcome, by, cause)


def refused(greeting: bytes = EHLO, *, trusted: bool = True, policy: SessionPolicy | None = None) -> Playbook:
    """A refusal where TLS is not required; the fresh connection is awaited."""
    policy = policy or bridge(required=False)
    book = Playbook(policy, trusted=trusted)
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER)
    if greeting:
        reply = GOOD if b"EHLO" in greeting else b"250 mail.example.com\r\n"
        assert book >> Client(greeting) << ToServer(greeting) >> Server(reply) << ToClient(reply)
    assert book >> Client(STARTTLS) << ToServer(STARTTLS)
    assert book >> Server(b"454 no\r\n") << no_tls("454 no") << FreshConnection()
    return book
