"""What is read of TLS in pass-through, however it is cut and whatever it is."""

from __future__ import annotations

import random
import ssl
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.net.tls.client_hello import MAX_HELD, MAX_LOOKED_AT, TlsRecordPeek
from tests.certificates import NAME, make


def stdlib_flights(
    tmp_path_factory: pytest.TempPathFactory, version: ssl.TLSVersion, name: str | None, trusting: bool = False
) -> tuple[bytes, bytes, str]:
    """What a real client and a real server send each other, and the cipher suite."""
    paths = make("good").write(tmp_path_factory.mktemp("tls"))
    server_settings = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_settings.load_cert_chain(paths.certificate, paths.key)
    client_settings = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_settings.check_hostname = False
    client_settings.verify_mode = ssl.CERT_NONE if trusting else ssl.CERT_REQUIRED
    client_settings.minimum_version = client_settings.maximum_version = version
    bios = [ssl.MemoryBIO() for _ in range(4)]
    client = client_settings.wrap_bio(bios[0], bios[1], server_hostname=name)
    server = server_settings.wrap_bio(bios[2], bios[3], server_side=True)
    sent = [b"", b""]
    for _ in range(4):
        for index, end, away, into in ((0, client, bios[1], bios[2]), (1, server, bios[3], bios[0])):
            try:
                end.do_handshake()
            except ssl.SSLError:
                pass
            data = away.read()
            sent[index] += data
            into.write(data)
    cipher = client.cipher()
    return sent[0], sent[1], cipher[0] if cipher else ""


@pytest.fixture(scope="module", params=["TLSv1_2", "TLSv1_3"])
def flights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, str, str]:
    version = ssl.TLSVersion[request.param]
    client, server, cipher = stdlib_flights(tmp_path_factory, version, NAME, trusting=True)
    return client, server, cipher, request.param.replace("_", ".")


def peeked(client: Sequence[bytes], server: Sequence[bytes]) -> TlsRecordPeek:
    peek = TlsRecordPeek()
    for data in client:
        peek.feed_client(data)
    for data in server:
        peek.feed_server(data)
    return peek


def record(kind: int, body: bytes, version: bytes = b"\x03\x03") -> bytes:
    return bytes([kind]) + version + len(body).to_bytes(2, "big") + body


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body


def client_hello(*extensions: bytes) -> bytes:
    listed = b"".join(extensions)
    body = (
        b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00" + len(listed).to_bytes(2, "big") + listed
    )
    return b"\x01" + len(body).to_bytes(3, "big") + body


def server_name(name: bytes) -> bytes:
    entry = b"\x00" + len(name).to_bytes(2, "big") + name
    return extension(0, len(entry).to_bytes(2, "big") + entry)


def test_a_real_handshake_is_read(flights: tuple[bytes, bytes, str, str]) -> None:
    client, server, cipher, version = flights
    peek = peeked([client], [server])
    assert (peek.sni, peek.version, peek.cipher, peek.alert) == (NAME, version, cipher, "")
    assert peek.done


def test_the_cuts_do_not_matter(flights: tuple[bytes, bytes, str, str]) -> None:
    client, server, cipher, version = flights
    chance = random.Random(1)
    for size in (1, 2, 3, 7, 100):
        for data in (client, server):
            assert len(data) < MAX_LOOKED_AT
        cuts = [[data[i : i + size] for i in range(0, len(data), size)] for data in (client, server)]
        peek = peeked(*cuts)
        assert (peek.sni, peek.version, peek.cipher, peek.done) == (NAME, version, cipher, True)
    for _ in range(50):
        at, other = chance.randrange(len(client)), chance.randrange(len(server))
        peek = peeked([client[:at], client[at:]], [server[:other], server[other:]])
        assert (peek.sni, peek.version, peek.cipher, peek.done) == (NAME, version, cipher, True)


def test_the_name_is_known_as_soon_as_the_hello_is_whole(flights: tuple[bytes, bytes, str, str]) -> None:
    client = flights[0]
    end = 5 + int.from_bytes(client[3:5], "big")
    assert peeked([client[: end - 1]], []).sni == ""
    assert peeked([client[:end]], []).sni == NAME


def test_no_name_is_no_name(tmp_path_factory: pytest.TempPathFactory) -> None:
    client, server, _ = stdlib_flights(tmp_path_factory, ssl.TLSVersion.TLSv1_3, None)
    peek = peeked([client], [server])
    assert (peek.sni, peek.version) == ("", "TLSv1.3")


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_client_that_does_not_trust_the_server_is_heard(
    version: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """OpenSSL sends this alert in clear in TLS 1.3 as well: its own keys come into use later."""
    client, server, _ = stdlib_flights(tmp_path_factory, ssl.TLSVersion[version], NAME)
    peek = peeked([client], [server])
    assert (peek.alert, peek.alert_by, peek.version) == ("unknown_ca", "client", version.replace("_", "."))


def test_an_alert_in_place_of_the_hello_is_heard() -> None:
    peek = peeked([], [record(21, b"\x02\x28")])
    assert (peek.alert, peek.alert_by, peek.version) == ("handshake_failure", "server", "")
    assert peek._server is None
    assert not peek.done


def test_an_unheard_of_alert_has_its_number() -> None:
    assert peeked([], [record(21, b"\x02\xc8")]).alert == "alert-200"


def test_an_encrypted_alert_is_none() -> None:
    peek = peeked([record(22, client_hello()), record(21, bytes(26))], [])
    assert (peek.alert, peek._client is None) == ("", True)


def test_a_hello_over_several_records_is_read() -> None:
    hello = client_hello(server_name(b"mx.example"))
    peek = peeked([b"".join(record(22, hello[i : i + 5]) for i in range(0, len(hello), 5))], [])
    assert peek.sni == "mx.example"


def test_a_name_that_is_not_ascii_is_escaped() -> None:
    assert peeked([record(22, client_hello(server_name(b"m\xfcx\n.example")))], []).sni == "m\\xfcx\n.example"


def test_a_hello_that_is_too_long_is_read_as_far_as_it_is_held() -> None:
    early = client_hello(server_name(b"mx.example"), extension(51, bytes(9000)))
    late = client_hello(extension(51, bytes(9000)), server_name(b"mx.example"))
    assert peeked([record(22, early)], []).sni == "mx.example"
    assert peeked([record(22, late)], []).sni == ""


def test_little_is_held_and_little_is_looked_at() -> None:
    peek = TlsRecordPeek()
    endless = record(22, b"\x01\xff\xff\xff" + bytes(16000))
    for _ in range(100):
        peek.feed_client(endless)
        direction = peek._client
        assert direction is None or len(direction._held) <= MAX_HELD
    assert peek._client is None
    peek.feed_client(b"more")


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO esa.com\r\n",
        b"\x16EHLO",
        b"\x80\x2e\x01\x00\x02",  # SSL 2
        record(23, b"x"),
        record(20, b"\x01"),
        record(22, b""),
        record(22, b"\x02\x00\x00\x00"),  # a server's hello from the client
        record(22, b"\x01\x00\x00\x05\x03\x03abc"),  # ends early
        record(21, b""),
        record(21, b"\x02"),
        b"\x00",
    ],
)
def test_what_is_not_tls_ends_the_interest(data: bytes) -> None:
    peek = peeked([data], [])
    assert peek._client is None
    assert (peek.sni, peek.alert) == ("", "")


@given(st.lists(st.binary(max_size=200), max_size=10), st.lists(st.binary(max_size=200), max_size=10))
@settings(max_examples=200)
def test_it_never_raises(client: list[bytes], server: list[bytes]) -> None:
    peeked(client, server)


@given(st.data())
@settings(max_examples=300)
def test_a_damaged_hello_never_raises(data: st.DataObject) -> None:
    whole = bytearray(record(22, client_hello(server_name(b"mx.example"), extension(43, b"\x02\x03\x04"))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    peek = peeked([bytes(whole)], [bytes(whole)])
    assert isinstance(peek.sni, str)


# -- handshakes that never came to their end -------------------------------------------------------------------------


def server_hello(version: bytes = b"\x03\x04") -> bytes:
    listed = extension(43, version)
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x13\x01" + b"\x00" + len(listed).to_bytes(2, "big") + listed
    return b"\x02" + len(body).to_bytes(3, "big") + body


CHANGE = record(20, b"\x01")


def test_a_real_handshake_that_came_to_its_end_is_no_failure(flights: tuple[bytes, bytes, str, str]) -> None:
    assert peeked([flights[0]], [flights[1]]).failure() == ""


@pytest.mark.parametrize("pieces", [1, 3])
def test_a_hello_that_nobody_answers_is_told_with_its_size_on_the_wire(pieces: int) -> None:
    hello = client_hello(server_name(b"mx.example"), extension(51, bytes(1500)))
    size = -(-len(hello) // pieces)
    sent = b"".join(record(22, hello[at : at + size]) for at in range(0, len(hello), size))
    peek = peeked([sent], [])
    assert peek.failure() == f"the ClientHello of {len(sent)} octets was never answered"
    peek.feed_server(b"4")
    assert peek.failure() == ""


def test_half_a_hello_is_nothing_that_could_be_answered() -> None:
    sent = record(22, client_hello(extension(51, bytes(6000))))
    assert peeked([sent[:-1]], []).failure() == ""
    assert "6" in peeked([sent], []).failure()
    assert str(len(sent)) in peeked([sent], []).failure()


def test_a_fatal_alert_in_clear_is_a_failure_and_a_warning_is_none() -> None:
    hello = record(22, client_hello())
    assert peeked([hello], [record(21, b"\x02\x28")]).failure() == "the server sent the TLS alert handshake_failure"
    # RFC 6066 3: servers were seen to warn of a name that they don't know, and to go on
    peek = peeked([hello], [record(22, server_hello()), record(21, b"\x01\x70")])
    assert peek.alert == "unrecognized_name"
    assert "alert" not in peek.failure()
    peek.feed_client(record(21, b"\x02\x30"))
    assert (peek.alert, peek.alert_by) == ("unknown_ca", "client")
    assert peek.failure() == "the client sent the TLS alert unknown_ca"


@pytest.mark.parametrize("version", [b"\x03\x03", b"\x03\x04"])
def test_a_client_that_says_no_more_behind_the_servers_hello_has_not_finished(version: bytes) -> None:
    hello, answer = record(22, client_hello()), record(22, server_hello(version))
    assert "was not finished" in peeked([hello], [answer, CHANGE]).failure()
    # In TLS 1.2 its change_cipher_spec comes with its Finished; in 1.3 it says nothing (RFC 8446 D.4).
    peek = peeked([hello, CHANGE], [answer])
    assert ("was not finished" in peek.failure()) == (version == b"\x03\x04")
    peek.feed_client(record(22 if version == b"\x03\x03" else 23, bytes(53)))
    assert peek.failure() == ""
    # What is no TLS, or was only read in part, says nothing either.
    assert peeked([hello, b"EHLO a\r\n"], [answer]).failure() == ""


@pytest.mark.parametrize("length", [11, 19, 53, 69])
@pytest.mark.parametrize("again", [False, True])
def test_a_first_encrypted_record_as_short_as_an_alert_is_one(length: int, again: bool) -> None:
    client = [record(22, client_hello()), CHANGE, record(23, bytes(length))]
    if again:  # after a HelloRetryRequest
        client.insert(2, record(22, client_hello(extension(51, bytes(200)))))
    peek = peeked(client, [record(22, server_hello()), CHANGE, record(23, bytes(900))])
    assert bool(peek.failure()) == (length < 20)
    assert peek.done


def test_application_data_of_tls_1_2_is_no_alert() -> None:
    client = [record(22, client_hello()), record(22, bytes(70)), CHANGE, record(22, bytes(40)), record(23, bytes(19))]
    assert peeked(client, [record(22, server_hello(b"\x03\x03")), CHANGE]).failure() == ""
