"""XCLIENT and XFORWARD: no stranger gets past the reading while the server offers them to the proxy's address."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.events import AskOffers, End, ReleaseClient, ReleaseServer, ToClient, ToServer, XclientOffered
from proxy.smtp.session.policy import OFFERS_KNOWN_FOR, DestinationMemory, SessionPolicy
from tests.playbook import (
    BANNER,
    EHLO,
    GOOD,
    Client,
    Connected,
    Notice,
    OffersKnown,
    Playbook,
    Server,
    Told,
    greeted,
)

OFFERING = b"250-mail.example.com\r\n250-XCLIENT NAME ADDR PROTO HELO\r\n250-STARTTLS\r\n250 DSN\r\n"
FORWARDING = b"250-mail.example.com\r\n250 XFORWARD NAME ADDR\r\n"
REFUSED = End("refused", "proxy", "not available to this client")
XCLIENT = SessionPolicy(xclient=True)
MODES = pytest.mark.parametrize("mode", ["repair", "observe", "off"])


def policy(mode: str) -> SessionPolicy:
    return SessionPolicy(repair=RepairPolicy(mode=mode))


class Stranger421(Notice):
    """421 4.7.1 that tells a stranger nothing of route or destination."""

    def __init__(self, behind: bytes = b"") -> None:
        super().__init__("421 4.7.1", "not available", behind=behind)

    def __eq__(self, other: object) -> bool:
        told = isinstance(other, ToClient) and (b"default" in other.data or b"192.0.2" in other.data)
        return super().__eq__(other) and not told


def stranger(policy: SessionPolicy | None = None, memory: DestinationMemory | None = None) -> Playbook:
    return greeted(policy, trusted=False, memory=memory)


# -- the offer is seen -----------------------------------------------------------------------------------------------


@MODES
@pytest.mark.parametrize("reply", [OFFERING, FORWARDING, b"250-x.example\r\n250-xclient\r\n250 DSN\r\n"])
def test_an_offer_to_a_stranger_ends_the_session_in_every_mode(reply: bytes, mode: str) -> None:
    assert (
        stranger(policy(mode))
        >> Client(EHLO + b"MAIL FROM:<>\r\n")
        << ToServer(EHLO)
        >> Server(reply)
        << XclientOffered()
        << Stranger421()
        << REFUSED
        >> Client(b"XCLIENT ADDR=127.0.0.1\r\n")
    )


def test_a_trusted_client_sees_the_offer_and_may_take_it() -> None:
    xclient = b"XCLIENT ADDR=203.0.113.9\r\n"
    assert (
        greeted(trusted=True)
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(OFFERING)
        << ToClient(OFFERING)
        >> Client(xclient)
        << ToServer(xclient)
        >> Server(b"220 mail.example.com ESMTP\r\n")
        << ToClient(b"220 mail.example.com ESMTP\r\n")
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(GOOD)
        << ToClient(GOOD)
    )


def test_an_offer_in_a_line_that_comes_late_is_seen_too() -> None:
    for mode in ("repair", "observe", "off"):
        book = stranger(policy(mode))
        assert book >> Client(EHLO) << ToServer(EHLO) >> Server(GOOD) << ToClient(GOOD)
        assert book >> Server(b"250-XCLIENT ADDR\r\n") << XclientOffered() << Stranger421() << REFUSED


def test_an_offer_behind_a_reply_that_was_no_answer_to_ehlo_is_seen_too() -> None:
    twice = b"220 mail.example.com ESMTP\r\n"
    book = stranger()
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(twice) << ToClient(twice)
    assert book >> Server(OFFERING) << ToClient(OFFERING[:22]) << XclientOffered() << Stranger421() << REFUSED


@MODES
def test_an_offer_far_behind_in_a_reply_that_is_too_long_is_seen_too(mode: str) -> None:
    head = b"250-mail.example.com\r\n" * 101
    book = stranger(policy(mode))
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(head) << ToClient(head)
    more = b"250-DSN\r\n"
    assert (
        book
        >> Client(b"MAIL FROM:<>\r\n")
        >> Server(more + b"250-XCLIENT ADDR\r\n")
        << ToClient(more)
        << XclientOffered()
        << Stranger421()
        << REFUSED
    )


@MODES
def test_an_offer_in_an_endless_line_is_seen_too(mode: str) -> None:
    head = b"250-mail.example.com\r\n" * 101
    line = b"250-XCLIENT " + b"ADDR " * 5000
    book = stranger(policy(mode))
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(line) << XclientOffered() << Stranger421() << REFUSED
    book = stranger(policy(mode))
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(head) << ToClient(head)
    assert book >> Server(line) << XclientOffered() << Stranger421() << REFUSED


def test_a_reply_that_is_too_long_and_offers_nothing_proves_that() -> None:
    long = b"250-mail.example.com\r\n" * 101 + b"250 DSN\r\n"
    book = stranger()
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(long) << ToClient(long)
    assert (
        book >> Client(b"MAIL FROM:<>\r\n") << ToServer(b"MAIL FROM:<>\r\n") << ReleaseClient() << ReleaseServer(False)
    )


def test_to_a_trusted_client_a_reply_that_is_too_long_may_offer_it() -> None:
    long = b"250-mail.example.com\r\n" * 101 + b"250-XCLIENT ADDR\r\n250 DSN\r\n"
    book = greeted()
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(long) << ToClient(long)


# -- no EHLO ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [b"MAIL FROM:<>\r\n", b"XCLIENT ADDR=127.0.0.1\r\n", b"XFORWARD ADDR=127.0.0.1\r\n", b"XXCLIENT\r\n",
     b"STARTTLS\r\n", b"\r\n", b"XCLI\0ENT ADDR=127.0.0.1\r\n", b"NOOP" + b"x" * 5000],
    ids=lambda line: repr(line[:12]),
)  # fmt: skip
def test_who_never_said_ehlo_waits_until_it_is_known_and_is_refused_if_it_is_offered(line: bytes) -> None:
    memory = DestinationMemory()
    assert (
        stranger(memory=memory)
        >> Client(line)
        << AskOffers()
        >> Client(b"XCLIENT ADDR=127.0.0.1\r\n")
        >> OffersKnown(True)
        << XclientOffered()
        << Stranger421()
        << REFUSED
    )
    assert memory.offers(1000.0)


def test_if_it_is_not_offered_all_goes_on_in_order() -> None:
    assert (
        stranger()
        >> Client(b"HELO x\r\nMAIL FROM:<>\r\nRCPT ")
        << ToServer(b"HELO x\r\n")
        << AskOffers()
        >> Client(b"TO:<you@example.com>\r\n")
        >> Server(b"250 x\r\n")
        << ToClient(b"250 x\r\n")
        >> OffersKnown(False)
        << ToServer(b"MAIL FROM:<>\r\nRCPT TO:<you@example.com>\r\n")
        << ReleaseClient()
        << ReleaseServer(False)
    )


def test_a_verb_that_is_read_goes_on_with_what_waited_behind_it() -> None:
    assert (
        stranger()
        >> Client(b"XFORWARD NAME=x\r\nNOOP\r\n")
        << AskOffers()
        >> OffersKnown(False)
        << ToServer(b"XFORWARD NAME=x\r\nNOOP\r\n")
        >> Server(b"502 no\r\n250 ok\r\n")
        << ToClient(b"502 no\r\n250 ok\r\n")
    )


def test_if_it_cannot_be_found_out_the_session_ends_for_now() -> None:
    cause = "could not find out whether the server offers XCLIENT"
    assert (
        stranger()
        >> Client(b"MAIL FROM:<>\r\n")
        << AskOffers()
        >> OffersKnown(None)
        << Notice("421 4.4.2", cause)
        << End("error", "proxy", cause)
        >> OffersKnown(False)
    )


def test_what_was_learnt_a_moment_ago_is_not_asked_again() -> None:
    memory = DestinationMemory()
    assert stranger(memory=memory) >> Client(EHLO) << ToServer(EHLO) >> Server(GOOD) << ToClient(GOOD)
    mail = b"MAIL FROM:<>\r\n"
    assert stranger(memory=memory) >> Client(mail) << ToServer(mail) << ReleaseClient() << ReleaseServer(False)
    memory.offers_known_at = 1000.0 - OFFERS_KNOWN_FOR - 1
    assert stranger(memory=memory) >> Client(mail) << AskOffers()
    memory.learn_offers(True, 1000.0)
    assert stranger(memory=memory) >> Client(mail) << XclientOffered() << Stranger421() << REFUSED


def test_a_refused_ehlo_proves_nothing() -> None:
    book = stranger()
    assert (
        book >> Client(b"EHLO\r\n") << ToServer(b"EHLO\r\n") >> Server(b"501 syntax\r\n") << ToClient(b"501 syntax\r\n")
    )
    assert book >> Client(b"XCLIENT ADDR=127.0.0.1\r\n") << AskOffers()


def test_an_offer_in_a_reply_with_a_refusal_in_it_is_one_all_the_same() -> None:
    reply = b"250-mail.example.com\r\n450-busy\r\n250-XCLIENT ADDR\r\n250 DSN\r\n"
    book = stranger()
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(reply) << XclientOffered() << Stranger421() << REFUSED


def test_starttls_without_ehlo_does_not_lead_a_stranger_into_tls_where_nothing_is_seen() -> None:
    book = stranger()
    assert book >> Client(b"STARTTLS\r\n") << AskOffers() >> OffersKnown(False) << ToServer(b"STARTTLS\r\n")
    assert (
        stranger()
        >> Client(b"STARTTLS\r\n")
        << AskOffers()
        >> OffersKnown(True)
        << XclientOffered()
        << Stranger421()
        << REFUSED
    )


def test_a_trusted_client_is_not_asked_about() -> None:
    for line in (b"XCLIENT ADDR=127.0.0.1\r\n", b"XFORWARD NAME=x\r\n"):
        assert greeted(trusted=True) >> Client(line) << ToServer(line)


# -- XCLIENT of the proxy's own --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("198.51.100.7", b"XCLIENT ADDR=198.51.100.7 NAME=[UNAVAILABLE]\r\n"),
        ("2001:db8::7", b"XCLIENT ADDR=IPV6:2001:db8::7 NAME=[UNAVAILABLE]\r\n"),
    ],
)
def test_the_clients_own_address_is_sent_and_only_the_last_reply_is_shown(address: str, sent: bytes) -> None:
    book = Playbook(XCLIENT, trusted=False, address=address, loud=True)
    assert (
        book
        >> Connected()
        >> Server(BANNER)
        << ToClient(BANNER)
        >> Client(EHLO + b"MAIL FROM:<>\r\n")
        << ToServer(EHLO)
        >> Server(OFFERING)
        << ToServer(sent)
        >> Server(b"220 mail.exam")
        >> Server(b"ple.com ESMTP\r\n")
        << ToServer(EHLO)
        >> Server(b"250-STARTTLS\r\n250-mail.example.com\r\n250 DSN\r\n")
        << Told("ehlo greeting-not-first")
        << ToClient(b"250-mail.example.com\r\n250-STARTTLS\r\n250 DSN\r\n")
        << ToServer(b"MAIL FROM:<>\r\n")
        << ReleaseClient()
        >> Server(b"250 ok\r\n")
        << ToClient(b"250 ok\r\n")
        << ReleaseServer(False)
    )


def sent_xclient(memory: DestinationMemory | None = None, offering: bytes = OFFERING) -> Playbook:
    book = stranger(XCLIENT, memory)
    sent = b"XCLIENT ADDR=198.51.100.7" + (b" NAME=[UNAVAILABLE]" if b"NAME" in offering else b"") + b"\r\n"
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(offering) << ToServer(sent)
    return book


def test_a_server_that_takes_no_name_gets_none() -> None:
    assert sent_xclient(offering=b"250-mail.example.com\r\n250 xclient ADDR\r\n")


def test_a_server_that_still_offers_it_then_trusts_the_clients_own_address() -> None:
    memory = DestinationMemory()
    book = sent_xclient(memory)
    assert book >> Server(BANNER) << ToServer(EHLO) >> Server(OFFERING) << ToClient(OFFERING)
    assert memory.offers(book.player.now) is None, "it says nothing of what is offered to the proxy's address"
    assert book >> Client(b"MAIL FROM:<>\r\n") << ToServer(b"MAIL FROM:<>\r\n") << ReleaseClient()


def test_a_server_that_then_offers_nothing_is_not_taken_for_one_that_never_does() -> None:
    memory = DestinationMemory()
    assert sent_xclient(memory) >> Server(BANNER) << ToServer(EHLO) >> Server(GOOD) << ToClient(GOOD)
    assert stranger(XCLIENT, memory) >> Client(b"MAIL FROM:<>\r\n") << AskOffers()


def test_it_is_sent_once() -> None:
    book = sent_xclient()
    assert book >> Server(BANNER) << ToServer(EHLO) >> Server(OFFERING) << ToClient(OFFERING)
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(OFFERING) << ToClient(OFFERING)


@pytest.mark.parametrize("reply", [b"550 no\r\n", b"421 no\r\n", b"250 fine\r\n"])
def test_a_server_that_refuses_it_gets_no_session(reply: bytes) -> None:
    end = End("refused", "proxy", "the server refused XCLIENT")
    assert sent_xclient() >> Server(reply) << Notice("421 4.7.1", "refused XCLIENT") << end


def test_late_lines_of_the_first_reply_are_not_its_answer() -> None:
    cause = "its EHLO reply went on while another reply was due"
    actions = sent_xclient().player.happens(Server(b"250-8BITMIME\r\n"))
    assert actions[-2:] == [Notice("421 4.4.2", cause), End("error", "server", cause)]


@pytest.mark.parametrize("offering", [FORWARDING, b"250-mail.example.com\r\n250 XCLIENT NAME PROTO\r\n"])
def test_where_the_address_cannot_be_sent_the_stranger_is_refused(offering: bytes) -> None:
    book = stranger(XCLIENT)
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(offering) << XclientOffered() << Stranger421() << REFUSED


def test_without_an_address_nothing_is_sent() -> None:
    book = Playbook(XCLIENT, trusted=False, address="")
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER)
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(OFFERING) << XclientOffered() << Stranger421() << REFUSED


def test_it_is_sent_for_a_trusted_client_too() -> None:
    book = greeted(XCLIENT)
    assert (
        book
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(OFFERING)
        << ToServer(b"XCLIENT ADDR=198.51.100.7 NAME=[UNAVAILABLE]\r\n")
    )
