"""What follows from each command of the client and each reply of the server, while they are read.

The parts say what happened (`Answers.read`: a reply is over, nobody asked for this line, ...); here it is decided what
is said, held back, repaired or let go because of it.  Every path ends in the parts; nothing here is called by them.

One call works through `MAX_COMMANDS` commands of the client at most; `ReadOn` says that more could go on.
"""

from __future__ import annotations

from typing import Final

from proxy.smtp.reply.repair import EhloContext, RepairResult, repair_reply
from proxy.smtp.reply.replies import code_of
from proxy.smtp.session.commands import BEFORE_TLS, verb_of
from proxy.smtp.session.ends import Ends
from proxy.smtp.session.errands import Errands
from proxy.smtp.session.events import (
    EhloReplied,
    FinishServer,
    ReadOn,
    ReleaseClient,
    ReleaseServer,
    StarttlsAnswered,
)
from proxy.smtp.session.parts.answers import Answers, Said
from proxy.smtp.session.parts.bridge import Bridge
from proxy.smtp.session.parts.client import Client
from proxy.smtp.session.parts.server import Server
from proxy.smtp.session.parts.talk import Owed, Talk
from proxy.smtp.session.parts.trust import Trust
from proxy.smtp.session.policy import SessionPolicy
from proxy.smtp.session.terms import Phase, Refusal, Reply

KINDS: Final = {
    b"EXPN": Reply.LISTING,
    b"HELP": Reply.HELP,
    b"NOOP": Reply.NOOP,
    b"VRFY": Reply.LISTING,
}
READ_ON: Final = ReadOn()
RELEASE_CLIENT: Final = ReleaseClient()
RELEASE_SERVER: Final = ReleaseServer(False)
RELEASE_SERVER_TO_TLS: Final = ReleaseServer(True)
ACCEPTED: Final = StarttlsAnswered("accepted")
BEHIND_STARTTLS: Final = "bytes of the client behind STARTTLS, before the 220"


class Dialogue:
    """The commands and replies of one session, and the parts that it is put together of."""

    __slots__ = (
        "_draining", "_ends", "_errands", "_policy", "_session_id", "answers", "bridge", "client", "server", "talk",
        "trust",
    )  # fmt: skip

    def __init__(
        self,
        policy: SessionPolicy,
        now: float,
        *,
        client_trusted: bool = False,
        client_address: str = "",
        session_id: str = "",
    ) -> None:
        """`client_trusted`: may use XCLIENT where the server offers it; `client_address`: textual, for XCLIENT;
        `session_id`: what the log calls the session, for the texts of the proxy's own replies."""
        self._policy = policy
        self._session_id = session_id
        self._draining = False
        self._ends: Ends | None = None
        self._errands: Errands | None = None
        self.trust = Trust(client_trusted, client_address)
        self.talk = Talk(now)
        self.client = Client()
        self.server = Server()
        self.answers = Answers(policy, self.talk, self.server, self.trust)
        self.bridge: Bridge | None = None
        if policy.bridge is not None:
            self.bridge = Bridge(policy, policy.bridge, self.talk, self.client, self.server)

    # These two are made when they are needed, which in most sessions is never: that saves 0.4 us of 12.

    @property
    def ends(self) -> Ends:
        """What ends the session."""
        if self._ends is None:
            self._ends = Ends(
                self._policy, self._session_id, self.talk, self.client, self.server, self.answers, self.bridge
            )
        return self._ends

    @property
    def errands(self) -> Errands:
        """What the proxy says by itself."""
        if self._errands is None:
            self._errands = Errands(
                self._policy, self.talk, self.client, self.server, self.trust, self.bridge, self.ends, self.answers
            )
        return self._errands

    # -- the client --------------------------------------------------------------------------------------------------

    def _may_read(self) -> bool:
        """Whether the client's next line may be looked at now."""
        phase = self.talk.phase
        if phase != Phase.COMMANDS and phase != Phase.REFUSING:
            early = phase == Phase.OPENING and not self.server.another_left and self.bridge is None
            if not early:
                return False
        client = self.client
        if client.released or client.finished or client.waiting is not None:
            return False
        return self.talk.may_follow

    def read_client(self) -> None:
        """Send on every whole line that may go."""
        client, talk = self.client, self.talk
        lines = client.lines
        while (lines.held or client.closed) and self._may_read():
            if talk.commands_left <= 0:
                talk.tell(READ_ON)
                break
            line = lines.next()
            if line is None and lines.overlong:
                line = lines.take_pending()  # no line end will make it a command that is known
            if line is not None:
                self._command(line)
            elif client.closed:
                self._finish_server(lines.take_pending())
            else:
                break

    def _finish_server(self, rest: bytes) -> None:
        """The client has ended: half a line goes as it is, and then the end."""
        if self.talk.phase == Phase.REFUSING:
            self.ends.client_gone()
            return
        in_clear = self.bridge is not None and self.bridge.tls_missing
        if rest and not in_clear:  # half a MAIL in clear is as bad as a whole one
            self.talk.to_server(rest)
        self.client.finish()
        self.talk.begin_turn()
        self.talk.tell(FinishServer())

    def _command(self, line: bytes) -> None:
        """Deal with one command line."""
        verb = verb_of(line)
        if self.bridge is not None and (refusal := self._refusal(self.bridge, verb)) is not None:
            self.ends.refuse(refusal)
        elif verb == b"EHLO" or verb == b"LHLO":
            self._greeting(Reply.EHLO, line)
        elif verb == b"HELO":
            self._greeting(Reply.HELO, line)
        elif verb == b"STARTTLS":
            self._starttls(line)
        elif not verb:
            if self.trust.safe or self.errands.stranger_may_go(line):
                self._let_go(line)
        elif verb == b"XCLIENT" or verb == b"XFORWARD":
            if self.trust.safe or self.errands.stranger_may_go(line):
                self.talk.ask(Reply.OTHER, line)
        else:
            self.talk.ask(KINDS.get(verb, Reply.OTHER), line)

    def _refusal(self, bridge: Bridge, verb: bytes) -> Refusal | None:
        """Why this command is the last: the server is gone, or it may not be said in clear."""
        if self.talk.phase == Phase.REFUSING:
            return self.ends.must_end
        if bridge.tls_missing and verb not in BEFORE_TLS:
            return Refusal("4.7.0", "TLS is required here: use STARTTLS first", "refused", "client")
        return None

    def _greeting(self, kind: int, line: bytes) -> None:
        line, found = self.client.greets(line, self._policy)
        if found is not None:
            self.talk.tell_once(found)
        self.talk.ask(kind, line)

    def _let_go(self, line: bytes) -> None:
        """An unknown command: it and all that follows goes on unread."""
        client = self.client
        client.release()
        self.talk.ask(Reply.UNREAD, line + client.lines.take_pending())
        self.talk.tell(RELEASE_CLIENT)
        if client.closed:
            self.talk.tell(FinishServer())
        self._let_server_go()

    def _let_server_go(self) -> None:
        """Let go of the server's direction too, if nothing is owed any more that has to be read.

        After an EHLO reply one more reply line is looked at: were it a late line of that EHLO reply, the client would
        take it for the answer to MAIL, and the answer to MAIL for that to RCPT.
        """
        owed = self.talk.owed
        late = self.answers.late.possible and self._policy.repair.mode == "repair"
        if owed and owed[0].kind == Reply.UNREAD and not late:
            self._release_server()

    def _release_server(self) -> None:
        """Hand the server's direction over: what is here goes first, the rest is never read."""
        rest = self.answers.release()
        if rest:
            self.talk.to_client(rest)
        self.talk.enter(Phase.RELEASED)
        self.talk.tell(RELEASE_SERVER)

    def first_byte_of_tls(self) -> None:
        """The client has answered the 220: both directions are the peers' own."""
        client, talk = self.client, self.talk
        client.release()
        self.answers.release()
        talk.enter(Phase.RELEASED)
        talk.tell(RELEASE_CLIENT)
        talk.tell(RELEASE_SERVER_TO_TLS)
        if client.closed:
            talk.tell(FinishServer())

    # -- the server --------------------------------------------------------------------------------------------------

    def read_server(self) -> None:
        """Take in all that is there, and do what follows from it."""
        answers = self.answers
        while said := answers.read():
            self.follow(said)
            if not answers.lines.held:
                return  # as always when this has changed the phase: no byte is read by the rules of two

    def follow(self, said: int) -> None:
        """Do what follows from what the server has said."""
        if said == Said.REPLY:
            self._reply_over(self.talk.first_is_over())
        elif said == Said.EHLO or said == Said.EHLO_BY_SILENCE:
            self.ehlo_over(said == Said.EHLO_BY_SILENCE)
        elif said == Said.EHLO_TOO_LONG:
            self._ehlo_too_long()
        elif said == Said.FIRST_UNREAD:
            self._release_server()
        elif said == Said.STRANGER:
            self.errands.refuse_stranger()
        elif said:
            refusal = self.answers.refusal
            assert refusal is not None
            if said == Said.NO_BANNER:
                self.ends.no_banner(refusal)
            else:
                self.ends.refuse(refusal)

    def _reply_over(self, owed: Owed) -> None:
        """This reply is over."""
        kind = owed.kind
        if kind == Reply.BANNER:
            self.talk.banner_over()
            if owed.private:
                self.errands.banner_held()
        elif kind == Reply.STARTTLS:
            self._starttls_over(owed.private)
        elif owed.private:
            self.errands.private_over(kind)
        elif kind == Reply.UNREPAIRED:
            self.trust.read(False, False, self.server.memory, self.talk.now, self.server.tls)
        elif kind == Reply.HELO:
            self.client.greeting_taken(self.server.last_code)
        self.after_reply()

    def after_reply(self) -> None:
        """A reply is through: let go, drain, or go on with what was held behind it."""
        client = self.client
        if client.released:
            self._let_server_go()
        elif self._draining and self.ends.may_speak:
            self.ends.stop()
        elif client.waiting is not None:
            self._go_on_waiting()
        elif client.lines.held or client.closed:
            self.read_client()

    def _go_on_waiting(self) -> None:
        """Deal with the command that waits, once all replies are through and the server is where the client had it."""
        talk = self.talk
        if not talk.owed and talk.phase == Phase.COMMANDS and not self.trust.asking and not self.server.fresh:
            self._command(self.client.take_waiting())
            self.read_client()

    # -- EHLO --------------------------------------------------------------------------------------------------------

    def ehlo_over(self, by_silence: bool) -> None:
        """An EHLO reply is over: judge it, repair it, show it in one write."""
        talk, server, answers = self.talk, self.server, self.answers
        owed = talk.first_is_over()
        result = self._repaired(answers.held.take(), by_silence)
        server.said(result.last_code, owed.private)
        if result.refused:
            answers.late.end()
        else:
            answers.late.begin(after_silence=by_silence)
        if result.goes_on:
            server.memory.saw_going_on(talk.now)
        if owed.private:
            self.errands.private_ehlo(result)
        elif not (self._policy.xclient and self.errands.says_xclient(result)):
            talk.tell(EhloReplied(result, talk.now - owed.at, self.client.tls))
            if not self.trust.read(result.offers_xclient, result.refused, server.memory, talk.now, server.tls):
                self.errands.refuse_stranger()
                return
            talk.to_client(result.reply)
        self.after_reply()

    def _repaired(self, raw: bytes, by_silence: bool) -> RepairResult:
        server, bridge = self.server, self.bridge
        hidden, offered = bridge.starttls_shown() if bridge is not None else (False, False)
        context = EhloContext(
            server.banner, server.name, server.address, self.client.name, server.tls and not offered, hidden, offered,
            self.trust.may_see,
        )  # fmt: skip
        return repair_reply(raw, self._policy.repair, context, unterminated=by_silence)

    def _ehlo_too_long(self) -> None:
        """`reply-too-long`: it goes as it comes, up to the first final line."""
        talk = self.talk
        owed = talk.owed[0]
        if owed.private:
            self.ends.refuse(Refusal("4.4.2", "its EHLO reply is too long", "error", "server"))
            return
        raw = self.answers.held.take()
        result = self._repaired(raw, False)
        talk.tell(EhloReplied(result, talk.now - owed.at, self.client.tls))
        if not self.errands.stranger_offered(result):
            self.trust.read_in_part()
            self.follow(self.answers.passes_unrepaired(raw))

    # -- STARTTLS ----------------------------------------------------------------------------------------------------

    def _starttls(self, line: bytes) -> None:
        bridge = self.bridge
        # In bridge mode what is not ours is a letting go; in pass-through what is offered inside TLS can't be known
        # before.
        if bridge is None or (bridge.answers_starttls and bridge.asks_starttls):
            self.talk.ask(Reply.STARTTLS, line)
        elif not bridge.answers_starttls:
            if self.trust.safe or self.errands.stranger_may_go(line):
                self.talk.ask(Reply.STARTTLS, line)
        # The server's side has met its policy before its banner was shown: the proxy answers, in its turn.
        elif self.talk.owed:
            self.client.waits_with(line)
        elif self._draining:
            self.ends.stop()
        elif self.client.lines.held:
            self.ends.injected("starttls-pipelined", BEHIND_STARTTLS)
        elif self.answers.lines.held:
            self.ends.injected("starttls-response-injection", "bytes of the server that answer nothing, before the 220")
        else:
            bridge.accept_client()

    def _starttls_over(self, private: bool) -> None:
        """The reply to STARTTLS is over: TLS, a refusal, or bytes where RFC 3207 allows none."""
        talk, bridge = self.talk, self.bridge
        lines = self.answers.held.take()
        ours = private or (bridge is not None and bridge.answers_starttls)
        # Clients go by the first code or by the last.
        if self.server.last_code != 220 and code_of(lines) != 220:
            if ours:
                self.errands.starttls_refused(lines, private, self._draining)
            else:
                talk.tell(StarttlsAnswered("refused", lines))
                talk.to_client(lines)
        elif self.answers.lines.held:
            self.ends.injected("starttls-response-injection", "bytes of the server behind its 220 to STARTTLS")
        elif self.client.lines.held and not private:
            self.ends.injected("starttls-pipelined", BEHIND_STARTTLS)
        elif ours and bridge is not None:
            bridge.secure_server()
        else:
            talk.to_client(lines)
            talk.enter(Phase.HELLO)
            talk.tell(ACCEPTED)
            if self.client.closed:
                self.first_byte_of_tls()
