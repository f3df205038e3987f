"""The catalogue: every way in which an EHLO reply can be wrong.  What goes wrong beside it is `proxy.smtp.faults`'s.

One entry a finding, and nowhere else: its id, the claim in one line, the clause that is broken, an example in octets,
which senders break on it and how, what is done, and when to repair it would be wrong.  The log, the metrics, the
status page, `explain`, `probe`, `simulate` and docs/findings.md draw from here.

Who breaks was measured with scripted servers against Postfix 3.7, Exim 4.96, sendmail 8.17, Python's smtplib 3.11,
aiosmtplib 5.1, Twisted 26.10, nodemailer, PHPMailer, Ruby's net-smtp, Perl's Net::SMTP, Go 1.19, msmtp 1.8, curl 7.88
and swaks 2020, in 2026; what is said of others was read in their sources.

`done` is `repair` (always, in mode `repair`), `strict` (reported; repaired with `strict`) or `report` (never changed);
`how` says it in a sentence, with the exceptions.
"""

from __future__ import annotations

from typing import NamedTuple

from proxy.smtp.faults import DIALOGUE, FindingKind


class Finding(NamedTuple):
    """One way in which one reply departs from the grammar.

    `line` is the line of the reply as it came, from 1 on; 0 means the reply as a whole.  `repaired` says that it was
    repaired, not that it could be.  `message` quotes the peer, one character an octet (Latin-1), cut short.
    """

    id: str
    line: int
    repaired: bool
    message: str
    clause: str


BANNER = b"220 mail.example.com ESMTP\r\n"


def _reply(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


_HOST = b"250-mail.example.com"
_TLS = b"250-STARTTLS"
_END = b"250 8BITMIME"

_KINDS = (
    FindingKind(
        "greeting-not-first",
        "a keyword line stands before the greeting",
        "RFC 5321 4.1.1.1",
        _reply(_TLS, _HOST, b"250-PIPELINING", _END),
        "The first keyword is lost on Cisco ESA (\"STARTTLS command not supported\"), Postfix, Exim, sendmail, "
        "smtplib, aiosmtplib, PHPMailer, Ruby and Go: with STARTTLS in that place they send in clear, or not at all.",
        "repair",
        "The greeting moves to the front; all else keeps its order.",
        "The server's host is called like a keyword. So a first word that is the banner's host name stays where it is.",
    ),
    FindingKind(
        "greeting-missing",
        "there are keywords only, no greeting at all",
        "RFC 5321 4.1.1.1",
        _reply(_TLS, b"250-PIPELINING", _END),
        "As with greeting-not-first: whatever keyword comes first is lost on eight senders of fourteen.",
        "repair",
        "A greeting is made: of `greeting` in the settings, else the banner's host name, the destination's name or "
        "its address, never of the client's own name, which senders take for a mail loop.",
        "The first line is an unknown word: that is a greeting (Coremail says `mail`, containers `4e119dd77b0c`).",
    ),
    FindingKind(
        "greeting-empty",
        "the first line has a code and nothing else",
        "RFC 5321 4.1.1.1",
        _reply(b"250-", _TLS, _END),
        "Postfix takes the next line for the greeting and loses it; aiosmtplib fails; Twisted's client crashes.",
        "repair",
        "The line is filled as for greeting-missing, or with the greeting that stands further down.",
        "Never: an empty line says nothing.",
    ),
    FindingKind(
        "greeting-not-domain",
        "the first line begins with neither a domain nor an address literal",
        "RFC 5321 4.1.1.1",
        _reply(b"250-Hello", _TLS, _END),
        "Nobody: every sender skips the line unread.",
        "report",
        "Never changed.",
        "Always: the line fills the place of the greeting, and real servers greet with `Hello`, `Ok` and sentences.",
    ),
    FindingKind(
        "line-before-banner",
        "lines of an EHLO reply come before the 220 banner",
        "RFC 5321 4.3.1",
        _reply(_TLS) + BANNER,
        "Senders take the first line for the banner: most close the connection, the rest are one reply out of step.",
        "repair",
        "The lines are removed: they answer nothing.",
        "The line is no 250: a 421 or 554 in place of a banner is a refusal and is passed on.",
        "banner",
    ),
    FindingKind(
        "final-line-missing",
        "every line has `250-`, and then there is silence",
        "RFC 5321 4.2.1",
        _reply(_HOST, _TLS, b"250-8BITMIME"),
        "Thirteen senders of fourteen wait for their time-out and give up; PHPMailer goes on with what it has.",
        "repair",
        "After `unterminated_after` the last line becomes the final one.",
        "The server is only slow: its last lines then come after the reply has ended, and are removed.",
    ),
    FindingKind(
        "final-line-early",
        "a line that is not the last ends the reply, perhaps every line does",
        "RFC 5321 4.2.1",
        _reply(_HOST, b"250 STARTTLS", b"250-PIPELINING", _END),
        "Senders are out of step: the rest is read as the answer to STARTTLS (Postfix, sendmail, smtplib, aiosmtplib, "
        "Twisted, PHPMailer, Go, msmtp, curl, swaks).",
        "repair",
        "What comes in one turn is one reply, and the separators are put right.",
        "The second reply answers another command. So a client's pipelined commands wait until EHLO is answered.",
    ),
    FindingKind(
        "final-line-empty",
        "the last line is a bare `250`",
        "RFC 5321 4.1.1.1",
        _reply(_HOST, _TLS, b"250"),
        "Haraka bounces the mail, Symfony Mailer loops for ever, Go, msmtp, swaks, lettre and KumoMTA fail.",
        "repair",
        "The line is removed, and the one before it is the last.",
        "It is the only line: then it is an empty greeting.",
    ),
    FindingKind(
        "separator-invalid",
        "what stands between the code and the text is neither `-` nor a blank",
        "RFC 5321 4.2.1",
        _reply(_HOST, b"250_STARTTLS", _END),
        "Exim, Twisted and msmtp abort; Postfix, sendmail, Go, nodemailer and curl miss the keyword; smtplib and "
        "aiosmtplib end the reply there and are out of step.",
        "repair",
        "Before a known keyword and in a greeting it becomes `-`, or a blank on the last line.",
        "What follows is no known keyword: `2500 messages` is a number. Such a line has no code.",
    ),
    FindingKind(
        "code-mismatch",
        "a line has another code, 2xx or 3xx, among 250 lines",
        "RFC 5321 4.2.1",
        _reply(_HOST, b"220-STARTTLS", _END),
        "Exim and Go miss the line; on the last line smtplib, aiosmtplib, Go and swaks fail; MailKit, Dovecot, lettre "
        "and libESMTP abort on any.",
        "repair",
        "The code becomes 250.",
        "The other code is 4xx or 5xx: then the reply is a refusal and passes untouched. Or it ends a reply of its "
        "own in front of the first 250.",
    ),
    FindingKind(
        "code-missing",
        "a line has no code",
        "RFC 5321 4.2",
        _reply(_HOST, b"STARTTLS", _END),
        "Exim, aiosmtplib, Twisted, Ruby, Perl and msmtp end the session, smtplib uses HELO; the others but Go lose "
        "the line.",
        "repair",
        "A known keyword with parameters that fit gets a code; any other line is removed.",
        "The line is free text: with a code its first word would be a keyword. So it is removed.",
    ),
    FindingKind(
        "leading-junk",
        "blanks or dots stand before the code",
        "RFC 5321 4.2",
        _reply(_HOST, b".250-STARTTLS", _END),
        "Exim, aiosmtplib, Twisted, Perl and msmtp end the session, smtplib uses HELO; sendmail, PHPMailer, Ruby, Go, "
        "curl and swaks lose the line.",
        "repair",
        "They are removed.",
        "Never in a reply whose other lines have a code.",
    ),
    FindingKind(
        "line-end-invalid",
        "a line ends with a bare LF, or with CR CR LF",
        "RFC 5321 2.3.8",
        _reply(_HOST) + b"250-STARTTLS\n" + _reply(_END),
        "A bare LF: Twisted hangs, Symfony Mailer, lettre and KumoMTA fail. CR CR LF: sendmail and Go miss STARTTLS.",
        "repair",
        "It becomes CRLF. A lone CR ends no line.",
        "In anything but this reply: line ends of a message are never touched.",
    ),
    FindingKind(
        "control-character",
        "a line holds NUL, a lone CR or another control character",
        "RFC 5321 4.2",
        _reply(_HOST, b"250-START\0TLS", _END),
        "In a keyword aiosmtplib, Twisted, Ruby, Go and swaks miss it; in the greeting Exim does, and newer curl "
        "rejects the reply.",
        "repair",
        "NUL and a lone CR are removed from a keyword line; all else, the greeting's too, only with `strict`.",
        "The greeting: RFC 5321 4.1.1.1 allows NUL there, and nearly all senders read it.",
    ),
    FindingKind(
        "blank-line",
        "an empty line, or a code with nothing, inside the reply or right behind it",
        "RFC 5321 4.2",
        _reply(_HOST, b"", _TLS, _END),
        "Exim, aiosmtplib, Twisted, Ruby, Perl and msmtp end the session, smtplib uses HELO; behind the reply it is "
        "taken for the answer to the next command by nine senders.",
        "repair",
        "It is removed.",
        "Never in this reply.",
    ),
    FindingKind(
        "space-invalid",
        "blanks before the keyword, doubled or trailing ones, or a tab",
        "RFC 5321 4.1.1.1",
        _reply(_HOST, b"250- STARTTLS", _END),
        "Before the keyword: Exim, sendmail, Go, msmtp, curl and swaks miss it. Behind STARTTLS: swaks, OpenSMTPD and "
        "Haraka; a tab there also Postfix, sendmail and Go.",
        "repair",
        "Removed before a keyword or the greeting, and on the STARTTLS line; elsewhere only with `strict`.",
        "Inside a greeting, which is free text.",
    ),
    FindingKind(
        "keyword-case",
        "a known keyword is not in capitals, which is legal",
        "RFC 5321 4.1.1.1",
        _reply(_HOST, b"250-starttls", _END),
        "Exim, OpenSMTPD, PHPMailer, Ruby, Go before 1.20, curl before 2025, swaks, lettre and Twisted miss STARTTLS.",
        "repair",
        "The keyword is put in capitals; its parameters stay as they are.",
        "The word is not known: `coremail 1Uxr2x` is followed by a token whose case counts.",
    ),
    FindingKind(
        "starttls-malformed",
        "STARTTLS has a parameter or is split",
        "RFC 3207 2",
        _reply(_HOST, b"250-STARTTLS=1", _END),
        "`=1`: Exim, aiosmtplib, Twisted, PHPMailer, Ruby, Go and swaks miss it; `:` Postfix and sendmail too; a "
        "parameter: swaks.",
        "repair",
        "The line becomes STARTTLS alone.",
        "It is another keyword: `STARTTLSX`, `X-STARTTLS`, `XSECURITY=NONE,STARTTLS`.",
    ),
    FindingKind(
        "keyword-masked",
        "a firewall has overwritten a keyword (`XXXXXXXA`)",
        "RFC 3207 6",
        _reply(_HOST, b"250-XXXXXXXA", _END),
        "All senders: nothing is offered. Cisco's ASA and PIX do so unless ESMTP inspection is told otherwise.",
        "report",
        "Never unmasked. If the firewall lets the command through, `add = [\"STARTTLS\"]` shows it.",
        "The firewall overwrites the command as well: senders that saw STARTTLS and get a 500 stop instead of sending.",
    ),
    FindingKind(
        "keyword-duplicate",
        "the same keyword stands there twice",
        "RFC 5321 4.1.1.1",
        _reply(_HOST, _TLS, b"250-STARTTLS", _END),
        "Nobody by a second STARTTLS; of two AUTH lines senders take both, the first or the last.",
        "report",
        "With `strict` a second STARTTLS is removed; nothing else ever.",
        "The parameters differ: to merge two AUTH lines or to drop one is wrong for half of the senders.",
    ),
    FindingKind(
        "keyword-invalid",
        "the first word of a line is no EHLO keyword",
        "RFC 5321 4.1.1.1",
        _reply(_HOST, b"250-PIPE_CONNECT", _TLS, _END),
        "Nobody but Thunderbird for Android, which skips the line, and Dovecot, which warns.",
        "report",
        "Never changed.",
        "Always: `PIPE_CONNECT`, `XVERP=Courier` and `AUTH=LOGIN` are real, and somebody reads them.",
    ),
    FindingKind(
        "parameter-invalid",
        "the parameters of a known keyword don't fit it",
        "RFC 5321 2.2.2",
        _reply(_HOST, b"250-SIZE 10M", _TLS, _END),
        "Postfix warns of a bad SIZE and takes none.",
        "report",
        "Never changed.",
        "Always: what the server meant is a guess.",
    ),
    FindingKind(
        "non-ascii",
        "a line holds octets above 127",
        "RFC 5321 4.2",
        _reply(b"250-mail.example.com Gr\xc3\xbc\xc3\x9f Gott", _TLS, _END),
        "Nobody.",
        "strict",
        "With `strict` each such octet becomes `?`.",
        "Nearly always: the text is for people, and its encoding is the server's.",
    ),
    FindingKind(
        "line-too-long",
        "a reply line is over 512 octets",
        "RFC 5321 4.5.3.1.5",
        _reply(b"250-mail.example.com " + b"x" * 1100, _TLS, _END),
        "From 1024 octets msmtp, from 2048 Postfix, from 4096 Exim, from 8192 smtplib and aiosmtplib; PHPMailer takes "
        "512 to 516 octets for the end of the reply.",
        "report",
        "A greeting over 1000 octets is cut to 400; a keyword line never.",
        "The line is a keyword's: half a list of AUTH mechanisms is another list.",
    ),
    FindingKind(
        "xclient-offered",
        "XCLIENT or XFORWARD is offered to a client that the proxy does not trust",
        "Postfix XCLIENT_README, section Security",
        _reply(_HOST, _TLS, b"250 XCLIENT NAME ADDR PROTO HELO"),
        "Nobody breaks; but the server trusts the proxy's address, and any client could give itself another address "
        "or login through the proxy.",
        "report",
        "The session ends with 421 4.7.1. Take the proxy's address off the server's list, or set `xclient = true`, "
        "or name the client in `trusted_proxies`. An offer made only inside TLS that passes through can't be seen.",
        "The client is trusted: it is in `trusted_proxies`, or speaks with its own address (`source = \"client\"`).",
    ),
    FindingKind(
        "starttls-inside-tls",
        "STARTTLS is offered again inside TLS",
        "RFC 3207 4.2",
        _reply(_HOST, _TLS, _END),
        "A sender that believes it starts TLS inside TLS and fails.",
        "repair",
        "Removed, in bridge mode. In pass-through the reply inside TLS can't be seen.",
        "Never: no server may offer it there.",
        "tls",
    ),
    FindingKind(
        "reply-too-long",
        "the reply has more than 100 lines or 64 KiB, or a line over 16 KiB",
        "RFC 5321 4.5.3.1",
        _reply(_HOST, *(b"250-X-LINE-%d" % number for number in range(100)), _END),
        "msmtp reads 50 lines, gnutls-cli 1024 octets, Postfix 2048, Exim 4096; curl gives up before 400 lines.",
        "report",
        "The whole reply passes as it comes, unrepaired.",
        "Always: so much is not held for anybody.",
    ),
)  # fmt: skip

CATALOGUE: dict[str, FindingKind] = {kind.id: kind for kind in _KINDS}
FINDINGS: dict[str, FindingKind] = CATALOGUE | DIALOGUE  # all that is ever reported


def quoted(peer: bytes) -> str:
    """What a peer sent, for a message: one character an octet, without its line end, cut at 60."""
    text = peer.rstrip(b"\r\n").decode("latin-1")
    return '"' + (text if len(text) <= 60 else text[:57] + "...") + '"'


def finding(id_: str, line: int, repaired: bool, said: str, peer: bytes | None = None) -> Finding:
    """A finding with its clause from the catalogue; `peer` is quoted behind `said`."""
    message = said if peer is None else said + quoted(peer)
    return Finding(id_, line, repaired, message, FINDINGS[id_].clause)
