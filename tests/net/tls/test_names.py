"""Which names are to be proved, and which certificates have them; the matrix of kinds is `test_identity`'s."""

from __future__ import annotations

import time

import pytest
from cryptography import x509
from OpenSSL import SSL

from proxy.net.tls.channel import TlsChannel
from proxy.net.tls.contexts import TlsContexts, client_side, parse_credential, server_side
from proxy.net.tls.identity import judge
from proxy.net.tls.names import MAX_COMPARED, Meant, name_problem
from proxy.net.tls.problem import TlsProblem
from proxy.net.tls.secure import SecureRoute
from proxy.settings import Tls
from proxy.settings.values import Destination
from tests.certificates import Issued, root
from tests.tls_pair import server_context, shake, tcp_pair


def certificate(*names: str) -> x509.Certificate:
    return root().issue(*names).certificate


@pytest.mark.parametrize(
    ("names", "wanted", "fits"),
    [
        (["mx1.domain1.com"], [".domain1.com"], True),
        (["a.b.c.domain1.com"], [".domain1.com"], True),
        (["MX1.Domain1.COM"], [".domain1.com"], True),
        (["*.domain1.com"], [".domain1.com"], True),
        (["*.mx.domain1.com"], [".DOMAIN1.com"], True),
        (["domain1.com"], [".domain1.com"], False),
        (["evildomain1.com"], [".domain1.com"], False),
        (["domain1.com.evil.example"], [".domain1.com"], False),
        (["*.com"], [".domain1.com"], False),
        (["a.*.domain1.com"], [".domain1.com"], False),
        (["domain1.com"], ["domain1.com", ".domain1.com"], True),
        (["second.example"], ["first.example", "second.example"], True),
        (["*.example.com"], ["a.example.com"], True),
        (["*.example.com"], ["a.b.example.com"], False),
        (["192.0.2.1"], ["mail.example", "[192.0.2.1]"], True),
        (["192.0.2.1"], [".192.0.2.1"], False),
    ],
)
def test_a_certificate_has_one_of_the_names(names: list[str], wanted: list[str], fits: bool) -> None:
    assert (name_problem(certificate(*names), *wanted) == "") is fits


def test_what_was_meant_is_said_in_words() -> None:
    assert name_problem(certificate("mx.evil.example"), "domain1.com", ".domain1.com") == (
        "certificate is for mx.evil.example, not domain1.com or a name below domain1.com"
    )


@pytest.mark.parametrize(
    ("meant", "verify_name", "names", "sni"),
    [
        (Meant("mail.domain1.com"), (), ("mail.domain1.com",), "mail.domain1.com"),
        (Meant("mail.domain1.com"), ("x.example",), ("x.example",), "mail.domain1.com"),
        (Meant("mx.other.example", "domain1.com"), (), ("domain1.com", ".domain1.com"), "mx.other.example"),
        (Meant("mx.other.example", "domain1.com"), (".other.example",), (".other.example",), "mx.other.example"),
        (Meant("192.0.2.1"), (), ("192.0.2.1",), ""),
        (Meant("192.0.2.1"), (".a.example", "b.example", "c.example"), (".a.example", "b.example", "c.example"),
         "b.example"),
        (Meant("192.0.2.1"), ("192.0.2.1", "b.example"), ("192.0.2.1", "b.example"), "b.example"),
        (Meant("192.0.2.1"), (".a.example",), (".a.example",), ""),
    ],
)  # fmt: skip
def test_the_names_to_prove_and_the_name_that_is_sent(
    meant: Meant, verify_name: tuple[str, ...], names: tuple[str, ...], sni: str
) -> None:
    assert meant.names(verify_name) == names
    assert meant.server_name(verify_name) == sni


class _Exchange:
    """A server found by the MX of domain1.com."""

    name = "mx.evil.example"
    destination = Destination("mx", "domain1.com")


@pytest.mark.parametrize(("name", "accepted"), [("mx.evil.example", False), ("mail.domain1.com", True)])
def test_a_forged_mx_with_a_valid_certificate_of_its_own_is_refused(
    name: str, accepted: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.write_bytes(root().pem)
    secure = SecureRoute((tls := Tls(client="none", ca_file=str(ca))), TlsContexts(tls))
    with tcp_pair() as (near, far):
        ours = secure.towards_server(near, _Exchange())
        theirs = TlsChannel.towards_client(server_context(root().issue(name)), far)
        shake(ours, theirs)
        assert theirs.sni == "mx.evil.example"
        assert secure.judge(ours, _Exchange()).accepted is accepted


# -- how much of it ----------------------------------------------------------------------------------------------------


def test_a_name_beyond_the_thousandth_does_not_match() -> None:
    many = [f"h{number}.example" for number in range(MAX_COMPARED)]
    assert name_problem(certificate(*many[:-1], "mail.domain1.com"), "mail.domain1.com") == ""
    assert "and 998 more" in name_problem(certificate(*many, "mail.domain1.com"), "mail.domain1.com")


def _judged(issued: Issued, tls: Tls) -> tuple[str, float]:
    """The reason, and the seconds that the verdict took."""
    with tcp_pair() as (near, far):
        ours = TlsChannel.towards_server(server_side(tls), near, "mail.domain1.com")
        shake(ours, TlsChannel.towards_client(server_context(issued), far))
        begun = time.thread_time()
        verdict = judge(ours.connection, tls, "mail.domain1.com", ours.received)
        return verdict.reason, time.thread_time() - begun


def test_8000_names_take_no_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.write_bytes(root().pem)
    letters = "abcdefghijklmnopqrstuvwxyz"
    short = [f"{a}.{b}{c}{d}" for a in letters for b in letters for c in letters for d in "abcdefghijkl"][:8000]
    reason, seconds = _judged(root().issue(*short), Tls(ca_file=str(ca)))
    assert reason == "certificate is for a.aaa and a.aab and a.aac and 7997 more, not mail.domain1.com"
    assert seconds < 0.1


@pytest.mark.parametrize("verify", ["hostname", "pin", "none"])
def test_a_chain_of_over_64_kib_is_refused_under_every_policy(
    verify: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ca = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.write_bytes(root().pem)
    issued = root().issue(*[f"h{number:05}.a-long-name.example" for number in range(2500)], "mail.domain1.com")
    tls = Tls(verify=verify, ca_file=str(ca), pins=("x",))
    reason, seconds = _judged(issued, tls)
    assert reason == "the server's chain of certificates has over 64 KiB"
    assert seconds < 0.1


# -- what is asked for towards the server ------------------------------------------------------------------------------


@pytest.mark.parametrize(("groups", "fewest", "most"), [("default", 1400, 1700), ("classic", 200, 400)])
def test_a_classic_client_hello_fits_one_segment(groups: str, fewest: int, most: int) -> None:
    with tcp_pair() as (near, far):
        ours = TlsChannel.towards_server(server_side(Tls(verify="none", groups=groups)), near, "mail.domain1.com")
        theirs = TlsChannel.towards_client(server_context(root().issue("mail.domain1.com")), far)
        shake(ours, theirs)
        assert fewest < ours.hello_size < most
        assert ours.group == ("X25519MLKEM768" if groups == "default" else "secp256r1")


@pytest.mark.parametrize(
    ("keys", "client", "server"),
    [
        ({"minimum_version": "1.3"}, "1.3", "1.3"),
        ({"client_minimum_version": "1.0"}, "1.0", "1.2"),
        ({"server_minimum_version": "1.0"}, "1.2", "1.0"),
        ({"minimum_version": "1.3", "client_minimum_version": "1.1"}, "1.1", "1.3"),
    ],
)
def test_each_side_has_a_minimum_version_of_its_own(keys: dict[str, str], client: str, server: str) -> None:
    issued = root().issue("mail.domain1.com")
    tls = Tls(verify="none", **keys)  # type: ignore[arg-type]  # all are str
    ours = client_side(tls, parse_credential(issued.certificate_pem, issued.key_pem)), server_side(tls)
    for context, minimum, is_server in ((ours[0], client, True), (ours[1], server, False)):
        for version, number in {
            "1.0": SSL.TLS1_VERSION,
            "1.1": SSL.TLS1_1_VERSION,
            "1.2": SSL.TLS1_2_VERSION,
        }.items():
            peer = SSL.Context(SSL.TLS_CLIENT_METHOD if is_server else SSL.TLS_SERVER_METHOD)
            peer.set_cipher_list(b"ALL:@SECLEVEL=0")
            peer.set_min_proto_version(number)
            peer.set_max_proto_version(number)
            if not is_server:
                peer.use_certificate(issued.certificate)
                peer.use_privatekey(issued.private_key)
            with tcp_pair() as (near, far):
                outward = TlsChannel.towards_server(peer if is_server else context, near, "mail.domain1.com")
                inward = TlsChannel.towards_client(context if is_server else peer, far)
                if version >= minimum:
                    shake(outward, inward)
                else:
                    with pytest.raises(TlsProblem, match="version"):
                        shake(outward, inward)
