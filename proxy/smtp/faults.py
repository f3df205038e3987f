"""The catalogue's second table: what goes wrong beside the EHLO reply, in the dialogue and in the handshake.

One entry a fault, of the same shape as the findings of an EHLO reply (`reply/findings.py`, which has the first table):
id, claim, clause, an example, who meets it, what is done and what cures it, when that would be wrong, and the source.
`DIALOGUE` are findings: `probe`, the log and the metrics name them where they are seen.  `LAB` are servers that
`simulate --fault` can be, to try the others against; nobody reports those by that name.

Nothing of this is judged here.  `keyword-incomplete` is found by `reply/reading.py`; the others show in the dialogue
(`smtp/session`), in the records of a handshake, or when `probe` asks.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FindingKind:
    """An entry of the catalogue.

    `example`, of a finding in an EHLO reply, gives this finding and no other when it is the reply of a server whose
    banner is `BANNER`; of all others it is a dialogue, `C:` and `S:` lines.
    `where` says where that is: `clear`; `tls`, in reply to the EHLO inside TLS; `banner`, where the example is what
    the server sends first, the banner included; `dialogue`.
    `breaks` tells who meets it and how, `how` what is done and what cures it, `source` where it was seen.
    """

    id: str
    claim: str
    clause: str
    example: bytes
    breaks: str
    done: str
    how: str
    wrong_when: str
    where: str = "clear"
    source: str = ""


def _dialogue(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


def _fault(
    id_: str, claim: str, clause: str, source: str, example: bytes, breaks: str, how: str, wrong_when: str,
    where: str = "dialogue",
) -> FindingKind:  # fmt: skip
    return FindingKind(id_, claim, clause, example, breaks, "report", how, wrong_when, where, source)


_GO_ON = _dialogue(b"C: STARTTLS", b"S: 220 2.0.0 Ready to start TLS")

_DIALOGUE = (
    _fault(
        "ehlo-refused",
        "EHLO is refused or the connection ended on it, HELO is taken",
        "RFC 5321 4.5.1",
        "dahlia/upyo#41, normanmaurer/niosmtp#24, PHPMailer/PHPMailer#2189",
        _dialogue(b"C: EHLO client.example", b"S: 502 5.5.1 Command not implemented", b"C: HELO client.example",
                  b"S: 250 mail.example.com"),
        "Senders that never fall back to HELO give up; those that do (Postfix, Exim, sendmail, smtplib) send in "
        "clear, without STARTTLS, SIZE or 8BITMIME.",
        "The refusal passes as it came. Only the server's administrator can cure it: often a filter in front of the "
        "server (`smtp fixup`, an appliance) lets HELO through alone.",
        "It is a 4xx, or a refusal of this client's name: then the server has EHLO, and says why not now.",
    ),
    _fault(
        "ehlo-repeat-refused",
        "a second EHLO is refused (503), in clear or inside TLS",
        "RFC 5321 4.1.4, RFC 3207 4.2",
        "stalwartlabs/stalwart#2050, frappe/frappe#38831",
        _dialogue(b"C: EHLO client.example", b"S: 250-mail.example.com", b"S: 250 STARTTLS", b"C: EHLO client.example",
                  b"S: 503 5.5.1 EHLO was said already"),
        "Every sender that says EHLO again behind STARTTLS, as RFC 3207 asks: Postfix bounces the mail, libraries "
        "fail, Exim goes on without. In clear, libraries that say EHLO before each message or login.",
        "Passed on. Inside TLS only the server's administrator can cure it.",
        "The client is not to say EHLO again, as with XCLIENT of Postfix, where it must.",
    ),
    _fault(
        "starttls-refused",
        "STARTTLS is offered and answered 4xx or 5xx",
        "RFC 3207 4",
        "sous-chefs/postfix#145, python/psf-salt#556, swiftmailer/swiftmailer#574",
        _dialogue(b"C: STARTTLS", b"S: 454 4.7.0 TLS not available due to local problem"),
        "Postfix at `may` and Cisco ESA at Preferred go on in clear; at `encrypt`, with DANE or MTA-STS they defer. "
        "Gmail, nodemailer, Swift Mailer and Go fail.",
        "Passed on; with `required` in bridge mode the client gets 454. The server's certificate or key is usually "
        "missing or unreadable: only its administrator can cure that. `remove = [\"STARTTLS\"]` sends in clear.",
        "The refusal is for this client alone (a rate, a list), or for the moment.",
    ),
    _fault(
        "starttls-reply-code",
        "STARTTLS is answered with another 2xx or 3xx than 220",
        "RFC 3207 4",
        "issue trackers searched in 2026; no product is named",
        _dialogue(b"C: STARTTLS", b"S: 250 2.0.0 Ready to start TLS"),
        "Postfix, Exim and Perl's Net::SMTP take any 2xx and begin TLS; smtplib and all others that want the 220 send "
        "in clear or fail, while a server that means it waits for a ClientHello and takes the next command for one.",
        "Passed on as it came, and so is TLS where a sender begins it; whether the server means it can't be known, so "
        "bridge mode takes it for a refusal. Only its administrator can cure it.",
        "The server did not start TLS: to make it a 220 would promise TLS that never comes.",
    ),
    _fault(
        "starttls-not-steady",
        "STARTTLS is offered on one connection, or one address of the name, and not on another",
        "RFC 3207 6",
        "issue trackers searched in 2026: pools with one server that differs, firewalls that learn",
        _dialogue(b"S: 250-mail.example.com", b"S: 250 STARTTLS", b"", b"S: 250-mail.example.com", b"S: 250 8BITMIME"),
        "Senders that demand TLS (MTA-STS, DANE, ESA Required) fail now and then; all others send some mails in clear.",
        "Reported. `probe --repeat` finds it. Name the addresses that do well as destinations; `add = [\"STARTTLS\"]` "
        "where all of them take the command.",
        "The other address is another service, or the offer depends on the client's address.",
    ),
    _fault(
        "hello-unanswered",
        "a ClientHello of this size is never answered, a smaller one is",
        "RFC 8446 5.1",
        "openssl/openssl#27557, exim-users May 2025, tldr.fail",
        _GO_ON + _dialogue(b"C: (a ClientHello of 1555 octets, in two TCP segments)", b"S: (nothing)"),
        "Every sender with OpenSSL 3.5 or newer, Go 1.24 or newer, and browsers' libraries: their hello has a hybrid "
        "key share and does not fit one TCP segment. The sender waits for its time-out and defers.",
        "In bridge mode `groups = \"classic\"` makes the proxy's own hello small. In pass-through the hello is the "
        "client's: set its groups, or ask for the server or the middle box to be mended.",
        "The small hello is not answered either: then it is no matter of size.",
    ),
    _fault(
        "tls-outdated",
        "TLS comes up only with a version, group, key or signature below today's defaults",
        "RFC 8996, RFC 9325 4",
        "OpenSMTPD/OpenSMTPD#1244, postalserver/postal#1912, home-assistant/core#75054",
        _GO_ON + _dialogue(b"C: (a ClientHello of TLS 1.2 and 1.3)", b"S: (alert: protocol version)"),
        "Senders with today's OpenSSL defaults: no TLS 1.0 or 1.1, no 1024-bit keys and groups, no SHA-1 signatures. "
        "They send in clear or defer.",
        "In bridge mode `server_minimum_version` and `security_level` weaken that side alone, and `check` warns. "
        "Better: a server of today.",
        "The certificate is only expired or has another name: that is no matter of strength.",
    ),
    _fault(
        "banner-multiline",
        "a banner of several lines, which some senders don't take",
        "RFC 5321 4.2.1",
        "System.Net.Mail, haproxy/haproxy#1552",
        _dialogue(b"S: 220-mail.example.com ESMTP", b"S: 220-We do not authorize the use of this system",
                  b"S: 220 for unsolicited mail"),
        "System.Net.Mail and HAProxy's smtpchk read one line and take the next for the reply to EHLO. It is legal, and "
        "cPanel's Exim has it by default.",
        "Passed on as it came: the banner is never touched. Exim: `smtp_banner` in one line.",
        "Always: the grammar allows it.",
    ),
    _fault(
        "keyword-incomplete",
        "SMTPUTF8 without 8BITMIME, or BINARYMIME without CHUNKING",
        "RFC 6531 3.1, RFC 3030 3",
        "gromox#275 and mailcow#3680 (SMTPUTF8 that the server behind refuses); CHUNKING hidden, BINARYMIME not",
        _dialogue(b"250-mail.example.com", b"250-STARTTLS", b"250-SMTPUTF8", b"250 HELP"),
        "Senders that take the offer at its word send 8-bit headers through a server that can't, or BODY=BINARYMIME "
        "that only BDAT could carry; the mail bounces behind it.",
        "Never changed. `remove = [\"SMTPUTF8\"]` or `remove = [\"BINARYMIME\"]` hides it, in clear and in bridge "
        "mode.",
        "The server has the missing one all the same, as many do: then mail that went would bounce.",
        "clear",
    ),
    _fault(
        "client-name-invalid",
        "the client's EHLO or HELO argument is no domain with a dot and no address literal",
        "RFC 5321 2.3.5, 4.1.1.1",
        "OpenSMTPD/OpenSMTPD#1054, chatmail#1847, worker-mailer#55",
        _dialogue(b"C: EHLO localhost", b"S: 501 5.5.2 EHLO wants a domain or an address literal"),
        "Printers, cameras and scripts say `localhost`, `[fe80::1%eth0]`, a name with an underscore or none; servers "
        "that hold to the grammar refuse them (Postfix with `reject_non_fqdn_helo_hostname`, OpenSMTPD, Exim).",
        "With `client_name` the argument goes on as that name, in clear and in bridge mode; without, it is untouched. "
        "The EHLO inside pass-through TLS is the client's own.",
        "The server keeps lists by the client's name, or sees many clients as one.",
    ),
)  # fmt: skip

_LAB = (
    _fault(
        "hello-too-large",
        "the server never answers a ClientHello over one TCP segment",
        "RFC 8446 5.1",
        "openssl/openssl#27557, exim-users May 2025, tldr.fail",
        _GO_ON + _dialogue(b"C: (a ClientHello of over 1400 octets)", b"S: (nothing)"),
        "As with hello-unanswered, which is what `probe` and the log call it.",
        "As there: `groups = \"classic\"` in bridge mode.",
        "As there.",
    ),
    _fault(
        "tls10-only",
        "the server speaks TLS 1.0 and nothing newer",
        "RFC 8996",
        "OpenSMTPD/OpenSMTPD#1244, postalserver/postal#1912",
        _GO_ON + _dialogue(b"C: (a ClientHello of TLS 1.2 and 1.3)", b"S: (alert: protocol version)"),
        "Every sender with today's defaults; `probe` calls it tls-outdated.",
        "Bridge mode with `server_minimum_version = \"1.0\"`.",
        "The server has a newer version and another fault.",
    ),
    _fault(
        "dh-1024",
        "the server has a 1024-bit DH group and no other key exchange",
        "RFC 9325 4.1",
        "postalserver/postal#1912, weakdh.org",
        _GO_ON + _dialogue(b"C: (a ClientHello)", b"S: (a DH group of 1024 bits)", b"C: (alert: handshake failure)"),
        "Senders with OpenSSL at security level 2 (\"dh key too small\"), and those without DHE; `probe` calls it "
        "tls-outdated. OpenSSL 4 negotiates FFDHE groups (RFC 7919) and refuses a client that names larger ones only, "
        "where an old server would have sent its 1024 bits: such a client meets an alert here.",
        "Bridge mode with `groups = \"classic\"` and `security_level = 0`.",
        "The server has ECDHE as well, which today's senders prefer.",
    ),
    _fault(
        "sha1",
        "the server signs its handshake with SHA-1 only",
        "RFC 9155",
        "home-assistant/core#75054, OpenSMTPD/OpenSMTPD#1244",
        _GO_ON + _dialogue(b"C: (a ClientHello without SHA-1)", b"S: (alert: handshake failure)"),
        "Senders with OpenSSL at security level 1 or higher, Go and rustls; `probe` calls it tls-outdated. A "
        "certificate signed with SHA-1 can't be made here: the cryptography package refuses to.",
        "Bridge mode with `security_level = 0`.",
        "Only the certificate is signed so: that is a matter of whether it verifies.",
    ),
    _fault(
        "expired",
        "the server's certificate has expired",
        "RFC 5280 4.1.2.5",
        "any monitoring of mail servers",
        _GO_ON + _dialogue(b"S: (a certificate that ended 30 days ago)"),
        "Senders that verify (ESA Required Verify, MTA-STS, Postfix `secure`) defer; most do not look.",
        "Only the server's administrator. Bridge mode with `pins` holds on to the key instead.",
        "The clock of the one who looks is wrong.",
    ),
    _fault(
        "wrong-name",
        "the server's certificate is for another name",
        "RFC 9525 6.3",
        "any monitoring of mail servers",
        _GO_ON + _dialogue(b"S: (a certificate of wrong.example)"),
        "Senders that verify the name (MTA-STS, ESA Required Verify - Hosted Domains, Postfix `secure`) defer.",
        "Bridge mode with `verify_name` where the name is known and meant.",
        "The name asked for is an address: that is never a reason.",
    ),
    _fault(
        "closes-after-220",
        "the server answers STARTTLS with 220 and closes",
        "RFC 3207 4",
        "stalwartlabs/stalwart#135",
        _GO_ON + _dialogue(b"S: (closes)"),
        "All senders: those that fall back to clear only before the 220 (ESA Preferred, Postfix) defer, libraries "
        "fail, and Exim connects again and sends in clear.",
        "Only the server's administrator: its certificate or key is missing. Bridge mode answers 454 with the reason.",
        "The connection is cut on the way, by a firewall that dislikes TLS.",
    ),
    _fault(
        "slow-banner",
        "the banner comes after 10 seconds",
        "RFC 5321 4.5.3.2.1",
        "greet pauses of sendmail and Postfix's postscreen, reverse lookups that time out",
        _dialogue(b"S: (10 s)", b"S: 220 mail.example.com ESMTP"),
        "Libraries with time-outs of 5 or 10 s in place of the 5 minutes that the RFC asks for.",
        "`banner` in `[route.timeouts]` is 5 minutes; the sender's own has to be raised.",
        "It is meant, against spam: then only for strangers.",
    ),
)  # fmt: skip

DIALOGUE: dict[str, FindingKind] = {kind.id: kind for kind in _DIALOGUE}
LAB: dict[str, FindingKind] = {kind.id: kind for kind in _LAB}
