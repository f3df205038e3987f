"""The scripts: what clients say, well or badly, up to the end of a session.

`@@` stands for a mark of the same length that tells the two runs of a script apart in what the servers keep.
"""

from __future__ import annotations

import random

from tests.differential.play import FIN, TLS, Pieces, Script

EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<@@@sender.example>\r\n"
RCPT = b"RCPT TO:<b@recipient.example>\r\n"
QUIT = b"QUIT\r\n"
HEAD = b"From: a@sender.example\r\nTo: b@recipient.example\r\nSubject: hello\r\n\r\n"
DOT = b"\r\n.\r\n"


def message(*parts: bytes) -> Script:
    """One mail, step by step; `parts` are sent one after the other behind 354, the dot is in the last."""
    return (EHLO, MAIL, RCPT, b"DATA\r\n", *parts, QUIT)


def chunks(*parts: bytes) -> bytes:
    """The parts as BDAT, the last one LAST."""
    return b"".join(
        b"BDAT %d%b\r\n%b" % (len(part), b" LAST" if number == len(parts) else b"", part)
        for number, part in enumerate(parts, 1)
    )


NOISE = bytes(set(range(256)) - {0, 10, 13})
LINES = random.Random(3).randbytes(40000).hex().encode()
BIG = HEAD + b"".join(LINES[at : at + 76] + b"\r\n" for at in range(0, len(LINES), 76)) * 20

TALK: dict[str, Script] = {
    "EHLO": (EHLO, QUIT),
    "HELO": (b"HELO client.example\r\n", QUIT),
    "EHLO in small letters": (b"ehlo client.example\r\n", b"quit\r\n"),
    "EHLO with a literal": (b"EHLO [127.0.0.1]\r\n", QUIT),
    "EHLO without a name": (b"EHLO\r\n", b"EHLO \r\n", EHLO, QUIT),
    "EHLO with two names": (b"EHLO client.example and more\r\n", QUIT),
    "EHLO twice": (EHLO, EHLO, QUIT),
    "EHLO, then HELO, then EHLO": (EHLO, b"HELO client.example\r\n", EHLO, QUIT),
    "EHLO twice in one segment": (EHLO + EHLO + QUIT,),
    "EHLO byte by byte": (Pieces(bytes([byte]) for byte in EHLO), QUIT),
    "EHLO cut in three": (Pieces((EHLO[:3], EHLO[3:-1], EHLO[-1:])), QUIT),
    "EHLO with a bare LF": (b"EHLO client.example\n", b"QUIT\n"),
    "EHLO with tabs and blanks": (b"EHLO\tclient.example  \r\n", b" EHLO client.example\r\n", QUIT),
    "before the banner": (EHLO + b"NOOP\r\n" + QUIT,),
    "LHLO": (b"LHLO client.example\r\n", EHLO, QUIT),
    "NOOP, RSET, VRFY, EXPN, HELP": (
        EHLO, b"NOOP\r\n", b"NOOP with words\r\n", b"RSET\r\n", b"RSET now\r\n", b"VRFY postmaster\r\n", b"VRFY\r\n",
        b"EXPN staff\r\n", b"HELP\r\n", b"HELP MAIL\r\n", b"noop\r\n", QUIT,
    ),
    "all of these in one segment": (EHLO + b"NOOP\r\nRSET\r\nVRFY postmaster\r\nHELP\r\nEXPN staff\r\n" + QUIT,),
    "without EHLO": (b"NOOP\r\n", b"RSET\r\n", MAIL, RCPT, b"DATA\r\n", QUIT),
    "out of order": (EHLO, RCPT, b"DATA\r\n", MAIL, MAIL, b"DATA\r\n", b"RSET\r\n", RCPT, QUIT),
    "syntax errors": (
        EHLO, b"MAIL\r\n", b"MAIL FROM:\r\n", b"MAIL FROM:<a b>\r\n", b"MAIL FROM:<a@b.example> SIZE=x\r\n",
        b"MAIL FROM:<a@b.example> NONSENSE=1\r\n", b"RCPT TO:\r\n", b"DATA now\r\n", QUIT,
    ),
    "unknown commands": (
        EHLO, b"FROB\r\n", b"FROB with words\r\n", b"STARTTLSX\r\n", b"QUITE\r\n", b"250 ok\r\n", QUIT,
    ),
    "unknown commands before EHLO": (b"GET / HTTP/1.0\r\n", EHLO, QUIT),
    "empty lines": (b"\r\n", EHLO, b"\r\n", b" \r\n", b"\n", QUIT),
    "a NUL": (EHLO, b"NOOP \0\r\n", b"MAIL FROM:<a\0b@c.example>\r\n", QUIT),
    "a lone CR": (EHLO, b"NOOP\rRSET\r\n", b"NOOP\r\r\n", QUIT),
    "bytes above 127": (EHLO, b"NOOP \xff\xfe\r\n", b"VRFY j\xc3\xb6rg\r\n", b"EHLO \xc3\xbc.example\r\n", QUIT),
    "control characters": (EHLO, b"NOOP \x01\x07\x1b[31m\r\n", b"NOOP \x7f\r\n", QUIT),
    "a line of 600": (EHLO, b"NOOP " + b"x" * 600 + b"\r\n", QUIT),
    "a line of 1500": (EHLO, b"NOOP " + b"x" * 1500 + b"\r\n", QUIT),
    "a line of 4096 and one": (EHLO, b"NOOP " + b"x" * 4090 + b"\r\n", QUIT),
    "a line of 20000": (EHLO, b"NOOP " + b"x" * 20000 + b"\r\n", QUIT),
    "too many errors": (EHLO, *[b"FROB\r\n"] * 25, QUIT),
    "too many errors in one segment": (EHLO + b"FROB\r\n" * 25 + QUIT,),
    "AUTH in clear": (EHLO, b"AUTH PLAIN AGEAYg==\r\n", b"AUTH LOGIN\r\n", b"YQ==\r\n", b"Yg==\r\n", b"AUTH\r\n", QUIT),
    "AUTH given up": (EHLO, b"AUTH LOGIN\r\n", b"*\r\n", b"NOOP\r\n", QUIT),
    "STARTTLS with words": (EHLO, b"STARTTLS now\r\n", QUIT),
    "QUIT at once": (QUIT,),
    "QUIT with words": (EHLO, b"QUIT now\r\n"),
    "QUIT with a blank": (EHLO, b"QUIT \r\n"),
    "QUIT and more behind it": (EHLO, b"QUIT\r\nNOOP\r\n"),
    "QUIT and a FIN": (EHLO, Pieces((QUIT,)), FIN),
    "FIN at once": (FIN,),
    "FIN in EHLO": (EHLO[:9], FIN),
    "FIN behind EHLO": (EHLO, FIN),
    "FIN behind NOOP": (EHLO, b"NOOP\r\n", FIN),
    "FIN right behind EHLO and NOOP": (Pieces((EHLO + b"NOOP\r\n",)), FIN),
    "FIN in a message": (EHLO, MAIL, RCPT, b"DATA\r\n", HEAD, FIN),
    "FIN behind MAIL": (EHLO, MAIL, FIN),
    "FIN behind RCPT, in one segment": (EHLO, MAIL + RCPT, FIN),
    "FIN in a command behind MAIL": (EHLO, MAIL, b"RCPT TO:<b@rec", FIN),
}  # fmt: skip

MAILS: dict[str, Script] = {
    "a mail": message(HEAD + b"hello" + DOT),
    "a mail by HELO": (b"HELO client.example\r\n", MAIL, RCPT, b"DATA\r\n", HEAD + DOT, QUIT),
    "a mail without QUIT": (EHLO, MAIL, RCPT, b"DATA\r\n", HEAD + DOT, FIN),
    "a FIN right behind the dot": (EHLO, MAIL + RCPT + b"DATA\r\n", Pieces((HEAD + DOT,)), FIN),
    "two mails": (*message(HEAD + b"one" + DOT)[:-1], MAIL, RCPT, b"DATA\r\n", HEAD + b"two" + DOT, QUIT),
    "two mails and RSET": (
        EHLO, MAIL, RCPT, b"RSET\r\n", MAIL, RCPT, b"DATA\r\n", HEAD + DOT, b"EHLO a.example\r\n", QUIT,
    ),
    "an empty mail": message(b".\r\n"),
    "a mail in pieces": message(HEAD[:10], HEAD[10:], b"hel", b"lo\r", b"\n.", b"\r\n"),
    "pipelined up to DATA": (EHLO, MAIL + RCPT + RCPT + b"DATA\r\n", HEAD + DOT, QUIT),
    "pipelined with EHLO": (EHLO + MAIL + RCPT + b"DATA\r\n", HEAD + DOT + QUIT),
    "pipelined altogether": (EHLO + (MAIL + RCPT + b"DATA\r\n" + HEAD + DOT) * 2 + QUIT,),
    "pipelined with a bad recipient": (EHLO, MAIL + b"RCPT TO:<>\r\n" + RCPT + b"DATA\r\n", HEAD + DOT, QUIT),
    "DATA refused, the message sent all the same": (EHLO, MAIL + b"DATA\r\n", HEAD + DOT, QUIT),
    "dots": message(HEAD + b"..\r\n...\r\n..a\r\n.b\r\na.\r\n.\0\r\n..\r\n..\r\n x" + DOT),
    "bare LF around dots": message(HEAD + b"a\n.b\n..\nc\r\n..\nd\n..\r\ne" + DOT),
    "a lone dot between bare LF": message(HEAD + b"a\n.\nb\r\nNOOP\r\n" + DOT),
    "CR dot CR": message(HEAD + b"a\r.\rb\r\r\nc\r.\r\nd" + DOT),
    "bytes above 127": (
        EHLO, MAIL[:-2] + b" BODY=8BITMIME\r\n", RCPT, b"DATA\r\n", HEAD + b"gr\xc3\xbc\xdf" + DOT, QUIT,
    ),
    "every byte": message(HEAD + NOISE + DOT),
    "NUL": message(HEAD + b"a\0b" + DOT),
    "lines of 998, 2000 and 9000": message(HEAD + b"x" * 998 + b"\r\n" + b"y" * 2000 + b"\r\n" + b"z" * 9000 + DOT),
    "1.6 megabytes": message(BIG + DOT),
    "commands and replies in a message": message(
        HEAD + b"QUIT\r\nSTARTTLS\r\nEHLO a\r\n220 go\r\n250 ok\r\n421 no" + DOT
    ),
    "with sizes and options": (EHLO, MAIL[:-2] + b" SIZE=1000\r\n", RCPT, b"DATA\r\n", HEAD + DOT, QUIT),
    "too big by its size": (EHLO, MAIL[:-2] + b" SIZE=99999999999\r\n", RCPT, b"DATA\r\n", HEAD + DOT, QUIT),
    "many recipients": (EHLO, MAIL, RCPT * 60, b"DATA\r\n", HEAD + DOT, QUIT),
    "BDAT": (EHLO, MAIL, RCPT, chunks(HEAD + b"hello\r\n"), QUIT),
    "BDAT in pieces": (EHLO, MAIL, RCPT, chunks(HEAD), chunks(b"hel"), QUIT),
    "BDAT, several, pipelined with all": (EHLO + MAIL + RCPT + chunks(HEAD, b"one\r\n", b"two\r\n", b"") + QUIT,),
    "BDAT with SMTP inside": (
        EHLO, MAIL, RCPT, chunks(HEAD, b"QUIT\r\n.\r\nSTARTTLS\r\n", b"EHLO a\r\n250 ok\r\n"), QUIT,
    ),
    "BDAT without MAIL": (EHLO, b"BDAT 6 LAST\r\nNOOP\r\n", QUIT),
    "BDAT with a bad size": (EHLO, MAIL, RCPT, b"BDAT x LAST\r\n", QUIT),
}  # fmt: skip

SECURED: tuple[str, ...] = (
    "EHLO", "EHLO twice", "HELO", "NOOP, RSET, VRFY, EXPN, HELP", "out of order", "unknown commands", "too many errors",
    "AUTH in clear", "AUTH given up", "QUIT and more behind it", "FIN behind EHLO", "FIN in a message", "a NUL",
    "a line of 20000",
    "a mail", "a mail by HELO", "a mail without QUIT", "two mails", "pipelined altogether", "dots", "every byte",
    "CR dot CR", "1.6 megabytes", "BDAT", "BDAT, several, pipelined with all", "BDAT with SMTP inside",
)  # fmt: skip

CLEAR: dict[str, Script] = TALK | {f"mail: {name}": script for name, script in MAILS.items()}
INSIDE: dict[str, Script] = {
    f"TLS, {name}": (EHLO, b"STARTTLS\r\n", TLS, *(TALK.get(name) or MAILS[name])) for name in SECURED
} | {
    "STARTTLS without EHLO": (b"STARTTLS\r\n", TLS, EHLO, QUIT),
    "STARTTLS in small letters": (b"ehlo client.example\r\n", b"starttls\r\n", TLS, EHLO, QUIT),
    "STARTTLS behind NOOP": (EHLO + b"NOOP\r\n", b"STARTTLS\r\n", TLS, EHLO, QUIT),
    "STARTTLS cut in two": (EHLO, Pieces((b"START", b"TLS\r\n")), TLS, EHLO, QUIT),
    "STARTTLS twice": (EHLO, b"STARTTLS\r\n", TLS, EHLO, b"STARTTLS\r\n", QUIT),
    "nothing inside TLS": (EHLO, b"STARTTLS\r\n", TLS, FIN),
    "STARTTLS behind a mail": (*MAILS["a mail"][:-1], b"STARTTLS\r\n", TLS, EHLO, QUIT),
    "STARTTLS behind MAIL": (EHLO, MAIL, b"STARTTLS\r\n", TLS, EHLO, QUIT),
}

# Where STARTTLS is shown first and all may be lost by a wrong repair.
BROKEN: dict[str, Script] = {
    name: script
    for name, script in {**CLEAR, **INSIDE}.items()
    if name.startswith(("EHLO", "STARTTLS", "TLS, a mail", "mail: pipelined", "all of", "before"))
}
# In bridge mode the proxy lets no mail through before TLS.
BRIDGED: dict[str, Script] = {name: script for name, script in INSIDE.items() if not name.startswith("STARTTLS behind")}
WAYS = {"clear": CLEAR, "tls": INSIDE, "bridge": BRIDGED, "broken": BROKEN}
