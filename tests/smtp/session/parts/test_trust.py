"""What is known of the server's trust in the proxy."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.repair import EhloContext, RepairPolicy, RepairResult, repair_reply
from proxy.smtp.session.parts.trust import ASK, GO, NEVER, Trust
from proxy.smtp.session.policy import OFFERS_KNOWN_FOR, DestinationMemory

NOW = 1000.0
OFFER = b"250-XCLIENT ADDR\r\n"


def result(*lines: bytes) -> RepairResult:
    raw = b"".join(b"250-" + line + b"\r\n" for line in (b"mail.example.com", *lines)) + b"250 HELP\r\n"
    return repair_reply(raw, RepairPolicy(), EhloContext(b"220 mail.example.com"))


def test_a_trusted_client_may_see_and_do_all() -> None:
    trust = Trust(True, "")
    memory = DestinationMemory()
    assert (trust.safe, trust.may_see, trust.offered_to_stranger(OFFER)) == (True, True, False)
    assert trust.read(True, False, memory, NOW, False)
    assert memory.offers(NOW) is True


def test_a_stranger_may_not_go_on_where_it_is_offered() -> None:
    trust = Trust(False, "")
    memory = DestinationMemory()
    assert (trust.safe, trust.may_see, trust.offered_to_stranger(OFFER)) == (False, False, True)
    assert not trust.read(True, False, memory, NOW, False)
    assert trust.may_go(memory, NOW, False) == NEVER


def test_nor_where_it_is_not_known_each_for_clear_and_for_tls_and_for_a_time() -> None:
    trust = Trust(False, "")
    memory = DestinationMemory()
    assert trust.may_go(memory, NOW, False) == ASK
    memory.learn_offers(False, NOW, inside_tls=False)
    assert trust.may_go(memory, NOW, True) == ASK
    assert trust.may_go(memory, NOW + OFFERS_KNOWN_FOR + 1, False) == ASK
    assert not trust.safe
    assert trust.may_go(memory, NOW, False) == GO
    assert trust.safe


def test_a_refusal_says_nothing_and_half_a_reply_not_enough() -> None:
    trust = Trust(False, "")
    memory = DestinationMemory()
    assert trust.read(False, True, memory, NOW, False)
    assert (trust.safe, memory.offers(NOW)) == (False, None)
    assert trust.read(False, False, memory, NOW, False)
    assert trust.safe
    trust.read_in_part()
    assert not trust.safe


def test_the_question_is_asked_afresh_once() -> None:
    trust = Trust(False, "")
    memory = DestinationMemory()
    trust.ask()
    assert trust.asking
    assert trust.broke(memory, NOW, False)
    assert (trust.asking, memory.offers(NOW)) == (False, False)
    assert not trust.broke(memory, NOW, False)
    trust.ask()
    trust.answered(True, memory, NOW, False)
    assert (trust.asking, memory.offers(NOW)) == (False, True)


@pytest.mark.parametrize(
    ("address", "offer", "line"),
    [
        ("198.51.100.7", b"XCLIENT NAME ADDR", b"XCLIENT ADDR=198.51.100.7 NAME=[UNAVAILABLE]\r\n"),
        ("2001:db8::1", b"xclient addr", b"XCLIENT ADDR=IPV6:2001:db8::1\r\n"),
        ("198.51.100.7", b"XCLIENT NAME", b""),
        ("198.51.100.7", b"XFORWARD ADDR", b""),
        ("198.51.100.7", b"DSN", b""),
        ("", b"XCLIENT ADDR", b""),
    ],
)
def test_xclient_says_the_clients_address_where_it_is_taken(address: str, offer: bytes, line: bytes) -> None:
    trust = Trust(False, address)
    assert trust.xclient(result(offer)) == line
    assert trust.spoken_for is (line != b"")


def test_who_was_spoken_for_is_known_to_the_server_until_the_connection_is_another() -> None:
    trust = Trust(False, "198.51.100.7")
    memory = DestinationMemory()
    assert trust.xclient(result(b"XCLIENT ADDR"))
    assert trust.xclient(result(b"XCLIENT ADDR")) == b"", "once"
    assert trust.may_see
    assert trust.read(True, False, memory, NOW, False)
    assert memory.offers(NOW) is None, "it was about the client's address, not about ours"
    trust.inside_tls()
    assert trust.safe
    trust.on_fresh_connection()
    assert (trust.safe, trust.may_see) == (False, False)
