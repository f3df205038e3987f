"""Who is let in, and in which words the others are refused: policy x certificate x TLS version."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL

from proxy.net.tls.channel import TlsChannel
from proxy.net.tls.contexts import server_side
from proxy.net.tls.identity import ChainNotes, Verdict, judge, note_chain, spki_sha256
from proxy.net.tls.names import certificate_names, literal_address, name_problem
from proxy.settings import Tls
from tests.certificates import ADDRESS, BY_NAME, KINDS, NAME, make, root, self_signed
from tests.tls_pair import server_context, shake, tcp_pair

VERSIONS = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    path.write_bytes(root().pem)
    return str(path)


def pin_of(kind: str) -> str:
    spki = make(kind).certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + base64.b64encode(hashlib.sha256(spki).digest()).decode()


def verdict_on(kind: str, tls: Tls, name: str = NAME, version: str = "TLSv1.3") -> Verdict:
    with tcp_pair() as (near, far):
        ours = TlsChannel.towards_server(server_side(tls), near, name)
        shake(ours, TlsChannel.towards_client(server_context(make(kind), maximum=VERSIONS[version]), far))
        assert ours.version == version
        return judge(ours.connection, tls, name)


def test_the_table_has_every_kind() -> None:
    assert set(BY_NAME) == set(KINDS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_hostname_lets_in_who_is_meant_and_says_why_not_the_others(kind: str, version: str, ca_file: str) -> None:
    verdict = verdict_on(kind, Tls(verify="hostname", ca_file=ca_file), version=version)
    wanted = BY_NAME[kind]
    assert verdict.reason == (wanted or f"verified for {NAME}")
    assert verdict.accepted is not bool(wanted)
    assert verdict.not_after == make(kind).certificate.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_pin_looks_at_the_key_and_at_nothing_else(kind: str, version: str) -> None:
    other = "sha256:" + base64.b64encode(bytes(32)).decode()
    verdict = verdict_on(kind, Tls(verify="pin", pins=(other, pin_of(kind))), version=version)
    assert (verdict.accepted, verdict.reason) == (True, "the key is pinned")
    verdict = verdict_on(kind, Tls(verify="pin", pins=(other,)), version=version)
    assert verdict.accepted is False
    assert verdict.reason == f"the certificate's key is not pinned: it is {pin_of(kind)}"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_none_lets_everybody_in(kind: str, version: str) -> None:
    verdict = verdict_on(kind, Tls(verify="none"), version=version)
    assert (verdict.accepted, verdict.reason) == (True, "not verified")
    assert verdict.not_after == make(kind).certificate.not_valid_after_utc.timestamp()


def test_a_pin_of_another_good_certificate_is_refused() -> None:
    verdict = verdict_on("other-key", Tls(verify="pin", pins=(pin_of("good"),)))
    assert not verdict.accepted


def test_no_pins_at_all_refuses() -> None:
    assert not verdict_on("good", Tls(verify="pin")).accepted


def test_an_unknown_policy_refuses() -> None:
    assert not verdict_on("good", Tls(verify="hostnames")).accepted


@pytest.mark.parametrize("literal", [ADDRESS, f"[{ADDRESS}]"])
def test_an_address_is_looked_for_as_an_address(literal: str, ca_file: str) -> None:
    tls = Tls(verify="hostname", ca_file=ca_file)
    assert verdict_on("address-literal", tls, literal).accepted
    refused = verdict_on("good", tls, literal)
    assert (refused.accepted, refused.reason) == (False, f"certificate is for {NAME}, not {literal}")


def test_verify_name_stands_in_for_the_destination(ca_file: str) -> None:
    tls = Tls(verify="hostname", ca_file=ca_file, verify_name=("mx.other.example",))
    assert verdict_on("wrong-name", tls).accepted
    assert not verdict_on("good", tls).accepted


def test_no_name_to_look_for_refuses(ca_file: str) -> None:
    verdict = verdict_on("good", Tls(verify="hostname", ca_file=ca_file), "")
    assert (verdict.accepted, verdict.reason) == (False, "'' is no host name that a certificate could be for")


def test_a_trusted_self_signed_certificate_is_good(tmp_path: Path) -> None:
    issued = make("self-signed")
    path = tmp_path / "ca.pem"
    path.write_bytes(issued.certificate_pem)
    assert verdict_on("self-signed", Tls(verify="hostname", ca_file=str(path))).accepted


def test_everything_that_is_wrong_is_said(ca_file: str) -> None:
    verdict = verdict_on("expired", Tls(verify="hostname", ca_file=ca_file), "mx.domain1.com")
    assert verdict.reason == (
        "certificate expired on 2024-01-01; certificate is for mail.domain1.com, not mx.domain1.com"
    )


def test_a_connection_without_notes_is_refused(ca_file: str) -> None:
    """The chain counts as verified only if OpenSSL said so, never because nothing was said."""
    tls = Tls(verify="hostname", ca_file=ca_file)
    with tcp_pair() as (near, far):
        # a context of another policy, so that no callback is ever made
        ours = TlsChannel.towards_server(server_side(Tls(verify="none")), near, NAME)
        shake(ours, TlsChannel.towards_client(server_context(make("good")), far))
        verdict = judge(ours.connection, tls, NAME)
        assert (verdict.accepted, verdict.reason) == (False, "the chain was not verified")
        ours.connection.set_app_data(None)
        assert not judge(ours.connection, tls, NAME).accepted


def test_an_exception_of_our_own_is_a_refusal(ca_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> str:
        raise RuntimeError("a bug")

    tls = Tls(verify="hostname", ca_file=ca_file)
    monkeypatch.setattr("proxy.net.tls.identity._name_problem", fail)
    verdict = verdict_on("good", tls)
    assert (verdict.accepted, verdict.reason) == (False, "the certificate can't be checked (RuntimeError)")


@pytest.mark.parametrize("version", VERSIONS)
def test_an_exception_in_the_callback_ends_the_handshake(
    version: str, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> str:
        raise RuntimeError("a bug")

    monkeypatch.setattr("proxy.net.tls.identity._chain_reason", fail)
    tls = Tls(verify="hostname", ca_file=ca_file)
    with tcp_pair() as (near, far):
        ours = TlsChannel.towards_server(server_side(tls), near, NAME)
        theirs = TlsChannel.towards_client(server_context(make("expired"), maximum=VERSIONS[version]), far)
        with pytest.raises(Exception, match="certificate could not be checked"):
            shake(ours, theirs)
        notes = ours.connection.get_app_data()
        assert isinstance(notes, ChainNotes)
        assert notes.failed
        assert not judge(ours.connection, tls, NAME).accepted


def test_the_callback_refuses_a_connection_that_is_not_ours() -> None:
    connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    assert note_chain(connection, None, 0, 0, 1) is False  # type: ignore[arg-type]  # never looked at


def names(*values: x509.GeneralName) -> x509.Certificate:
    return root().issue(general_names=values).certificate


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("mail.domain1.com", "MAIL.Domain1.COM", True),
        ("mail.domain1.com", "mail.domain1.com.", True),
        ("*.domain1.com", "mail.domain1.com", True),
        ("*.domain1.com", "a.mail.domain1.com", False),
        ("*.domain1.com", "domain1.com", False),
        ("m*.domain1.com", "mail.domain1.com", False),
        ("mail.*.com", "mail.domain1.com", False),
        ("*", "mail", False),
        ("*.com", "domain1.com", False),
        ("*.domain1.com", "xn--bcher-kva.domain1.com", False),
        ("xn--bcher-kva.domain1.com", "bücher.domain1.com", True),
        ("127.0.0.1", "127.0.0.1", False),  # an address as a dNSName
        ("mail", "mail", True),
    ],
)
def test_names_match_by_rfc_9525(pattern: str, name: str, fits: bool) -> None:
    assert (name_problem(names(x509.DNSName(pattern)), name) == "") is fits


def test_an_odd_entry_does_no_harm_to_the_others() -> None:
    certificate = names(
        x509.DNSName("*.com"),
        x509.UniformResourceIdentifier("smtp://mail.domain1.com:25"),
        x509.RFC822Name("postmaster@domain1.com"),
        x509.DNSName(NAME),
    )
    assert name_problem(certificate, NAME) == ""


def test_a_uri_or_a_mail_address_is_no_host() -> None:
    certificate = names(x509.UniformResourceIdentifier(f"smtp://{NAME}"), x509.RFC822Name(f"a@{NAME}"))
    assert name_problem(certificate, NAME) == (
        "certificate is for no host: its subjectAltName has neither a DNS name nor an address"
    )


def test_many_names_are_cut_and_none_forges_a_line() -> None:
    certificate = names(
        x509.DNSName("a\r\n250 ok.example"),
        x509.DNSName("b" * 200),
        *(x509.DNSName(f"mx{i}.example") for i in range(9)),
    )
    reason = name_problem(certificate, NAME)
    assert reason == f"certificate is for a??250 ok.example and {'b' * 61}... and mx0.example and 8 more, not {NAME}"


def test_the_names_of_a_certificate_are_told() -> None:
    assert certificate_names(self_signed(NAME, "::1", "192.0.2.1").certificate) == (NAME, "::1", "192.0.2.1")
    assert certificate_names(make("no-san").certificate) == ()


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("[192.0.2.1]", "192.0.2.1"),
        ("[IPv6:2001:db8::1]", "2001:db8::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("mail.domain1.com", None),
        ("", None),
        ("192.0.2", None),
    ],
)
def test_a_literal_is_told_from_a_name(name: str, address: str | None) -> None:
    assert literal_address(name) == address


def test_the_hash_is_what_openssl_makes_of_it(tmp_path: Path) -> None:
    paths = make("good").write(tmp_path)
    pipe = (
        f"openssl x509 -in {paths.certificate} -noout -pubkey | openssl pkey -pubin -outform der"
        " | openssl dgst -sha256 -binary | openssl base64"
    )
    done = subprocess.run(["/bin/sh", "-c", pipe], capture_output=True, timeout=30, check=False)
    if done.returncode or not done.stdout:
        pytest.skip("no openssl program: " + os.fsdecode(done.stderr))
    assert spki_sha256(make("good").certificate) == done.stdout.decode().strip()


@pytest.mark.parametrize("kind", KINDS)
def test_the_hash_is_of_the_key_info_of_every_certificate(kind: str) -> None:
    assert f"sha256:{spki_sha256(make(kind).certificate)}" == pin_of(kind)
