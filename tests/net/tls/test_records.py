"""Records without data: counted in pieces of any size, taken up to a limit, and answered without piling up."""

from __future__ import annotations

import socket
import threading

import pytest

from proxy.net.tls.channel import MAX_UNSENT, TlsChannel
from proxy.net.tls.problem import TlsProblem
from proxy.net.tls.records import MAX_JUNK, Records, ends_with_alert, ends_with_refusal
from tests.certificates import make
from tests.tls13 import Flooder
from tests.tls_pair import receive, server_context, shake, tcp_pair, until


def record(size: int, kind: int = 23) -> bytes:
    return bytes([kind, 3, 3]) + size.to_bytes(2, "big") + bytes(size)


def settled() -> Records:
    records = Records()
    records.handshake_over()
    records.all_processed()
    return records


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 30, 1000])
def test_whole_records_are_counted_in_any_pieces(size: int) -> None:
    records = settled()
    sent = record(20) + record(0) + record(700) + record(40)[:-1]
    for at in range(0, len(sent), size):
        assert records.scan(sent[at : at + size])
    assert [records.gave_data() for _ in range(3)] == [False, False, True]
    records.scan(b"\0")
    assert records.gave_data()
    assert not records.all_processed()


def test_what_has_data_pays_for_as_much_without() -> None:
    records = settled()
    for _ in range(3 * MAX_JUNK):
        records.scan(record(30) * 2)
        records.gave_data()
        assert records.all_processed()
        assert not records.too_many
    for _ in range(5 * MAX_JUNK):
        records.scan(record(30))
        records.all_processed()
    assert records.too_many


def test_handshake_messages_that_can_be_seen_count_by_their_length() -> None:
    """4096 HelloRequests in one record of TLS 1.2: not even given to OpenSSL."""
    assert settled().scan(record(600, 22))  # a client's wish to renegotiate, which it is refused
    assert not settled().scan(record(16384, 22)[:4096])


@pytest.fixture
def pair() -> tuple[TlsChannel, Flooder]:
    with tcp_pair() as (near, far):
        far_again = socket.socket(fileno=far.detach())
        far_again.setblocking(True)
        made: list[Flooder] = []
        thread = threading.Thread(target=lambda: made.append(Flooder(far_again)))
        thread.start()
        ours = TlsChannel.towards_client(server_context(make("good")), near)
        shake(ours)
        thread.join(10)
        yield ours, made[0]  # type: ignore[misc]  # a generator
        far_again.close()


def test_a_few_key_updates_are_nothing_and_are_answered(pair: tuple[TlsChannel, Flooder]) -> None:
    ours, peer = pair
    for _ in range(10):
        peer.sock.sendall(peer.key_update(asks=True) + peer.data(b"NOOP\r\n"))
        assert receive(ours, 6) == b"NOOP\r\n"
        assert ours.send(b"250 ok\r\n") == 8
        assert peer.connection.recv(100) == b"250 ok\r\n"
    assert not ours.unsent


def test_key_updates_alone_end_it(pair: tuple[TlsChannel, Flooder]) -> None:
    ours, peer = pair
    peer.sock.sendall(b"".join(peer.key_update() for _ in range(2 * MAX_JUNK)))
    with pytest.raises(TlsProblem, match="the client sends TLS records without data"):
        until(lambda: ours.recv(100) is not None)


def test_who_asks_for_answers_and_does_not_read_them_is_ended(pair: tuple[TlsChannel, Flooder]) -> None:
    """Each has its record of data, and each answer is 27 octets that nobody takes."""
    ours, peer = pair
    ours._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    waiting: list[int] = []

    def asks_on() -> None:
        for _ in range(1000):  # 2.7 MB of answers
            peer.sock.sendall(b"".join(peer.key_update(asks=True) + peer.data(b"x") for _ in range(100)))
            assert receive(ours, 100) == bytes(b"x" * 100)
            waiting.append(len(ours._out))

    with pytest.raises(TlsProblem, match="does not read them"):
        asks_on()
    assert 0 < max(waiting) <= MAX_UNSENT


HELLO = b"\x16\x03\x01" + (300).to_bytes(2, "big") + bytes(300)
CCS = b"\x14\x03\x03\x00\x01\x01"


@pytest.mark.parametrize(
    ("said", "alert"),
    [
        (record(60) + record(19), True),  # TLS 1.3: level, description, type, tag
        (record(60) + record(11), True),  # ... with a tag of 8 octets
        (record(60) + record(20), False),
        (record(19) + record(60), False),
        (record(19)[:-1], False),
        (record(60) + record(26, 21), True),  # TLS 1.2, AES-GCM
        (record(60) + record(18, 21), True),  # ChaCha20-Poly1305
        (record(60) + record(48, 21), True),  # CBC and SHA-1
        (record(60) + record(80, 21), True),  # CBC and SHA-384
        (record(60) + record(26, 22), False),
        (b"\x15\x03\x03\x00\x02\x01\x00", True),  # in clear
        (record(26, 21) + record(60), False),
        (b"221 2.0.0 bye\r\n", False),
        (b"\x15", False),
        (b"", False),
    ],
)
def test_a_side_that_sent_an_alert_last_has_said_its_last(said: bytes, alert: bool) -> None:
    for more in (b"", HELLO + CCS):
        assert ends_with_alert(more + said) is alert


@pytest.mark.parametrize(
    ("said", "refusal"),
    [
        (HELLO + CCS + record(69) + record(23), True),  # Finished of SHA-384, QUIT
        (HELLO + CCS + record(53) + record(23), True),
        (HELLO + CCS + record(69), False),
        (HELLO + CCS + record(69) + record(24), False),
        (HELLO + CCS + record(69) + record(30) + record(23), False),  # more was said
        (HELLO + record(69) + record(23), False),
        (record(23), False),
        (b"", False),
    ],
)
def test_a_client_that_says_quit_right_behind_the_handshake_has_refused_what_it_saw(said: bytes, refusal: bool) -> None:
    assert ends_with_refusal(said) is refusal
