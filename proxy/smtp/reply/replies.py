"""One reply line: its code, and whether it is the last.

Implements `Reply-line` and `Reply-code` of RFC 5321 4.2:

    Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
    Reply-code = %x32-35 %x30-35 %x30-39

For replies that are only counted: these readers go by the first four octets, as every sender does, and a line without a
code ends nothing.  The EHLO reply, whose lines are judged, is read by `ehlo_lines.py`, which also sees a code behind
blanks or dots, and one without a proper separator.

Beyond the RFC the second digit may be anything (`299` is a code), since senders look at the first only.  Nothing is
raised: a line that is no reply line has no code.
"""

from __future__ import annotations

import re

# Reply-code = %x32-35 %x30-35 %x30-39; a fourth digit makes it a number and no code
REPLY_CODE = re.compile(rb"[2-5][0-9][0-9](?![0-9])")
# the same behind junk, with all that follows; `2508BITMIME` keeps its code for the reader who knows 8BITMIME
LENIENT_LINE = re.compile(rb"([ \t.]*)([2-5][0-9][0-9])([- ]?)(.*)", re.DOTALL)


# the same as a table: 0.1 us a line, a quarter of what the expression takes
_CODES = {b"%d" % code: code for code in range(200, 600)}


def code_of(line: bytes) -> int:
    """The reply code in the first three octets, 0 if there is none."""
    return 0 if line[3:4].isdigit() else _CODES.get(line[:3], 0)


def ends_reply(line: bytes) -> bool:
    """This line is the last of its reply: it has a code, and no `-` behind it (RFC 5321 4.2.1)."""
    return line[3:4] != b"-" and code_of(line) != 0


def ends_behind_junk(line: bytes) -> bool:
    """`ends_reply` of an EHLO reply that passes unread: blanks and dots before the code are no part of the line."""
    return ends_reply(line.lstrip(b" \t."))


def is_refusal(raw: bytes) -> bool:
    """One of these lines has a 4xx or 5xx code; the last may lack its end."""
    return any(code_of(line) >= 400 for line in raw.split(b"\n"))
