"""How far both sides of a bridge are, and what is next."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import EhloContext, RepairPolicy, repair_reply
from proxy.smtp.session.events import ClientTls, DeadlineNearer, ServerTls, StarttlsAnswered, ToClient, ToServer
from proxy.smtp.session.parts.bridge import READY, Bridge
from proxy.smtp.session.parts.client import Client
from proxy.smtp.session.parts.server import Server
from proxy.smtp.session.parts.talk import Talk
from proxy.smtp.session.policy import BridgePolicy, SessionPolicy
from proxy.smtp.session.terms import Phase, Refusal, Reply

WITH = repair_reply(b"250-a.example\r\n250 STARTTLS\r\n", RepairPolicy(), EhloContext())
WITHOUT = repair_reply(b"250-a.example\r\n250 DSN\r\n", RepairPolicy(), EhloContext())


class Both:
    """A bridge, and what it stands on."""

    def __init__(self, client: str, server: str, *, required: bool = True) -> None:
        sides = BridgePolicy(client, server, required)
        self.talk = Talk(1000.0)
        self.client = Client()
        self.server = Server()
        policy = SessionPolicy(bridge=sides, ehlo_name=b"proxy.example")
        self.bridge = Bridge(policy, sides, self.talk, self.client, self.server)

    @property
    def first(self) -> tuple[int, bool]:
        owed = self.talk.owed[0]
        return owed.kind, owed.private


@pytest.mark.parametrize(
    ("client", "server", "facts"),
    [
        ("starttls", "starttls", (True, True, True, False)),
        ("starttls", "implicit", (True, True, False, False)),
        ("none", "starttls", (False, False, True, False)),
        ("implicit", "starttls", (False, False, True, True)),
    ],
)
def test_the_policy_says_whose_affair_starttls_is(client: str, server: str, facts: tuple[bool, ...]) -> None:
    both = Both(client, server)
    bridge = both.bridge
    assert (bridge.tls_missing, bridge.answers_starttls, bridge.asks_starttls, both.client.tls) == facts


def test_an_implicit_server_is_secured_first() -> None:
    both = Both("starttls", "implicit")
    both.bridge.open()
    assert (both.talk.phase, both.talk.done()) == (Phase.SECURING_SERVER, [ServerTls()])
    assert not both.bridge.server_ready()
    assert (both.talk.phase, both.first, both.server.tls) == (Phase.OPENING, (Reply.BANNER, False), True)


def test_a_client_without_starttls_waits_until_the_server_is_secured() -> None:
    both = Both("none", "starttls")
    both.bridge.open()
    assert (both.first, both.talk.done()) == ((Reply.BANNER, True), [DeadlineNearer()])
    both.talk.first_is_over()
    both.server.said(220)
    assert both.bridge.banner_held(b"220 hi\r\n") is None
    assert both.talk.done() == [ToServer(b"EHLO proxy.example\r\n")]
    both.talk.first_is_over()
    assert both.bridge.offers_read(WITH) is None
    assert (both.talk.done(), both.first) == ([ToServer(b"STARTTLS\r\n")], (Reply.STARTTLS, True))
    both.bridge.secure_server()
    assert not both.bridge.server_ready()
    assert both.talk.done() == [ServerTls(), ToClient(b"220 hi\r\n")]
    assert both.talk.phase == Phase.COMMANDS


def test_without_an_offer_it_is_a_failure_or_clear_as_the_operator_says() -> None:
    refusal = Both("none", "starttls").bridge.offers_read(WITHOUT)
    assert refusal is not None
    assert (refusal.outcome, refusal.status, refusal.when) == ("tls-failed", "4.7.0", Refusal.NOW)
    both = Both("none", "starttls", required=False)
    assert both.bridge.offers_read(WITHOUT) is None
    assert both.talk.done() == [ToClient(b"")]


def test_a_banner_that_refuses_is_never_a_refusal_of_ours() -> None:
    both = Both("none", "starttls")
    both.server.said(554)
    refusal = both.bridge.banner_held(b"554 no\r\n")
    assert refusal is not None
    assert (refusal.outcome, refusal.by, refusal.when) == ("server-closed", "server", Refusal.AT_NEXT)
    assert both.talk.done() == [ToClient(b"554 no\r\n")]


def test_the_client_is_answered_when_the_server_is_ready_and_begins_afresh() -> None:
    both = Both("starttls", "starttls")
    both.bridge.secure_server()
    both.talk.done()
    assert not both.bridge.server_ready()
    assert both.talk.phase == Phase.SECURING_SERVER, "it is the client's turn"
    both.bridge.accept_client()
    assert both.talk.done() == [ToClient(READY), StarttlsAnswered("accepted"), ClientTls()]
    assert both.talk.phase == Phase.SECURING_CLIENT
    both.bridge.client_ready()
    assert (both.client.tls, both.bridge.tls_missing, both.bridge.answers_starttls) == (True, False, False)
    assert both.talk.phase == Phase.COMMANDS


def test_a_server_that_is_not_what_it_should_be_is_a_454_or_a_421() -> None:
    both = Both("starttls", "starttls")
    assert both.bridge.server_failed("expired").when == Refusal.BEHIND_454
    assert both.talk.done() == [StarttlsAnswered("failed")]
    assert Both("none", "starttls").bridge.server_failed("expired").when == Refusal.NOW


def test_a_refused_starttls_may_end_in_clear_only_where_tls_is_not_required() -> None:
    refusal = Both("starttls", "starttls").bridge.starttls_refused("no", private=False)
    assert refusal is not None
    assert refusal.when == Refusal.BEHIND_454
    assert Both("starttls", "starttls", required=False).bridge.starttls_refused("no", private=False) is None


def test_a_fresh_connection_is_inside_tls_if_the_one_before_was() -> None:
    for inside in (False, True):
        both = Both("starttls", "starttls", required=False)
        if inside:
            both.server.in_tls()
        both.bridge.open_afresh()
        assert both.bridge.reopens_tls is inside
        both.server.reopen()
        both.bridge.open()
        assert both.first == (Reply.BANNER, True)
    assert both.bridge.server_ready(), "the greeting is due"
    assert (both.talk.phase, both.bridge.reopens_tls) == (Phase.COMMANDS, False)


def test_the_policy_says_what_becomes_of_starttls_in_a_reply() -> None:
    def starttls(client: str, server: str, *, inside: bool = False) -> tuple[bool, bool]:
        both = Both(client, server)
        if inside:
            both.bridge.client_ready()
        return both.bridge.starttls_shown()

    assert starttls("starttls", "starttls") == (False, False)
    assert starttls("starttls", "starttls", inside=True) == (True, False)
    assert starttls("none", "starttls") == (True, False)
    assert starttls("starttls", "none") == (False, True)
