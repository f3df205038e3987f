"""`simulate --fault`: each server does wrong what its id says, as a client on a socket sees it, and nothing else."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator

import pytest
from cryptography import x509
from OpenSSL import SSL

from proxy.smtp.faults import DIALOGUE, LAB
from proxy.tools.simulate import RunningServer
from proxy.tools.simulate.faults import FAULTS, SEGMENT, hello_size

pytest_plugins = ["proxy.tools.simulate.plugin"]
pytestmark = pytest.mark.filterwarnings("error")
Start = Callable[..., RunningServer]


def context(ciphers: str = "", newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if ciphers:
        made.set_ciphers(ciphers)
    made.maximum_version = newest
    return made


@contextlib.contextmanager
def client(server: RunningServer, seconds: float = 5.0) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP(server.host, server.port, "client.example", seconds) as smtp:
        yield smtp


def sends(server: RunningServer, tls: ssl.SSLContext | None = None) -> str:
    """The version of TLS, or `clear`, in which a mail went."""
    with client(server) as smtp:
        if tls is not None:
            smtp.starttls(context=tls)
        smtp.sendmail("a@b.example", ["c@d.example"], b"Subject: x\r\n\r\nx\r\n")
    mail = server.wait_for_mail()
    assert mail.data == b"Subject: x\r\n\r\nx\r\n"
    return mail.tls


def test_there_is_a_server_for_every_fault() -> None:
    assert list(FAULTS) == [*DIALOGUE, *LAB]


def test_ehlo_is_refused_and_helo_taken(simulated_server: Start) -> None:
    server = simulated_server(fault="ehlo-refused")
    with client(server) as smtp:
        assert smtp.ehlo()[0] == 502
    assert sends(server) == "clear"


def test_a_second_ehlo_is_refused_in_clear_and_inside_tls(simulated_server: Start) -> None:
    server = simulated_server(fault="ehlo-repeat-refused")
    with client(server) as smtp:
        assert [smtp.ehlo()[0], smtp.ehlo()[0], smtp.helo()[0]] == [250, 503, 503]
    with client(server) as smtp:
        smtp.starttls(context=context())
        assert smtp.ehlo()[0] == 503


@pytest.mark.parametrize(("fault", "code"), [("starttls-refused", 454), ("starttls-reply-code", 250)])
def test_starttls_is_offered_and_answered_otherwise(simulated_server: Start, fault: str, code: int) -> None:
    with client(simulated_server(fault=fault)) as smtp:
        smtp.ehlo()
        assert smtp.has_extn("starttls")
        assert smtp.docmd("STARTTLS")[0] == code


def test_starttls_is_offered_on_one_connection_and_not_on_the_next(simulated_server: Start) -> None:
    server = simulated_server(fault="starttls-not-steady")
    offered = []
    for _ in range(4):
        with client(server) as smtp:
            smtp.ehlo()
            offered.append((smtp.has_extn("starttls"), smtp.docmd("STARTTLS")[0]))
    assert offered == [(True, 220), (False, 502)] * 2


@pytest.mark.parametrize("fault", ["hello-unanswered", "hello-too-large"])
def test_a_large_client_hello_is_never_answered_and_a_small_one_is(simulated_server: Start, fault: str) -> None:
    server = simulated_server(fault=fault)
    assert sends(server, context()) == "TLSv1.3"  # 517 octets, with the interpreter's OpenSSL
    large = context()
    large.set_alpn_protocols(["x" * 250] * 6)
    with client(server, 1.0) as smtp, pytest.raises(TimeoutError):
        smtp.starttls(context=large)
    with client(server) as smtp:
        smtp.docmd("STARTTLS")
        assert smtp.sock is not None
        smtp.sock.sendall(b"NOOP\r\n")  # no handshake: OpenSSL says so
        assert smtp.sock.recv(1000)[:1] in (b"", b"\x15")


def test_the_size_of_a_hello_is_known_from_its_head() -> None:
    head = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"
    assert [hello_size(head[:cut]) for cut in (5, 8)] == [None, None]
    assert hello_size(head) == 517
    assert hello_size(head + bytes(2000)) == 517
    assert hello_size(b"EHLO") == 4
    assert SEGMENT == 1400


def openssl(server: RunningServer, level: int, newest: int, groups: bool = True) -> str:
    """The version that pyOpenSSL's own OpenSSL comes to at this security level; raises `SSL.Error`."""
    from cryptography.hazmat.primitives.asymmetric import ec

    weak = SSL.Context(SSL.TLS_METHOD)
    weak.set_cipher_list(b"ALL:@SECLEVEL=%d" % level)
    weak.set_min_proto_version(SSL.TLS1_VERSION)
    weak.set_max_proto_version(newest)
    if not groups:
        weak.set_tmp_ecdh(ec.SECP256R1())
    with socket.create_connection((server.host, server.port), 10) as sock:
        assert sock.recv(1000).startswith(b"220 ")
        sock.sendall(b"STARTTLS\r\n")
        assert sock.recv(1000).startswith(b"220 ")
        sock.setblocking(True)
        tls = SSL.Connection(weak, sock)
        tls.set_connect_state()
        tls.do_handshake()
        return tls.get_protocol_version_name()


@pytest.mark.parametrize(
    ("fault", "version", "groups"),
    [
        ("tls-outdated", "TLSv1.1", True),
        ("tls10-only", "TLSv1", True),
        ("dh-1024", "TLSv1.2", False),
        ("sha1", "TLSv1.2", True),
    ],
)
def test_outdated_tls_comes_up_at_level_0_and_not_with_todays_defaults(
    simulated_server: Start, fault: str, version: str, groups: bool
) -> None:
    server = simulated_server(fault=fault)
    assert openssl(server, 0, SSL.TLS1_3_VERSION, groups) == version
    with pytest.raises(SSL.Error):
        openssl(server, 2, SSL.TLS1_3_VERSION, groups)


def certificate(server: RunningServer) -> x509.Certificate:
    with client(server) as smtp:
        smtp.starttls(context=context())
        assert isinstance(smtp.sock, ssl.SSLSocket)
        der = smtp.sock.getpeercert(True)
    assert der is not None
    return x509.load_der_x509_certificate(der)


def test_the_certificate_has_expired_or_another_name(simulated_server: Start) -> None:
    expired, wrong = simulated_server(fault="expired"), simulated_server(fault="wrong-name")
    for server, why in ((expired, "certificate has expired"), (wrong, "[Hh]ostname mismatch")):
        verifying = ssl.create_default_context(cafile=server.certificate)
        with client(server) as smtp:
            smtp._host = "mail.domain1.com"  # type: ignore[attr-defined]  # the name to verify
            with pytest.raises(ssl.SSLCertVerificationError, match=why):
                smtp.starttls(context=verifying)
    names = certificate(wrong).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["wrong.example"]
    assert sends(expired, context()) == "TLSv1.3"


def test_it_closes_behind_its_220(simulated_server: Start) -> None:
    with client(simulated_server(fault="closes-after-220")) as smtp, pytest.raises((ssl.SSLError, OSError)):
        smtp.starttls(context=context())


def test_a_banner_of_several_lines_and_keywords_that_need_others(simulated_server: Start) -> None:
    with socket.create_connection(("127.0.0.1", simulated_server(fault="banner-multiline").port), 5) as sock:
        assert [line[:4] for line in sock.recv(1000).splitlines()] == [b"220-", b"220-", b"220 "]
    with client(simulated_server(fault="keyword-incomplete")) as smtp:
        smtp.ehlo()
        assert smtp.has_extn("smtputf8")
        assert not smtp.has_extn("8bitmime")


def test_a_name_that_is_none_is_refused(simulated_server: Start) -> None:
    names = {
        b"client.example": 250, b"[192.0.2.1]": 250, b"[IPv6:2001:db8::1]": 250, b"localhost": 501, b"": 501,
        b"[fe80::1%eth0]": 501, b"[IPv6:fe80::1%eth0]": 501, b"my_host.example": 501, b"[]": 501, b"192.0.2.1]": 501,
        b"[IPv6:192.0.2.1]": 501,
    }  # fmt: skip
    with socket.create_connection(("127.0.0.1", simulated_server(fault="client-name-invalid").port), 5) as sock:
        sock.recv(1000)
        for name, code in names.items():
            for verb in (b"EHLO ", b"HELO "):
                sock.sendall(verb + name + b"\r\n")
                assert int(sock.recv(1000)[:3]) == code, name


def test_the_banner_is_slow(simulated_server: Start) -> None:
    with socket.create_connection(("127.0.0.1", simulated_server(fault="slow-banner").port), 0.5) as sock:
        with pytest.raises(TimeoutError):
            sock.recv(1000)
        sock.settimeout(15)
        assert sock.recv(1000).startswith(b"220 ")


def test_an_unknown_fault_is_told_with_the_nearest(simulated_server: Start) -> None:
    with pytest.raises(ValueError, match="did you mean hello-too-large"):
        simulated_server(fault="hello-too-larg")
