"""One keyword line: its faults, and how it should read."""

from __future__ import annotations

import pytest

from proxy.smtp.reply.ehlo_lines import EhloLine
from proxy.smtp.reply.keywords import names_keyword, read_keyword


def judged(raw: bytes, strict: bool) -> tuple[bytes, bytes, list[str]]:
    keyword = read_keyword(EhloLine(raw, 1, strict), strict)
    return keyword.name, keyword.text, [f"{fault.id}: {fault.done}" for fault in keyword.faults]


CASE, SPACE, SPACE_STRICT = "keyword-case: repair", "space-invalid: repair", "space-invalid: strict"
NUL, CONTROL = "control-character: repair", "control-character: strict"
MALFORMED, INVALID, PARAMETER = "starttls-malformed: repair", "keyword-invalid: report", "parameter-invalid: report"
MASKED, EIGHT_BIT = "keyword-masked: report", "non-ascii: strict"


@pytest.mark.parametrize(
    ("text", "name", "lenient", "strict", "faults"),
    [
        (b"STARTTLS", b"STARTTLS", b"STARTTLS", b"STARTTLS", []),
        (b"SIZE 1000", b"SIZE", b"SIZE 1000", b"SIZE 1000", []),
        (b"8 BITMIME", b"8", b"8 BITMIME", b"8 BITMIME", []),
        (b"coremail 1Uxr2x", b"COREMAIL", b"coremail 1Uxr2x", b"coremail 1Uxr2x", []),
        (b"STARTTLSX", b"STARTTLSX", b"STARTTLSX", b"STARTTLSX", []),
        (b"X-STARTTLS foo", b"X-STARTTLS", b"X-STARTTLS foo", b"X-STARTTLS foo", []),
        (b"START", b"START", b"START", b"START", []),
        (b"START TLSX", b"START", b"START TLSX", b"START TLSX", []),
        (b"LIMITS RCPTMAX=1000", b"LIMITS", b"LIMITS RCPTMAX=1000", b"LIMITS RCPTMAX=1000", []),
        # case
        (b"8bitmime", b"8BITMIME", b"8BITMIME", b"8BITMIME", [CASE]),
        (b"Auth login PLAIN", b"AUTH", b"AUTH login PLAIN", b"AUTH login PLAIN", [CASE]),
        (b"size 10M", b"SIZE", b"SIZE 10M", b"SIZE 10M", [CASE, PARAMETER]),
        (b"auth=LOGIN", b"AUTH=", b"AUTH=LOGIN", b"AUTH=LOGIN", [CASE, INVALID]),
        (b"x-exps=LOGIN", b"X-EXPS=LOGIN", b"x-exps=LOGIN", b"x-exps=LOGIN", [INVALID]),
        # STARTTLS
        (b"STARTTLS foo", b"STARTTLS", b"STARTTLS", b"STARTTLS", [MALFORMED]),
        (b"starttls=1", b"STARTTLS", b"STARTTLS", b"STARTTLS", [MALFORMED]),
        (b"STARTTLS:", b"STARTTLS", b"STARTTLS", b"STARTTLS", [MALFORMED]),
        (b"START TLS", b"STARTTLS", b"STARTTLS", b"STARTTLS", [MALFORMED]),
        (b"Start \t tls now", b"STARTTLS", b"STARTTLS", b"STARTTLS", [MALFORMED]),
        (b"  STARTTLS \0 foo\x01\xff", b"STARTTLS", b"STARTTLS", b"STARTTLS", [MALFORMED]),
        (b"STARTTLS ", b"STARTTLS", b"STARTTLS", b"STARTTLS", [SPACE]),
        (b"StartTLS\t", b"STARTTLS", b"STARTTLS", b"STARTTLS", [SPACE, CASE]),
        (b"STARTTLS,", b"STARTTLS,", b"STARTTLS,", b"STARTTLS,", [INVALID]),
        # masks
        (b"XXXXXXXA", b"XXXXXXXA", b"XXXXXXXA", b"XXXXXXXA", [MASKED]),
        (b"XXXB", b"XXXB", b"XXXB", b"XXXB", [MASKED]),
        (b"XXXXXXXX ", b"XXXXXXXX", b"XXXXXXXX ", b"XXXXXXXX", [SPACE_STRICT, MASKED]),
        (b"XXXLINE", b"XXXLINE", b"XXXLINE", b"XXXLINE", []),
        # words and parameters
        (b"PIPE_CONNECT", b"PIPE_CONNECT", b"PIPE_CONNECT", b"PIPE_CONNECT", [INVALID]),
        (b"XVERP=Courier", b"XVERP=COURIER", b"XVERP=Courier", b"XVERP=Courier", [INVALID]),
        (b"relay.example.com", b"RELAY.EXAMPLE.COM", b"relay.example.com", b"relay.example.com", [INVALID]),
        (b"SIZE 10M", b"SIZE", b"SIZE 10M", b"SIZE 10M", [PARAMETER]),
        (b"HELP me", b"HELP", b"HELP me", b"HELP me", [PARAMETER]),
        # blanks
        (b" SIZE 5", b"SIZE", b"SIZE 5", b"SIZE 5", [SPACE]),
        (b"\tXFOO  a ", b"XFOO", b"XFOO  a ", b"XFOO a", [SPACE]),
        (b"AUTH LOGIN PLAIN ", b"AUTH", b"AUTH LOGIN PLAIN ", b"AUTH LOGIN PLAIN", [SPACE_STRICT]),
        (b"AUTH  LOGIN", b"AUTH", b"AUTH  LOGIN", b"AUTH LOGIN", [SPACE_STRICT]),
        (b"SIZE\t5", b"SIZE", b"SIZE\t5", b"SIZE 5", [SPACE_STRICT]),
        # octets
        (b"START\0TLS", b"STARTTLS", b"STARTTLS", b"STARTTLS", [NUL]),
        (b"SI\rZE 5", b"SIZE", b"SIZE 5", b"SIZE 5", [NUL]),
        (b"XFOO \x01bar", b"XFOO", b"XFOO \x01bar", b"XFOO bar", [CONTROL]),
        (b"XFOO b\xffr", b"XFOO", b"XFOO b\xffr", b"XFOO b?r", [EIGHT_BIT]),
        (b"XF\xd6\x01O", None, b"XF\xd6\x01O", b"XF?O", [CONTROL, EIGHT_BIT]),
    ],
)
def test_what_a_keyword_line_should_read(
    text: bytes, name: bytes | None, lenient: bytes, strict: bytes, faults: list[str]
) -> None:
    raw = b"250-" + text + b"\r\n"
    found = judged(raw, strict=False)
    assert found[1:] == (lenient, faults)
    assert name is None or found[0] == name
    assert judged(raw, strict=True)[1] == strict
    assert judged(b"250-" + lenient + b"\r\n", strict=False)[1] == lenient
    assert judged(b"250-" + strict + b"\r\n", strict=True)[1] == strict


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b"250_STARTTLS\r\n", True),
        (b"250_STARTTLS=1\r\n", True),
        (b"250_START TLS\r\n", True),
        (b"250_help\r\n", True),
        (b"250_SIZE:\r\n", False),
        (b"250_XFOO\r\n", False),
    ],
)
def test_a_line_names_a_known_keyword_or_a_broken_starttls(raw: bytes, names: bool) -> None:
    assert names_keyword(EhloLine(raw)) is names
