"""What goes wrong inside TLS, as an exception that can be named without loading OpenSSL, and in words.

The relay and the connections meet it in bridge mode, and have no use for pyOpenSSL otherwise.
"""

from __future__ import annotations

import re

_ALERT = re.compile(r"(?:tlsv1|tlsv13|sslv3|ssl/tls|tls) alert (.+)")  # OpenSSL 4 says "tls" of all
_REASONS = {
    "wrong version number": "the {peer} did not answer with TLS",
    "http request": "the {peer} did not answer with TLS",
    "https proxy request": "the {peer} did not answer with TLS",
    "packet length too long": "the {peer} did not answer with TLS",
    "unsupported protocol": "the {peer} offers no TLS version that is allowed here",
    "no protocols available": "no TLS version is left that is allowed here",
    "no shared cipher": "no cipher suite in common with the {peer}",
    "unexpected eof while reading": "the {peer} closed the connection",
    "decryption failed or bad record mac": "a record from the {peer} was damaged",
    "ee key too small": "the key of the {peer}'s certificate is too weak",
    "ca key too small": "the key of a CA of the {peer}'s certificate is too weak",
    "ca md too weak": "the signature algorithm of the {peer}'s certificate is too weak",
    "dh key too small": "the {peer}'s Diffie-Hellman key is too weak",
    "certificate verify failed": "the {peer}'s certificate could not be checked",
}


class TlsProblem(Exception):
    """TLS can't be set up or went wrong; `reason` is a few printable words for a mail admin."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def explain(error: Exception, peer: str) -> str:
    """The reason in what pyOpenSSL has raised; `peer` is who is at the other end, "client" or "server"."""
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    reasons = [str(entry[2]) for entry in queue]
    for reason in reasons:
        if alert := _ALERT.fullmatch(reason):
            return f"the {peer} sent the TLS alert '{alert[1]}'"
        if known := _REASONS.get(reason):
            return known.format(peer=peer)
    told = next((reason for reason in reasons if reason), "unknown")
    return f"TLS with the {peer} failed: {told[:100]}"
