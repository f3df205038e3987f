"""What can't be done ends as docs/faults.md says; and what lies right beside it can be done."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from OpenSSL import SSL

from proxy.net.tls.contexts import server_side
from proxy.net.tls.identity import ChainNotes, judge
from proxy.settings import Tls
from proxy.tools.simulate.weak import OAKLEY_2
from tests.certificates import NAME
from tests.loopback import child, free_port, wait_until
from tests.net.tls.limits import LIMITS, Limit, handshake


@pytest.mark.skipif(SSL.OPENSSL_VERSION_NUMBER < 0x40000000, reason="the page is about OpenSSL 4")
@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.what)
def test_what_the_page_calls_impossible_is_refused_in_those_words(limit: Limit) -> None:
    with pytest.raises((SSL.Error, ValueError, UnsupportedAlgorithm), match=re.escape(limit.refusal)):
        limit.tried()


@pytest.mark.parametrize(
    ("fault", "tls", "version"),
    [
        ("tls10", {"server_minimum_version": "1.0"}, "TLSv1"),
        ("tls11", {"server_minimum_version": "1.0"}, "TLSv1.1"),
        ("tls10", {"server_minimum_version": "1.0", "security_level": 0}, "TLSv1"),
        ("sha1", {"security_level": 0}, "TLSv1.2"),
        ("dh-1024", {"groups": "classic", "security_level": 1}, "TLSv1.2"),
        ("", {"security_level": 2}, "TLSv1.3"),
    ],
)
def test_what_the_page_says_in_its_place_comes_up(fault: str, tls: dict[str, object], version: str) -> None:
    assert handshake(fault, **tls) == version


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder, timeout=60)


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_an_old_server_is_met_by_the_security_level_that_the_page_names(tmp_path: Path) -> None:
    """Debian 12's OpenSSL makes what ours can't: 1024 bits of DH for anyone, a certificate signed with SHA-1."""
    (tmp_path / "dh.pem").write_text(OAKLEY_2)
    (tmp_path / "names").write_text(f"subjectAltName=DNS:{NAME}\n")
    openssl(tmp_path, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem",
            "-subj", "/CN=Old Root", "-sha256")  # fmt: skip
    openssl(tmp_path, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "request", "-subj", "/CN=old")
    openssl(tmp_path, "x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", "certificate", "-sha1", "-extfile", "names")  # fmt: skip
    port, old = free_port(), "DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0"
    key, certificate, group = (str(tmp_path / name) for name in ("key", "certificate", "dh.pem"))
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-key", key, "-cert", certificate,
               "-dhparam", group, "-cipher", old, "-tls1_2", "-www"]  # fmt: skip

    def met(level: int) -> str:
        tls = Tls(mode="bridge", security_level=level, ca_file=str(tmp_path / "ca.pem"))
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.setblocking(True)
            connection = SSL.Connection(server_side(tls), sock)
            connection.set_app_data(ChainNotes())
            connection.set_connect_state()
            try:
                connection.do_handshake()
            except SSL.Error as refused:
                return str(refused)
            return judge(connection, tls, NAME).reason

    with child(command, tmp_path / "log"):
        wait_until(lambda: "ACCEPT" in (tmp_path / "log").read_text(), 10, "the old server listens")
        assert "dh key too small" in met(2)
        assert met(1) == "the signature algorithm of 'old' is too weak"
        assert met(0) == f"verified for {NAME}"
