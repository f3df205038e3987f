"""Draining: sessions that wait for a command are told; those in the middle of something end at the next such place."""

from __future__ import annotations

import pytest

from proxy.smtp.session.events import (
    ClientTls,
    End,
    ReleaseClient,
    ReleaseServer,
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
    ClientTlsReady,
    Connected,
    Drain,
    Notice,
    Playbook,
    Server,
    ServerTlsReady,
    Wait,
    after_ehlo,
    greeted,
)

OWN_EHLO = b"EHLO localhost\r\n"
NOTICE = Notice("421 4.3.2", "route default", "being stopped")
END = End("aborted", "proxy", "the proxy is being stopped, try again")


def behind(reply: bytes) -> Notice:
    return Notice("421 4.3.2", behind=reply)


def test_a_session_that_waits_for_a_command_is_told_at_once() -> None:
    assert greeted() >> Drain() << NOTICE << END >> Drain() >> Client(EHLO)
    assert after_ehlo() >> Client(b"NOO") >> Drain() << NOTICE << END


def test_one_that_awaits_a_reply_is_told_behind_it() -> None:
    assert (
        greeted()
        >> Client(b"NOOP\r\nRSET\r\n")
        << ToServer(b"NOOP\r\nRSET\r\n")
        >> Drain()
        >> Server(b"250 noop\r\n")
        << ToClient(b"250 noop\r\n")
        >> Server(b"250 rset\r\n")
        << behind(b"250 rset\r\n")
        << END
    )


@pytest.mark.parametrize(
    ("last", "outcome"), [(b"221 2.0.0 bye\r\n", "completed"), (b"421 4.3.2 too busy\r\n", "aborted")]
)
def test_nothing_is_said_behind_the_servers_last_word(last: bytes, outcome: str) -> None:
    quitting = greeted() >> Client(b"QUIT\r\n") << ToServer(b"QUIT\r\n")
    assert quitting >> Server(last) << ToClient(last) >> Drain() << End(outcome, "proxy")


@pytest.mark.parametrize("last", [b"221 2.0.0 bye\r\n", b"421 4.3.2 too busy\r\n"])
def test_nothing_but_that_word_is_said_to_one_that_awaits_it(last: bytes) -> None:
    quitting = greeted() >> Client(b"QUIT\r\n") << ToServer(b"QUIT\r\n")
    outcome = "completed" if last.startswith(b"221") else "aborted"
    assert quitting >> Drain() >> Server(last) << ToClient(last) << End(outcome, "proxy")


def test_behind_an_ehlo_reply_and_before_what_was_held_behind_it() -> None:
    assert (
        greeted()
        >> Client(EHLO + b"MAIL FROM:<>\r\n")
        << ToServer(EHLO)
        >> Drain()
        >> Server(GOOD)
        << behind(GOOD)
        << END
    )
    assert (
        greeted()
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(b"250 mail.example.com\r\n")
        >> Drain()
        >> Wait(0.2)
        << behind(b"250 mail.example.com\r\n")
        << END
    )


def test_behind_the_banner() -> None:
    start = b"220-mail.example.com\r\n"
    assert (
        Playbook()
        >> Connected()
        >> Server(start)
        << ToClient(start)
        >> Drain()
        >> Server(b"220 go\r\n")
        << behind(b"220 go\r\n")
        << END
    )


def test_never_inside_a_line() -> None:
    assert greeted() >> Server(b"45") >> Drain() >> Client(b"NOOP\r\n") << ToServer(b"NOOP\r\n")
    long = b"451 " + b"x" * 20000
    assert greeted() >> Server(long) << ToClient(long) >> Drain() >> Server(b"\r\n") << ToClient(b"\r\n")


def test_what_was_let_go_goes_on() -> None:
    book = greeted()
    assert (
        book >> Client(b"MAIL FROM:<>\r\n") << ToServer(b"MAIL FROM:<>\r\n") << ReleaseClient() << ReleaseServer(False)
    )
    assert (
        book
        >> Drain()
        >> Client(b"DATA\r\n")
        << ToServer(b"DATA\r\n")
        >> Server(b"354 go\r\n")
        << ToClient(b"354 go\r\n")
    )
    book = after_ehlo()
    assert book >> Client(b"MAIL FROM:<>\r\n") << ToServer(b"MAIL FROM:<>\r\n") << ReleaseClient() >> Drain()
    assert book >> Server(b"250 ok\r\n") << ToClient(b"250 ok\r\n") << ReleaseServer(False)


def test_a_starttls_that_is_under_way_is_carried_out() -> None:
    assert (
        after_ehlo()
        >> Client(b"STARTTLS\r\n")
        << ToServer(b"STARTTLS\r\n")
        >> Drain()
        >> Server(b"220 ready\r\n")
        << ToClient(b"220 ready\r\n")
        >> Drain()
        >> Client(b"\x16")
        << ReleaseClient()
        << ReleaseServer(True)
        << ToServer(b"\x16")
    )
    assert (
        after_ehlo()
        >> Client(b"STARTTLS\r\n")
        << ToServer(b"STARTTLS\r\n")
        >> Drain()
        >> Server(b"454 no\r\n")
        << behind(b"454 no\r\n")
        << END
    )


def test_a_client_about_which_the_server_is_asked_goes_on_when_it_is_known() -> None:
    book = Playbook(trusted=False)
    assert (
        book >> Connected() >> Server(BANNER) << ToClient(BANNER) >> Client(b"MAIL FROM:<>\r\n") << ToServer(OWN_EHLO)
    )
    assert (
        book
        >> Drain()
        >> Server(GOOD)
        << ToServer(b"RSET\r\n")
        >> Server(b"250 ok\r\n")
        << ToServer(b"MAIL FROM:<>\r\n")
        << ReleaseClient()
        << ReleaseServer(False)
    )


@pytest.mark.parametrize("server", ["none", "implicit"])
def test_once_tls_is_up_in_bridge_mode(server: str) -> None:
    book = Playbook(SessionPolicy(bridge=BridgePolicy("starttls", server)))
    if server == "implicit":
        assert book >> Connected() << ServerTls() >> ServerTlsReady()
    else:
        assert book >> Connected()
    ready = b"220 2.0.0 Ready to start TLS\r\n"
    assert book >> Server(BANNER) << ToClient(BANNER)
    assert book >> Client(b"STARTTLS\r\n") << ToClient(ready) << ClientTls() >> Drain()
    assert book >> ClientTlsReady() << NOTICE << END


def test_a_starttls_that_waits_for_a_reply_is_refused_with_it() -> None:
    book = Playbook(SessionPolicy(bridge=BridgePolicy("starttls", "none")))
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER)
    assert book >> Client(b"NOOP\r\nSTARTTLS\r\n") << ToServer(b"NOOP\r\n") >> Drain()
    assert book >> Server(b"250 ok\r\n") << behind(b"250 ok\r\n") << END
