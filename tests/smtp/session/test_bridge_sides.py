"""Bridge mode with implicit TLS, or none, on either side."""

from __future__ import annotations

import pytest

from proxy.smtp.session.events import (
    ClientTls,
    DropServer,
    End,
    Found,
    Injected,
    NextDestination,
    ReleaseClient,
    ReleaseServer,
    ServerTls,
    ToClient,
    ToServer,
)
from tests.playbook import (
    BANNER,
    EHLO,
    GOOD,
    Client,
    ClientEnds,
    ClientTlsReady,
    Connected,
    Notice,
    Playbook,
    Server,
    ServerTlsFailed,
    ServerTlsReady,
)
from tests.smtp.session.bridge_sessions import (
    BOTH,
    EARLY,
    GO_AHEAD,
    MAIL,
    OWN_EHLO,
    PIPELINED,
    PLAIN,
    READY,
    REPLIED,
    STARTTLS,
    WITHOUT,
    bridge,
    ended,
    no_tls,
)

# -- a server that needs no STARTTLS ---------------------------------------------------------------------------------


def shown(server: str, *, required: bool = True, mode: str = "repair", trusted: bool = True) -> Playbook:
    book = Playbook(bridge(server=server, required=required, mode=mode), trusted=trusted)
    book >> Connected()
    if server == "implicit":
        assert book << ServerTls() >> ServerTlsReady()
    assert book >> Server(BANNER) << ToClient(BANNER)
    return book


SERVERS = pytest.mark.parametrize("server", ["implicit", "none"])


@SERVERS
@BOTH
@pytest.mark.parametrize("mode", ["repair", "observe", "off"])
def test_the_proxy_shows_starttls_itself_and_answers_it(server: str, required: bool, mode: str) -> None:
    book = shown(server, required=required, mode=mode)
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(WITHOUT) << ToClient(PLAIN)
    assert book >> Client(STARTTLS) << ToClient(READY) << ClientTls() >> ClientTlsReady()
    assert book >> Client(EHLO) << ToServer(EHLO) >> Server(PLAIN) << ToClient(WITHOUT)
    book >> Client(MAIL) << ToServer(MAIL) << ReleaseClient()
    if mode != "repair":
        book << ReleaseServer(False)
    assert book


@SERVERS
def test_our_220_waits_for_the_replies_that_are_owed(server: str) -> None:
    assert (
        shown(server)
        >> Client(b"NOOP\r\nRSET\r\nSTARTTLS\r\n")
        << ToServer(b"NOOP\r\nRSET\r\n")
        >> Server(b"250 noop\r\n")
        << ToClient(b"250 noop\r\n")
        >> Server(b"250 rset\r\n")
        << ToClient(b"250 rset\r\n" + READY)
        << ClientTls()
    )


@SERVERS
def test_what_is_pipelined_behind_our_220_is_454_then_421(server: str) -> None:
    notice, end = ended(PIPELINED.detail, "injection")
    assert (
        shown(server)
        >> Client(STARTTLS + b"N")
        << PIPELINED
        << no_tls()
        << DropServer()
        >> Client(b"OOP\r\n")
        << notice
        << end
    )
    assert (
        shown(server)
        >> Client(b"NOOP\r\n" + STARTTLS + b"RSET\r\n")
        << ToServer(b"NOOP\r\n")
        >> Server(b"250 ok\r\n")
        << ToClient(b"250 ok\r\n")
        << PIPELINED
        << no_tls()
        << DropServer()
        << notice
        << end
    )


@SERVERS
def test_half_a_line_of_the_server_does_not_reach_into_tls(server: str) -> None:
    detail = "bytes of the server that answer nothing, before the 220"
    found = Injected("starttls-response-injection", detail)
    notice, end = ended(detail, "injection")
    assert (
        shown(server)
        >> Server(b"250 ev")
        >> Client(STARTTLS)
        << found
        << no_tls()
        << DropServer()
        >> Client(MAIL)
        << notice
        << end
    )


def test_a_server_that_fails_to_speak_tls_first_is_421_in_place_of_a_banner() -> None:
    end = End("tls-failed", "server", "the certificate has expired")
    book = Playbook(bridge(server="implicit"))
    assert book >> Connected() << ServerTls() >> ServerTlsFailed() << Notice("421 4.7.0", "has expired") << end
    book = Playbook(bridge(server="implicit"))
    end = End("injection", "server", EARLY.detail)
    assert book >> Connected() << ServerTls() >> Server(BANNER) << EARLY << Notice("421 4.7.0") << end


def test_or_the_next_is_tried_while_one_is_left() -> None:
    book = Playbook(bridge(server="implicit"))
    assert book >> Connected(another_left=True) << ServerTls() >> ServerTlsFailed("no") << NextDestination("no")
    assert book >> Connected() << ServerTls() >> ServerTlsReady() >> Server(BANNER) << ToClient(BANNER)


# -- a client without STARTTLS ---------------------------------------------------------------------------------------

CLIENTS = pytest.mark.parametrize("client", ["implicit", "none"])


def asked(client: str, *, required: bool = True, **repair: object) -> Playbook:
    """The proxy's own EHLO was sent; the client has seen nothing."""
    book = Playbook(bridge(client, required=required, **repair), trusted=False)
    assert (
        book
        >> Connected()
        >> Server(b"220-mail.example.com\r\n")
        >> Client(EHLO)
        >> Server(BANNER)
        << ToServer(OWN_EHLO)
    )
    return book


WHOLE_BANNER = b"220-mail.example.com\r\n" + BANNER


@CLIENTS
@BOTH
def test_the_servers_side_is_made_ready_before_the_client_sees_a_banner(client: str, required: bool) -> None:
    assert (
        asked(client, required=required)
        >> Server(GOOD)
        << ToServer(STARTTLS)
        >> Server(GO_AHEAD)
        << ServerTls()
        >> ServerTlsReady()
        << ToClient(WHOLE_BANNER)
        << ToServer(EHLO)
        >> Server(PLAIN)
        << ToClient(WITHOUT)
        >> Client(MAIL)
        << ToServer(MAIL)
        << ReleaseClient()
        >> Server(b"250 ok\r\n")
        << ToClient(b"250 ok\r\n")
        << ReleaseServer(False)
    )


@CLIENTS
def test_the_operator_may_say_that_the_server_has_starttls(client: str) -> None:
    assert asked(client, add=(b"STARTTLS",)) >> Server(WITHOUT) << ToServer(STARTTLS)


@CLIENTS
def test_late_lines_of_our_own_ehlo_are_removed_before_the_220(client: str) -> None:
    assert (
        asked(client)
        >> Server(GOOD)
        << ToServer(STARTTLS)
        >> Server(b"250-DSN\r\n" + GO_AHEAD)
        << Found("final-line-early", (b"250-DSN\r\n",), True)
        << ServerTls()
    )


@CLIENTS
@pytest.mark.parametrize("reply", [WITHOUT, b"502 no\r\n"])
def test_a_server_that_offers_none(client: str, reply: bytes) -> None:
    cause = "the server does not offer STARTTLS"
    assert asked(client) >> Server(reply) << Notice("421 4.7.0", cause) << End("tls-failed", "server", cause)
    assert (
        asked(client, required=False)
        >> Server(reply)
        << ToClient(WHOLE_BANNER)
        << ToServer(EHLO)
        >> Server(WITHOUT)
        << ToClient(WITHOUT)
    )


@CLIENTS
def test_a_server_that_refuses_it(client: str) -> None:
    cause = "the server refused STARTTLS: 454 no"
    end = End("tls-failed", "server", cause)
    book = asked(client)
    assert book >> Server(GOOD) << ToServer(STARTTLS) >> Server(b"454 no\r\n") << Notice("421 4.7.0", cause) << end
    book = asked(client, required=False)
    assert book >> Server(GOOD) << ToServer(STARTTLS)
    assert book >> Server(b"454 no\r\n") << ToClient(WHOLE_BANNER) << ToServer(EHLO)


@CLIENTS
@BOTH
def test_a_handshake_that_fails_or_an_injection_is_421_in_place_of_a_banner(client: str, required: bool) -> None:
    book = asked(client, required=required)
    assert (
        book
        >> Server(GOOD)
        << ToServer(STARTTLS)
        >> Server(GO_AHEAD)
        << ServerTls()
        >> ServerTlsFailed()
        << Notice("421 4.7.0", "has expired")
        << End("tls-failed", "server", "the certificate has expired")
    )
    book = asked(client, required=required)
    assert (
        book
        >> Server(GOOD)
        << ToServer(STARTTLS)
        >> Server(GO_AHEAD + b"x")
        << REPLIED
        << Notice("421 4.7.0")
        << End("injection", "server", REPLIED.detail)
    )


@CLIENTS
def test_a_banner_that_refuses_is_shown_and_no_mail_goes_to_it_in_clear(client: str) -> None:
    cause = "the server's side could not be made ready: its banner was a refusal"
    banner = b"554-no\r\n554 really\r\n"
    notice, end = ended(cause, "server-closed", "server")
    book = Playbook(bridge(client))
    assert book >> Connected() >> Server(banner) << ToClient(banner) << DropServer() >> Client(MAIL) << notice << end
    book = Playbook(bridge(client))
    assert book >> Connected() >> Server(banner) << ToClient(banner) << DropServer()
    assert book >> ClientEnds() << End("client-closed", "client", cause)
    book = Playbook(bridge(client, required=False))
    assert book >> Connected() >> Server(banner) << ToClient(banner) >> Client(b"QUIT\r\n") << ToServer(b"QUIT\r\n")


@CLIENTS
def test_bounds_hold_for_what_the_client_does_not_see(client: str) -> None:
    for said, cause in (
        (b"220-x\r\n" * 20000, "a reply without an end"),
        (b"220 " + b"x" * 20000, "a reply line without an end"),
    ):
        book = Playbook(bridge(client))
        assert book >> Connected() >> Server(said) << Notice("421 4.4.2", cause) << End("error", "server", cause)


@CLIENTS
def test_lines_before_the_banner_are_removed_here_too(client: str) -> None:
    lines = b"250-STARTTLS\r\n"
    book = Playbook(bridge(client))
    assert [type(a).__name__ for a in book.player.happens(Connected()) + book.player.happens(Server(lines))] == [
        "Found"
    ]
    book = Playbook(bridge(client, mode="off", required=False))
    assert book >> Connected() >> Server(lines + BANNER) << ToServer(OWN_EHLO)
    assert book >> Server(WITHOUT) << ToClient(lines + BANNER)


@pytest.mark.parametrize("server", ["starttls", "implicit", "none"])
def test_the_starttls_of_a_client_that_was_offered_none_is_the_peers_own(server: str) -> None:
    book = Playbook(bridge("none", server))
    if server == "implicit":
        assert book >> Connected() << ServerTls() >> ServerTlsReady()
    else:
        assert book >> Connected()
    if server == "starttls":
        assert book >> Server(BANNER) << ToServer(OWN_EHLO) >> Server(GOOD) << ToServer(STARTTLS)
        assert book >> Server(GO_AHEAD) << ServerTls() >> ServerTlsReady() << ToClient(BANNER)
    else:
        assert book >> Server(BANNER) << ToClient(BANNER)
    assert (
        book
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(PLAIN)
        << ToClient(WITHOUT)
        >> Client(STARTTLS)
        << ToServer(STARTTLS)
        >> Server(b"503 no\r\n")
        << ToClient(b"503 no\r\n")
        >> Client(STARTTLS)
        << ToServer(STARTTLS)
        >> Server(GO_AHEAD + b"x")
        << REPLIED
        << Notice("421 4.7.0")
        << End("injection", "server", REPLIED.detail)
    )
