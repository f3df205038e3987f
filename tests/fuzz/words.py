"""What the inputs of each target are made of, and the first of them."""

from __future__ import annotations

from proxy.net.coming_in.proxy_header import SIGNATURE
from proxy.smtp.reply.extensions import KEYWORDS


def record(side: str, text: bytes) -> bytes:
    """What `targets.events_of` reads as the client's or the server's saying this."""
    return bytes([3 if side == "server" else 1, len(text)]) + text


LINES = (b"\n", b"\r\n", b"\r", b"x")
LINES_SEEDS = (b"\1a\r\nb\nc",)

REPLIES = (
    b"250-", b"250 ", b"250", b"220 ", b"220-", b"421 ", b"550 ", b"550-", b"454 ", b"354 ", b"\r\n", b"\n", b"\r",
    b"\r\r\n", b"\0", b" ", b"\t", b".", b"-", b"_", b"=", b":", b"mail.example.com", b"[192.0.2.1]", b"Hello",
    b"2.0.0 Ok", b"OK", b"START TLS", b"XXXXXXXA", b"\xff", b"x" * 600, *list(KEYWORDS)[:40],
)  # fmt: skip
REPLIES_SEEDS = (b"250-a\r\n250 b\r\n", b"EHLO x\r\n", b" .250_STARTTLS\n")

REPAIR = (*REPLIES, b"\0\0")
REPAIR_SEEDS = (
    b"\x0bmail.example.com\0\x00250-STARTTLS\r\n250-mail.example.com\r\n250 HELP\r\n",
    b"\x10\0\x00250 starttls\n",
)

_SAID = (
    b"EHLO x\r\n", b"HELO x\r\n", b"STARTTLS\r\n", b"NOOP\r\n", b"QUIT\r\n", b"MAIL FROM:<>\r\n", b"RSET\r\n",
    b"HELP\r\n", b"XCLIENT ADDR=1.2.3.4\r\n", b"AUTH PLAIN\r\n", b"x" * 250, b"\x16\x03\x01", b"250-XCLIENT ADDR\r\n",
    b"250-STARTTLS\r\n", b"250-mail.example.com\r\n", b"250 HELP\r\n", b"250 OK\r\n", b"220 go\r\n", b"454 no\r\n",
)  # fmt: skip
_BANNER = record("server", b"220 mail.example.com ESMTP\r\n")
_EHLO = record("client", b"EHLO x\r\n")
_BROKEN = record("server", b"250-STARTTLS\r\n250-mail.example.com\r\n250 HELP\r\n")
_ASKED = record("client", b"STARTTLS\r\n") + record("server", b"220 go\r\n")
_SERVER_TLS, _CLIENT_TLS = b"\x20\0", b"\x26\0"
_HAPPENINGS = tuple(bytes([kind]) + b"\0" for kind in range(0, 50, 2))
SESSION = (
    *_SAID, *_HAPPENINGS, _BANNER, _EHLO, _BROKEN, _ASKED,
    *(record(side, text) for side in ("client", "server") for text in _SAID),
)  # fmt: skip
SESSION_SEEDS = (
    b"\0\0" + _BANNER + _EHLO + _BROKEN + _ASKED,
    b"\0\x04" + _BANNER + _EHLO + _BROKEN + _ASKED + _SERVER_TLS + _CLIENT_TLS + _EHLO + _BROKEN,
    b"\0\x44" + _BANNER + _BROKEN + record("server", b"220 go\r\n") + _SERVER_TLS + _EHLO + _BROKEN,
    b"\0\xc4" + _SERVER_TLS + _BANNER + _EHLO + _BROKEN + record("client", b"STARTTLS\r\n") + _CLIENT_TLS,
    b"\0\x10" + _BANNER + _EHLO + record("server", b"250-x.example\r\n250 XCLIENT ADDR\r\n") + _BANNER + _BROKEN,
)

HEADER = (
    b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN", b"192.0.2.1 ", b"2001:db8::1 ", b"25", b"\r\n", SIGNATURE,
    b"\x21\x11\0\x0c", b"\x21\x21\0\x24", b"\x20\0\0\0", b" ", b"0",
)  # fmt: skip
HEADER_SEEDS = (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\r\nEHLO", SIGNATURE + b"\x21\x11\0\x0c" + bytes(12))

SETTINGS = (
    b"[[route]]\n", b"[route.tls]\n", b"listen = ", b"destination = ", b'"0.0.0.0:25"', b"[", b"]", b"[service]\n",
    b"workers = ", b"drain_timeout = ", b'"5m"', b"0x10", b"1e9", b"inf", b"nan", b"-1", b"true", b"\n", b"=", b'"',
    b"'''", b"#", b".", b"mode = ", b'"bridge"', b"pins = ", b'"sha256:', b"original_networks = ",
    b"99999999999999999999", b"1979-05-27",
)  # fmt: skip
SETTINGS_SEEDS = (
    b'[[route]]\nname = "a"\nlisten = ["127.0.0.1:2525"]\ndestination = ["192.0.2.1"]\n[route.timeouts]\nidle = "5m"\n',
)

HELLO = (
    b"\x16\x03\x01\0\x05", b"\x16\x03\x03", b"\x01\0\0\x10", b"\0\0\0\x10\0\x0e\0\0\x0bexample.com",
    b"\x15\x03\x03\0\x02\x02\x28", b"\0\x2b", b"\x02\0\0\x20", bytes(32),
)  # fmt: skip
HELLO_SEEDS = (b"\7\x16\x03\x01\0\x10\x01\0\0\x0c\x03\x03" + bytes(10),)
