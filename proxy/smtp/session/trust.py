"""XCLIENT and XFORWARD: no stranger borrows the server's trust in the proxy.

A server offers these commands to addresses that it trusts, and the address it sees is the proxy's.  Whoever may send
them can speak in any name.  While commands are read the session could stop them, but after it has let go, or inside
TLS, no rule of ours can.  So a client that is not trusted itself must not get so far while the server offers them:

* the offer is seen in an EHLO reply: 421 4.7.1;
* the client goes on without having said EHLO: the edge asks the server first, on a connection of its own;
* where the operator says so, XCLIENT is sent with the client's own address, before the client sees a reply to its
  first EHLO.  The server then judges the client by that, and what it still offers it offers knowingly.

XCLIENT is Postfix's (XCLIENT_README): its 220 is a new banner, after which EHLO has to be said again.  This holds in
every mode of repair.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from proxy.smtp.reply.ehlo_lines import EhloLine
from proxy.smtp.reply.repair import RepairResult
from proxy.smtp.session.answers import Answers
from proxy.smtp.session.events import Action, AskOffers, XclientOffered
from proxy.smtp.session.state import Owed, Phase, Reply

NOT_TRUSTED: Final = "not available to this client"


class Trust(Answers):
    """Sees to it that no client is let go that must not be."""

    __slots__ = ()

    # -- an EHLO reply -----------------------------------------------------------------------------------------------

    def stranger_offered(self, result: RepairResult) -> bool:
        """See to an offer of XCLIENT or XFORWARD in a reply.  True when it ends the session."""
        if not result.offers_xclient and result.refused:
            return False  # a refusal says nothing of what the server offers
        self.offers_read(result.offers_xclient)
        if self.xclient_safe:
            return False
        self.refuse_stranger()
        return True

    def offers_read(self, offered: bool) -> None:
        """A whole EHLO reply was read; `offered`: it showed XCLIENT or XFORWARD."""
        if self.xclient_done:
            self.xclient_safe = True  # the reply was about the client's own address, and proves nothing about ours
            return
        self.memory.learn_offers(offered, self.now)
        self.xclient_safe = self.client_trusted or not offered

    def refuse_stranger(self) -> None:
        """421 4.7.1: the server would take this client's word for whatever XCLIENT says."""
        self.out.append(XclientOffered())
        self.refuse("4.7.1", NOT_TRUSTED, "refused")

    # -- no EHLO reply -----------------------------------------------------------------------------------------------

    def stranger_may_go(self, line: bytes) -> bool:
        """Before anything is let through that could be, or hide, an XCLIENT: does this server take one from us?

        False when `line` may not go on: not yet, or never.
        """
        if self.xclient_safe:
            return True
        offered = self.memory.offers(self.now)
        if offered is None:
            self.waiting_line = line
            self.client_since = self.now
            self.out.append(AskOffers())
            return False
        if offered:
            self.refuse_stranger()
            return False
        self.xclient_safe = True
        return True

    def offers_known(self, offered: bool | None, now: float) -> list[Action]:
        """The answer to `AskOffers`; None: it could not be found out, which ends the session."""
        self.now = now
        line, self.waiting_line = self.waiting_line, None
        if line is not None and self.phase is not Phase.ENDED:
            if offered is None:
                self.refuse("4.4.2", "could not find out whether the server offers XCLIENT", "error")
            else:
                self.memory.learn_offers(offered, now)
                self.command(line)
                self.read_client()
        return self.done()

    # -- XCLIENT of our own ------------------------------------------------------------------------------------------

    def begin_xclient(self, result: RepairResult) -> bool:
        """Say who the client is, where the operator wants that and the server takes it.  False when it is not done."""
        address = self.xclient_address
        if not (self.policy.xclient and result.offers_xclient and address) or result.refused or self.xclient_done:
            return False
        lines = [EhloLine(line) for line in result.before]
        offered = next((line.parameters.upper().split() for line in lines if line.word.upper() == b"XCLIENT"), [])
        if b"ADDR" not in offered:
            return False
        words = [b"XCLIENT", b"ADDR=" + (b"IPV6:" if ":" in address else b"") + address.encode("ascii", "replace")]
        if b"NAME" in offered:
            words.append(b"NAME=[UNAVAILABLE]")
        self.xclient_done = True
        self.owed.append(Owed(Reply.XCLIENT, self.now, private=True))
        self.to_server(b" ".join(words) + b"\r\n")
        return True

    def xclient_ended(self) -> None:
        """The reply to our XCLIENT: repeat the client's EHLO, whose reply is the one that is shown."""
        if self.last_code == 220:
            self.owed.append(Owed(Reply.EHLO, self.now, private=self.reopening))
            self.to_server(self.ehlo_line)
        else:
            self.refuse("4.7.1", "the server refused XCLIENT", "refused")

    # -- what the client's half does ---------------------------------------------------------------------------------

    @abstractmethod
    def command(self, line: bytes) -> None:
        """Deal with one command line of the client."""

    @abstractmethod
    def read_client(self) -> None:
        """Send on every whole line that may go."""
