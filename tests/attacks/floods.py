"""What is sent again and again: by servers behind a start, by clients behind nothing."""

from __future__ import annotations

from tests.scripted import BROKEN, GOOD

# The start, which is the banner or the answer to EHLO; what follows without an end; whether EHLO is waited for.
ENDLESS = {
    "a banner": (b"220-more\r\n", b"220-and more of it\r\n" * 3000, False),
    "an EHLO reply": (b"250-mail.example\r\n", b"250-X-MORE 1\r\n" * 4000, True),
    "an EHLO reply without a 250": (b"nothing\r\n", b"and more of it\r\n" * 4000, True),
    "a line in the banner": (b"220 ", b"x" * 65536, False),
    "a line in the EHLO reply": (b"250-", b"x" * 65536, True),
    "lines that nobody asked for": (GOOD, b"250 more\r\n" * 6000, True),
    "late EHLO lines": (BROKEN, b"250-STARTTLS\r\n" * 4000, True),
    "blank lines": (GOOD, b"\r\n" * 30000, True),
    "EHLO lines before the banner": (b"250-STARTTLS\r\n", b"250-STARTTLS\r\n" * 4000, False),
    "NULs": (b"", b"\0" * 65536, False),
}

COMMANDS = {
    "commands": b"NOOP\r\n" * 8000,
    "EHLO": b"EHLO a\r\n" * 8000,
    "STARTTLS": b"STARTTLS\r\n" * 8000,
    "a line": b"x" * 65536,
    "empty lines": b"\r\n" * 30000,
    "NULs": b"\0" * 65536,
    "CRs": b"\r" * 65536,
}
