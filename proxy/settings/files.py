"""What the settings name on this host: certificates, keys, directories, a user.

`look` reports what would keep the proxy from working as configured.  Certificates and keys are read, and tried with the
library that will use them, in bridge mode only: OpenSSL is not imported for a pass-through configuration.

What is judged is what this process may do: `check` run by somebody who may not read the key says so, as `run` would.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from proxy.settings.problems import Warning_
from proxy.settings.reading import Reading

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

    from proxy.settings.tables import Route, Settings

SOON: Final = 14 * 86400.0  # seconds


def look(settings: Settings, reading: Reading) -> None:
    """Report every file, directory and user that is not there, or not what it should be."""
    user = settings.service.user
    if user and not reading.spoilt("service.user"):
        import pwd

        try:
            pwd.getpwnam(user)
        except KeyError:
            reading.report("service.user", user, "a user of this host")
    for index, route in enumerate(settings.routes):
        _look_at_route(route, f"route[{index}]", reading)


def unwise_files(settings: Settings) -> list[Warning_]:
    """Warnings about what the settings name on this host: a key that everybody can read, a certificate that ends."""
    found: list[Warning_] = []
    for index, route in enumerate(settings.routes):
        if route.tls.mode != "bridge":
            continue
        for name in ("key", "client_key"):
            path = getattr(route.tls, name)
            if path and os.stat(path).st_mode & 0o004:
                found.append(Warning_(f"route[{index}].tls.{name}", f"{path} can be read by everybody on this host"))
        for name in ("certificate", "client_certificate"):
            path = getattr(route.tls, name)
            ends = _certificates(path, name, Reading(settings.path, {}))[0].not_valid_after_utc if path else None
            if ends is not None and ends.timestamp() - time.time() < SOON:
                found.append(Warning_(f"route[{index}].tls.{name}", f"{path} is valid until {ends:%Y-%m-%d %H:%M} UTC"))
    return found


def _look_at_route(route: Route, where: str, reading: Reading) -> None:
    directory = route.record.directory
    if directory:
        _directory(directory, directory, f"{where}.record.directory", reading)
    tls = route.tls
    if tls.mode != "bridge":
        return
    if tls.keylog:
        _directory(os.path.dirname(tls.keylog) or ".", tls.keylog, f"{where}.tls.keylog", reading)
    if tls.ca_file:
        _certificates(tls.ca_file, f"{where}.tls.ca_file", reading)
    if tls.certificate and tls.key:
        _pair(tls.certificate, tls.key, where, ("certificate", "key"), reading)
    if tls.client_certificate and tls.client_key:
        _pair(tls.client_certificate, tls.client_key, where, ("client_certificate", "client_key"), reading)


def _directory(path: str, value: str, key: str, reading: Reading) -> None:
    """A directory that this process may make files in."""
    if not os.path.isdir(path):
        reading.report(key, value, "a directory; this is none" if os.path.exists(path) else f"{path} to exist")
    elif not os.access(path, os.W_OK | os.X_OK):
        reading.report(key, value, f"a directory that may be written to; {path} may not")


def _content(path: str, key: str, reading: Reading) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(4 * 1024 * 1024)
    except OSError as error:
        reading.report(key, path, f"a file that can be read: {error.strerror}")
        return None


def _certificates(path: str, key: str, reading: Reading) -> list[Certificate]:
    """The certificates of a PEM file; empty, and reported, when there are none."""
    from cryptography.x509 import load_pem_x509_certificates

    content = _content(path, key, reading)
    if content is None:
        return []
    try:
        return load_pem_x509_certificates(content)
    except ValueError:
        reading.report(key, path, "a PEM file with a certificate, -----BEGIN CERTIFICATE-----")
        return []


def _private_key(path: str, key: str, reading: Reading) -> PrivateKeyTypes | None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _content(path, key, reading)
    if content is None:
        return None
    try:
        return load_pem_private_key(content, None)
    except TypeError:  # there is nobody to ask for the password
        reading.report(key, path, "a private key that is not encrypted")
    except (ValueError, UnsupportedAlgorithm):
        reading.report(key, path, "a PEM file with a private key, -----BEGIN PRIVATE KEY-----")
    return None


def _pair(certificate: str, key: str, where: str, names: tuple[str, str], reading: Reading) -> None:
    """A certificate and a key that fit each other and that OpenSSL takes."""
    from OpenSSL import SSL

    certificate_key, key_key = (f"{where}.tls.{name}" for name in names)
    found = _certificates(certificate, certificate_key, reading)
    private = _private_key(key, key_key, reading)
    if not found or private is None:
        return
    if found[0].public_key() != private.public_key():
        reading.report(key_key, key, f"the private key of the first certificate in {certificate}")
        return
    context = SSL.Context(SSL.TLS_METHOD)
    try:  # a key that is too short for its security level, or of a kind that it can't use
        context.use_certificate_chain_file(certificate)
        context.use_privatekey(private)  # type: ignore[arg-type]  # of a kind that TLS can't use: TypeError
    except (SSL.Error, TypeError) as error:
        reason = error.args[0][-1][-1] if error.args and isinstance(error.args[0], list) and error.args[0] else error
        reading.report(certificate_key, certificate, f"a certificate and a key that OpenSSL takes: {reason}")
