"""XCLIENT and XFORWARD: no stranger gets past the reading while the server offers them to the proxy's address."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.events import (
    End,
    FreshConnection,
    ReleaseClient,
    ReleaseServer,
    ToClient,
    ToServer,
    XclientOffered,
)
from proxy.smtp.session.policy import OFFERS_KNOWN_FOR, BridgePolicy, DestinationMemory, SessionPolicy
from tests.playbook import (
    BANNER,
    EHLO,
    GOOD,
    Client,
    Connected,
    Notice,
    Playbook,
    Server,
    ServerEnds,
    Told,
    greeted,
)

OFFERING = b"250-mail.example.com\r\n250-XCLIENT NAME ADDR PROTO HELO\r\n250-STARTTLS\r\n250 DSN\r\n"
FORWARDING = b"250-mail.example.com\r\n250 XFORWARD NAME ADDR\r\n"
MAIL = b"MAIL FROM:<>\r\n"
HELO = b"HELO printer\r\n"
OWN_EHLO = b"EHLO localhost\r\n"
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
    [MAIL, b"XCLIENT ADDR=127.0.0.1\r\n", b"XFORWARD ADDR=127.0.0.1\r\n", b"XXCLIENT\r\n",
     b"\r\n", b"XCLI\0ENT ADDR=127.0.0.1\r\n", b"NOOP" + b"x" * 5000, b"\x16\x03\x01\0\x05hello\n"],
    ids=lambda line: repr(line[:12]),
)  # fmt: skip
@MODES
def test_who_never_said_ehlo_waits_until_the_server_was_asked_and_is_refused_if_it_is_offered(
    line: bytes, mode: str
) -> None:
    memory = DestinationMemory()
    assert (
        stranger(policy(mode), memory=memory)
        >> Client(line)
        << ToServer(OWN_EHLO)
        >> Client(b"XCLIENT ADDR=127.0.0.1\r\n")
        >> Server(OFFERING)
        << XclientOffered()
        << Stranger421()
        << REFUSED
    )
    assert memory.offers(1000.0)


def test_if_it_is_not_offered_all_goes_on_in_order_and_the_client_hears_nothing_of_it() -> None:
    book = stranger()
    book.loud = True
    assert (
        book
        >> Client(HELO + MAIL + b"RCPT ")
        << Told("client-name-invalid HELO printer")
        << ToServer(HELO)
        >> Client(b"TO:<you@example.com>\r\n")
        >> Server(b"250 x\r\n")
        << ToClient(b"250 x\r\n")
        << Told("privately EHLO printer")
        << ToServer(b"EHLO printer\r\n")
        >> Server(GOOD[:30])
        >> Server(GOOD[30:])
        << Told("privately HELO printer")
        << ToServer(HELO)
        >> Server(b"250-hello\r\n250 x\r\n")
        << ToServer(MAIL + b"RCPT TO:<you@example.com>\r\n")
        << ReleaseClient()
        << ReleaseServer(False)
    )


def helo(book: Playbook | None = None, line: bytes = b"HELO printer\r\n", code: bytes = b"250") -> Playbook:
    book = book or stranger()
    assert book >> Client(line) << ToServer(line) >> Server(code + b" x\r\n") << ToClient(code + b" x\r\n")
    return book


@pytest.mark.parametrize(
    "reply", [b"500 what\r\n", b"502 no\r\n", b"501-a\r\n501 b\r\n", b"550 no\r\n", b"451 later\r\n", b"354 hm\r\n",
              b"421 no EHLO\r\n"]
)  # fmt: skip
def test_any_reply_that_is_not_2xx_counts_as_not_offered(reply: bytes) -> None:
    memory = DestinationMemory()
    assert (
        helo(stranger(memory=memory))
        >> Client(MAIL)
        << ToServer(b"EHLO printer\r\n")
        >> Server(reply)
        << ToServer(HELO)
        >> Server(b"250 x\r\n")
        << ToServer(MAIL)
        << ReleaseClient()
        << ReleaseServer(False)
    )
    assert memory.offers(1000.0) is False


def test_a_client_that_has_said_nothing_gets_rset_behind_it() -> None:
    for answer in (b"250 ok\r\n", b"503 first a mail\r\n"):
        assert (
            stranger()
            >> Client(b"XFORWARD NAME=x\r\nNOOP\r\n")
            << ToServer(OWN_EHLO)
            >> Server(GOOD)
            << ToServer(b"RSET\r\n")
            >> Server(answer)
            << ToServer(b"XFORWARD NAME=x\r\nNOOP\r\n")
            >> Server(b"502 no\r\n250 ok\r\n")
            << ToClient(b"502 no\r\n250 ok\r\n")
        )


@pytest.mark.parametrize("line", [b"HELO\r\n", b"HELO a\x01b\r\n", b"HELO a b\r\n", b"HELO " + b"x" * 256 + b"\r\n"])
def test_a_name_that_can_be_none_is_not_said_in_ehlo(line: bytes) -> None:
    """A server that refuses it would have refused to tell what it offers."""
    assert helo(line=line) >> Client(MAIL) << ToServer(OWN_EHLO) >> Server(GOOD) << ToServer(line)


def test_a_helo_that_was_refused_is_none() -> None:
    assert helo(code=b"501") >> Client(MAIL) << ToServer(OWN_EHLO) >> Server(GOOD) << ToServer(b"RSET\r\n")


@pytest.mark.parametrize("refusal", [b"503 Duplicate HELO/EHLO\r\n", b"421 bye\r\n", b"", b"502 no\r\n"])
def test_where_asking_breaks_the_connection_another_is_made_and_nothing_is_asked(refusal: bytes) -> None:
    memory = DestinationMemory()
    book = helo(stranger(memory=memory))
    assert book >> Client(MAIL) << ToServer(b"EHLO printer\r\n")
    if refusal:
        assert book >> Server(GOOD) << ToServer(HELO) >> Server(refusal) << FreshConnection()
    else:
        assert book >> ServerEnds() << FreshConnection()
    assert (
        book
        >> Client(b"RCPT TO:<a@b.example>\r\n")
        >> Connected()
        >> Server(BANNER)
        << ToServer(HELO)
        >> Server(b"250 x\r\n")
        << ToServer(MAIL + b"RCPT TO:<a@b.example>\r\n")
        << ReleaseClient()
        << ReleaseServer(False)
    )
    assert helo(stranger(memory=memory)) >> Client(MAIL) << ToServer(MAIL) << ReleaseClient() << ReleaseServer(False)


def test_another_server_behind_the_fresh_connection_is_asked_and_may_break_only_itself() -> None:
    book = helo()
    assert book >> Client(MAIL) << ToServer(b"EHLO printer\r\n") >> ServerEnds() << FreshConnection()
    book.player.memory = DestinationMemory()
    assert (
        book >> Connected() >> Server(BANNER) << ToServer(HELO) >> Server(b"250 x\r\n") << ToServer(b"EHLO printer\r\n")
    )
    cause = "the server ended the connection"
    assert book >> ServerEnds() << Notice("421 4.4.2", cause) << End("server-closed", "server", cause)


def test_it_is_asked_behind_the_replies_to_all_that_the_client_has_said() -> None:
    noop = b"NOOP\r\n"
    assert (
        stranger()
        >> Client(HELO + noop + MAIL)
        << ToServer(HELO + noop)
        >> Server(b"250 x\r\n")
        << ToClient(b"250 x\r\n")
        >> Server(b"250 ok\r\n")
        << ToClient(b"250 ok\r\n")
        << ToServer(b"EHLO printer\r\n")
    )


def test_xclient_is_sent_at_an_ehlo_of_the_clients_own_only() -> None:
    asked = helo(stranger(XCLIENT)) >> Client(MAIL) << ToServer(b"EHLO printer\r\n")
    assert asked >> Server(OFFERING) << XclientOffered() << Stranger421() << REFUSED


def test_what_was_learnt_a_moment_ago_is_not_asked_again() -> None:
    memory = DestinationMemory()
    assert stranger(memory=memory) >> Client(EHLO) << ToServer(EHLO) >> Server(GOOD) << ToClient(GOOD)
    assert stranger(memory=memory) >> Client(MAIL) << ToServer(MAIL) << ReleaseClient() << ReleaseServer(False)
    memory.learn_offers(False, 1000.0 - OFFERS_KNOWN_FOR - 1)
    assert stranger(memory=memory) >> Client(MAIL) << ToServer(OWN_EHLO)
    memory.learn_offers(True, 1000.0)
    assert stranger(memory=memory) >> Client(MAIL) << XclientOffered() << Stranger421() << REFUSED


def test_a_refused_ehlo_proves_nothing_and_a_client_that_falls_back_to_helo_delivers() -> None:
    book = stranger()
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(b"502 no\r\n") << ToClient(b"502 no\r\n")
    assert (
        helo(book)
        >> Client(MAIL)
        << ToServer(b"EHLO printer\r\n")
        >> Server(b"502 no\r\n")
        << ToServer(HELO)
        >> Server(b"250 x\r\n")
        << ToServer(MAIL)
        << ReleaseClient()
        << ReleaseServer(False)
    )


def test_an_offer_in_a_reply_with_a_refusal_in_it_is_one_all_the_same() -> None:
    reply = b"250-mail.example.com\r\n450-busy\r\n250-XCLIENT ADDR\r\n250 DSN\r\n"
    book = stranger()
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(reply) << XclientOffered() << Stranger421() << REFUSED


def test_in_pass_through_no_question_comes_before_starttls() -> None:
    """PHPMailer says STARTTLS behind HELO; what is offered inside TLS can't be known."""
    starttls, ready = b"STARTTLS\r\n", b"220 go\r\n"
    assert helo() >> Client(starttls) << ToServer(starttls) >> Server(ready) << ToClient(ready)


def test_in_bridge_mode_one_comes_before_a_starttls_that_is_between_the_peers() -> None:
    bridge = SessionPolicy(bridge=BridgePolicy("none", "none"))
    assert stranger(bridge) >> Client(b"STARTTLS\r\n") << ToServer(OWN_EHLO)


def test_a_trusted_client_is_not_asked_about() -> None:
    for line in (b"XCLIENT ADDR=127.0.0.1\r\n", b"XFORWARD NAME=x\r\n"):
        assert greeted(trusted=True) >> Client(line) << ToServer(line)


def test_a_question_without_an_end_ends_the_session() -> None:
    cause = "its EHLO reply is too long"
    long = b"250-mail.example.com\r\n" * 101
    book = stranger() >> Client(MAIL) << ToServer(OWN_EHLO) >> Server(long)
    assert book << Notice("421 4.4.2", cause) << End("error", "server", cause)


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
    assert stranger(XCLIENT, memory) >> Client(MAIL) << ToServer(OWN_EHLO)


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
