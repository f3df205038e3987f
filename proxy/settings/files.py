"""What the settings name on this host: certificates, keys, directories, a user.

`look` reports what would keep the proxy from working as configured.  Certificates and keys are read, and tried with the
library that will use them, in bridge mode only: OpenSSL is not imported for a pass-through configuration.

What is judged is what this process may do: `check` run by somebody who may not read the key says so, as `run` would;
and what `user` may do, who reads the files of bridge mode at a reload (by their permissions; ACLs are not looked at).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from proxy.settings.problems import Warning_
from proxy.settings.reading import Reading

if TYPE_CHECKING:
    from pwd import struct_passwd

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

    from proxy.settings.tables import Route, Settings, Tls

SOON: Final = 14 * 86400.0  # seconds


def look(settings: Settings, reading: Reading) -> None:
    """Report every file, directory and user that is not there, or not what it should be."""
    reader = None
    user = settings.service.user
    if user and not reading.spoilt("service.user"):
        import pwd

        try:
            reader = pwd.getpwnam(user)
        except KeyError:
            reading.report("service.user", user, "a user of this host")
    for index, route in enumerate(settings.routes):
        _look_at_route(route, f"route[{index}]", reading)
        if reader is not None and route.tls.mode == "bridge":
            _look_as(reader, route.tls, f"route[{index}].tls", reading)


def _look_as(user: struct_passwd, tls: Tls, where: str, reading: Reading) -> None:
    for name in ("certificate", "key", "ca_file", "client_certificate", "client_key"):
        path = getattr(tls, name)
        if path and os.path.exists(path) and not _may_read(user, path):
            expected = f'a file that service.user "{user.pw_name}" can read: a reload reads it again'
            reading.report(f"{where}.{name}", path, expected)


def _may_read(user: struct_passwd, path: str) -> bool:
    """Whether this user may read the file, going by the permissions of it and of the folders on the way."""
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    real = os.path.realpath(path)
    folder = real
    while (above := os.path.dirname(folder)) != folder:
        folder = above
        if not _has(user, groups, os.stat(folder), 0o1):
            return False
    return _has(user, groups, os.stat(real), 0o4)


def _has(user: struct_passwd, groups: list[int], found: os.stat_result, right: int) -> bool:
    whose = 6 if found.st_uid == user.pw_uid else 3 if found.st_gid in groups else 0
    return user.pw_uid == 0 or bool(found.st_mode >> whose & right)


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
