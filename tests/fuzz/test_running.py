"""A proxy that runs passes on what both peers send: for a moment, and for a quarter of an hour with --long."""

from __future__ import annotations

import time

import pytest

from proxy.smtp.reply.repair import EhloContext, RepairPolicy, repair_reply
from tests.fuzz.running import fuzz
from tests.fuzz.talk import Dialogue, Told

REPLY = b"250-STARTTLS\r\n250 mail.domain1.com\r\n"


def check(seconds: float) -> None:
    seed = time.time_ns() % 2**32
    played, found = fuzz(seconds, seed)
    print(f"{played} dialogues from seed {seed}")
    assert played
    assert not found, "\n".join(found)


def test_for_a_moment_both_streams_are_what_was_sent() -> None:
    check(4.0)


@pytest.mark.long
def test_for_a_quarter_of_an_hour_both_streams_are_what_was_sent() -> None:
    check(900.0)


def test_a_dialogue_is_made_from_its_seed_alone() -> None:
    for seed in range(50):
        one, other = Dialogue(seed, False, False), Dialogue(seed, False, False)
        assert one == other
        assert [one.reply(n, b"EHLO a\r\n") for n in range(4)] == [other.reply(n, b"EHLO a\r\n") for n in range(4)]


def told(seen_by_client: bytes, seen_by_server: bytes) -> Told:
    dialogue = Dialogue(1, False, False)
    dialogue.client_end, dialogue.banner = "waits", b"220 mail.domain1.com ESMTP\r\n"
    return Told(
        dialogue, b"EHLO client.example\r\n", seen_by_client, "fin",
        [("banner", dialogue.banner), ("ehlo", REPLY)], [b"EHLO client.example\r\n"], seen_by_server, "fin",
    )  # fmt: skip


def test_the_comparison_sees_a_byte_too_many_and_one_too_few() -> None:
    context = EhloContext(b"220 mail.domain1.com ESMTP\r\n", b"", b"127.0.0.1", b"client.example")
    due = b"220 mail.domain1.com ESMTP\r\n" + repair_reply(REPLY, RepairPolicy(), context).reply
    said = b"EHLO client.example\r\n"
    assert told(due, said).wrong() == ""
    assert told(due[:-1], said).wrong().startswith("client got")
    assert told(due + b"x", said).wrong().startswith("client got")
    assert told(due + b"421 4.4.2 ehlo-proxy r [0123456789ab]\r\n", said).wrong().startswith("client got")
    assert told(due, said[:-1]).wrong().startswith("server got")
