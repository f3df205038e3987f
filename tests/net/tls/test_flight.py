"""Diffie-Hellman groups that a server chooses: not offered, or bounded before OpenSSL computes with them."""

from __future__ import annotations

import contextlib
import ssl
import time
from pathlib import Path

import pytest

from proxy.net.tls.channel import TlsChannel
from proxy.net.tls.contexts import offers_dhe, server_side
from proxy.net.tls.flight import ServerFlight
from proxy.net.tls.problem import TlsProblem
from proxy.settings import Tls
from tests.certificates import NAME
from tests.dhe import dhe_server
from tests.tls_pair import tcp_pair, until

ASKED = Tls(verify="none", security_level=1)


def _reason(tls: Tls, context: ssl.SSLContext) -> str:
    """Why the handshake fails, "" if it does not."""
    with tcp_pair() as (near, far):
        flight = ServerFlight() if offers_dhe(tls) else None
        ours = TlsChannel.towards_server(server_side(tls), near, NAME, flight)
        theirs = context.wrap_socket(far, server_side=True, do_handshake_on_connect=False)
        done = False

        def step() -> bool:
            nonlocal done
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLError):
                theirs.do_handshake()
            done = done or ours.handshake()
            return done

        try:
            until(step)
        except TlsProblem as problem:
            return problem.reason
        finally:
            theirs.close()
        assert "DHE" in ours.cipher
        assert "EC" not in ours.cipher
        return ""


def test_a_group_of_10000_bits_is_refused_before_openssl_computes(tmp_path: Path) -> None:
    context = dhe_server(tmp_path, 10_000)
    begun = time.thread_time()
    reason = _reason(ASKED, context)
    assert reason == "the server's Diffie-Hellman group has 10000 bits, at most 4096 are taken"
    assert time.thread_time() - begun < 1.5  # the server's own key is computed in this thread, too


@pytest.mark.parametrize("bits", [2048, 4096])
def test_where_the_settings_ask_for_dhe_up_to_4096_bits_are_taken(bits: int, tmp_path: Path) -> None:
    assert _reason(ASKED, dhe_server(tmp_path, bits)) == ""


def test_dhe_is_not_offered_unless_it_is_asked_for(tmp_path: Path) -> None:
    for tls in (Tls(verify="none"), Tls(verify="pin"), Tls(verify="none", client_minimum_version="1.0")):
        assert not offers_dhe(tls)
        assert _reason(tls, dhe_server(tmp_path, 2048)) == "the server sent the TLS alert 'handshake failure'"
    for tls in (Tls(server_minimum_version="1.0"), Tls(minimum_version="1.1"), Tls(security_level=0)):
        assert offers_dhe(tls)


def _handshake_record(*messages: bytes) -> bytes:
    body = b"".join(messages)
    return b"\x16\x03\x03" + len(body).to_bytes(2, "big") + body


def _message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


def _hello(suite: bytes) -> bytes:
    return _message(2, b"\3\3" + bytes(32) + b"\x20" + bytes(32) + suite + b"\0")


def _large(octets: int = 1250) -> bytes:
    return _message(12, octets.to_bytes(2, "big") + bytes(octets))


def _fed(flight: ServerFlight, pieces: list[bytes]) -> None:
    for piece in pieces:
        flight.feed(piece)


def _cut(whole: bytes, size: int) -> list[bytes]:
    return [whole[at : at + size] for at in range(0, len(whole), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100, 5000])
def test_the_group_is_found_in_pieces_of_any_size(size: int) -> None:
    messages = _hello(b"\0\x9e"), _message(11, bytes(3000)), _large()
    with pytest.raises(TlsProblem, match="10000 bits"):
        _fed(ServerFlight(), _cut(_handshake_record(*messages), size))
    with pytest.raises(TlsProblem, match="10000 bits"):  # a message lies in many records
        _fed(ServerFlight(), [_handshake_record(piece) for piece in _cut(b"".join(messages), size)])


@pytest.mark.parametrize("suite", [b"\xc0\x2f", b"\xc0\x30", b"\xcc\xa8", b"\xc0\x13"])
def test_a_curve_is_not_taken_for_a_large_group(suite: bytes) -> None:
    """ECDHE's parameters begin with 03 00, which would be 768 octets."""
    parameters = _message(12, b"\3\0\x17\x41" + bytes(200))
    ServerFlight().feed(_handshake_record(_hello(suite), parameters))
    with pytest.raises(TlsProblem):  # the same octets behind a suite of DHE
        ServerFlight().feed(_handshake_record(_hello(b"\0\x9e"), parameters))


def test_what_follows_the_clear_part_is_not_looked_at() -> None:
    flight = ServerFlight()
    flight.feed(_handshake_record(_hello(b"\0\x9e")) + b"\x14\x03\x03\x00\x01\x01")
    flight.feed(_handshake_record(_large()))
    looked_at = ServerFlight()
    looked_at.feed(_handshake_record(_hello(b"\0\x9e")))
    with pytest.raises(TlsProblem, match="10000 bits"):  # the same without a change of cipher between
        looked_at.feed(_handshake_record(_large()))
