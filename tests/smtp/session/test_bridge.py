"""The order at STARTTLS where both sides have it, the 454 and what follows it, and what `required` forbids."""

from __future__ import annotations

import pytest

from proxy.smtp.session.events import (
    ClientTls,
    DropServer,
    End,
    FinishServer,
    ReleaseClient,
    ReleaseServer,
    ToClient,
    ToServer,
)
from tests.playbook import (
    BANNER,
    EHLO,
    Client,
    ClientEnds,
    ClientTlsReady,
    Connected,
    Notice,
    Playbook,
    Server,
    ServerEnds,
    ServerTlsFailed,
    ServerTlsReady,
    Told,
    Wait,
)
from tests.smtp.session.bridge_sessions import (
    BOTH,
    MAIL,
    READY,
    STARTTLS,
    bridge,
    ended,
    no_tls,
    opened,
    securing,
)

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
