"""How far both sides of a bridge are, and what is next."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import EhloContext, RepairPolicy, repair_reply
from proxy.smtp.session.events import ClientTls, DropServer, ServerTls, StarttlsAnswered, ToClient, ToServer
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

    def __init__(self, client: str = "", server: str = "", *, required: bool = True) -> None:
        sides = BridgePolicy(client, server, required) if client else None
        self.talk = Talk(1000.0)
        self.client = Client()
        self.server = Server()
        policy = SessionPolicy(bridge=sides, ehlo_name=b"proxy.example")
        self.bridge = Bridge(policy, self.talk, self.client, self.server)

    @property
    def first(self) -> tuple[int, bool]:
        owed = self.talk.owed.first
        assert owed is not None
        return owed.kind, owed.private


@pytest.mark.parametrize(
    ("client", "server", "facts"),
    [
        ("", "", (False, False, False, False)),
        ("starttls", "starttls", (True, True, True, True)),
        ("starttls", "implicit", (True, True, True, False)),
        ("none", "starttls", (False, False, True, True)),
    ],
)
def test_the_policy_says_whose_affair_starttls_is(client: str, server: str, facts: tuple[bool, ...]) -> None:
    bridge = Both(client, server).bridge
    assert (bridge.tls_missing, bridge.answers_starttls, bridge.required, bridge.asks_starttls) == facts


def test_pass_through_awaits_the_banner_which_the_client_sees() -> None:
    both = Both()
    both.bridge.open()
    assert (both.talk.phase, both.first, both.talk.done()) == (Phase.OPENING, (Reply.BANNER, False), [])


def test_an_implicit_server_is_secured_first() -> None:
    both = Both("starttls", "implicit")
    both.bridge.open()
    assert (both.talk.phase, both.talk.done(), both.bridge.securing_server) == (Phase.SECURING, [ServerTls()], True)
    assert both.bridge.server_ready() is None
    assert (both.talk.phase, both.first, both.server.tls) == (Phase.OPENING, (Reply.BANNER, False), True)


def test_a_client_without_starttls_waits_until_the_server_is_secured() -> None:
    both = Both("none", "starttls")
    both.bridge.open()
    assert both.first == (Reply.BANNER, True)
    both.talk.owed.first_is_over()
    both.server.said(220)
    assert both.bridge.banner_held(b"220 hi\r\n") is None
    assert both.talk.done() == [ToServer(b"EHLO proxy.example\r\n")]
    both.talk.owed.first_is_over()
    assert both.bridge.offers_read(WITH) is None
    assert (both.talk.done(), both.first) == ([ToServer(b"STARTTLS\r\n")], (Reply.STARTTLS, True))
    both.bridge.secure_server()
    assert both.bridge.server_ready() is None
    assert both.talk.done() == [ServerTls(), ToClient(b"220 hi\r\n")]
    assert (both.talk.phase, both.bridge.clients_turn) == (Phase.COMMANDS, False)


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
    assert both.bridge.server_ready() is None
    assert both.bridge.clients_turn
    both.bridge.accept_client()
    assert both.talk.done() == [ToClient(READY), StarttlsAnswered("accepted"), ClientTls()]
    assert (both.bridge.securing_client, both.bridge.securing_server) == (True, False)
    both.bridge.client_ready()
    bridge = both.bridge
    assert (bridge.inside_tls, bridge.tls_missing, bridge.answers_starttls, bridge.securing_client) == (
        True, False, False, False,
    )  # fmt: skip


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


def test_an_end_at_the_next_command_drops_the_server() -> None:
    both = Both("starttls", "starttls")
    refusal = Refusal("4.7.0", "why", "tls-failed")
    both.bridge.end_at_next(refusal)
    assert both.bridge.must_end is refusal
    assert (both.talk.phase, both.talk.done()) == (Phase.COMMANDS, [DropServer()])


@pytest.mark.parametrize(
    ("line", "kind"), [(b"EHLO a.example\r\n", Reply.EHLO), (b"HELO a.example\r\n", Reply.HELO), (b"", None)]
)
def test_a_fresh_connection_hears_the_clients_greeting_again(line: bytes, kind: int | None) -> None:
    both = Both("starttls", "starttls", required=False)
    if line:
        both.client.greets(line, kind == Reply.EHLO, b"", "repair")
    both.bridge.open_afresh()
    assert both.bridge.reopening
    assert both.bridge.repeats_greeting
    both.bridge.open()
    assert both.first == (Reply.BANNER, True)
    both.talk.done()
    both.talk.owed.first_is_over()
    both.server.said(220)
    assert both.bridge.banner_held(b"220 hi\r\n") is None
    if kind is None:
        assert not both.bridge.reopening
    else:
        assert (both.talk.done(), both.first) == ([ToServer(line)], (kind, True))
        both.bridge.greeted_again()
        assert not both.bridge.reopening


def test_starttls_waits_for_the_replies_that_are_owed() -> None:
    both = Both("starttls", "none")
    both.talk.owed.add(Reply.NOOP, 1.0)
    assert both.bridge.waits_to_answer()
    assert both.bridge.starttls_waits
    both.talk.owed.first_is_over()
    assert not both.bridge.waits_to_answer()


def test_the_context_of_a_reply_says_what_becomes_of_starttls() -> None:
    def starttls(client: str, server: str, *, inside: bool = False) -> tuple[bool, bool]:
        both = Both(client, server)
        if inside:
            both.bridge.client_ready()
        context = both.bridge.context(may_see=True)
        return context.hide_starttls, context.offer_starttls

    assert starttls("", "") == (False, False)
    assert starttls("starttls", "starttls") == (False, False)
    assert starttls("starttls", "starttls", inside=True) == (True, False)
    assert starttls("none", "starttls") == (True, False)
    assert starttls("starttls", "none") == (False, True)
