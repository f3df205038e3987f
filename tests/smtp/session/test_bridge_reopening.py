"""Bridge mode, TLS not required and refused: the session goes on in clear over a fresh connection."""

from __future__ import annotations

import pytest

from proxy.smtp.session.events import (
    ClientTls,
    End,
    FreshConnection,
    NextDestination,
    ReleaseClient,
    ReleaseServer,
    ServerTls,
    ToClient,
    ToServer,
    XclientOffered,
)
from proxy.smtp.session.policy import BridgePolicy, SessionPolicy
from tests.playbook import (
    BANNER,
    EHLO,
    GOOD,
    Client,
    ClientEnds,
    ClientTlsReady,
    Connected,
    Drain,
    Notice,
    Playbook,
    Server,
    ServerEnds,
    ServerTlsFailed,
    ServerTlsReady,
    Unreachable,
)
from tests.smtp.session.bridge_sessions import (
    GO_AHEAD,
    MAIL,
    OWN_EHLO,
    READY,
    STARTTLS,
    WITHOUT,
    bridge,
    no_tls,
    opened,
    refused,
)

RSET = b"RSET\r\n"


@pytest.mark.parametrize(
    ("greeting", "reply", "released"),
    [
        (EHLO, GOOD, []),
        (b" helo client.example\r\n", b"250-hello\r\n250 you\r\n", [ReleaseServer(False)]),
        (b"LHLO x\n", b"250-SIZE\r\n250-mail.example.com\r\n250 DSN\r\n", []),
    ],
)
def test_a_refusal_where_it_is_not_goes_on_in_clear_over_a_fresh_connection(
    greeting: bytes, reply: bytes, released: list[object]
) -> None:
    book = Playbook(bridge(required=False))
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER) >> Client(greeting) << ToServer(greeting)
    assert book >> Server(b"502 whatever\r\n") << ToClient(b"502 whatever\r\n")
    assert book >> Client(STARTTLS) << ToServer(STARTTLS) >> Server(b"454 no\r\n") << no_tls() << FreshConnection()
    assert book >> Client(MAIL) >> Server(b"lost words\r\n") >> Connected()
    assert book >> Server(b"220-mail.example.com\r\n220 again\r\n") << ToServer(greeting)
    book >> Server(reply) << ToServer(MAIL) << ReleaseClient()
    for action in released:
        book << action
    assert book


def test_nothing_is_repeated_where_the_client_never_greeted() -> None:
    assert (
        refused(b"")
        >> Connected()
        >> Server(BANNER)
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
        >> Server(b"250 ok\r\n")
        << ToClient(b"250 ok\r\n")
    )


@pytest.mark.parametrize("banner", [b"421 busy\r\n", b"554-no\r\n554 no\r\n"])
def test_a_fresh_connection_that_is_refused_ends_the_session(banner: bytes) -> None:
    cause = "its banner was a refusal"
    assert refused() >> Connected() >> Server(banner) << Notice("421 4.4.2", cause) << End("error", "server", cause)


def test_so_does_one_on_which_the_greeting_is_refused() -> None:
    for greeting in (EHLO, b"HELO x\r\n"):
        cause = f"it refused the {greeting[:4].decode()} that was repeated"
        book = refused(greeting)
        assert book >> Connected() >> Server(BANNER) << ToServer(greeting)
        assert book >> Server(b"550 no\r\n") << Notice("421 4.4.2", cause) << End("error", "server", cause)


def test_and_one_that_cannot_be_made() -> None:
    assert refused() >> Unreachable() << Notice("421 4.4.1") << End("unreachable", "proxy", "connection refused")


def test_a_fresh_connection_may_move_on_to_the_next_destination() -> None:
    first = Connected("mx1.example.com", another_left=True)
    assert (
        refused()
        >> first
        >> Server(b"450-busy\r\n")
        << NextDestination("450-busy")
        >> first
        >> Server(b"220-a\r\n220-")
        >> ServerEnds()
        << NextDestination("closed before its banner")
        >> Connected()
        >> Server(BANNER)
        << ToServer(EHLO)
        >> Server(GOOD)
        >> Client(MAIL)
        << ToServer(MAIL)
        << ReleaseClient()
    )


def test_half_a_reply_to_the_repeated_greeting_is_not_shown() -> None:
    cause = "the server ended the connection"
    for said in (b"", b"250-mail.example.com\r\n250-", b"250 mail.example.com\r\n"):
        book = refused()
        assert book >> Connected() >> Server(BANNER) << ToServer(EHLO)
        if said:
            assert book >> Server(said)
        assert book >> ServerEnds() << Notice("421 4.4.2", cause) << End("server-closed", "server", cause)


def test_a_repeated_greeting_without_an_end_is_not_shown_either() -> None:
    for said, cause in (
        (b"250-x\r\n" * 101, "its EHLO reply is too long"),
        (b"250-" + b"x" * 20000, "its EHLO reply is too long"),
    ):
        book = refused()
        assert book >> Connected() >> Server(BANNER) << ToServer(EHLO)
        assert book >> Server(said) << Notice("421 4.4.2", cause) << End("error", "server", cause)


def test_the_client_may_ask_again_on_the_fresh_connection() -> None:
    book = refused()
    assert book >> Connected() >> Server(BANNER) << ToServer(EHLO) >> Server(GOOD)
    assert book >> Client(STARTTLS) << ToServer(STARTTLS) >> Server(GO_AHEAD) << ServerTls()
    assert book >> ServerTlsReady() << ToClient(READY) << ClientTls()


def test_a_fresh_connection_is_not_made_while_draining() -> None:
    assert (
        opened(bridge(required=False))
        >> Client(STARTTLS)
        << ToServer(STARTTLS)
        >> Drain()
        >> Server(b"454 no\r\n")
        << Notice("421 4.3.2", behind=b"454 4.7.0 TLS not available, ehlo-proxy route default: mail.example.com "
                  b"(192.0.2.1) port 25: the server refused STARTTLS: 454 no\r\n")
        << End("aborted", "proxy", "the proxy is being stopped, try again")
    )  # fmt: skip


def test_a_fresh_connection_ends_when_the_proxy_drains_or_the_client_leaves() -> None:
    end = End("aborted", "proxy", "the proxy is being stopped, try again")
    assert refused() >> Drain() << Notice("421 4.3.2") << end
    assert refused() >> ClientEnds() << End("client-closed", "client")


# -- XCLIENT ---------------------------------------------------------------------------------------------------------

OFFERING = b"250-mail.example.com\r\n250-STARTTLS\r\n250 XCLIENT ADDR\r\n"


def test_the_rule_about_xclient_holds_inside_tls_and_on_a_fresh_connection() -> None:
    refusal = End("refused", "proxy", "not available to this client")
    stranger = opened(bridge(), trusted=False)
    assert (
        stranger
        >> Client(STARTTLS)
        << ToServer(STARTTLS)
        >> Server(GO_AHEAD)
        << ServerTls()
        >> ServerTlsReady()
        << ToClient(READY)
        << ClientTls()
        >> ClientTlsReady()
    )
    assert (
        stranger
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(OFFERING)
        << XclientOffered()
        << Notice("421 4.7.1")
        << refusal
    )
    book = refused(trusted=False)
    assert (
        book
        >> Connected()
        >> Server(BANNER)
        << ToServer(EHLO)
        >> Server(OFFERING)
        << XclientOffered()
        << Notice("421 4.7.1")
        << refusal
    )
    book = refused(trusted=False)
    assert (
        book
        >> Connected()
        >> Server(BANNER)
        << ToServer(EHLO)
        >> Server(GOOD)
        >> Client(MAIL)
        << ToServer(MAIL)
        << ReleaseClient()
    )


def inside(policy: SessionPolicy | None = None) -> Playbook:
    """A client that is not trusted, inside TLS; the server offered nothing in clear."""
    book = Playbook(policy or bridge(), trusted=False)
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER)
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(GOOD) << ToClient(GOOD)
    assert book >> Client(STARTTLS) << ToServer(STARTTLS) >> Server(GO_AHEAD) << ServerTls()
    assert book >> ServerTlsReady() << ToClient(READY) << ClientTls() >> ClientTlsReady()
    return book


def test_what_was_learnt_in_clear_is_not_believed_inside_tls() -> None:
    book = inside()
    book >> Client(MAIL) << ToServer(OWN_EHLO) >> Server(WITHOUT) << ToServer(RSET) >> Server(b"250 ok\r\n")
    book << ToServer(MAIL) << ReleaseClient() << ReleaseServer(False)
    assert book
    assert book.memory.offers(1000.0, inside_tls=True) is False
    offering = b"250-mail.example.com\r\n250 XCLIENT ADDR\r\n"
    book = inside()
    assert (
        book
        >> Client(b"XCLIENT ADDR=127.0.0.1\r\n")
        << ToServer(OWN_EHLO)
        >> Server(offering)
        << XclientOffered()
        << Notice("421 4.7.1")
        << End("refused", "proxy", "not available to this client")
    )
    assert book.memory.offers(1000.0) is False
    assert book.memory.offers(1000.0, inside_tls=True)


def test_a_server_that_closes_on_the_question_inside_tls_is_made_ready_once_more() -> None:
    helo = b"HELO printer\r\n"
    book = inside()
    assert book >> Client(helo) << ToServer(helo) >> Server(b"250 you\r\n") << ToClient(b"250 you\r\n")
    assert (
        book
        >> Client(MAIL)
        << ToServer(b"EHLO printer\r\n")
        >> ServerEnds()
        << FreshConnection()
        >> Connected()
        >> Server(BANNER)
        << ToServer(OWN_EHLO)
        >> Server(GOOD)
        << ToServer(STARTTLS)
        >> Server(GO_AHEAD)
        << ServerTls()
        >> ServerTlsReady()
        << ToServer(helo)
        >> Server(b"250 you\r\n")
        << ToServer(MAIL)
        << ReleaseClient()
        << ReleaseServer(False)
    )


@pytest.mark.parametrize("required", [True, False])
def test_never_in_clear_once_it_was_in_tls(required: bool) -> None:
    def afresh() -> Playbook:
        book = inside(bridge(required=required))
        book >> Client(MAIL) << ToServer(OWN_EHLO) >> ServerEnds() << FreshConnection() >> Connected()
        assert book
        return book

    for said, cause in (
        (WITHOUT, "the server does not offer STARTTLS"),
        (GOOD, "the server refused STARTTLS: 454 no"),
    ):
        book = afresh()
        book >> Server(BANNER) << ToServer(OWN_EHLO) >> Server(said)
        if said is GOOD:
            book << ToServer(STARTTLS) >> Server(b"454 no\r\n")
        assert book << Notice("421 4.7.0", cause) << End("tls-failed", "server", cause)
    book = afresh()
    (
        book
        >> Server(BANNER)
        << ToServer(OWN_EHLO)
        >> Server(GOOD)
        << ToServer(STARTTLS)
        >> Server(GO_AHEAD)
        << ServerTls()
    )
    cause = "the certificate has expired"
    assert book >> ServerTlsFailed() << Notice("421 4.7.0", cause) << End("tls-failed", "server", cause)
    book = afresh()
    cause = "its banner was a refusal"
    assert book >> Server(b"554 no\r\n") << Notice("421 4.4.2", cause) << End("error", "server", cause)


def test_xclient_is_said_again_on_a_fresh_connection() -> None:
    policy = SessionPolicy(bridge=BridgePolicy(required=False), xclient=True)
    xclient = b"XCLIENT ADDR=198.51.100.7\r\n"
    book = Playbook(policy, trusted=False)
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER) >> Client(EHLO) << ToServer(EHLO)
    assert (
        book
        >> Server(OFFERING)
        << ToServer(xclient)
        >> Server(BANNER)
        << ToServer(EHLO)
        >> Server(GOOD)
        << ToClient(GOOD)
    )
    assert book >> Client(STARTTLS) << ToServer(STARTTLS) >> Server(b"454 no\r\n") << no_tls() << FreshConnection()
    assert book >> Connected() >> Server(BANNER) << ToServer(EHLO) >> Server(OFFERING) << ToServer(xclient)
    assert book >> Client(MAIL) >> Server(BANNER) << ToServer(EHLO) >> Server(GOOD) << ToServer(MAIL) << ReleaseClient()
