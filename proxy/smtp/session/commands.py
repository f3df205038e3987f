"""A client's command line: its verb and its argument.

Only the verbs that the session reads are told apart; each has exactly one reply (RFC 5321 4.1.1; XCLIENT and XFORWARD
as Postfix documents them; STARTTLS by RFC 3207; LHLO by RFC 2033).  Everything else is `b""`: an unknown command, at
which the session lets go, since what follows it may not be lines at all (DATA, BDAT, AUTH, XEXCH50 ...).

Tolerated, because servers do: any case, blanks before and after the verb, LF as a line end (Postfix and Exim take it).
Not tolerated, because servers differ on them and a proxy that guesses can be made to disagree with one: a NUL or a
lone CR anywhere in the line, and lines over `MAX_COMMAND` octets (RFC 5321 4.5.3.1.4 asks for 512, extensions add to
it; Exim reads 16384, Postfix 2048 at a time).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

MAX_COMMAND: Final = 4096
MAX_RECALLED: Final = 64  # octets of a line whose verb is remembered

READ: Final = frozenset(b"EHLO LHLO HELO NOOP RSET HELP VRFY EXPN XCLIENT XFORWARD QUIT STARTTLS".split())

# Allowed before TLS where bridge mode requires it (RFC 3207 4 asks a server to refuse all but these with 530).
BEFORE_TLS: Final = frozenset(b"EHLO HELO LHLO NOOP RSET QUIT STARTTLS".split())


def verb_of(line: bytes) -> bytes:
    """The verb of a whole command line, in capitals, if it is one that the session reads; else `b""`.

    `line` ends in CRLF or LF.  Never raises.
    """
    return _recalled(line) if len(line) <= MAX_RECALLED else _read(line)


def _read(line: bytes) -> bytes:
    if len(line) > MAX_COMMAND or b"\0" in line or line.find(b"\r", 0, -2) >= 0:
        return b""
    words = line.split(None, 1)
    if not words:
        return b""
    verb = words[0].upper()
    return verb if verb in READ else b""


_recalled = lru_cache(maxsize=256)(_read)  # clients say the same: 0.1 us a command and not 0.5, compiled or not


def argument_of(line: bytes) -> bytes:
    """What stands behind the verb, blanks and line end cut; `b""` if nothing does."""
    words = line.split(None, 1)
    return words[1].strip() if len(words) > 1 else b""
