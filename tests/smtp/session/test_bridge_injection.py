"""Bridge mode: injected bytes never reach TLS, and handshakes that fail or are interrupted."""

from __future__ import annotations

import pytest

from proxy.smtp.session.events import (
    ClientTls,
    DropServer,
    End,
    Found,
    Injected,
    ToClient,
    ToServer,
    XclientOffered,
)
from tests.playbook import (
    BANNER,
    EHLO,
    Client,
    ClientEnds,
    ClientTlsFailed,
    ClientTlsReady,
    Connected,
    Notice,
    Playbook,
    Server,
    ServerEnds,
    ServerTlsFailed,
    ServerTlsReady,
    Told,
)
from tests.smtp.session.bridge_sessions import (
    BOTH,
    EARLY,
    GO_AHEAD,
    MAIL,
    PIPELINED,
    PLAIN,
    READY,
    REPLIED,
    STARTTLS,
    WITHOUT,
    bridge,
    ended,
    no_tls,
    opened,
    securing,
)

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
    assert (session.client_name, session.client.greeting) == (b"", b"")
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


def test_a_server_that_ends_in_place_of_its_handshake_has_failed_it() -> None:
    cause = "the server ended the connection"
    assert securing(bridge()) >> ServerEnds() << no_tls(cause) << DropServer()
