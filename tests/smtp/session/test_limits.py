"""What a hostile peer can make a session hold, and what it can make it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.events import Action, End, FinishServer, ReleaseClient, ReleaseServer, ToClient, ToServer
from proxy.smtp.session.policy import BridgePolicy, SessionPolicy
from proxy.smtp.session.terms import MAX_OWED, MAX_REPLY_LINE, MAX_WAITING
from tests.playbook import (
    BANNER,
    EHLO,
    READ_ON,
    Client,
    ClientEnds,
    ClientTlsFailed,
    Connected,
    Event,
    Notice,
    Playbook,
    Server,
    after_ehlo,
    greeted,
)

MIB = 1024 * 1024


def played(book: Playbook, events: Iterator[Event]) -> list[Action]:
    """Feed it all (the player checks the bounds at each) until the session ends, or the edge would not read on."""
    actions: list[Action] = []
    for event in events:
        actions += book.player.happens(event)
        if book.player.ended:
            break
    return actions


def sent_to_client(actions: list[Action]) -> bytes:
    return b"".join(action.data for action in actions if isinstance(action, ToClient))


def sent_to_server(actions: list[Action]) -> bytes:
    return b"".join(action.data for action in actions if isinstance(action, ToServer))


def segments(data: bytes, size: int, kind: type[Client] | type[Server]) -> Iterator[Event]:
    return (kind(data[at : at + size]) for at in range(0, len(data), size))


def connected() -> Playbook:
    book = Playbook()
    assert book >> Connected()
    return book


def asked(command: bytes) -> Playbook:
    book = greeted()
    assert book >> Client(command) << ToServer(command)
    return book


def let_go() -> Playbook:
    book = after_ehlo()
    assert book >> Client(b"MAIL FROM:<>\r\n") << ToServer(b"MAIL FROM:<>\r\n") << ReleaseClient()
    return book


# -- one line without an end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [65536, 16384, 1000])
@pytest.mark.parametrize(
    ("begin", "start"),
    [
        (connected, b"220 mail.example.com "),
        (greeted, b"451 unasked "),
        (lambda: asked(b"NOOP\r\n"), b"250 "),
        (lambda: asked(b"HELP\r\n"), b"no code "),
        (lambda: asked(EHLO), b"250-"),
        (lambda: asked(EHLO), b"no code "),
        (let_go, b"250 "),
    ],
)
def test_ten_mebibytes_without_a_line_end_pass_and_nearly_none_is_held(
    begin: Callable[[], Playbook], start: bytes, size: int
) -> None:
    line = start + b"x" * (10 * MIB)
    book = begin()
    actions = played(book, segments(line, size, Server))
    sent = sent_to_client(actions)
    assert len(line) - len(sent) <= MAX_REPLY_LINE
    assert line.startswith(sent)
    if begin is not let_go:
        assert sent_to_client(book.player.happens(Server(b"\r\n"))) == line[len(sent) :] + b"\r\n"


@pytest.mark.parametrize("command", [b"STARTTLS\r\n"])
def test_where_it_is_not_to_pass_it_ends_the_session(command: bytes) -> None:
    actions = played(asked(command), segments(b"220 " + b"x" * MIB, 1000, Server))
    assert isinstance(actions[-1], End)
    assert len(sent_to_client(actions)) < 400


def test_a_command_without_an_end_lets_go() -> None:
    line = b"NOOP " + b"x" * (10 * MIB)
    book = greeted()
    assert sent_to_server(played(book, segments(line, 1000, Client))) == line


def test_a_line_that_began_unasked_does_not_become_the_reply_to_what_is_sent_meanwhile() -> None:
    start = b"451 " + b"x" * 20000
    book = after_ehlo()
    assert book >> Server(start) << ToClient(start) >> Client(EHLO) << ToServer(EHLO)
    repaired = b"250-mail.example.com\r\n250-STARTTLS\r\n250 DSN\r\n"
    actions = book.player.happens(Server(b"\r\n250-STARTTLS\r\n250-mail.example.com\r\n250 DSN\r\n"))
    assert sent_to_client(actions) == b"\r\n" + repaired


def test_a_reply_that_ends_in_a_line_of_many_pieces_is_over_with_it() -> None:
    start, rest = b"250-" + b"x" * 20000, b"y\r\n250 ok\r\n"
    book = asked(b"NOOP\r\n")
    assert book >> Server(start) << ToClient(start) >> Server(rest) << ToClient(rest)
    assert not book.session.talk.owed
    start = b"250 " + b"x" * 20000
    book = asked(b"NOOP\r\n")
    assert book >> Server(start) << ToClient(start) >> Server(b"\r\n") << ToClient(b"\r\n")
    assert not book.session.talk.owed


def test_a_banner_may_end_in_such_a_line() -> None:
    first, rest = b"220-mail.example.com\r\n", b"220 " + b"x" * 20000
    assert connected() >> Server(first + rest) << ToClient(first + rest) >> Server(b"\r\n") << ToClient(b"\r\n")


def test_an_endless_answer_to_mail_lets_go() -> None:
    line = b"250 " + b"x" * 20000
    assert let_go() >> Server(line) << ToClient(line) << ReleaseServer(False)


# -- replies and commands without number -----------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [connected, greeted, lambda: asked(b"NOOP\r\n"), lambda: asked(EHLO)])
@pytest.mark.parametrize("line", [b"250-x\r\n", b"451-x\r\n", b"x\r\n", b"\r\n", b"250-" + b"x" * 10000 + b"\r\n"])
def test_endless_lines_are_never_collected(begin: Callable[[], Playbook], line: bytes) -> None:
    played(begin(), segments(line * (MIB // 16 // len(line)), 65536, Server))


@pytest.mark.parametrize(
    "policy",
    [
        SessionPolicy(bridge=BridgePolicy("none", "starttls")),
        SessionPolicy(bridge=BridgePolicy("none", "starttls"), repair=RepairPolicy(mode="observe")),
    ],
)
@pytest.mark.parametrize("line", [b"220-x\r\n", b"250-x\r\n", b"\r\n"])
def test_nor_are_those_that_the_client_does_not_see(policy: SessionPolicy, line: bytes) -> None:
    book = Playbook(policy)
    assert book >> Connected()
    played(book, segments(line * (MIB // 8 // len(line)), 65536, Server))


def test_what_a_client_says_before_there_is_a_server_is_read_up_to_a_limit() -> None:
    book = Playbook()
    line = b"NOOP\r\n"
    said = 0
    while book.session.wants_client:
        assert book >> Client(line * 100)
        said += 600
    assert MAX_WAITING < said <= MAX_WAITING + 600
    assert book >> Connected() << ToServer(line * (MAX_OWED - 1))
    assert book.session.wants_client
    assert book >> Server(BANNER) << ToClient(BANNER) << ToServer(line)


def test_commands_that_nobody_answers_are_sent_up_to_a_limit() -> None:
    book = greeted()
    line = b"NOOP\r\n"
    sent = sent_to_server(played(book, (Client(line * 5000) for _ in range(3))))
    assert sent == line * MAX_OWED
    assert not book.session.wants_client
    assert len(book.session.talk.owed) == MAX_OWED
    actions = book.player.happens(Server(b"250 ok\r\n" * 10))
    assert sent_to_client(actions) == b"250 ok\r\n" * 10
    assert sent_to_server(actions) == line * 10


def test_no_call_works_through_more_than_a_hundred_commands_and_nothing_is_lost() -> None:
    session = greeted().session
    said = b"".join(b"NOOP %d\r\n" % number for number in range(350))
    calls = [session.client_data(said, 1000.0)]
    while READ_ON in calls[-1]:
        calls.append(session.read_on(1000.0))
    assert [sent_to_server(actions).count(b"\n") for actions in calls] == [100, 100, 100, 50]
    assert b"".join(map(sent_to_server, calls)) == said
    assert session.read_on(1001.0) == []
    assert session.now == 1001.0


def test_nor_does_one_that_brings_a_reply_behind_which_many_wait() -> None:
    session = after_ehlo().session
    said = EHLO + b"NOOP\r\n" * 150 + b"EHLO other.example\r\nRSET\r\n"
    assert session.client_data(said, 1000.0) == [ToServer(EHLO)], "no more may go, however often it is asked"
    reply = b"250-mail.example.com\r\n250 STARTTLS\r\n"
    calls = [session.server_data(reply + b"250 ok\r\n" * 90, 1000.0)]
    assert sent_to_server(calls[0]) == b"NOOP\r\n" * 100
    assert READ_ON in calls[0]
    calls.append(session.read_on(1000.0))
    assert sent_to_server(calls[1]) == b"NOOP\r\n" * 50 + b"EHLO other.example\r\n"
    assert READ_ON not in calls[1]


@pytest.mark.parametrize("number", [99, 100, 101, 200])
def test_an_end_behind_so_many_commands_is_told_behind_the_last(number: int) -> None:
    session = greeted().session
    actions = session.client_data(b"NOOP\r\n" * number, 1000.0) + session.client_ended(False, 1000.0)
    while READ_ON in actions:
        actions.remove(READ_ON)
        actions += session.read_on(1000.0)
    assert sent_to_server(actions) == b"NOOP\r\n" * number
    assert actions[-1] == FinishServer()
    assert actions.count(FinishServer()) == 1


def test_what_comes_meanwhile_goes_on_behind_what_waits() -> None:
    session = greeted().session
    actions = session.client_data(b"NOOP\r\n" * 150 + b"RS", 1000.0)
    actions += session.client_data(b"ET\r\nMAIL FROM:<>\r\nDATA", 1000.0)
    while READ_ON in actions:
        actions.remove(READ_ON)
        actions += session.read_on(1000.0)
    assert sent_to_server(actions) == b"NOOP\r\n" * 150 + b"RSET\r\nMAIL FROM:<>\r\nDATA"
    assert actions[-1] == ReleaseClient()


# -- cost ------------------------------------------------------------------------------------------------------------


def cost(book: Playbook, events: list[Event]) -> float:
    """Seconds of CPU to play them."""
    session, now = book.session, book.player.now
    started = time.process_time()
    for event in events:
        if isinstance(event, Server):
            session.server_data(event.data, now)
        elif isinstance(event, Client):
            session.client_data(event.data, now)
    return time.process_time() - started


@pytest.mark.alone
@pytest.mark.parametrize(
    ("begin", "make"),
    [
        (lambda: asked(b"HELP\r\n"), lambda n: [Server(b"214-x\r\n" * (n // 7))]),
        (lambda: asked(b"HELP\r\n"), lambda n: [Server(b"\n" * n)]),
        (greeted, lambda n: [Server(b"451 x\r\n" * (n // 7))]),
        (connected, lambda n: [Server(b"250 x\r\n" * (n // 7))]),
        (after_ehlo, lambda n: [Server(b"250-SIZE\r\n" * (n // 10))]),
        (after_ehlo, lambda n: [Server(b"\r\n" * (n // 2))]),
        (lambda: asked(b"HELP\r\n"), lambda n: [Server(b"x")] * n),
        (lambda: asked(EHLO), lambda n: [Server(b"x")] * n),
        (greeted, lambda n: [Client(b"x")] * n),
        (greeted, lambda n: [Client(b"NOOP\r\n" * (n // 6))]),
        (lambda: asked(EHLO), lambda n: [Client(b"x")] * n),
        (lambda: asked(b"STARTTLS\r\n"), lambda n: [Client(b"\n")] * n),
    ],
    ids=range(12),
)
def test_the_cost_is_linear_in_the_bytes(begin: Callable[[], Playbook], make: Callable[[int], list[Event]]) -> None:
    small, large = 4_000, 32_000
    once = min(cost(begin(), make(small)) for _ in range(3))
    often = min(cost(begin(), make(large)) for _ in range(2))
    assert often < 8 * max(once, 0.005) * 3, f"{once:.4f} s for {small} bytes, {often:.4f} s for {large}"


@pytest.mark.alone
def test_an_ehlo_reply_in_drips_is_looked_at_once_a_line() -> None:
    lines = b"250-mail.example.com\r\n" + b"".join(b"250-X%d\r\n" % n for n in range(97)) + b"250 DSN\r\n"
    drips: list[Event] = [Server(bytes([byte])) for byte in lines]
    assert cost(asked(EHLO), drips) < 0.25
    final: list[Event] = [Server(b"250 X%d\r\n" % n) for n in range(99)]
    book = asked(EHLO)
    book.memory.saw_going_on(book.player.now)
    assert cost(book, final) < 0.25


def test_an_end_that_was_told_is_not_told_again() -> None:
    book = greeted()
    assert book >> ClientEnds(True) << End("client-reset", "client", reset_server=True) >> ClientTlsFailed()


def test_an_end_says_why_in_few_words() -> None:
    cause = "a reply line without an end"
    assert asked(b"STARTTLS\r\n") >> Server(b"x" * MIB) << Notice("421 4.4.2", cause) << End("error", "server", cause)
