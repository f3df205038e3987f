"""What goes wrong inside TLS, as an exception that can be named without loading OpenSSL.

The relay and the connections meet it in bridge mode, and have no use for pyOpenSSL otherwise.
"""

from __future__ import annotations


class TlsProblem(Exception):
    """TLS can't be set up or went wrong; `reason` is a few printable words for a mail admin."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
