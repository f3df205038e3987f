"""Bridge mode: the order at STARTTLS, the 454 and what follows it, for each kind of client's and server's side."""

from __future__ import annotations

import pytest

from proxy.smtp.events import (
    AskOffers,
    ClientTls,
    DropServer,
    End,
    FinishServer,
    Found,
    FreshConnection,
    Injected,
    NextDestination,
    ReleaseClient,
    ReleaseServer,
    ServerTls,
    ToClient,
    ToServer,
    XclientOffered,
)
from proxy.smtp.policy import BridgePolicy, SessionPolicy
from proxy.smtp.repair import RepairPolicy
from tests.playbook import (
    BANNER,
    EHLO,
    GOOD,
    Client,
    ClientEnds,
    ClientTlsFailed,
    ClientTlsReady,
    Connected,
    Drain,
    Notice,
    OffersKnown,
    Playbook,
    Server,
    ServerEnds,
    ServerTlsFailed,
    ServerTlsReady,
    Told,
    Unreachable,
    Wait,
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


def ended(cause: str, outcome: str = "tls-failed") -> tuple[Notice, End]:
    return Notice("421 4.7.0", cause), End(outcome, "proxy", cause)


# -- STARTTLS on both sides ------------------------------------------------------------------------------------------


@BOTH
def test_the_client_is_told_220_only_after_the_server_was_judged(required: bool) -> None:
    inside = b"250-8BITMIME\r\n250-mail.example.com\r\n250-STARTTLS\r\n250 DSN\r\n"
    assert (
        securing(bridge(required=required), loud=True)
        >> Wait(10000)
        >> ServerTlsReady()
        << ToClient(READY)
        << Told("starttls accepted")
        << ClientTls()
        >> ClientTlsReady()
        >> Client(b"EHLO inside.example\r\n")
        << ToServer(b"EHLO inside.example\r\n")
        >> Server(inside)
        << Told("ehlo greeting-not-first starttls-inside-tls")
        << ToClient(b"250-mail.example.com\r\n250-8BITMIME\r\n250 DSN\r\n")
        >> Client(MAIL)
        << ToServer(MAIL)
        << ReleaseClient()
        >> Server(b"250 ok\r\n")
        << ToClient(b"250 ok\r\n")
        << ReleaseServer(False)
    )


@BOTH
@pytest.mark.parametrize("command", [MAIL, b"NOOP\r\n", b"QUIT\r\n", EHLO, STARTTLS])
def test_a_failed_handshake_or_identity_is_454_then_421(command: bytes, required: bool) -> None:
    notice, end = ended("the certificate has expired")
    assert (
        securing(bridge(required=required), loud=True)
        >> ServerTlsFailed()
        << Told("starttls failed")
        << no_tls("mail.example.com", "the certificate has expired")
        << DropServer()
        >> Client(command)
        << notice
        << end
    )


@pytest.mark.parametrize("reply", [b"454 4.7.0 no\r\n", b"502 no\r\n", b"354-what\r\n354 what\r\n", b"421 closing\n"])
def test_a_refusal_where_tls_is_required_is_454_then_421(reply: bytes) -> None:
    cause = "the server refused STARTTLS: " + reply.split(b"\n")[0].strip().decode()
    notice, end = ended(cause)
    assert (
        opened(bridge(), loud=True)
        >> Client(STARTTLS)
        << ToServer(STARTTLS)
        >> Server(reply)
        << Told("starttls refused")
        << no_tls(cause)
        << DropServer()
        >> Client(MAIL)
        << notice
        << end
    )


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


# -- required --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [MAIL, b"AUTH PLAIN AGEAYg==\r\n", b"DATA\r\n", b"BDAT 3 LAST\r\nabc", b"VRFY x\r\n", b"EXPN x\r\n", b"HELP\r\n",
     b"XCLIENT ADDR=1.2.3.4\r\n", b"\r\n", b"EHLO \0\r\n", b"x" * 5000, b"XUNKNOWN\r\nSTARTTLS\r\n"],
    ids=lambda command: repr(command[:12]),
)  # fmt: skip
def test_what_may_not_be_said_in_clear_is_not_passed_on_where_tls_is_required(command: bytes) -> None:
    cause = "TLS is required here: use STARTTLS first"
    for server in ("starttls", "none"):
        book = Playbook(bridge(server=server))
        assert book >> Connected() >> Server(BANNER) << ToClient(BANNER)
        assert book >> Client(command) << Notice("421 4.7.0", cause) << End("refused", "client", cause)


@pytest.mark.parametrize("command", [b"HELO x\r\n", b"NOOP\r\n", b"RSET\r\n", b"QUIT\r\n", EHLO])
def test_what_may_be_said_is(command: bytes) -> None:
    book = Playbook(bridge())
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER) >> Client(command) << ToServer(command)


def test_half_a_command_at_the_end_is_not_passed_on_where_tls_is_required() -> None:
    assert opened(bridge()) >> Client(b"MAIL FROM:<secret@exam") >> ClientEnds() << FinishServer()
    assert opened(bridge(required=False)) >> Client(b"NOO") >> ClientEnds() << ToServer(b"NOO") << FinishServer()


def test_where_it_is_not_required_the_client_decides() -> None:
    assert (
        opened(bridge(required=False))
        >> Client(MAIL)
        << ToServer(MAIL)
        << ReleaseClient()
        >> Client(STARTTLS)
        << ToServer(STARTTLS)
    ), "nothing is upgraded any more"


def test_an_end_behind_a_454_ends_the_session() -> None:
    cause = "the certificate has expired"
    assert (
        securing(bridge())
        >> ServerTlsFailed()
        << no_tls()
        << DropServer()
        >> Client(b"MAI")
        >> ServerEnds()
        >> ClientEnds()
        << End("tls-failed", "client", cause)
    )


def test_the_time_after_a_454_is_the_clients() -> None:
    book = securing(bridge())
    assert book >> Wait(50) >> ServerTlsFailed() << no_tls() << DropServer()
    assert book.waits_for == 300.0
    cause = "no command in time"
    assert book >> Wait(300) << Notice("421 4.4.2", cause) << End("timeout", "client", cause)


# -- injections ------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("injected", [b"N", b"NOOP\r\n", b"\r\n"], ids=repr)
def test_command_injection_is_454_then_421(injected: bytes, required: bool) -> None:
    notice, end = ended(PIPELINED.detail, "injection")
    book = opened(bridge(required=required), loud=True)
    assert book >> Client(STARTTLS + injected) << ToServer(STARTTLS)
    book >> Server(GO_AHEAD) << PIPELINED << Told("starttls injection") << no_tls("behind STARTTLS") << DropServer()
    if injected.endswith(b"\n"):
        assert book << notice << end
        return
    assert book >> Client(b"OOP\r\n") << notice << end


@BOTH
def test_command_injection_while_the_servers_handshake_is_under_way(required: bool) -> None:
    notice, end = ended(PIPELINED.detail, "injection")
    assert (
        securing(bridge(required=required))
        >> Client(MAIL)
        >> ServerTlsReady()
        << PIPELINED
        << no_tls("behind STARTTLS")
        << DropServer()
        << notice
        << end
    )


def test_bytes_of_the_client_in_clear_behind_our_220_end_the_session() -> None:
    detail = "bytes of the client in clear, behind the 220 to STARTTLS"
    book = securing(bridge())
    assert book >> ServerTlsReady() << ToClient(READY) << ClientTls()
    assert book >> Client(b"x") << Injected("starttls-pipelined", detail) << End("injection", "client", detail)


@BOTH
@pytest.mark.parametrize("injected", [b"2", b"250 evil\r\n", b"\x16\x03\x01"], ids=repr)
def test_response_injection_is_454_then_421_and_none_is_forwarded(injected: bytes, required: bool) -> None:
    notice, end = ended(REPLIED.detail, "injection")
    book = opened(bridge(required=required))
    assert book >> Client(STARTTLS) << ToServer(STARTTLS)
    assert book >> Server(GO_AHEAD + injected) << REPLIED << no_tls() << DropServer()
    assert book >> Server(b"250 more of it\r\n") >> Client(b"NOOP\r\n") << notice << end


@BOTH
def test_response_injection_while_a_handshake_is_under_way(required: bool) -> None:
    notice, end = ended(EARLY.detail, "injection")
    assert (
        securing(bridge(required=required))
        >> Client(b"RSET\r\n")
        >> Server(b"250 evil\r\n")
        << EARLY
        << no_tls()
        << DropServer()
        << notice
        << end
        >> ServerTlsReady()
        >> ServerTlsFailed()
    )
    book = securing(bridge(required=required))
    assert book >> ServerTlsReady() << ToClient(READY) << ClientTls()
    assert book >> Server(b"250 evil\r\n") << EARLY << End("injection", "server", EARLY.detail) >> ClientTlsReady()


def test_late_lines_of_an_ehlo_reply_are_removed_while_the_clients_handshake_is_under_way() -> None:
    book = Playbook(bridge(server="none"), trusted=False)
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER) >> Client(EHLO) << ToServer(EHLO)
    assert book >> Server(WITHOUT) << ToClient(PLAIN) >> Client(STARTTLS) << ToClient(READY) << ClientTls()
    line = b"250-SIZE\r\n"
    assert book >> Server(line + b"250 DSN\r\n") << Found("final-line-early", (line,), True)
    assert book >> Server(b"250 OK\r\n") << EARLY << End("injection", "server", EARLY.detail)
    book = Playbook(bridge(server="none"), trusted=False)
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER) >> Client(EHLO) << ToServer(EHLO)
    assert book >> Server(WITHOUT) << ToClient(PLAIN) >> Client(STARTTLS) << ToClient(READY) << ClientTls()
    actions = book.player.happens(Server(b"250-XCLIENT ADDR\r\n"))
    assert actions[0] == XclientOffered()
    assert isinstance(actions[-1], End)


def test_what_was_told_in_clear_does_not_count_inside_tls() -> None:
    book = securing(bridge())
    assert book >> ServerTlsReady() << ToClient(READY) << ClientTls() >> ClientTlsReady()
    session = book.session
    assert (session.client_name, session.greeted_line, session.ehlo_line) == (b"", b"", b"")
    assert book >> Server(b"250-SIZE\r\n") << ToClient(b"250-SIZE\r\n"), "nothing is late of what was said in clear"


def test_a_handshake_of_the_client_that_fails_ends_the_session() -> None:
    book = securing(bridge())
    assert book >> ServerTlsReady() << ToClient(READY) << ClientTls()
    assert book >> ClientTlsFailed() << End("tls-failed", "client", "no shared cipher") >> ClientTlsReady()


def test_the_server_may_leave_while_the_clients_handshake_is_under_way() -> None:
    cause = "the server ended the connection"
    book = securing(bridge())
    assert book >> ServerTlsReady() << ToClient(READY) << ClientTls()
    assert book >> ServerEnds() << Notice("421 4.4.2", cause) << End("server-closed", "server", cause)


def test_a_client_that_ends_while_the_servers_handshake_is_under_way_is_told_by_its_own_handshake() -> None:
    book = securing(bridge())
    assert book >> ClientEnds() >> ServerTlsReady() << ToClient(READY) << ClientTls()
    assert book >> ClientTlsFailed() << End("tls-failed", "client", "no shared cipher")


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
    notice, end = ended(cause, "refused")
    book = Playbook(bridge(client))
    assert book >> Connected() >> Server(banner) << ToClient(banner) << DropServer() >> Client(MAIL) << notice << end
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


def test_who_greets_with_helo_inside_tls_is_asked_about() -> None:
    book = securing(bridge())
    book.session.client_trusted = False
    assert book >> ServerTlsReady() << ToClient(READY) << ClientTls() >> ClientTlsReady()
    book.memory.offers_known_at = None
    assert (
        book
        >> Client(MAIL)
        << AskOffers()
        >> OffersKnown(False)
        << ToServer(MAIL)
        << ReleaseClient()
        << ReleaseServer(False)
    )


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
