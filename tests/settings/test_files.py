"""What the settings name on this host is there, and is what it should be."""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from proxy.settings import SettingsError, load
from proxy.settings.files import unwise_files
from tests.certificates import NOW, Paths, make, root

HEAD = '[[route]]\nlisten = ["127.0.0.1:2525"]\ndestination = ["mail.domain1.com"]\n'
BRIDGE = HEAD + "[route.tls]\nmode = 'bridge'\n"


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return make("good-below-intermediate").write(tmp_path)


def problems(tmp_path: Path, text: str) -> list[tuple[str, str]]:
    path = tmp_path / "test.toml"
    path.write_text(text)
    try:
        load(str(path))
    except SettingsError as error:
        return [(problem.key.removeprefix("route[0]."), problem.expected) for problem in error.problems]
    return []


def pair(certificate: object, key: object) -> str:
    return f"{BRIDGE}certificate = '{certificate}'\nkey = '{key}'\n"


def test_a_certificate_with_its_key_is_well(tmp_path: Path, paths: Paths) -> None:
    assert problems(tmp_path, pair(paths.certificate, paths.key)) == []


def test_certificate_and_key_may_be_in_one_file(tmp_path: Path, paths: Paths) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(Path(paths.key).read_bytes() + Path(paths.certificate).read_bytes())
    assert problems(tmp_path, pair(both, both)) == []


def test_without_bridge_mode_no_file_is_looked_at(tmp_path: Path) -> None:
    assert problems(tmp_path, pair("/nonexistent", "/nonexistent").replace("bridge", "passthrough")) == []


def test_every_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    text = pair("/nonexistent/a.pem", tmp_path) + "ca_file = '/nonexistent/ca.pem'\n"
    text += "client_certificate = '/nonexistent/c.pem'\nclient_key = '/nonexistent/c.key'\n"
    found = problems(tmp_path, text)
    assert [key for key, _ in found] == [
        "tls.ca_file",
        "tls.certificate",
        "tls.key",
        "tls.client_certificate",
        "tls.client_key",
    ]
    assert {expected for _, expected in found} == {
        "a file that can be read: No such file or directory",
        "a file that can be read: Is a directory",
    }


def test_a_key_that_does_not_fit_its_certificate_is_told(tmp_path: Path, paths: Paths) -> None:
    other = make("other-key").write(tmp_path, "other")
    assert problems(tmp_path, pair(paths.certificate, other.key)) == [
        ("tls.key", f"the private key of the first certificate in {paths.certificate}")
    ]


def test_a_clients_certificate_is_looked_at_as_well(tmp_path: Path, paths: Paths) -> None:
    other = make("other-key").write(tmp_path, "other")
    text = pair(paths.certificate, paths.key)
    text += f"client_certificate = '{other.certificate}'\nclient_key = '{paths.key}'\n"
    assert [key for key, _ in problems(tmp_path, text)] == ["tls.client_key"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"hello",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_pem_is_told_for_what_it_should_be(tmp_path: Path, content: bytes) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_bytes(content)
    assert problems(tmp_path, pair(junk, junk) + f"ca_file = '{junk}'\n") == [
        ("tls.ca_file", "a PEM file with a certificate, -----BEGIN CERTIFICATE-----"),
        ("tls.certificate", "a PEM file with a certificate, -----BEGIN CERTIFICATE-----"),
        ("tls.key", "a PEM file with a private key, -----BEGIN PRIVATE KEY-----"),
    ]


def test_an_encrypted_key_is_refused_without_asking_for_its_password(tmp_path: Path, paths: Paths) -> None:
    Path(paths.key).write_bytes(make("good-below-intermediate").encrypted_key_pem())
    assert problems(tmp_path, pair(paths.certificate, paths.key)) == [
        ("tls.key", "a private key that is not encrypted")
    ]


def issue(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, tmp_path: Path) -> Paths:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.domain1.com")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + datetime.timedelta(days=99))
    algorithm = hashes.SHA256() if isinstance(key, rsa.RSAPrivateKey) else None
    certificate = builder.sign(key, algorithm).public_bytes(Encoding.PEM)
    (tmp_path / "c.pem").write_bytes(certificate)
    (tmp_path / "k.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Paths(str(tmp_path / "c.pem"), str(tmp_path / "k.pem"))


def test_a_key_that_openssl_finds_too_short_is_told(tmp_path: Path) -> None:
    weak = issue(rsa.generate_private_key(65537, 1024), tmp_path)
    assert problems(tmp_path, pair(weak.certificate, weak.key)) == [
        ("tls.certificate", "a certificate and a key that OpenSSL takes: ee key too small")
    ]


def test_an_ed25519_key_is_as_good(tmp_path: Path) -> None:
    good = issue(ed25519.Ed25519PrivateKey.generate(), tmp_path)
    assert problems(tmp_path, pair(good.certificate, good.key)) == []


def test_authorities_are_read(tmp_path: Path, paths: Paths) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_bytes(root().pem)
    assert problems(tmp_path, pair(paths.certificate, paths.key) + f"ca_file = '{authority}'") == []


def test_a_directory_for_transcripts_is_there(tmp_path: Path) -> None:
    assert problems(tmp_path, HEAD + f"record.directory = '{tmp_path}'") == []
    missing = str(tmp_path / "missing")
    assert problems(tmp_path, HEAD + f"record.directory = '{missing}'") == [("record.directory", f"{missing} to exist")]
    assert problems(tmp_path, HEAD + f"record.directory = '{tmp_path}/test.toml'") == [
        ("record.directory", "a directory; this is none")
    ]


def test_a_directory_for_transcripts_may_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert problems(tmp_path, HEAD + f"record.directory = '{tmp_path}'") == [
        ("record.directory", f"a directory that may be written to; {tmp_path} may not")
    ]


def test_the_directory_of_a_key_log_is_there(tmp_path: Path, paths: Paths) -> None:
    text = pair(paths.certificate, paths.key)
    assert problems(tmp_path, text + "keylog = 'keys.log'") == []
    assert [key for key, _ in problems(tmp_path, text + "keylog = 'missing/keys.log'")] == ["tls.keylog"]


def test_the_user_exists(tmp_path: Path) -> None:
    assert problems(tmp_path, "[service]\nuser = 'root'\n" + HEAD) == []
    assert problems(tmp_path, "[service]\nuser = 'no-such-user'\n" + HEAD) == [("service.user", "a user of this host")]


def test_the_user_can_read_the_key_again_at_a_reload(paths: Paths) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # pytest's own folders are for nobody else
        folder = Path(name)
        folder.chmod(0o755)
        for path in (paths.certificate, paths.key):
            shutil.copy(path, folder)
        certificate, key = folder / Path(paths.certificate).name, folder / Path(paths.key).name
        text = "[service]\nuser = 'nobody'\n" + pair(certificate, key)
        certificate.chmod(0o644)
        key.chmod(0o644)
        assert problems(folder, text) == []
        key.chmod(0o600)
        expected = 'a file that service.user "nobody" can read: a reload reads it again'
        assert problems(folder, text) == [("tls.key", expected)]
        assert problems(folder, text.replace("nobody", "root")) == []
        key.chmod(0o644)
        folder.chmod(0o700)
        assert problems(folder, text) == [("tls.certificate", expected), ("tls.key", expected)]


def test_a_key_for_everybody_and_a_certificate_that_ends_are_warned_of(tmp_path: Path) -> None:
    ending = root().issue("mail.domain1.com", not_after=NOW + datetime.timedelta(days=13)).write(tmp_path, "ending")
    lasting = root().issue("mail.domain1.com", not_after=NOW + datetime.timedelta(days=15)).write(tmp_path, "lasting")
    os.chmod(ending.key, 0o644)
    path = tmp_path / "test.toml"
    path.write_text(pair(lasting.certificate, lasting.key))
    assert unwise_files(load(str(path))) == []
    path.write_text(pair(ending.certificate, ending.key))
    found = {warning.key: warning.text for warning in unwise_files(load(str(path)))}
    assert "read by everybody" in found["route[0].tls.key"]
    assert "is valid until 20" in found["route[0].tls.certificate"]
