"""When an EHLO reply is over, with time as an input."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import RepairPolicy
from proxy.smtp.session.events import End, Found, ToClient, ToServer
from proxy.smtp.session.policy import GOING_ON_KNOWN_FOR, DestinationMemory, SessionPolicy
from tests.playbook import EHLO, GOOD, Client, Notice, Playbook, Server, ServerEnds, Told, Wait, greeted

OBSERVE = SessionPolicy(repair=RepairPolicy(mode="observe"))
OFF = SessionPolicy(repair=RepairPolicy(mode="off"))
UNENDED = b"250-STARTTLS\r\n250-mail.example.com\r\n250-HELP\r\n"
ENDED = b"250-mail.example.com\r\n250-STARTTLS\r\n250 HELP\r\n"


def slow() -> DestinationMemory:
    return DestinationMemory(1000.0, 1000.0)


def asked(
    policy: SessionPolicy | None = None, memory: DestinationMemory | None = None, *, loud: bool = False
) -> Playbook:
    book = greeted(policy, memory=memory, loud=loud)
    assert book >> Client(EHLO) << ToServer(EHLO)
    return book


def test_a_whole_and_well_formed_reply_leaves_in_the_turn_of_its_last_byte() -> None:
    for cut in range(1, len(GOOD)):
        assert asked() >> Server(GOOD[:cut]) >> Server(GOOD[cut:]) << ToClient(GOOD)


def test_a_reply_without_a_final_line_is_over_after_fifteen_seconds() -> None:
    book = asked(loud=True)
    assert book >> Server(UNENDED)
    assert book.waits_for == 15.0
    assert (
        book
        >> Wait(14.9)
        >> Wait(0.1)
        << Told("ehlo greeting-not-first final-line-missing")
        << ToClient(ENDED)
        >> Client(b"NOOP\r\n")
        << ToServer(b"NOOP\r\n")
    )


def test_every_line_that_comes_begins_the_silence_anew() -> None:
    book = asked(SessionPolicy(unterminated_after=5.0))
    for line in UNENDED.splitlines(keepends=True):
        assert book >> Server(line) >> Wait(4.9)
    assert book >> Wait(0.1) << ToClient(ENDED)


def test_what_is_pipelined_behind_ehlo_is_held_for_as_long() -> None:
    assert (
        asked()
        >> Client(b"NOOP\r\n")
        >> Server(UNENDED)
        >> Client(b"RSET\r\n")
        >> Wait(15)
        << ToClient(ENDED)
        << ToServer(b"NOOP\r\nRSET\r\n")
    )


def test_half_a_line_ends_nothing() -> None:
    cause = "no reply in time"
    assert (
        asked()
        >> Server(UNENDED + b"250-DSN")
        >> Wait(299)
        >> Wait(1)
        << Notice("421 4.4.2", cause)
        << End("timeout", "server", cause)
    )


def test_half_a_line_that_is_ended_at_last_ends_the_reply() -> None:
    assert (
        asked()
        >> Server(UNENDED + b"250 DS")
        >> Wait(100)
        >> Server(b"N\r\n")
        << ToClient(b"250-mail.example.com\r\n250-STARTTLS\r\n250-HELP\r\n250 DSN\r\n")
    )


@pytest.mark.parametrize("reply", [b"no code\r\n", b"\r\n"], ids=repr)
def test_silence_ends_no_reply_that_is_not_to_be_repaired(reply: bytes) -> None:
    cause = "no reply in time"
    assert asked() >> Server(reply) >> Wait(300) << Notice("421 4.4.2", cause) << End("timeout", "server", cause)


@pytest.mark.parametrize("reply", [b"550-no\r\n", b"250-a\r\n550-no\r\n"], ids=repr)
def test_a_refusal_that_does_not_end_in_time_passes_so_that_its_reason_is_not_lost(reply: bytes) -> None:
    cause = "no reply in time"
    assert (
        asked()
        >> Server(reply)
        >> Wait(300)
        << Notice("421 4.4.2", cause, behind=reply)
        << End("timeout", "server", cause)
    )
    assert asked() >> Server(reply + b"550") >> Wait(300) << ToClient(reply + b"550") << End("timeout", "server", cause)


# -- 0.2 seconds -----------------------------------------------------------------------------------------------------


def test_one_line_waits_for_more() -> None:
    book = asked()
    assert book >> Server(b"250 mail.example.com\r\n")
    assert book.waits_for == 0.2
    assert book >> Wait(0.2) << ToClient(b"250 mail.example.com\r\n")


def test_one_line_that_is_followed_by_others_is_joined_with_them() -> None:
    assert (
        asked()
        >> Server(b"250 STARTTLS\r\n")
        >> Wait(0.1)
        >> Server(b"250 mail.example.com\r\n")
        << ToClient(b"250-mail.example.com\r\n250 STARTTLS\r\n")
    )


def test_a_reply_without_a_greeting_so_far_waits_for_one() -> None:
    assert (
        asked()
        >> Server(b"250-STARTTLS\r\n250 HELP\r\n")
        >> Wait(0.19)
        >> Server(b"250 mail.example.com\r\n")
        << ToClient(b"250-mail.example.com\r\n250-STARTTLS\r\n250 HELP\r\n")
    )
    assert (
        asked()
        >> Server(b"250-STARTTLS\r\n250 HELP\r\n")
        >> Wait(0.2)
        << ToClient(b"250-mail.example.com\r\n250-STARTTLS\r\n250 HELP\r\n")
    )


def test_a_reply_that_ends_in_a_separator_that_is_none_waits_too() -> None:
    assert (
        asked()
        >> Server(b"250-mail.example.com\r\n250_STARTTLS\r\n")
        >> Wait(0.2)
        << ToClient(b"250-mail.example.com\r\n250 STARTTLS\r\n")
    )


# -- a final line that is not the last -------------------------------------------------------------------------------


def test_what_stands_there_in_one_turn_is_one_reply() -> None:
    early = b"250-mail.example.com\r\n250 STARTTLS\r\n250-8BITMIME\r\n250 HELP\r\n"
    assert asked() >> Server(early) << ToClient(b"250-mail.example.com\r\n250-STARTTLS\r\n250-8BITMIME\r\n250 HELP\r\n")
    every = b"250 mail.example.com\r\n250 STARTTLS\r\n250 8BITMIME\r\n"
    assert asked() >> Server(every) << ToClient(b"250-mail.example.com\r\n250-STARTTLS\r\n250 8BITMIME\r\n")


def test_a_line_that_promises_more_behind_a_final_one_does_not_make_the_reply_wait() -> None:
    assert (
        asked()
        >> Server(b"250-mail.example.com\r\n250 STARTTLS\r\n250-8BITMIME\r\n")
        << ToClient(b"250-mail.example.com\r\n250-STARTTLS\r\n250 8BITMIME\r\n")
    )


def test_nor_does_it_where_little_silence_is_waited_for_anyway() -> None:
    assert (
        asked()
        >> Server(b"250 STARTTLS\r\n250-HELP\r\n")
        >> Wait(0.2)
        << ToClient(b"250-mail.example.com\r\n250-STARTTLS\r\n250 HELP\r\n")
    )


def test_half_a_line_behind_the_final_one_is_given_a_moment() -> None:
    assert (
        asked()
        >> Server(b"250-mail.example.com\r\n250 STARTTLS\r\n250 HE")
        >> Wait(0.1)
        >> Server(b"LP\r\n")
        << ToClient(b"250-mail.example.com\r\n250-STARTTLS\r\n250 HELP\r\n")
    )
    assert asked() >> Server(GOOD + b"\r") >> Server(b"\n") << ToClient(GOOD)
    assert asked() >> Server(GOOD + b"2") >> Wait(0.2) << ToClient(GOOD)


def test_a_blank_line_right_behind_the_reply_is_part_of_it_and_removed() -> None:
    assert asked() >> Server(GOOD + b"\r\n") << ToClient(GOOD)


@pytest.mark.parametrize("early", [b"250 HELP\r\n250-DSN\r\n250 SIZE\r\n", b"250 HELP\r\n250 SIZE\r\n"])
def test_a_destination_that_was_seen_to_end_early_is_given_a_little_silence(early: bytes) -> None:
    memory = DestinationMemory()
    early = b"250-mail.example.com\r\n250 STARTTLS\r\n" + early
    one = b"250-mail.example.com\r\n250-STARTTLS\r\n" + early[36:].replace(b"250 ", b"250-", early.count(b"250 ") - 2)
    first = asked(memory=memory)
    first >> Server(early)
    assert [type(action) for action in first.player.happens(first.steps[0][0])][-1] is ToClient
    assert memory.goes_on(first.player.now)
    book = asked(memory=memory)
    for line in early.splitlines(keepends=True):
        assert book >> Wait(0.15) >> Server(line)
    assert book >> Wait(0.19) >> Wait(0.01) << ToClient(one)
    assert asked(memory=memory) >> Server(GOOD) >> Wait(0.2) << ToClient(GOOD), "good ones wait, too"


def test_a_destination_that_was_seen_to_go_on_after_the_silence_is_given_a_minute() -> None:
    book = asked(memory=slow())
    assert book >> Server(UNENDED)
    assert book.waits_for == 60.0
    patient = SessionPolicy(unterminated_after=120.0)
    book = asked(patient, slow())
    assert book >> Server(UNENDED)
    assert book.waits_for == 120.0


def test_a_reply_that_silence_had_to_end_makes_the_next_wait_no_longer() -> None:
    memory = DestinationMemory()
    assert asked(memory=memory) >> Server(UNENDED) >> Wait(15) << ToClient(ENDED)
    assert asked(memory=memory) >> Server(UNENDED) >> Wait(15) << ToClient(ENDED)


def test_an_hour_after_the_last_time_a_destination_is_given_no_silence_any_more() -> None:
    memory = DestinationMemory()
    memory.saw_going_on(1000.0 - GOING_ON_KNOWN_FOR, after_silence=True)
    assert asked(memory=memory) >> Server(GOOD) >> Wait(0.2) << ToClient(GOOD)
    memory.saw_going_on(999.9 - GOING_ON_KNOWN_FOR, after_silence=True)
    assert asked(memory=memory) >> Server(GOOD) << ToClient(GOOD)
    book = asked(memory=memory)
    assert book >> Server(UNENDED)
    assert book.waits_for == 15.0


# -- modes that change nothing ---------------------------------------------------------------------------------------


def test_observe_and_off_complete_nothing() -> None:
    more = b"250-more\r\n"
    assert asked(OFF) >> Server(UNENDED) >> Wait(15) << ToClient(UNENDED) >> Server(more) << ToClient(more)
    assert (
        asked(OBSERVE)
        >> Server(UNENDED)
        >> Wait(15)
        << ToClient(UNENDED)
        >> Server(more)
        << Found("final-line-missing", (more,), False)
        << ToClient(more)
    )


def test_off_does_not_wait_where_a_client_would_not() -> None:
    assert asked(OFF) >> Server(b"250 STARTTLS\r\n2") << ToClient(b"250 STARTTLS\r\n")
    assert asked(OFF) >> Server(b"250 a\r\n250-b\r\n") << ToClient(b"250 a\r\n250-b\r\n")
    assert asked(OBSERVE) >> Server(b"250 STARTTLS\r\n") >> Wait(0.2) << ToClient(b"250 STARTTLS\r\n")


# -- cut off ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
def test_a_held_reply_that_is_cut_off_is_dropped(reset: bool) -> None:
    cause = "the server ended the connection" + (" by a reset" if reset else "")
    outcome = "server-reset" if reset else "server-closed"
    for held in (UNENDED, UNENDED + b"250 HEL", b"250-mail.exa"):
        assert (
            asked() >> Server(held) >> ServerEnds(reset) << Notice("421 4.4.2", cause) << End(outcome, "server", cause)
        )


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("command", [EHLO, b"STARTTLS\r\n"])
def test_a_refusal_that_is_cut_off_passes_as_it_came(command: bytes, reset: bool) -> None:
    for said in (b"550 5.7.1 you are blocked", b"550-5.7.1 you are\r\n550 5.7.1 blocked", b"421"):
        assert (
            greeted()
            >> Client(command)
            << ToServer(command)
            >> Server(said)
            >> ServerEnds(reset)
            << ToClient(said)
            << End("server-reset" if reset else "server-closed", "server", reset_client=reset)
        )
    cause = "the server ended the connection"
    assert (
        greeted()
        >> Client(command)
        << ToServer(command)
        >> Server(b"550-5.7.1 you are\r\n")
        >> ServerEnds()
        << Notice("421 4.4.2", cause, behind=b"550-5.7.1 you are\r\n")
        << End("server-closed", "server", cause)
    )


@pytest.mark.parametrize("rest", [b"", b"250", b"\r"])
def test_a_whole_reply_that_only_waited_is_delivered(rest: bytes) -> None:
    cause = "the server ended the connection"
    assert (
        asked()
        >> Server(b"250 mail.example.com\r\n" + rest)
        >> ServerEnds()
        << Notice("421 4.4.2", cause, behind=b"250 mail.example.com\r\n")
        << End("server-closed", "server", cause)
    )


def test_what_was_held_and_cut_off_passes_as_it_came_where_nothing_is_changed() -> None:
    cause = "the server ended the connection"
    for policy in (OBSERVE, OFF):
        assert (
            asked(policy)
            >> Server(UNENDED + b"250 HEL")
            >> ServerEnds()
            << ToClient(UNENDED + b"250 HEL")
            << End("server-closed", "server")
        )
        assert (
            asked(policy)
            >> Server(UNENDED)
            >> ServerEnds()
            << Notice("421 4.4.2", cause, behind=UNENDED)
            << End("server-closed", "server", cause)
        )
    assert (
        asked(OBSERVE)
        >> Server(b"250 one\r\n25")
        >> ServerEnds()
        << ToClient(b"250 one\r\n25")
        << End("server-closed", "server")
    )


def test_a_held_reply_that_is_late_is_dropped() -> None:
    cause = "no reply in time"
    book = asked(SessionPolicy(command_timeout=10.0))
    assert book >> Server(UNENDED) >> Wait(10) << Notice("421 4.4.2", cause) << End("timeout", "server", cause)


def test_a_421_in_place_of_the_reply_is_the_servers_last_word() -> None:
    assert (
        asked()
        >> Server(b"421 4.3.2 closing\r\n\r\n")
        << ToClient(b"421 4.3.2 closing\r\n\r\n")
        >> ServerEnds()
        << End("server-closed", "server")
    )
    assert (
        greeted()
        >> Client(EHLO)
        << ToServer(EHLO)
        >> Server(b"221 bye\r\n")
        << ToClient(b"221 bye\r\n")
        >> ServerEnds()
        << End("completed", "server")
    )


# -- too long --------------------------------------------------------------------------------------------------------


def test_a_reply_that_is_too_long_passes_as_it_comes() -> None:
    lines = [b"250-STARTTLS\r\n", *(b"250-X%d\r\n" % number for number in range(120))]
    book = asked()
    for line in lines[:100]:
        assert book >> Server(line)
    assert book >> Client(b"NOOP\r\n") >> Server(lines[100]) << ToClient(b"".join(lines[:101]))
    for line in lines[101:]:
        assert book >> Server(line) << ToClient(line)
    assert book >> Server(b"250 HELP\r\n") << ToClient(b"250 HELP\r\n") << ToServer(b"NOOP\r\n")
    assert book >> Server(b"250 noop\r\n") << ToClient(b"250 noop\r\n")


def test_a_reply_whose_last_line_makes_it_too_long_is_over_with_it() -> None:
    raw = b"250-STARTTLS\r\n" * 100 + b"250 HELP\r\n"
    assert (
        asked()
        >> Client(b"NOOP\r\n")
        >> Server(raw)
        << ToClient(raw)
        << ToServer(b"NOOP\r\n")
        >> Server(b"250 noop\r\n")
        << ToClient(b"250 noop\r\n")
    )


@pytest.mark.parametrize("last", [100, 119])
def test_a_reply_that_is_too_long_ends_at_a_final_line_behind_junk(last: int) -> None:
    raw = b".250-X\r\n" * last + b". 250 HELP\r\n"
    assert asked() >> Client(b"NOOP\r\n") >> Server(raw) << ToClient(raw) << ToServer(b"NOOP\r\n")


def test_a_line_that_is_too_long_passes_in_pieces_and_its_end_is_seen() -> None:
    start, middle = b"250 " + b"x" * 20000, b"y" * 20000
    assert (
        asked()
        >> Client(b"NOOP\r\n")
        >> Server(b"250-mail.example.com\r\n" + start)
        << ToClient(b"250-mail.example.com\r\n" + start)
        >> Server(middle)
        << ToClient(middle)
        >> Server(b"z\r\n")
        << ToClient(b"z\r\n")
        << ToServer(b"NOOP\r\n")
    )
