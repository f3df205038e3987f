"""DNS messages: what is written, what is read of an answer, and what no name server can make the reader do."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.names import dns

from proxy.net.going_out.names.dns_message import AAAA, CNAME, MX, TLSA, A, question, read_answer


def message(asked: bytes, *records: dns.RRHeader, **header: int) -> bytes:
    """An answer as twisted.names writes it, compression included."""
    made = dns.Message(int.from_bytes(asked[:2], "big"), answer=1, recDes=1, recAv=1, **header)
    made.maxSize = 0
    query = dns.Message()
    query.fromStr(asked)
    made.queries = query.queries
    made.answers = list(records)
    packed: bytes = made.toStr()
    return packed


def test_a_question_is_what_another_program_reads() -> None:
    read = dns.Message()
    read.fromStr(question(0x1234, "MX.Example.", MX))
    assert (read.id, read.recDes, len(read.queries)) == (0x1234, 1, 1)
    assert (read.queries[0].name.name, read.queries[0].type, read.queries[0].cls) == (b"MX.Example", MX, 1)


@pytest.mark.parametrize("name", ["a..b", "", "x" * 64, ".".join(["a" * 60] * 5)])
def test_a_name_that_no_message_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="octets"):
        question(1, name, A)


def test_the_records_of_an_answer_are_read_with_names_in_small_letters() -> None:
    asked = question(7, "mail.example", MX)
    answer = read_answer(
        message(
            asked,
            dns.RRHeader("mail.example", dns.CNAME, dns.IN, 60, dns.Record_CNAME("Real.Example")),
            dns.RRHeader("real.example", dns.MX, dns.IN, 61, dns.Record_MX(10, "MX1.real.example")),
            dns.RRHeader("mx1.real.example", dns.A, dns.IN, 62, dns.Record_A("192.0.2.1")),
            dns.RRHeader("mx1.real.example", dns.AAAA, dns.IN, 63, dns.Record_AAAA("2001:db8::1")),
            dns.RRHeader("real.example", 52, dns.IN, 64, dns.UnknownRecord(b"\3\1\1abc")),
            dns.RRHeader("real.example", dns.A, dns.CH, 65, dns.Record_A("192.0.2.66")),
        ),
        asked,
    )
    assert answer is not None
    assert (answer.code, answer.truncated, answer.authentic) == (0, False, False)
    assert [(one.owner, one.kind, one.ttl, one.name, one.preference) for one in answer.records] == [
        ("mail.example", CNAME, 60, "real.example", 0),
        ("real.example", MX, 61, "mx1.real.example", 10),
        ("mx1.real.example", A, 62, "192.0.2.1", 0),
        ("mx1.real.example", AAAA, 63, "2001:db8::1", 0),
        ("real.example", TLSA, 64, "", 0),
    ]
    assert answer.records[4].data == b"\3\1\1abc"


def test_what_answers_something_else_is_no_answer() -> None:
    asked = question(7, "mail.example", A)
    good = message(asked)
    assert read_answer(good, asked) is not None
    assert read_answer(good, question(8, "mail.example", A)) is None
    assert read_answer(good, question(7, "other.example", A)) is None
    assert read_answer(good, question(7, "mail.example", AAAA)) is None
    assert read_answer(asked, asked) is None  # not an answer
    assert read_answer(b"", asked) is None
    assert read_answer(message(question(7, "MAIL.example", A)), asked) is not None  # RFC 4343


def attacks(asked: bytes) -> dict[str, bytes]:
    """Messages of 64 KiB that cost a careless reader seconds."""
    head = asked[:2] + b"\x81\x80\0\1\xff\xff\0\0\0\0" + asked[12:]
    labels = head + b"\1a" * 14000  # and pointers to their start, one a record
    start = (0xC000 | len(head)).to_bytes(2, "big")
    empty = b"\0\1\0\1\0\0\0\0\0\0"
    ring = len(head)
    return {
        "pointers to a name of 14000 labels": labels + b"\0" + empty + (start + empty) * 2500,
        "a pointer to itself": head + (0xC000 | ring).to_bytes(2, "big") + empty,
        "two pointers to each other": head
        + (0xC000 | ring + 2).to_bytes(2, "big")
        + (0xC000 | ring).to_bytes(2, "big"),
        "records without end": head + (b"\0" + empty) * 5900,
        "a chain of pointers": head + b"".join((0xC000 | ring + 2 * n).to_bytes(2, "big") for n in range(8000)),
    }


@pytest.mark.parametrize("which", attacks(question(1, "a.example", A)))
@pytest.mark.parametrize("number", [7, 8], ids=["right-id", "wrong-id"])
def test_no_answer_costs_more_than_a_few_milliseconds(which: str, number: int) -> None:
    asked = question(7, "a.example", A)
    data = attacks(question(number, "a.example", A))[which]
    began = time.process_time()
    for _ in range(10):
        read_answer(data, asked)
    assert (time.process_time() - began) / 10 < 0.01


@given(st.binary(max_size=300), st.integers(0, 65535))
def test_no_bytes_raise(data: bytes, count: int) -> None:
    asked = question(7, "a.example", A)
    answer = read_answer(asked[:2] + b"\x81\x80\0\1" + count.to_bytes(2, "big") + bytes(4) + asked[12:] + data, asked)
    assert answer is not None
    assert len(answer.records) <= min(count, 100)
    other = read_answer(data, asked)
    assert other is None or data.startswith(asked[:2])
