"""What leaves in one call: in order, in as few writes as can be.  What is owed: what comes next, what may follow."""

from __future__ import annotations

import pytest

from proxy.smtp.session.events import Found, ReleaseClient, ToClient, ToServer
from proxy.smtp.session.parts.talk import Talk
from proxy.smtp.session.terms import MAX_COMMANDS, MAX_OWED, Phase, Reply


def test_what_goes_to_one_peer_in_a_row_is_one_action() -> None:
    talk = Talk(1.0)
    assert talk.done() == []
    talk.to_client(b"a")
    talk.to_client(b"b")
    talk.to_server(b"c")
    talk.tell(ReleaseClient())
    talk.to_server(b"d")
    assert talk.done() == [ToClient(b"ab"), ToServer(b"c"), ReleaseClient(), ToServer(b"d")]
    assert talk.done() == []


def test_the_output_of_a_call_is_not_that_of_the_next() -> None:
    talk = Talk(1.0)
    first = talk.done()
    talk.to_client(b"a")
    assert first == []


def test_a_command_is_owed_a_reply_from_now_on() -> None:
    talk = Talk(1.0)
    talk.begin(5.0)
    talk.ask(Reply.NOOP, b"NOOP\r\n")
    talk.ask(Reply.HELO, b"HELO x\r\n", True)
    assert talk.done() == [ToServer(b"NOOP\r\nHELO x\r\n")]
    first = talk.owed[0]
    assert (first.kind, first.at, first.private, len(talk.owed)) == (Reply.NOOP, 5.0, False, 2)


def test_a_finding_is_told_once_and_does_not_part_the_commands_of_a_segment() -> None:
    talk = Talk(1.0)
    found = Found("client-name-invalid", (b"EHLO x",), False, (b"EHLO x",), "client")
    talk.tell_once(found_first := Found("final-line-early", (b"250-DSN\r\n",), True))
    talk.to_client(b"z")
    talk.to_server(b"a")
    talk.to_server(b"b")
    assert not talk.has_told(found.finding)
    talk.tell_once(found)
    talk.tell_once(found)
    talk.to_server(b"c")
    assert talk.has_told(found.finding)
    assert talk.done() == [found_first, ToClient(b"z"), found, ToServer(b"abc")]


def test_each_call_has_so_many_commands() -> None:
    talk = Talk(1.0)
    talk.ask(Reply.NOOP, b"NOOP\r\n")
    assert talk.commands_left == MAX_COMMANDS - 1
    talk.begin(2.0)
    assert (talk.commands_left, talk.now) == (MAX_COMMANDS, 2.0)


def test_it_begins_where_no_server_is() -> None:
    talk = Talk(1.0)
    assert talk.phase == Phase.CONNECTING
    talk.enter(Phase.OPENING)
    assert talk.phase == Phase.OPENING


def kinds(talk: Talk) -> list[int]:
    seen = []
    while talk.owed:
        seen.append(talk.first_is_over().kind)
    return seen


def test_the_oldest_comes_first() -> None:
    talk = Talk(1.0)
    talk.await_banner(False)
    for kind in (Reply.NOOP, Reply.EHLO):
        talk.ask(kind, b"")
    assert len(talk.owed) == 3
    assert kinds(talk) == [Reply.BANNER, Reply.NOOP, Reply.EHLO]
    assert (talk.phase, talk.owed) == (Phase.OPENING, [])


@pytest.mark.parametrize("kind", [Reply.EHLO, Reply.STARTTLS])
def test_nothing_may_follow_what_changes_what_comes_behind_it(kind: int) -> None:
    talk = Talk(1.0)
    talk.ask(Reply.NOOP, b"")
    assert talk.may_follow
    talk.ask(kind, b"")
    assert not talk.may_follow
    talk.first_is_over()
    assert not talk.may_follow, "it is still owed"
    talk.first_is_over()
    assert talk.may_follow


def test_nor_a_command_of_the_proxys_own() -> None:
    talk = Talk(1.0)
    talk.ask(Reply.HELO, b"", private=True)
    assert not talk.may_follow
    talk.owe_nothing()
    assert talk.may_follow
    assert not talk.owed


def test_nor_an_ehlo_reply_that_passes_unrepaired() -> None:
    talk = Talk(1.0)
    talk.ask(Reply.EHLO, b"")
    talk.first_passes_unrepaired()
    assert not talk.may_follow
    assert kinds(talk) == [Reply.UNREPAIRED]


def test_so_many_and_no_more() -> None:
    talk = Talk(1.0)
    for _ in range(MAX_OWED - 1):
        talk.ask(Reply.NOOP, b"")
        assert talk.may_follow
    talk.ask(Reply.NOOP, b"")
    assert not talk.may_follow
    talk.first_is_over()
    assert talk.may_follow


def test_no_server_answers_before_its_banner() -> None:
    talk = Talk(1.0)
    talk.ask(Reply.NOOP, b"")
    talk.begin(7.0)
    talk.banner_over()
    assert (talk.owed[0].at, talk.phase) == (7.0, Phase.COMMANDS)


def test_a_turn_begins_with_the_end_of_a_reply_or_when_it_is_said_so() -> None:
    talk = Talk(1.0)
    talk.ask(Reply.NOOP, b"")
    talk.begin(5.0)
    assert talk.since == 1.0
    talk.first_is_over()
    assert talk.since == 5.0
    talk.begin(9.0)
    talk.begin_turn()
    assert talk.since == 9.0
