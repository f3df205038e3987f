"""One reply line: its code, its separator, its text.

Implements `Reply-line` and `Reply-code` of RFC 5321 4.2:

    Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
    Reply-code = %x32-35 %x30-35 %x30-39

Two readers stand here.  `code_of` and `ends_reply` serve the replies that are only counted: they go by the first
four octets, as every sender does, and a line without a code ends nothing.  `parse_line` serves the EHLO reply, whose
lines are judged: it also sees a code behind blanks or dots, and one without a proper separator.

Beyond the RFC the second digit may be anything (`299` is a code), since senders look at the first only.  What the
text means is `ehlo.py`'s.  Nothing is raised: a line that is no reply line has no code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.smtp.lines import ends_well, without_end

# Reply-code = %x32-35 %x30-35 %x30-39; a fourth digit makes it a number and no code
REPLY_CODE = re.compile(rb"[2-5][0-9][0-9](?![0-9])")
# the same behind junk, with all that follows; `2508BITMIME` keeps its code for the reader who knows 8BITMIME
LENIENT_LINE = re.compile(rb"([ \t.]*)([2-5][0-9][0-9])([- ]?)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ReplyLine:
    """A reply line taken apart.  Joined again, `junk`, the code, `separator` and `text` are the line without its end.

    `code` is None when there is none; then all of the line is `text`.  `separator` is `-`, a blank, or empty: with an
    empty separator and a text, the text is glued to the code or follows another separator.  `final`: a reader that
    goes by the fourth octet takes this line for the last.  `junk` is what stood before the code, and `whole_end` says
    that the line ends with one CRLF.
    """

    code: int | None
    separator: bytes
    text: bytes
    final: bool
    junk: bytes = b""
    whole_end: bool = True


def code_of(line: bytes) -> int:
    """The reply code in the first three octets, 0 if there is none."""
    match = REPLY_CODE.match(line)
    return int(match[0]) if match else 0


def ends_reply(line: bytes) -> bool:
    """This line is the last of its reply: it has a code, and no `-` behind it (RFC 5321 4.2.1)."""
    return REPLY_CODE.match(line) is not None and line[3:4] != b"-"


def is_refusal(raw: bytes) -> bool:
    """One of these lines has a 4xx or 5xx code; the last may lack its end."""
    return any(code_of(line) >= 400 for line in raw.split(b"\n"))


def parse_line(raw: bytes) -> ReplyLine:
    """Take one line apart, with or without its line end."""
    body = without_end(raw)
    match = LENIENT_LINE.match(body)
    if match is None:
        return ReplyLine(None, b"", body, False, b"", ends_well(raw))
    junk, code, separator, text = match.groups()
    return ReplyLine(int(code), separator, text, separator != b"-", junk, ends_well(raw))
