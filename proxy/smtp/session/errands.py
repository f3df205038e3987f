"""What the proxy says to the server by itself, and what follows from the replies, which the client does not see.

XCLIENT with the client's address, and the client's EHLO once more; the question what the server offers, for a client
that has said no EHLO, and the HELO or RSET behind it; bridge mode's EHLO and STARTTLS while the server's side is made
ready; and the greeting on a fresh connection.  Why is told in `parts.trust` and `parts.bridge`.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.smtp.reply.repair import RepairResult
from proxy.smtp.session.commands import argument_of, verb_of
from proxy.smtp.session.ends import Ends
from proxy.smtp.session.events import FreshConnection, SaidPrivately, StarttlsAnswered, XclientOffered
from proxy.smtp.session.parts.answers import Answers
from proxy.smtp.session.parts.bridge import REFUSED_BANNER, Bridge
from proxy.smtp.session.parts.client import Client
from proxy.smtp.session.parts.server import Server
from proxy.smtp.session.parts.talk import Talk
from proxy.smtp.session.parts.trust import ASK, GO, Trust
from proxy.smtp.session.policy import SessionPolicy
from proxy.smtp.session.terms import Phase, Refusal, Reply

NOT_TRUSTED: Final = "not available to this client"
_LF: Final = b"\n"
_NAME: Final = re.compile(rb"[!-~]{1,255}")  # what may stand behind EHLO; the server judges the rest


class Errands:
    """Commands of the proxy's own."""

    __slots__ = ("_answers", "_bridge", "_client", "_ends", "_policy", "_server", "_talk", "_trust")

    def __init__(
        self,
        policy: SessionPolicy,
        talk: Talk,
        client: Client,
        server: Server,
        trust: Trust,
        bridge: Bridge | None,
        ends: Ends,
        answers: Answers,
    ) -> None:
        self._policy = policy
        self._talk = talk
        self._client = client
        self._server = server
        self._trust = trust
        self._bridge = bridge
        self._ends = ends
        self._answers = answers

    @property
    def _securing(self) -> Bridge | None:
        """The bridge, while it makes the server's side ready; None where the client's greeting is repeated."""
        bridge = self._bridge
        return bridge if bridge is not None and (bridge.reopens_tls or not self._server.fresh) else None

    def banner_held(self) -> None:
        """The banner that the client has not seen is over: something has to be said to the server first."""
        lines, securing = self._answers.held.take(), self._securing
        if securing is not None:
            self._ends.refuse(securing.banner_held(lines))
        else:
            self.greet_again()

    def greet_again(self) -> None:
        """A fresh connection: the client has seen a banner, the server has not heard the client."""
        line = self._client.greeting
        if self._server.last_code != 220:
            self._ends.refuse(Refusal("4.4.2", REFUSED_BANNER, "error", "server"))
        elif not line:
            self._server.is_greeted()
        else:
            self._talk.ask(Reply.HELO if verb_of(line) == b"HELO" else Reply.EHLO, line, True)

    def private_ehlo(self, result: RepairResult) -> None:
        """Our own EHLO was answered: put the server back where the client had it, or make its side ready."""
        securing = self._securing
        if self._trust.asking:
            self._question_answered(result)
        elif securing is not None:
            self._ends.refuse(securing.offers_read(result))
        # The fresh connection may have led to another server, with a list of its own.
        elif result.refused:
            self._ends.refuse(Refusal("4.4.2", "it refused the EHLO that was repeated", "error", "server"))
        elif not self.says_xclient(result) and not self.stranger_offered(result):
            self._server.is_greeted()

    def private_over(self, kind: int) -> None:
        """The reply to XCLIENT, or to the HELO or RSET that puts the server back where the client had it."""
        self._answers.held.take()
        code = self._server.last_code
        if kind == Reply.XCLIENT:
            if code == 220:  # repeat the client's EHLO, whose reply is the one that is shown
                self._talk.ask(Reply.EHLO, self._client.greeting, self._server.fresh)
            else:
                self._ends.refuse(Refusal("4.7.1", "the server refused XCLIENT", "refused"))
        elif self._trust.asking:
            self._server.said(0)  # the client has not seen it
            if (kind == Reply.HELO and not 200 <= code < 300) or code == 421:
                self.question_broke()
            else:
                self._trust.answered(False, self._server.memory, self._talk.now, self._server.tls)
        elif code >= 400:
            self._ends.refuse(Refusal("4.4.2", "it refused the HELO that was repeated", "error", "server"))
        else:
            self._server.is_greeted()

    def says_xclient(self, result: RepairResult) -> bool:
        """Say who the client is, where the operator wants that and the server takes it."""
        line = self._trust.xclient(result) if self._policy.xclient else b""
        if line:
            self._talk.ask(Reply.XCLIENT, line, True)
        return line != b""

    def stranger_offered(self, result: RepairResult) -> bool:
        """See to an offer of XCLIENT or XFORWARD in a reply.  True when it ends the session."""
        server = self._server
        if self._trust.read(result.offers_xclient, result.refused, server.memory, self._talk.now, server.tls):
            return False
        self.refuse_stranger()
        return True

    def refuse_stranger(self) -> None:
        """421 4.7.1: the server would take this client's word for whatever XCLIENT says."""
        self._talk.tell(XclientOffered())
        self._ends.refuse(Refusal("4.7.1", NOT_TRUSTED, "refused"))

    def stranger_may_go(self, line: bytes) -> bool:
        """False when `line` may not go on: not before it is known what the server offers, or never."""
        way = self._trust.may_go(self._server.memory, self._talk.now, self._server.tls)
        if way == ASK:
            self._client.waits_with(line)
            self._ask_offers()
        elif way != GO:
            self.refuse_stranger()
        return way == GO

    def _ask_offers(self) -> None:
        """Say EHLO in the client's name, once the replies to all that it said are through."""
        if self._talk.owed or self._trust.asking or self._talk.phase != Phase.COMMANDS:
            return
        self._trust.ask()
        name = argument_of(self._client.greeting) if self._client.greeted_ok else b""
        self._say(Reply.EHLO, b"EHLO " + (name if _NAME.fullmatch(name) else self._policy.ehlo_name) + b"\r\n")

    def _say(self, kind: int, line: bytes) -> None:
        self._talk.tell(SaidPrivately(line))
        self._talk.ask(kind, line, True)

    def _question_answered(self, result: RepairResult) -> None:
        """The reply to that EHLO: put the server back where the client had it, unless it offers what it must not."""
        if result.offers_xclient:
            self._trust.answered(True, self._server.memory, self._talk.now, self._server.tls)
            self.refuse_stranger()
        elif self._client.greeted_ok:
            self._say(Reply.HELO, self._client.greeting)
        else:
            self._say(Reply.OTHER, b"RSET\r\n")

    def question_broke(self) -> None:
        """This server closes on the question, or takes no second HELO: say only what the client said, once more."""
        if self._trust.broke(self._server.memory, self._talk.now, self._server.tls):
            self.open_afresh()
        else:
            self._ends.refuse(Refusal("4.4.2", "the server ended the connection", "server-closed", "server"))

    def starttls_refused(self, lines: bytes, private: bool, draining: bool) -> None:
        """The server will not have TLS with the proxy: 454, and then clear only where the operator allows it."""
        cause = f"the server refused STARTTLS: {lines.split(_LF, 1)[0].strip().decode('latin-1')}"
        self._talk.tell(StarttlsAnswered("refused", lines))
        assert self._bridge is not None
        refusal = self._bridge.starttls_refused(cause, private)
        if refusal is not None or private:
            self._ends.refuse(refusal)
        else:
            self._ends.say_454(cause)
            if not draining:
                self.open_afresh()  # in clear: the server has been told of TLS on this one

    def open_afresh(self) -> None:
        """Go on over a fresh connection, as if the client had said there what it has said here."""
        if self._bridge is not None:
            self._bridge.open_afresh()
        self._server.reopen()
        self._talk.tell(FreshConnection())
        self._ends.forget_server()
        self._trust.on_fresh_connection()
