"""A peer is lost, at each phase of the session: what the other one is told, and that nothing is made up."""

from __future__ import annotations

import pytest

from proxy.smtp.session.events import (
    DeadlineNearer,
    End,
    FinishServer,
    FreshConnection,
    ReleaseClient,
    ReleaseServer,
    ToClient,
    ToServer,
)
from proxy.smtp.session.policy import SessionPolicy
from proxy.smtp.session.session import Session
from tests.playbook import (
    BANNER,
    EHLO,
    GOOD,
    Client,
    ClientEnds,
    Connected,
    Notice,
    Playbook,
    Server,
    ServerEnds,
    Unreachable,
    Wait,
    after_ehlo,
    greeted,
)

CLOSED = "the server ended the connection"
RESET = CLOSED + " by a reset"


def lost(reset: bool) -> tuple[Notice, End]:
    cause = RESET if reset else CLOSED
    return Notice("421 4.4.2", "mail.example.com", cause), End(
        "server-reset" if reset else "server-closed", "server", cause
    )


both = pytest.mark.parametrize("reset", [False, True])


# -- the server ------------------------------------------------------------------------------------------------------


@both
def test_the_server_before_its_banner(reset: bool) -> None:
    notice, end = lost(reset)
    assert Playbook() >> Connected() >> ServerEnds(reset) << notice << end >> Client(EHLO) >> ServerEnds()


@both
def test_the_server_inside_its_banners_line(reset: bool) -> None:
    assert (
        Playbook()
        >> Connected()
        >> Server(b"220-mail\r\n220 rea")
        << ToClient(b"220-mail\r\n")
        >> ServerEnds(reset)
        << ToClient(b"220 rea")
        << End("server-reset" if reset else "server-closed", "server", reset_client=reset)
    )


@both
def test_the_server_at_a_line_boundary(reset: bool) -> None:
    notice, end = lost(reset)
    assert greeted() >> ServerEnds(reset) << notice << end
    assert greeted() >> Client(b"NOOP\r\n") << ToServer(b"NOOP\r\n") >> ServerEnds(reset) << notice << end
    assert (
        greeted()
        >> Client(b"HELP\r\n")
        << ToServer(b"HELP\r\n")
        >> Server(b"214-one\r\n")
        << ToClient(b"214-one\r\n")
        >> ServerEnds(reset)
        << notice
        << end
    )


@both
def test_the_server_inside_a_line(reset: bool) -> None:
    end = End("server-reset" if reset else "server-closed", "server", reset_client=reset)
    assert (
        greeted()
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
        >> Server(b"250 o")
        >> ServerEnds(reset)
        << ToClient(b"250 o")
        << end
    )
    long = b"250 " + b"x" * 20000
    assert (
        greeted()
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
        >> Server(long)
        << ToClient(long)
        >> ServerEnds(reset)
        << end
    ), "half of the line has left already"


@both
@pytest.mark.parametrize("half", [b"", b"2", b"220-go on\r\n", b"220-go on\r\n220 read"])
def test_the_server_while_it_owes_the_answer_to_starttls(half: bytes, reset: bool) -> None:
    notice, end = lost(reset)
    book = after_ehlo()
    assert book >> Client(b"STARTTLS\r\n") << ToServer(b"STARTTLS\r\n")
    if half:
        assert book >> Server(half)
    assert book >> ServerEnds(reset) << notice << end, "a 220 that was not whole was never said"


@pytest.mark.parametrize("code", [b"221", b"421"])
@both
def test_the_server_after_its_last_word(code: bytes, reset: bool) -> None:
    outcome = "completed" if code == b"221" else "server-reset" if reset else "server-closed"
    line = code + b" bye\r\n"
    assert after_ehlo() >> Server(line) << ToClient(line) >> ServerEnds(reset) << End(outcome, "server")


@both
def test_the_server_when_only_the_client_was_let_go(reset: bool) -> None:
    assert (
        after_ehlo()
        >> Client(b"MAIL FROM:<>\r\n")
        << ToServer(b"MAIL FROM:<>\r\n")
        << ReleaseClient()
        >> Server(b"25")
        >> ServerEnds(reset)
        << ToClient(b"25")
        << End("server-reset" if reset else "server-closed", "server", reset_client=reset)
    )
    assert (
        after_ehlo()
        >> Client(b"MAIL FROM:<>\r\n")
        << ToServer(b"MAIL FROM:<>\r\n")
        << ReleaseClient()
        >> ServerEnds(reset)
        << End("server-reset" if reset else "server-closed", "server", reset_client=reset)
    )


def test_a_reply_followed_at_once_by_a_reset_is_delivered() -> None:
    notice, end = lost(True)
    assert (
        greeted()
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
        >> Server(b"250 ok\r\n")
        << ToClient(b"250 ok\r\n")
        >> ServerEnds(True)
        << notice
        << end
    )


def test_a_whole_reply_that_waits_lets_what_is_behind_it_go_and_then_the_loss_is_told() -> None:
    _, end = lost(False)
    assert (
        greeted()
        >> Client(EHLO + b"NOOP\r\n")
        << ToServer(EHLO)
        >> Server(b"250 mail.example.com\r\n")
        >> ServerEnds()
        << ToClient(b"250 mail.example.com\r\n")
        << ToServer(b"NOOP\r\n")
        << Notice("421 4.4.2", CLOSED)
        << end
    )
    assert (
        greeted()
        >> Client(EHLO + b"MAIL FROM:<>\r\n")
        << ToServer(EHLO)
        >> Server(b"250 mail.example.com\r\n")
        >> ServerEnds()
        << ToClient(b"250 mail.example.com\r\n")
        << ToServer(b"MAIL FROM:<>\r\n")
        << ReleaseClient()
        << End("server-closed", "server")
    )


def test_a_whole_reply_that_waits_may_end_the_session_by_itself() -> None:
    book = Playbook(trusted=False)
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER) >> Client(EHLO) << ToServer(EHLO)
    actions = book.player.happens(Server(b"250 XCLIENT ADDR\r\n"))
    assert actions == []
    actions = book.player.happens(ServerEnds())
    assert [type(action).__name__ for action in actions] == ["EhloReplied", "XclientOffered", "ToClient", "End"]


@pytest.mark.parametrize("reset", [False, True])
def test_the_server_while_it_is_asked_what_it_offers(reset: bool) -> None:
    mail = b"MAIL FROM:<>\r\n"
    assert (
        Playbook(trusted=False)
        >> Connected()
        >> Server(BANNER)
        << ToClient(BANNER)
        >> Client(mail)
        << ToServer(b"EHLO localhost\r\n")
        >> ServerEnds(reset)
        << FreshConnection()
        >> Connected()
        >> Server(BANNER)
        << ToServer(mail)
        << ReleaseClient()
        << ReleaseServer(False)
    )


def test_no_server_at_all() -> None:
    assert (
        Playbook()
        >> Client(EHLO)
        >> Unreachable("4.4.3", "name not found", "mx.example.net")
        << Notice("421 4.4.3", "route default", "mx.example.net", "name not found")
        << End("unreachable", "proxy", "name not found")
        >> Connected()
        >> Server(BANNER)
        >> Client(EHLO)
        >> ClientEnds()
        >> ClientEnds(True)
        >> ServerEnds()
        >> Wait(1000)
    )


def test_a_server_of_which_nothing_is_remembered_can_be_talked_to() -> None:
    session = Session(SessionPolicy(), 0.0)
    assert session.server_connected(1.0, name="192.0.2.1", address="192.0.2.1", port=2525) == [DeadlineNearer()]
    assert session.server_data(BANNER, 2.0) == [ToClient(BANNER)]
    actions = session.server_ended(False, 3.0)
    assert Notice("421 4.4.2", "192.0.2.1 port 2525: ") == actions[0]


def test_what_a_server_says_before_it_is_there_is_not_heard() -> None:
    assert Playbook() >> Server(BANNER) >> ServerEnds() >> Connected() >> Server(BANNER) << ToClient(BANNER)


# -- the client ------------------------------------------------------------------------------------------------------


def test_the_client_before_a_server_is_connected() -> None:
    assert Playbook() >> ClientEnds() << End("client-closed", "client") >> Connected()
    assert Playbook() >> ClientEnds(True) << End("client-reset", "client", reset_server=True)


def test_what_it_said_before_still_goes_on() -> None:
    assert (
        Playbook()
        >> Client(b"HELO x\r\nQUI")
        >> ClientEnds()
        >> Connected()
        << ToServer(b"HELO x\r\nQUI")
        << FinishServer()
        >> Server(BANNER + b"250 x\r\n")
        << ToClient(BANNER + b"250 x\r\n")
        >> ServerEnds()
        << End("client-closed", "client")
    )


def test_the_client_while_commands_are_read() -> None:
    assert greeted() >> ClientEnds() << FinishServer() >> ServerEnds() << End("client-closed", "client")
    assert greeted() >> ClientEnds() << FinishServer() >> ServerEnds(True) << End("client-closed", "client")
    assert greeted() >> ClientEnds(True) << End("client-reset", "client", reset_server=True)


def test_half_a_command_goes_on_before_the_end() -> None:
    assert greeted() >> Client(b"NOO") >> ClientEnds() << ToServer(b"NOO") << FinishServer()


def test_the_client_behind_quit_is_a_completed_session() -> None:
    assert (
        after_ehlo()
        >> Client(b"QUIT\r\n")
        << ToServer(b"QUIT\r\n")
        >> ClientEnds()
        << FinishServer()
        >> Server(b"221 bye\r\n")
        << ToClient(b"221 bye\r\n")
        >> ServerEnds()
        << End("completed", "client")
    )


@both
def test_a_client_that_resets_after_221_has_completed(reset: bool) -> None:
    book = after_ehlo()
    assert book >> Client(b"QUIT\r\n") << ToServer(b"QUIT\r\n") >> Server(b"221 bye\r\n") << ToClient(b"221 bye\r\n")
    if reset:
        assert book >> ClientEnds(True) << End("completed", "client", reset_server=True)
    else:
        assert book >> ClientEnds() << FinishServer() >> ServerEnds() << End("completed", "client")


def test_the_client_while_an_ehlo_reply_is_held() -> None:
    assert (
        greeted()
        >> Client(EHLO + b"NO")
        << ToServer(EHLO)
        >> ClientEnds()
        >> Server(GOOD)
        << ToClient(GOOD)
        << ToServer(b"NO")
        << FinishServer()
    )


def test_a_client_that_ended_hears_of_a_reply_that_will_not_come() -> None:
    notice, end = lost(False)
    assert (
        greeted()
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
        >> ClientEnds()
        << FinishServer()
        >> ServerEnds()
        << notice
        << end
    )


def test_the_client_after_the_letting_go() -> None:
    book = greeted()
    assert (
        book >> Client(b"MAIL FROM:<>\r\n") << ToServer(b"MAIL FROM:<>\r\n") << ReleaseClient() << ReleaseServer(False)
    )
    assert book >> ClientEnds() << FinishServer()
    assert book >> ClientEnds(True) << End("client-reset", "client", reset_server=True)
    assert book >> Client(b"x") >> Server(b"x") >> ServerEnds(True)


@pytest.mark.parametrize("closes", [False, True])
def test_the_client_while_the_server_is_asked_what_it_offers(closes: bool) -> None:
    book = Playbook(trusted=False)
    assert book >> Connected() >> Server(BANNER) << ToClient(BANNER)
    assert book >> Client(b"MAIL FROM:<>\r\n") << ToServer(b"EHLO localhost\r\n")
    if closes:
        book >> ServerEnds() << FreshConnection() >> ClientEnds() >> Connected() >> Server(BANNER)
    else:
        book >> ClientEnds() >> Server(GOOD) << ToServer(b"RSET\r\n") >> Server(b"250 ok\r\n")
    book << ToServer(b"MAIL FROM:<>\r\n") << ReleaseClient() << FinishServer() << ReleaseServer(False)
    assert book
