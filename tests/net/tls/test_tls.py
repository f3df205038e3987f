"""`TlsChannel` and its contexts against themselves, Python's ssl and the openssl program."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import ssl
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL

from proxy.net.tls import contexts as tls_contexts
from proxy.net.tls.channel import TlsChannel
from proxy.net.tls.contexts import (
    SharedContexts,
    TlsContexts,
    client_side,
    memory_deny_write_execute_active,
    parse_credential,
    server_side,
)
from proxy.net.tls.identity import judge
from proxy.net.tls.problem import TlsProblem
from proxy.net.tls.self_signed import make_self_signed
from proxy.settings import Tls
from tests.certificates import NAME, make, root
from tests.loopback import free_port
from tests.tls_pair import LIMIT, receive, server_context, shake, tcp_pair, until

VERSIONS = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}
ANYONE = Tls(verify="none")


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def channels(near: socket.socket, far: socket.socket, version: str = "TLSv1.3") -> tuple[TlsChannel, TlsChannel]:
    """Both our roles against each other, shaken: the one towards the server first."""
    outward = TlsChannel.towards_server(server_side(ANYONE), near, NAME)
    inward = TlsChannel.towards_client(server_context(make("good"), maximum=VERSIONS[version]), far)
    shake(outward, inward)
    return outward, inward


def plain_context(server: bool, version: str = "TLSv1.3") -> SSL.Context:
    """A peer without any of our settings."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD if server else SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(VERSIONS[version])
    if server:
        context.use_certificate(make("good").certificate)
        context.use_privatekey(make("good").private_key)
    return context


def problem_of(action: Callable[[], object]) -> str:
    with pytest.raises(TlsProblem) as caught:
        action()
    return caught.value.reason


# --- the channel ------------------------------------------------------------------------------------------


def test_what_is_agreed_on_is_told(version: str) -> None:
    with tcp_pair() as (near, far):
        outward, inward = channels(near, far, version)
        assert outward.version == inward.version == version
        assert outward.cipher == inward.cipher != ""
        assert (inward.sni, inward.alpn, outward.alpn) == (NAME, "", "")
        assert (inward.peer, outward.peer) == ("client", "server")


def test_nothing_there_is_none_and_never_blocks(version: str) -> None:
    with tcp_pair() as (near, far):
        outward, inward = channels(near, far, version)
        assert outward.recv(100) is None
        assert inward.recv(100) is None
        assert outward.send(b"") == 0
        assert outward.send(b"EHLO esa.com\r\n") == 14
        assert receive(inward, 14) == b"EHLO esa.com\r\n"
        assert inward.recv(100) is None


def test_a_handshake_that_stalls_does_not_block() -> None:
    with tcp_pair() as (near, _):
        outward = TlsChannel.towards_server(server_side(ANYONE), near, NAME)
        assert [outward.handshake() for _ in range(3)] == [False] * 3


def test_a_record_that_is_read_in_part_is_pending() -> None:
    with tcp_pair() as (near, far):
        outward, inward = channels(near, far)
        outward.send(b"0123456789")
        assert receive(inward, 4) == b"0123"
        assert inward.pending == 6
        assert receive(inward, 6) == b"456789"
        assert inward.pending == 0


def test_a_record_behind_one_that_was_read_in_pieces_is_not_forgotten(version: str) -> None:
    """Two records come at once; the first is read in pieces, as a session does before it lets go.

    The second lay in OpenSSL until the peer said something else, for which it waited in vain.
    """
    with tcp_pair() as (near, far):
        outward, inward = channels(near, far, version)
        assert outward.send(b"first") == 5
        assert receive(inward, 5) == b"first"
        assert inward.recv(100) is None
        assert outward.send(b"a" * 1000) + outward.send(b"b" * 1000) == 2000
        time.sleep(0.05)
        got = b""
        for size in (300, 16384, 16384):
            data = inward.recv(size)
            assert data, "there is more, and who asks is told so"
            got += data
            if not inward.has_more():
                break
        assert got == b"a" * 1000 + b"b" * 1000


def test_much_goes_both_ways_through_full_sockets(version: str) -> None:
    """Each side sends all it can before it reads: partial writes, and what is sent again is what is left."""
    data = [os.urandom(900_000), os.urandom(700_007)]
    with tcp_pair() as (near, far):
        for sock in (near, far):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20000)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20000)
        ends = channels(near, far, version)
        sent, got, blocked = [0, 0], [bytearray(), bytearray()], 0

        def step() -> bool:
            nonlocal blocked
            for index, end in enumerate(ends):
                while sent[index] < len(data[index]):
                    # pieces of odd sizes, cut again from what is left, and from another place in memory
                    piece = data[index][sent[index] : sent[index] + 70_001]
                    taken = end.send(memoryview(piece))
                    sent[index] += taken
                    if taken < len(piece):
                        blocked += 1
                        break
            for index, end in enumerate(ends):
                while piece := end.recv(1 << 20) or b"":
                    assert len(piece) <= 16384
                    got[index] += piece
            return all(len(got[1 - index]) == len(data[index]) for index in (0, 1))

        until(step)
        assert blocked > 10
        for index in (0, 1):
            assert hashlib.sha256(got[1 - index]).digest() == hashlib.sha256(data[index]).digest()


def test_close_notify_is_a_clean_end(version: str) -> None:
    with tcp_pair() as (near, far):
        outward, inward = channels(near, far, version)
        outward.send(b"QUIT\r\n")
        assert outward.shutdown()
        near.close()
        assert receive(inward, 100) == b"QUIT\r\n"
        assert inward.clean_end
        assert inward.recv(100) == b""


def test_an_end_without_close_notify_is_an_end_and_not_clean(version: str) -> None:
    with tcp_pair() as (near, far):
        outward, inward = channels(near, far, version)
        outward.send(b"QUIT\r\n")
        near.shutdown(socket.SHUT_WR)
        assert receive(inward, 100) == b"QUIT\r\n"
        assert not inward.clean_end
        assert inward.recv(100) == b""
        assert not inward.clean_end
        assert not outward.clean_end


def test_a_reset_is_what_it_is_on_a_bare_socket(version: str) -> None:
    with tcp_pair() as (near, far):
        _, inward = channels(near, far, version)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        near.close()
        with pytest.raises(ConnectionResetError):
            receive(inward, 1)
        assert not inward.clean_end


def test_a_failed_send_is_an_oserror_and_what_came_before_is_still_there(version: str) -> None:
    with tcp_pair() as (near, far):
        outward, inward = channels(near, far, version)
        inward.send(b"250 queued\r\n")
        until(lambda: bool(near.recv(1, socket.MSG_PEEK)))
        assert outward.send(b"left unread") == 11  # so that the close becomes a reset
        far.close()
        failure: list[OSError] = []

        def step() -> bool:
            try:
                outward.send(b"x" * 1000)
            except OSError as error:
                failure.append(error)
            return bool(failure)

        until(step)
        assert isinstance(failure[0], (BrokenPipeError, ConnectionResetError))
        assert outward.recv(100) == b"250 queued\r\n"
        with pytest.raises(ConnectionResetError):
            receive(outward, 1)


def test_one_sessions_reset_is_no_other_sessions() -> None:
    """OpenSSL's error queue belongs to the thread, and pyOpenSSL leaves a failed system call's entry in it."""
    with tcp_pair() as (near, far), tcp_pair() as (near_2, far_2):
        outward, _ = channels(near, far)
        other, _ = channels(near_2, far_2)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        until(lambda: near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x07")
        assert outward.shutdown()
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        with pytest.raises(SSL.Error) as caught:
            context.load_verify_locations(None)  # fails, with all that is in the queue
        assert caught.value.args == ([],)
        assert other.recv(1) is None


def test_a_closed_socket_is_not_mistaken_for_the_next_one_of_its_number() -> None:
    with tcp_pair() as (near, far), tcp_pair() as (near_2, far_2):
        outward, _ = channels(near, far)
        fresh = TlsChannel.towards_server(server_side(ANYONE), near_2, NAME)
        for channel, sock in ((outward, near), (fresh, near_2)):
            number = sock.fileno()
            sock.close()
            with tcp_pair() as (next_one, its_peer):
                assert number in (next_one.fileno(), its_peer.fileno())
                with pytest.raises(OSError, match="Bad file descriptor"):
                    channel.send(b"x")
                with pytest.raises(OSError, match="Bad file descriptor"):
                    channel.recv(1)
                assert channel.shutdown()
                assert problem_of(channel.handshake) == "the connection to the server is closed"
                for end in (next_one, its_peer):
                    with pytest.raises(BlockingIOError):
                        end.recv(1)
        del far_2


def test_after_close_notify_the_other_direction_goes_on(version: str) -> None:
    with tcp_pair() as (near, far):
        outward, inward = channels(near, far, version)
        assert outward.shutdown()
        assert receive(inward, 1) == b""
        assert inward.clean_end
        assert inward.send(b"221 bye\r\n") == 9
        assert receive(outward, 9) == b"221 bye\r\n"
        assert inward.shutdown()
        assert receive(outward, 1) == b""
        assert outward.clean_end


def test_shutdown_never_raises() -> None:
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(ANYONE), near, NAME)
        assert outward.shutdown()  # before any handshake
    with tcp_pair() as (near, far):
        outward, _ = channels(near, far)
        far.close()
        until(lambda: near.recv(1000, socket.MSG_PEEK) is not None)
        for _ in range(3):
            assert outward.shutdown()


def test_shutdown_waits_for_a_full_socket() -> None:
    with tcp_pair() as (near, far):
        outward, inward = channels(near, far)
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(bytes(65536))  # behind TLS's back
        assert not outward.shutdown()
        del inward


def test_an_alert_is_told_in_words(version: str) -> None:
    """The stranger's client does not trust our certificate."""
    with tcp_pair() as (near, far):
        context = plain_context(server=False, version=version)
        context.set_verify(SSL.VERIFY_PEER)
        client = SSL.Connection(context, near)
        client.set_connect_state()
        inward = TlsChannel.towards_client(server_context(make("good")), far)
        reasons: list[str] = []

        def step() -> bool:
            try:
                client.do_handshake()
            except SSL.Error:
                pass
            try:
                inward.handshake()
            except TlsProblem as problem:
                reasons.append(problem.reason)
            return bool(reasons)

        until(step)
        assert reasons == ["the client sent the TLS alert 'unknown ca'"]


@pytest.mark.parametrize(
    "answer", [b"220 mail.domain1.com ESMTP\r\n", b"502 5.5.1 what?\r\n", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_a_server_that_answers_in_clear_is_found_out(answer: bytes) -> None:
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(ANYONE), near, NAME)
        far.send(answer)
        assert problem_of(lambda: until(outward.handshake)) == "the server did not answer with TLS"


def test_a_client_that_speaks_in_clear_is_found_out() -> None:
    with tcp_pair() as (near, far):
        inward = TlsChannel.towards_client(server_context(make("good")), far)
        near.send(b"EHLO esa.com\r\nMAIL FROM:<>\r\n")
        assert problem_of(lambda: until(inward.handshake)) == "the client did not answer with TLS"


def test_an_end_and_a_reset_in_the_handshake_are_told_apart() -> None:
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(ANYONE), near, NAME)
        outward.handshake()
        until(lambda: bool(far.recv(65536)))
        far.close()
        assert (
            problem_of(lambda: until(outward.handshake)) == "the server closed the connection during the TLS handshake"
        )
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(ANYONE), near, NAME)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        assert problem_of(lambda: until(outward.handshake)).startswith("the server was lost during the TLS handshake: ")


def test_a_damaged_record_is_a_problem_in_words() -> None:
    with tcp_pair() as (near, far):
        outward, inward = channels(near, far)
        far.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        assert problem_of(lambda: receive(outward, 1)) == "a record from the server was damaged"
        del inward


# --- names, protocols, versions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sni"),
    [
        (NAME, NAME),
        ("mail.domain1.com.", NAME),
        ("bücher.domain1.com", "xn--bcher-kva.domain1.com"),
        ("192.0.2.10", ""),
        ("[2001:db8::1]", ""),
        ("2001:db8::1", ""),
        ("", ""),
        ("a" * 300, ""),
        ("mail..domain1.com\N{SNOWMAN}", ""),
    ],
)
def test_sni_is_a_name_and_never_an_address(name: str, sni: str) -> None:
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(ANYONE), near, name)
        inward = TlsChannel.towards_client(server_context(make("good")), far)
        shake(outward, inward)
        assert inward.sni == sni


@pytest.mark.parametrize(("offered", "chosen"), [([b"smtp"], "smtp"), ([b"h2", b"smtp"], "smtp"), ([], "")])
def test_a_client_gets_smtp_if_it_offers_it_and_is_served_if_it_offers_nothing(
    offered: list[bytes], chosen: str, version: str
) -> None:
    with tcp_pair() as (near, far):
        context = plain_context(server=False, version=version)
        if offered:
            context.set_alpn_protos(offered)
        outward = TlsChannel.towards_server(context, near, NAME)
        inward = TlsChannel.towards_client(server_context(make("good")), far)
        shake(outward, inward)
        assert (inward.alpn, outward.alpn) == (chosen, chosen)
        inward.send(b"220 x\r\n")
        assert receive(outward, 7) == b"220 x\r\n"


def test_a_client_that_offers_only_other_protocols_gets_the_alert(version: str) -> None:
    with tcp_pair() as (near, far):
        context = plain_context(server=False, version=version)
        context.set_alpn_protos([b"h2", b"http/1.1"])
        outward = TlsChannel.towards_server(context, near, NAME)
        inward = TlsChannel.towards_client(server_context(make("good")), far)
        outward.handshake()
        assert problem_of(lambda: until(inward.handshake)) == "the client offers ALPN protocols, but not smtp"
        assert problem_of(lambda: until(outward.handshake)) == "the server sent the TLS alert 'no application protocol'"
        # and the next client of the same context is served
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(ANYONE), near, NAME)
        again = TlsChannel.towards_client(inward.connection.get_context(), far)
        shake(outward, again)


def test_alpn_is_not_offered_to_the_server() -> None:
    seen: list[list[bytes]] = []
    context = plain_context(server=True)

    def note(_connection: SSL.Connection, offered: list[bytes]) -> bytes:
        seen.append(offered)
        return offered[0]

    context.set_alpn_select_callback(note)
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(ANYONE), near, NAME)
        shake(outward, TlsChannel.towards_client(context, far))
    assert seen == []


@pytest.mark.parametrize("old", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION])
def test_tls_1_2_is_the_floor_for_clients(old: int) -> None:
    with tcp_pair() as (near, far):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
        context.set_max_proto_version(old)
        context.set_min_proto_version(old)
        outward = TlsChannel.towards_server(context, near, NAME)
        inward = TlsChannel.towards_client(server_context(make("good")), far)
        outward.handshake()
        assert problem_of(lambda: until(inward.handshake)) == "the client offers no TLS version that is allowed here"
        assert problem_of(lambda: until(outward.handshake)) == "the server sent the TLS alert 'protocol version'"


@pytest.mark.parametrize("minimum", ["1.0", "1.1", "1.2", "1.3"])
def test_minimum_version_is_kept_on_both_sides(minimum: str) -> None:
    number = {"1.0": SSL.TLS1_VERSION, "1.1": SSL.TLS1_1_VERSION, "1.2": SSL.TLS1_2_VERSION}.get(minimum)
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(Tls(verify="none", minimum_version=minimum)), near, NAME)
        inward = TlsChannel.towards_client(server_context(make("good"), minimum, number or 0), far)
        shake(outward, inward)
        assert outward.version == {"1.0": "TLSv1", "1.1": "TLSv1.1", "1.2": "TLSv1.2"}.get(minimum, "TLSv1.3")
    if minimum == "1.3":
        with tcp_pair() as (near, far):
            outward = TlsChannel.towards_server(server_side(Tls(verify="none", minimum_version="1.3")), near, NAME)
            other = TlsChannel.towards_client(server_context(make("good"), maximum=SSL.TLS1_2_VERSION), far)
            outward.handshake()
            assert problem_of(lambda: until(other.handshake)) == "the client offers no TLS version that is allowed here"


def test_renegotiation_is_refused_on_both_sides() -> None:
    """TLS 1.2 only: 1.3 has none.  The asked side answers with a warning, and the connection goes on."""
    with tcp_pair() as (near, far):
        client = TlsChannel.towards_server(plain_context(server=False, version="TLSv1.2"), near, NAME)
        ours = TlsChannel.towards_client(server_context(make("good"), maximum=SSL.TLS1_2_VERSION), far)
        shake(client, ours)
        client.connection.renegotiate()

        def step() -> bool:
            ours.recv(10)
            return client.handshake()

        assert "no renegotiation" in problem_of(lambda: until(step))
        assert ours.connection.total_renegotiations() == 0
    with tcp_pair() as (near, far):
        ours = TlsChannel.towards_server(server_side(ANYONE), near, NAME)
        server = TlsChannel.towards_client(plain_context(server=True, version="TLSv1.2"), far)
        shake(ours, server)
        server.connection.renegotiate()
        server.handshake()
        for _ in range(20):
            assert ours.recv(10) is None
        assert ours.connection.total_renegotiations() == 0


def test_no_session_is_resumed(version: str, tmp_path: Path) -> None:
    paths = make("good").write(tmp_path)
    context = client_side(Tls(certificate=paths.certificate, key=paths.key))
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname = False
    theirs.verify_mode = ssl.CERT_NONE
    theirs.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
    session = None
    for _ in range(2):
        with tcp_pair() as (near, far):
            inward = TlsChannel.towards_client(context, far)
            client = theirs.wrap_socket(near, server_hostname=NAME, session=session, do_handshake_on_connect=False)
            ready = [False]

            def step(client: ssl.SSLSocket = client, inward: TlsChannel = inward, ready: list[bool] = ready) -> bool:
                try:
                    client.do_handshake()
                    ready[0] = True
                except ssl.SSLWantReadError:
                    pass
                return inward.handshake() and ready[0]

            until(step)
            inward.send(b"220 x\r\n")

            def got(client: ssl.SSLSocket = client) -> bool:
                try:
                    return client.recv(100) == b"220 x\r\n"
                except ssl.SSLWantReadError:
                    return False

            until(got)
            assert client.session_reused is False
            session = client.session
            client.close()


# --- contexts ---------------------------------------------------------------------------------------------


def test_contexts_are_made_of_the_settings(tmp_path: Path) -> None:
    paths = make("good").write(tmp_path)
    tls = Tls(verify="none", certificate=paths.certificate, key=paths.key)
    both = TlsContexts(tls)
    assert both.client_side is not None
    assert both.server_side is not None
    assert both.not_after == make("good").certificate.not_valid_after_utc.timestamp()
    assert TlsContexts(Tls(verify="none", client="none")).client_side is None
    assert TlsContexts(Tls(verify="none", client="none")).not_after is None
    assert TlsContexts(replace(tls, server="none")).server_side is None


def test_routes_with_the_same_settings_share_contexts_and_no_others(tmp_path: Path) -> None:
    paths = make("good").write(tmp_path)
    shared: SharedContexts = {}
    first = TlsContexts(Tls(verify="none", certificate=paths.certificate, key=paths.key), shared)
    same = TlsContexts(Tls(verify="pin", pins=("x",), certificate=paths.certificate, key=paths.key), shared)
    other = TlsContexts(Tls(verify="hostname", certificate=paths.certificate, key=paths.key), shared)
    assert (first.client_side, first.server_side) == (same.client_side, same.server_side)
    assert first.client_side is other.client_side
    assert first.server_side is not other.server_side
    again = TlsContexts(Tls(verify="none", certificate=paths.certificate, key=paths.key))
    assert again.client_side is not first.client_side


def test_renewal_is_new_contexts_and_old_sessions_go_on(tmp_path: Path) -> None:
    paths = make("expired").write(tmp_path)
    tls = Tls(verify="none", certificate=paths.certificate, key=paths.key)
    old = TlsContexts(tls)
    assert old.client_side is not None
    with tcp_pair() as (near, far), tcp_pair() as (near_2, far_2):
        first = TlsChannel.towards_server(server_side(ANYONE), near, NAME)
        inward = TlsChannel.towards_client(old.client_side, far)
        shake(first, inward)
        make("good").write(tmp_path)
        new = TlsContexts(tls)
        assert new.client_side is not None
        del old
        second = TlsChannel.towards_server(server_side(ANYONE), near_2, NAME)
        shake(second, TlsChannel.towards_client(new.client_side, far_2))
        assert judge(first.connection, ANYONE, NAME).not_after != judge(second.connection, ANYONE, NAME).not_after
        inward.send(b"250 ok\r\n")
        assert receive(first, 8) == b"250 ok\r\n"


def test_what_is_wrong_with_the_files_is_said(tmp_path: Path) -> None:
    good, other = make("good"), make("wrong-name")
    paths = good.write(tmp_path)
    other_key = other.write(tmp_path, "other").key
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(good.encrypted_key_pem())
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    odd = tmp_path / "odd.pem"
    odd.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    absent = str(tmp_path / "absent")

    def reason(**settings: Any) -> str:
        return problem_of(lambda: TlsContexts(replace(Tls(verify="none"), **settings)))

    assert reason() == "no certificate is set, and TLS towards the client needs one"
    assert reason(certificate=absent, key=paths.key) == (
        f"{absent}: the certificate can't be read: No such file or directory"
    )
    assert (
        reason(certificate=paths.certificate, key=absent)
        == f"{absent}: the key can't be read: No such file or directory"
    )
    assert reason(certificate=str(tmp_path), key=absent) == f"{tmp_path}: the certificate can't be read: Is a directory"
    assert reason(certificate=str(empty), key=paths.key) == f"{empty}: no certificate in PEM form in it"
    assert reason(certificate=str(odd), key=paths.key) == f"{odd}: no certificate in PEM form in it"
    assert reason(certificate=paths.certificate, key=str(empty)) == f"{empty}: no private key in PEM form in it"
    assert reason(certificate=paths.certificate) == f"{paths.certificate}: no private key in PEM form in it"
    assert reason(certificate=paths.certificate, key=other_key) == (
        f"{other_key}: the key does not fit the first certificate in {paths.certificate}"
    )
    assert reason(certificate=paths.certificate, key=str(encrypted)) == (
        f"{encrypted}: the key is encrypted; a key without a passphrase is needed"
    )
    assert reason(client="none", client_certificate=paths.certificate, client_key=other_key) == (
        f"{other_key}: the key does not fit the first certificate in {paths.certificate}"
    )
    assert reason(client="none", minimum_version="2") == "minimum_version '2' is not one of 1.0, 1.1, 1.2, 1.3"

    def trust(path: str) -> str:
        return problem_of(lambda: TlsContexts(Tls(verify="hostname", client="none", ca_file=path)))

    assert trust(absent) == f"{absent}: the ca_file can't be read: No such file or directory"
    assert trust(str(empty)) == f"{empty}: no certificate in PEM form in it"
    assert trust(paths.key) == f"{paths.key}: no certificate in PEM form in it"


def test_a_file_may_hold_both_certificate_and_key(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(make("good").key_pem + make("good").certificate_pem)
    assert TlsContexts(Tls(verify="none", certificate=str(both))).client_side is not None


def test_a_key_that_tls_has_no_use_for_is_refused() -> None:
    odd = ec.generate_private_key(ec.SECP256K1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(root().name)
        .issuer_name(root().name)
        .public_key(odd.public_key())
        .serial_number(1)
        .not_valid_before(root().certificate.not_valid_before_utc)
        .not_valid_after(root().certificate.not_valid_after_utc)
        .sign(root().key, hashes.SHA256())
    )
    pem = odd.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    credential = parse_credential(certificate.public_bytes(Encoding.PEM), pem)
    assert credential.chain == ()  # OpenSSL takes it; whoever can't use it says so in the handshake


def test_a_chain_is_sent_whole(tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(root().pem)
    paths = make("good-below-intermediate").write(tmp_path)
    tls = Tls(certificate=paths.certificate, key=paths.key, ca_file=str(ca_file))
    contexts = TlsContexts(tls)
    assert contexts.client_side is not None
    assert contexts.server_side is not None
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(contexts.server_side, near, NAME)
        shake(outward, TlsChannel.towards_client(contexts.client_side, far))
        assert judge(outward.connection, tls, NAME).accepted


def test_our_certificate_is_shown_to_a_server_that_asks(version: str, tmp_path: Path) -> None:
    issued = root().issue("proxy.example", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    paths = issued.write(tmp_path)
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(root().pem)
    asking = plain_context(server=True, version=version)
    asking.load_verify_locations(str(ca_file))
    asking.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    with tcp_pair() as (near, far):
        tls = Tls(verify="none", client_certificate=paths.certificate, client_key=paths.key)
        outward = TlsChannel.towards_server(server_side(tls), near, NAME)
        server = TlsChannel.towards_client(asking, far)
        shake(outward, server)
        assert server.connection.get_peer_certificate(as_cryptography=True) == issued.certificate
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(ANYONE), near, NAME)
        server = TlsChannel.towards_client(asking, far)

        def step() -> bool:
            outward.handshake()
            server.handshake()
            return False

        with pytest.raises(TlsProblem):
            until(step)
        # in TLS 1.3 the refusal comes after our side of the handshake is over
        assert "alert" in problem_of(lambda: receive(outward, 1))


def test_the_key_log_is_for_its_owner_alone_and_appended_to(version: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.log"
    path.write_text("# before\n")
    path.chmod(0o644)
    paths = make("good").write(tmp_path)
    contexts = TlsContexts(
        Tls(verify="none", certificate=paths.certificate, key=paths.key, keylog=str(path), minimum_version=version[4:])
    )
    assert contexts.client_side is not None
    assert contexts.server_side is not None
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(contexts.server_side, near, NAME)
        shake(outward, TlsChannel.towards_client(contexts.client_side, far))
    lines = path.read_text().splitlines()
    assert lines[0] == "# before"
    label = "CLIENT_TRAFFIC_SECRET_0" if outward.version == "TLSv1.3" else "CLIENT_RANDOM"
    assert len([line for line in lines if line.startswith(label + " ")]) == 2  # a line a side
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_log_that_cannot_be_opened_is_a_problem(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    reason = problem_of(lambda: server_side(Tls(verify="none", keylog=str(link))))
    assert reason.startswith(f"{link}: the key log can't be opened: ")
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_does_not_end_a_session() -> None:
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(ANYONE), near, NAME)
        log = tls_contexts.KeyLog.__new__(tls_contexts.KeyLog)
        log._descriptor = -1  # every write fails
        inward = TlsChannel.towards_client(
            client_side(ANYONE, parse_credential(make("good").certificate_pem, make("good").key_pem), log), far
        )
        shake(outward, inward)
        assert outward.send(b"250 OK\r\n") == 8
        until(lambda: inward.recv(100) == b"250 OK\r\n")


def test_the_systems_trust_store_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    bundle = next((path for path in tls_contexts.SYSTEM_BUNDLES if os.path.isfile(path)), None)
    if bundle is None:
        pytest.skip("this system has no trust store at a known place")
    server_side(Tls())
    # what is at such a place is trusted
    mine = tmp_path / "bundle.pem"
    mine.write_bytes(root().pem)
    monkeypatch.setattr(tls_contexts, "SYSTEM_BUNDLES", (str(tmp_path / "absent"), str(mine)))
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(Tls()), near, NAME)
        shake(outward, TlsChannel.towards_client(server_context(make("good")), far))
        assert judge(outward.connection, Tls(), NAME).accepted


def test_the_environment_chooses_the_trust_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = tmp_path / "bundle.pem"
    mine.write_bytes(root().pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(mine))
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(Tls()), near, NAME)
        shake(outward, TlsChannel.towards_client(server_context(make("good")), far))
        assert judge(outward.connection, Tls(), NAME).accepted


def test_a_system_without_a_trust_store_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tls_contexts, "SYSTEM_BUNDLES", ())
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "absent"))
    assert "no trust store found" in problem_of(lambda: server_side(Tls()))


def test_a_certificate_made_on_the_spot_serves(version: str) -> None:
    certificate, key = make_self_signed(["broken.example", "127.0.0.1"])
    context = client_side(Tls(), parse_credential(certificate, key))
    with tcp_pair() as (near, far):
        outward = TlsChannel.towards_server(server_side(ANYONE), near, "broken.example")
        shake(outward, TlsChannel.towards_client(context, far))
    with pytest.raises(ValueError, match="needs a name"):
        make_self_signed([])


# --- memory that is writable and executable ---------------------------------------------------------------

DENIED = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
if sys.argv[1] == "prctl":  # systemd 253 and later
    if libc.prctl(65, 1, 0, 0, 0):
        sys.exit(77)
elif sys.argv[1] == "seccomp":  # systemd before that: mmap with W and X, mprotect with X, on x86-64
    load, equal, isset, mask, leave = 0x20, 0x15, 0x45, 0x54, 0x06
    program = [
        (load, 0, 0, 0), (equal, 0, 4, 9), (load, 0, 0, 32), (mask, 0, 0, 6), (equal, 5, 0, 6),
        (leave, 0, 0, 0x7FFF0000), (equal, 1, 0, 10), (equal, 0, 3, 329), (load, 0, 0, 32), (isset, 0, 1, 4),
        (leave, 0, 0, 0x00050001), (leave, 0, 0, 0x7FFF0000),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter, 0, 0):
        sys.exit(77)
from proxy.net.tls.contexts import TlsContexts, memory_deny_write_execute_active
from proxy.net.tls.problem import TlsProblem
from proxy.settings import Tls
print(memory_deny_write_execute_active())
try:
    TlsContexts(Tls(client="none"))
    print("works")
except TlsProblem as problem:
    print(problem.reason)
"""


@pytest.mark.parametrize("how", ["prctl", "seccomp"])
def test_memory_deny_write_execute_is_found_out_at_start(how: str) -> None:
    if how == "seccomp" and os.uname().machine != "x86_64":
        pytest.skip("the filter of this test is for x86-64")
    done = subprocess.run([sys.executable, "-c", DENIED, how], capture_output=True, timeout=60, check=False, text=True)
    if done.returncode == 77:
        pytest.skip(f"this kernel lets nobody deny it by {how}")
    assert done.returncode == 0, done.stderr
    told, context = done.stdout.splitlines()
    if not told:
        # a cffi that needs no such memory: then the contexts have to work
        assert context == "works"
        pytest.skip("cffi does without writable and executable memory here")
    assert told == context
    assert "MemoryDenyWriteExecute" in told


def test_without_the_directive_there_is_nothing_to_say() -> None:
    assert memory_deny_write_execute_active() == ""


# --- other programs ---------------------------------------------------------------------------------------


def in_thread(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def test_pythons_client_meets_our_server_side(version: str, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(root().pem)
    got: list[object] = []
    with tcp_pair() as (near, far):
        near.settimeout(LIMIT)

        def client() -> None:
            theirs = ssl.create_default_context(cafile=str(ca_file))
            theirs.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
            theirs.set_alpn_protocols(["smtp"])
            with theirs.wrap_socket(near, server_hostname=NAME) as sock:
                got.extend((sock.version(), sock.selected_alpn_protocol(), sock.recv(100)))
                sock.sendall(b"QUIT\r\n")
                sock.unwrap()

        thread = in_thread(client)
        inward = TlsChannel.towards_client(server_context(make("good-below-intermediate")), far)
        shake(inward)
        inward.send(b"220 hello\r\n")
        assert receive(inward, 100) == b"QUIT\r\n"
        assert inward.clean_end
        inward.shutdown()
        thread.join(LIMIT)
    assert got == [version, "smtp", b"220 hello\r\n"]


def test_pythons_server_meets_our_client_side(version: str, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(root().pem)
    paths = make("good").write(tmp_path)
    got: list[bytes] = []
    with tcp_pair() as (near, far):
        far.settimeout(LIMIT)

        def server() -> None:
            theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            theirs.load_cert_chain(paths.certificate, paths.key)
            theirs.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
            with theirs.wrap_socket(far, server_side=True) as sock:
                got.append(sock.recv(100))
                sock.sendall(b"250 mail.domain1.com\r\n")
                sock.unwrap()

        thread = in_thread(server)
        tls = Tls(ca_file=str(ca_file))
        outward = TlsChannel.towards_server(server_side(tls), near, NAME)
        shake(outward)
        assert judge(outward.connection, tls, NAME).accepted
        outward.send(b"EHLO esa.com\r\n")
        assert receive(outward, 22) == b"250 mail.domain1.com\r\n"
        assert receive(outward, 1) == b""
        assert outward.clean_end
        outward.shutdown()
        thread.join(LIMIT)
    assert got == [b"EHLO esa.com\r\n"]


def openssl(*arguments: str) -> subprocess.Popen[bytes]:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl program")
    return subprocess.Popen(
        [program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_openssl_s_client_meets_our_server_side(version: str, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(root().pem)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT)
        port = listener.getsockname()[1]
        process = openssl(
            "s_client", "-connect", f"127.0.0.1:{port}", "-servername", NAME, "-verify_hostname", NAME,
            "-CAfile", str(ca_file), "-verify_return_error", "-alpn", "h2,smtp", f"-tls1_{version[-1]}", "-quiet",
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            try:
                sock, _ = listener.accept()
                with sock:
                    sock.setblocking(False)
                    inward = TlsChannel.towards_client(server_context(make("good-below-intermediate")), sock)
                    shake(inward)
                    assert (inward.version, inward.sni, inward.alpn) == (version, NAME, "smtp")
                    inward.send(b"220 hello\r\n")
                    process.stdin.write(b"EHLO esa.com\n")
                    process.stdin.flush()
                    assert receive(inward, 13) == b"EHLO esa.com\n"
                    inward.shutdown()
                assert b"220 hello" in process.stdout.read()
            finally:
                process.kill()


def test_openssl_s_server_meets_our_client_side(version: str, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(root().pem)
    paths = make("good").write(tmp_path)
    port = free_port()
    process = openssl(
        "s_server", "-accept", f"127.0.0.1:{port}", "-cert", paths.certificate, "-key", paths.key, "-quiet",
        "-naccept", "1", f"-tls1_{version[-1]}", "-rev",
    )  # fmt: skip
    with process:
        try:
            found: list[socket.socket] = []

            def connect() -> bool:
                try:
                    found.append(socket.create_connection(("127.0.0.1", port), timeout=LIMIT))
                except ConnectionRefusedError:
                    assert process.poll() is None, "s_server did not start"
                return bool(found)

            until(connect)
            with found[0] as sock:
                sock.setblocking(False)
                tls = Tls(ca_file=str(ca_file))
                outward = TlsChannel.towards_server(server_side(tls), sock, NAME)
                shake(outward)
                assert outward.version == version
                assert judge(outward.connection, tls, NAME).accepted
                outward.send(b"abc\n")
                assert receive(outward, 4) == b"cba\n"
        finally:
            process.kill()
