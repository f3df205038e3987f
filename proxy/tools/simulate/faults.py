"""What a simulated server does wrong beside its EHLO reply: `--fault`, by the ids of `proxy.smtp.faults`.

A `Fault` says how a server departs from a good one, in as few words as the session needs; `FAULTS` has one for each id
of the contract's second table and for the lab's own.  What OpenSSL has to be made to do stands in
`proxy.tools.simulate.weak`, what is said in a recorded transcript in `proxy.tools.simulate.transcript`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from proxy.tools.simulate.replies import BANNER, GOOD_REPLIES, NAME, Piece, SimulatedReplies

SEGMENT = 1400  # octets: what one TCP segment carries of a ClientHello, options and tunnels allowed for
SLOW = 10.0  # seconds before a slow banner
READY = b"220 2.0.0 Ready to start TLS\r\n"


@dataclass(frozen=True, slots=True)
class Fault:
    """How the server differs from a good one.

    replies         what it says to start with and to EHLO
    answers         raw replies in place of the usual ones, by verb in capitals
    script          replies by verb, one a time it is said, the last of them for all others; inside TLS by `TLS verb`
    ready           its reply to STARTTLS, TLS begins behind it
    closes          in place of TLS it closes behind that reply
    one_hello       a second EHLO or HELO of a connection gets 503, inside TLS too
    full_names      EHLO and HELO want a domain with a dot or an address literal, else 501
    every_other     STARTTLS is offered on the first connection, not on the second, and so on
    largest_hello   octets: a larger ClientHello is never answered; 0: any is
    weakness        what is weak about its TLS, for `proxy.tools.simulate.weak`
    """

    replies: SimulatedReplies = GOOD_REPLIES
    answers: Mapping[bytes, bytes] = field(default_factory=dict)
    script: Mapping[bytes, tuple[tuple[Piece, ...], ...]] = field(default_factory=dict)
    ready: bytes = READY
    closes: bool = False
    one_hello: bool = False
    full_names: bool = False
    every_other: bool = False
    largest_hello: int = 0
    weakness: str = ""


_MANY_LINES = (
    b"220-%b ESMTP Service ready\r\n220-We do not authorize the use of this system to transport unsolicited,\r\n"
    b"220 and/or bulk e-mail.\r\n" % NAME
)
_INCOMPLETE = b"250-%b\r\n250-STARTTLS\r\n250-SMTPUTF8\r\n250-BINARYMIME\r\n250 HELP\r\n" % NAME

NO_FAULT = Fault()
FAULTS: dict[str, Fault] = {
    "ehlo-refused": Fault(answers={b"EHLO": b"502 5.5.1 Command not implemented\r\n"}),
    "ehlo-repeat-refused": Fault(one_hello=True),
    "starttls-refused": Fault(answers={b"STARTTLS": b"454 4.7.0 TLS not available due to local problem\r\n"}),
    "starttls-reply-code": Fault(ready=READY.replace(b"220", b"250")),
    "starttls-not-steady": Fault(every_other=True),
    "hello-unanswered": Fault(largest_hello=SEGMENT),
    "tls-outdated": Fault(weakness="tls11"),
    "banner-multiline": Fault(replace(GOOD_REPLIES, banner=(Piece(_MANY_LINES),))),
    "keyword-incomplete": Fault(
        replace(
            GOOD_REPLIES,
            ehlo=(Piece(_INCOMPLETE),),
            inside_tls=(Piece(_INCOMPLETE.replace(b"250-STARTTLS\r\n", b"")),),
        )
    ),
    "client-name-invalid": Fault(full_names=True),
    "hello-too-large": Fault(largest_hello=SEGMENT),
    "tls10-only": Fault(weakness="tls10"),
    "dh-1024": Fault(weakness="dh-1024"),
    "sha1": Fault(weakness="sha1"),
    "expired": Fault(weakness="expired"),
    "wrong-name": Fault(weakness="wrong-name"),
    "closes-after-220": Fault(closes=True),
    "slow-banner": Fault(replace(GOOD_REPLIES, banner=(Piece(BANNER, SLOW),))),
}


def hello_size(held: bytes | bytearray) -> int | None:
    """How many octets the ClientHello takes, its record's head included; None while that is not known.

    What is no handshake record is taken as it is: OpenSSL tells the client so.
    """
    if held[:1] != b"\x16":
        return len(held)
    # TLSPlaintext: type, version, length, then Handshake: msg_type, uint24 length (RFC 8446 5.1 and 4)
    return 5 + 4 + int.from_bytes(held[6:9]) if len(held) >= 9 else None
