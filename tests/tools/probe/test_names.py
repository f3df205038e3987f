"""DNS: exchanges and TLSA records as they are, AD believed of loopback alone, and an end to every wait."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.names import dns

from proxy.net.going_out.names.dns_message import DnsAnswer
from proxy.tools.probe import names
from proxy.tools.probe.names import Dane, NoName, Tlsa, compared, dane, exchanges
from tests.certificates import make, root

Answer = Callable[[dns.Message], bytes | None]


@contextmanager
def name_server(answer: Answer) -> Iterator[tuple[str, int]]:
    """A name server on loopback, over UDP and TCP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.create_server(("127.0.0.1", 0)) as tcp:
        where = tcp.getsockname()
        udp.bind(where)  # the kernel gives ports to UDP from elsewhere in its range
        stop = threading.Event()
        udp.settimeout(0.1)
        tcp.settimeout(0.1)

        def serve_udp() -> None:
            while not stop.is_set():
                try:
                    data, client = udp.recvfrom(4096)
                except TimeoutError:
                    continue
                reply = answer(asked(data))
                if reply is not None:
                    udp.sendto(reply if len(reply) <= 512 else truncated(reply), client)

        def serve_tcp() -> None:
            while not stop.is_set():
                try:
                    sock, _ = tcp.accept()
                except TimeoutError:
                    continue
                with sock:
                    data = sock.recv(4096)
                    reply = answer(asked(data[2:]))
                    if reply is not None:
                        sock.sendall(len(reply).to_bytes(2, "big") + reply)

        threads = [threading.Thread(target=each) for each in (serve_udp, serve_tcp)]
        for thread in threads:
            thread.start()
        try:
            yield where
        finally:
            stop.set()
            for thread in threads:
                thread.join(5)


def asked(data: bytes) -> dns.Message:
    message = dns.Message()
    message.fromStr(data)
    return message


def truncated(reply: bytes) -> bytes:
    """The head and the question, with TC."""
    message = asked(reply)
    message.answers = []
    message.trunc = 1
    return bytes(message.toStr())


def answering(*payloads: object, ad: int = 0, code: int = dns.OK) -> Answer:
    """Gives these records for whatever is asked."""

    def answer(question: dns.Message) -> bytes:
        assert question.authenticData
        reply = dns.Message(question.id, answer=1, rCode=code, authenticData=ad, maxSize=65535)
        reply.queries = question.queries
        name, kind = question.queries[0].name.name, question.queries[0].type
        reply.answers = [dns.RRHeader(name, kind, payload=each) for each in payloads]
        return bytes(reply.toStr())

    return answer


def tlsa(*octets: bytes) -> list[dns.UnknownRecord]:
    return [dns.UnknownRecord(each) for each in octets]


def test_exchanges_come_in_the_order_of_their_preference() -> None:
    records = [dns.Record_MX(20, "two.example"), dns.Record_MX(10, "one.example"), dns.Record_MX(30, "one.example")]
    with name_server(answering(*records)) as where:
        assert exchanges("domain1.com", [where], 2.0) == ["one.example", "two.example"]


def test_a_domain_without_exchanges_is_its_own() -> None:
    with name_server(answering()) as where:
        assert exchanges("domain1.com", [where], 2.0) == ["domain1.com"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (answering(dns.Record_MX(0, "")), "takes no mail"),
        (answering(code=dns.ENAME), "there is no domain domain1.com"),
        (answering(code=dns.ESERVER), "the code 2"),
        (lambda question: b"nonsense", "DNS does not say"),
        (lambda question: None, "DNS does not say"),
    ],
)
def test_a_domain_that_has_no_exchange_is_told_in_words(answer: Answer, told: str) -> None:
    started = time.monotonic()
    with name_server(answer) as where, pytest.raises(NoName, match=told):
        exchanges("domain1.com", [where], 0.3)
    assert time.monotonic() - started < 3


def test_a_name_server_that_is_dead_is_left_for_the_next() -> None:
    with name_server(lambda question: None) as dead, name_server(answering(dns.Record_MX(1, "a.example"))) as where:
        assert exchanges("domain1.com", [dead, where], 5.0) == ["a.example"]


def test_a_long_answer_is_fetched_over_tcp() -> None:
    records = [dns.Record_MX(number, f"a-rather-long-name-{number}.domain1.com") for number in range(20)]
    with name_server(answering(*records)) as where:
        assert len(exchanges("domain1.com", [where], 2.0)) == 20


def test_an_answer_to_another_question_counts_nothing() -> None:
    def answer(question: dns.Message) -> bytes:
        question.queries = [dns.Query("other.example", dns.MX, dns.IN)]
        return answering(dns.Record_MX(1, "evil.example"))(question)

    with name_server(answer) as where, pytest.raises(NoName):
        exchanges("domain1.com", [where], 0.3)


@pytest.mark.parametrize("ad", [0, 1])
def test_tlsa_records_are_told_with_whether_the_resolver_on_loopback_validated(ad: int) -> None:
    with name_server(answering(*tlsa(b"\3\1\1" + b"x" * 32, b"\3"), ad=ad)) as where:
        found = dane("mail.domain1.com.", 25, [where], 2.0)
    assert found == Dane("_25._tcp.mail.domain1.com", bool(ad), (Tlsa(3, 1, 1, b"x" * 32),))


def test_the_ad_bit_of_a_resolver_elsewhere_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = DnsAnswer(0, truncated=False, authentic=True, records=())
    monkeypatch.setattr(names, "ask", lambda *_: (answer, ("192.0.2.53", 53)))
    assert not dane("mail.domain1.com", 25, [("192.0.2.53", 53)], 1.0).validated
    monkeypatch.setattr(names, "ask", lambda *_: (answer, ("::1", 53)))
    assert dane("mail.domain1.com", 25, [("::1", 53)], 1.0).validated


def test_nobody_to_ask_is_told() -> None:
    assert dane("mail.domain1.com", 25, [], 1.0).problem == "DNS does not say: no name server is known"


SERVER, AUTHORITY = make("good").certificate, root().certificate
LEAF, CA = SERVER.public_bytes(Encoding.DER), AUTHORITY.public_bytes(Encoding.DER)


def key(der_of: object) -> bytes:
    certificate = SERVER if der_of is LEAF else AUTHORITY
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("record", "fits"),
    [
        (Tlsa(3, 0, 0, LEAF), True),
        (Tlsa(3, 0, 1, hashlib.sha256(LEAF).digest()), True),
        (Tlsa(3, 0, 2, hashlib.sha512(LEAF).digest()), True),
        (Tlsa(3, 1, 0, key(LEAF)), True),
        (Tlsa(3, 1, 1, hashlib.sha256(key(LEAF)).digest()), True),
        (Tlsa(3, 1, 2, hashlib.sha512(key(LEAF)).digest()), True),
        (Tlsa(3, 1, 1, hashlib.sha256(LEAF).digest()), False),
        (Tlsa(3, 0, 0, CA), False),
        (Tlsa(3, 7, 0, LEAF), False),
        (Tlsa(3, 0, 7, LEAF), False),
        (Tlsa(2, 0, 0, CA), True),
        (Tlsa(2, 1, 1, hashlib.sha256(key(CA)).digest()), True),
        (Tlsa(2, 0, 0, LEAF), False),
        (Tlsa(1, 0, 0, LEAF), None),
        (Tlsa(0, 0, 0, CA), None),
    ],
)
def test_a_record_fits_by_usage_selector_and_matching(record: Tlsa, fits: bool | None) -> None:
    [judged] = compared(Dane("n", True, (record,)), [LEAF, CA]).records
    assert judged.fits is fits


def test_nothing_is_compared_where_no_certificate_was_seen_and_a_broken_one_fits_nothing() -> None:
    record = Tlsa(3, 1, 0, b"x")
    assert compared(Dane("n", True, (record,)), []).records[0].fits is None
    assert compared(Dane("n", True, (record,)), [b"no certificate"]).records[0].fits is False
