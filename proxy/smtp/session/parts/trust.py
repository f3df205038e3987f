"""XCLIENT and XFORWARD: no stranger borrows the server's trust in the proxy.

A server offers these commands to addresses that it trusts, and the address it sees is the proxy's.  Whoever may send
them can speak in any name.  While commands are read the session could stop them, but after it has let go, or inside
TLS, no rule of ours can.  So a client that is not trusted itself must not get so far while the server offers them:

* the offer is seen in an EHLO reply: 421 4.7.1;
* the client goes on without having said EHLO: the session says EHLO first, on the session's own connection, keeps the
  reply to itself, and repeats the client's HELO (RSET for a client that has said nothing yet) in the same way;
* where the operator says so, XCLIENT is sent with the client's own address, before the client sees a reply to its
  first EHLO.  The server then judges the client by that, and what it still offers it offers knowingly.

Asking must not cost such a client its mail (printers and scanners know no EHLO): a reply that is not 2xx counts as not
offered, and where a server closes on it or refuses the second HELO, the session connects once more, says what the
client had said, and does not ask.  What was learnt is kept for `OFFERS_KNOWN_FOR`, each for clear and for TLS.  In
pass-through no question comes before STARTTLS: what is offered inside TLS can't be known.

XCLIENT is Postfix's (XCLIENT_README): its 220 is a new banner, after which EHLO has to be said again.  This holds in
every mode of repair.
"""

from __future__ import annotations

from typing import Final

from proxy.smtp.reply.ehlo_lines import EhloLine
from proxy.smtp.reply.repair import RepairResult
from proxy.smtp.session.parts.late import offers_trust
from proxy.smtp.session.policy import DestinationMemory

# Whether a client that has said no EHLO may be let through.
GO: Final = 0
ASK: Final = 1  # it is not known what the server offers
NEVER: Final = 2


class Trust:
    """What is known of the server's trust in the proxy, and of who may see it."""

    __slots__ = ("_address", "_afresh", "_trusted", "asking", "safe", "spoken_for")

    def __init__(self, trusted: bool, address: str) -> None:
        """`trusted`: the client may use XCLIENT where the server offers it; `address`: its own, textual."""
        self._trusted = trusted
        self._address = address
        self.safe = trusted  # no stranger can borrow the server's trust here
        self._afresh = False  # the question broke a connection, and another was made
        self.asking = False  # the server is being asked what it offers, on this connection
        self.spoken_for = False  # XCLIENT was sent with the client's address

    @property
    def may_see(self) -> bool:
        """Whether an offer is this client's to see."""
        return self._trusted or self.spoken_for

    def offered_to_stranger(self, line: bytes) -> bool:
        """Whether this line of an EHLO reply offers what this client may not see."""
        return not self._trusted and not self.spoken_for and offers_trust(line)

    def read(self, offered: bool, refused: bool, memory: DestinationMemory, now: float, inside_tls: bool) -> bool:
        """A whole EHLO reply was read; `offered`: it showed one.  False when this client must not go on.

        `refused`: it was a refusal, which says nothing of what the server offers.
        """
        if refused and not offered:
            return True
        if self.spoken_for:
            self.safe = True  # the reply was about the client's own address, and proves nothing about ours
        else:
            memory.learn_offers(offered, now, inside_tls=inside_tls)
            self.safe = self._trusted or not offered
        return self.safe

    def read_in_part(self) -> None:
        """The rest of an EHLO reply passes unread, and may still offer one."""
        self.safe = self._trusted

    def may_go(self, memory: DestinationMemory, now: float, inside_tls: bool) -> int:
        """Before anything is let through that could be, or hide, an XCLIENT: does this server take one from us?

        Asked only where it is not `safe` anyway.
        """
        offered = memory.offers(now, inside_tls=inside_tls)
        if offered is None:
            return ASK
        if offered:
            return NEVER
        self.safe = True
        return GO

    # -- the question ------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """The proxy says EHLO by itself."""
        self.asking = True

    def answered(self, offered: bool, memory: DestinationMemory, now: float, inside_tls: bool) -> None:
        """By now it is known."""
        self.asking = False
        memory.learn_offers(offered, now, inside_tls=inside_tls)

    def broke(self, memory: DestinationMemory, now: float, inside_tls: bool) -> bool:
        """The server closes on the question, or takes no second HELO.  True when a fresh connection is worth a try."""
        self.answered(False, memory, now, inside_tls)
        first = not self._afresh
        self._afresh = True
        return first

    # -- other ground ------------------------------------------------------------------------------------------------

    def on_fresh_connection(self) -> None:
        """Another connection, maybe to another server."""
        self.spoken_for = False
        self.safe = self._trusted

    def inside_tls(self) -> None:
        """What was learnt in clear says nothing about what is offered here."""
        self.safe = self._trusted or self.spoken_for

    # -- XCLIENT of our own ------------------------------------------------------------------------------------------

    def xclient(self, result: RepairResult) -> bytes:
        """The XCLIENT line that says who the client is, where the server takes one; `b""` if not."""
        address = self._address
        if not (result.offers_xclient and address) or result.refused or self.spoken_for:
            return b""
        lines = [EhloLine(line) for line in result.before]
        offered = next((line.parameters.upper().split() for line in lines if line.word.upper() == b"XCLIENT"), [])
        if b"ADDR" not in offered:
            return b""
        words = [b"XCLIENT", b"ADDR=" + (b"IPV6:" if ":" in address else b"") + address.encode("ascii", "replace")]
        if b"NAME" in offered:
            words.append(b"NAME=[UNAVAILABLE]")
        self.spoken_for = True
        return b" ".join(words) + b"\r\n"
