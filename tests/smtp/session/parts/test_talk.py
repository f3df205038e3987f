"""What leaves in one call: in order, and in as few writes as can be."""

from __future__ import annotations

from proxy.smtp.session.events import Found, ReleaseClient, ToClient, ToServer
from proxy.smtp.session.parts.talk import Talk, joined
from proxy.smtp.session.terms import MAX_COMMANDS, Phase, Reply


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


def test_joined_ends_with_an_action_or_with_bytes() -> None:
    assert joined([ToServer(b"a"), ToServer(b"b"), ReleaseClient()]) == [ToServer(b"ab"), ReleaseClient()]
    assert joined([ReleaseClient(), ToServer(b"a"), ToServer(b"b")]) == [ReleaseClient(), ToServer(b"ab")]
    assert joined([]) == []


def test_a_command_is_owed_a_reply_from_now_on() -> None:
    talk = Talk(1.0)
    talk.begin(5.0)
    talk.ask(Reply.NOOP, b"NOOP\r\n")
    talk.ask(Reply.HELO, b"HELO x\r\n", True)
    assert talk.done() == [ToServer(b"NOOP\r\nHELO x\r\n")]
    first = talk.owed.first
    assert first is not None
    assert (first.kind, first.at, first.private, len(talk.owed)) == (Reply.NOOP, 5.0, False, 2)


def test_a_finding_is_told_once_and_does_not_part_the_commands_of_a_segment() -> None:
    talk = Talk(1.0)
    found = Found("client-name-invalid", (b"EHLO x",), False, (b"EHLO x",), "client")
    talk.to_client(b"z")
    talk.to_server(b"a")
    talk.to_server(b"b")
    assert not talk.has_told(found.finding)
    talk.tell_once(found)
    talk.tell_once(found)
    talk.to_server(b"c")
    assert talk.has_told(found.finding)
    assert talk.done() == [ToClient(b"z"), found, ToServer(b"abc")]


def test_each_call_has_so_many_commands() -> None:
    talk = Talk(1.0)
    talk.worked_through(60, False)
    talk.worked_through(40, True)
    assert (talk.commands_left, talk.stopped) == (MAX_COMMANDS - 100, True)
    talk.begin(2.0)
    assert (talk.commands_left, talk.stopped, talk.now) == (MAX_COMMANDS, False, 2.0)


def test_it_begins_where_no_server_is() -> None:
    talk = Talk(1.0)
    assert talk.phase == Phase.CONNECTING
    talk.enter(Phase.OPENING)
    assert talk.phase == Phase.OPENING
