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

import re
from abc import abstractmethod
from typing import Final

from proxy.smtp.reply.ehlo_lines import EhloLine
from proxy.smtp.reply.repair import RepairResult
from proxy.smtp.session.answers import Answers
from proxy.smtp.session.commands import argument_of
from proxy.smtp.session.events import SaidPrivately, XclientOffered
from proxy.smtp.session.state import Owed, Phase, Reply

_NAME: Final = re.compile(rb"[!-~]{1,255}")  # what may stand behind EHLO; the server judges the rest
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
        self.memory.learn_offers(offered, self.now, inside_tls=self.server_tls)
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
        offered = self.memory.offers(self.now, inside_tls=self.server_tls)
        if offered is None:
            self.waiting_line = line
            self.ask_offers()
            return False
        if offered:
            self.refuse_stranger()
            return False
        self.xclient_safe = True
        return True

    def ask_offers(self) -> None:
        """Say EHLO in the client's name, once the replies to all that it said are through."""
        if self.owed or self.asking or self.phase is not Phase.COMMANDS:
            return
        self.asking = True
        name = argument_of(self.greeted_line) if self.greeted_ok else b""
        self._say_privately(Reply.EHLO, b"EHLO " + (name if _NAME.fullmatch(name) else self.policy.ehlo_name) + b"\r\n")

    def _say_privately(self, kind: Reply, line: bytes) -> None:
        self.out.append(SaidPrivately(line))
        self.owed.append(Owed(kind, self.now, private=True))
        self.to_server(line)

    def question_answered(self, result: RepairResult) -> None:
        """The reply to that EHLO: put the server back where the client had it, unless it offers what it must not."""
        if result.offers_xclient:
            self.asking = False
            self.memory.learn_offers(True, self.now, inside_tls=self.server_tls)
            self.refuse_stranger()
        elif self.greeted_ok:
            self._say_privately(Reply.HELO, self.greeted_line)
        else:
            self._say_privately(Reply.OTHER, b"RSET\r\n")

    def question_over(self, kind: Reply) -> None:
        """The reply to the HELO or RSET behind it."""
        code, self.last_code = self.last_code, 0  # the client has not seen it
        if (kind is Reply.HELO and not 200 <= code < 300) or code == 421:
            self.question_broke()
            return
        self.asking = False
        self.memory.learn_offers(False, self.now, inside_tls=self.server_tls)
        self.client_since = self.now

    def question_broke(self) -> None:
        """This server closes on the question, or takes no second HELO: say only what the client said, once more."""
        self.asking = False
        self.memory.learn_offers(False, self.now, inside_tls=self.server_tls)
        if self.asked_afresh:
            self.refuse("4.4.2", "the server ended the connection", "server-closed", "server")
        else:
            self.asked_afresh = True
            self.open_afresh()

    def go_on_waiting(self) -> None:
        """Deal with the command that waits, if it is known by now what the server offers; else ask."""
        line = self.waiting_line
        assert line is not None
        if self.owed or self.asking or self.phase is not Phase.COMMANDS:
            return
        self.waiting_line = None
        self.command(line)
        self.read_client()

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
    def open_afresh(self) -> None:
        """Connect once more, and say what the client has said."""

    @abstractmethod
    def read_client(self) -> None:
        """Send on every whole line that may go."""
