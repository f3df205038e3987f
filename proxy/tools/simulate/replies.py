"""What the simulated server says: a good EHLO reply, and one for each finding of the catalogue, by its id.

Each departs from RFC 5321 in exactly one way, so that whatever reads it can be held to naming that one finding and no
other.  A reply is a tuple of pieces, each bytes and a pause before them: some findings only show in time.

The bytes follow what was seen in the field where that is known; `greeting-not-first` is the case of Cisco's note that
started this program.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

NAME = b"mail.domain1.com"  # the host name in all of these; `named` puts another in its place
PIECE_PAUSE = 0.05  # seconds; shorter than the 0.2 s that a proxy waits for the rest of a reply


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that are sent in one segment, `pause` seconds after the one before."""

    data: bytes
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class SimulatedReplies:
    """What one simulated server says: its banner, its EHLO reply in clear, and the one inside TLS."""

    banner: tuple[Piece, ...]
    ehlo: tuple[Piece, ...]
    inside_tls: tuple[Piece, ...]


def _lines(*lines: bytes) -> bytes:
    """A well-formed multi-line 250 reply of these texts."""
    return b"".join(b"250%b%b\r\n" % (b" " if n == len(lines) else b"-", text) for n, text in enumerate(lines, 1))


BANNER = b"220 %b ESMTP Service ready\r\n" % NAME
GOOD = _lines(NAME, b"PIPELINING", b"SIZE 30000000", b"STARTTLS", b"8BITMIME", b"HELP")
GOOD_INSIDE_TLS = _lines(NAME, b"PIPELINING", b"SIZE 30000000", b"8BITMIME", b"HELP")

_BROKEN: dict[str, bytes] = {
    "greeting-not-first": _lines(b"STARTTLS", NAME, b"8BITMIME", b"PIPELINING", b"HELP", b"DELIVERBY 300"),
    "greeting-missing": _lines(b"STARTTLS", b"8BITMIME", b"PIPELINING", b"HELP"),
    "greeting-empty": _lines(b"", b"STARTTLS", b"8BITMIME", b"HELP"),
    "greeting-not-domain": _lines(b"Hello", b"PIPELINING", b"STARTTLS", b"HELP"),
    "line-before-banner": GOOD,
    "final-line-missing": b"250-%b\r\n250-8BITMIME\r\n250-STARTTLS\r\n250-HELP\r\n" % NAME,
    "final-line-early": b"250 %b\r\n250 STARTTLS\r\n250 8BITMIME\r\n250 HELP\r\n" % NAME,
    "final-line-empty": b"250-%b\r\n250-8BITMIME\r\n250-STARTTLS\r\n250\r\n" % NAME,
    "separator-invalid": b"250-%b\r\n250STARTTLS\r\n250-8BITMIME\r\n250 HELP\r\n" % NAME,
    "code-mismatch": b"250-%b\r\n220-STARTTLS\r\n250-8BITMIME\r\n250 HELP\r\n" % NAME,
    "code-missing": b"250-%b\r\nSTARTTLS\r\n250-8BITMIME\r\n250 HELP\r\n" % NAME,
    "leading-junk": b"250-%b\r\n 250-STARTTLS\r\n250-8BITMIME\r\n250 HELP\r\n" % NAME,
    "line-end-invalid": GOOD.replace(b"\r\n", b"\n"),
    "control-character": _lines(NAME, b"STARTTLS\0", b"8BITMIME", b"HELP"),
    "blank-line": b"250-%b\r\n250-8BITMIME\r\n\r\n250-STARTTLS\r\n250 HELP\r\n" % NAME,
    "space-invalid": _lines(NAME, b" STARTTLS", b"8BITMIME", b"HELP"),
    "keyword-case": _lines(NAME, b"starttls", b"8BITMIME", b"HELP"),
    "starttls-malformed": _lines(NAME, b"STARTTLS=1", b"8BITMIME", b"HELP"),
    "keyword-masked": _lines(NAME, b"PIPELINING", b"XXXXXXXA", b"8BITMIME", b"HELP"),
    "keyword-duplicate": _lines(NAME, b"STARTTLS", b"8BITMIME", b"STARTTLS", b"HELP"),
    "keyword-invalid": _lines(NAME, b"PIPELINING", b"PIPE_CONNECT", b"STARTTLS", b"HELP"),
    "parameter-invalid": _lines(NAME, b"SIZE 10M", b"STARTTLS", b"HELP"),
    "non-ascii": _lines(NAME + " Grüß Gott".encode(), b"STARTTLS", b"8BITMIME", b"HELP"),
    "line-too-long": _lines(NAME + b" " + b"pleased to meet you, " * 52, b"STARTTLS", b"8BITMIME", b"HELP"),
    "xclient-offered": _lines(NAME, b"STARTTLS", b"XCLIENT NAME ADDR PROTO", b"8BITMIME", b"HELP"),
    "starttls-inside-tls": GOOD,
    "reply-too-long": _lines(NAME, b"STARTTLS", *(b"X-LINE-%d" % n for n in range(1, 150)), b"HELP"),
}

# Which EHLO lines stand in front of the banner; without the proxy a client takes them for the banner.
_BEFORE_BANNER = {"line-before-banner": b"250-%b\r\n250 STARTTLS\r\n" % NAME}

# Replies that come in more than one segment: the first so many bytes, then the rest.
_SPLIT = {"final-line-early": len(b"250 %b\r\n" % NAME)}


def _whole(data: bytes) -> tuple[Piece, ...]:
    return (Piece(data),)


def _simulated(finding: str, reply: bytes) -> SimulatedReplies:
    cut = _SPLIT.get(finding, 0)
    ehlo = (Piece(reply[:cut]), Piece(reply[cut:], PIECE_PAUSE)) if cut else _whole(reply)
    inside = GOOD if finding == "starttls-inside-tls" else GOOD_INSIDE_TLS
    return SimulatedReplies(_whole(_BEFORE_BANNER.get(finding, b"") + BANNER), ehlo, _whole(inside))


GOOD_REPLIES = SimulatedReplies(_whole(BANNER), _whole(GOOD), _whole(GOOD_INSIDE_TLS))
BROKEN: dict[str, SimulatedReplies] = {finding: _simulated(finding, reply) for finding, reply in _BROKEN.items()}
DEFAULT = "greeting-not-first"


def without_starttls(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """The same reply with another keyword in place of STARTTLS: as broken as before, but for a server without TLS."""
    return tuple(
        replace(
            piece,
            data=piece.data.replace(b"STARTTLS", b"ENHANCEDSTATUSCODES").replace(b"starttls", b"enhancedstatuscodes"),
        )
        for piece in pieces
    )


def from_bytes(reply: bytes) -> SimulatedReplies:
    """A server whose EHLO reply in clear is these bytes, whatever they are; a good one inside TLS."""
    return replace(GOOD_REPLIES, ehlo=_whole(reply))


def adapted(
    replies: SimulatedReplies, name: bytes = NAME, tls: bool = True, broken_inside_tls: bool = False
) -> SimulatedReplies:
    """These replies under another host name, for a server without TLS, or as broken inside TLS as in clear."""

    def renamed(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
        return tuple(replace(piece, data=piece.data.replace(NAME, name)) for piece in pieces)

    inside = without_starttls(replies.ehlo) if broken_inside_tls else replies.inside_tls
    ehlo = replies.ehlo if tls else without_starttls(replies.ehlo)
    return SimulatedReplies(renamed(replies.banner), renamed(ehlo), renamed(inside))
