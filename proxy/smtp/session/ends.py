"""How a session ends, and how a server is given up: what may still be said, and to whom.

A 421 says why, unless half a line has gone to the client already.  Whatever ends the session leaves nothing held and
nothing owed.  Bytes where RFC 3207 allows none (CVE-2011-0411 and its mirror image) are used by nobody.
"""

from __future__ import annotations

from proxy.smtp.reply.replies import is_refusal
from proxy.smtp.session.events import DropServer, End, Injected, NextDestination, StarttlsAnswered
from proxy.smtp.session.notices import closing, no_tls
from proxy.smtp.session.parts.answers import Answers
from proxy.smtp.session.parts.bridge import Bridge
from proxy.smtp.session.parts.client import Client
from proxy.smtp.session.parts.server import Server
from proxy.smtp.session.parts.talk import Owed, Talk
from proxy.smtp.session.policy import SessionPolicy
from proxy.smtp.session.terms import Phase, Refusal, Reply


class Ends:
    """The last words of both sides, and of the proxy."""

    __slots__ = ("_answers", "_bridge", "_client", "_policy", "_server", "_session_id", "_talk", "must_end")

    def __init__(
        self,
        policy: SessionPolicy,
        session_id: str,
        talk: Talk,
        client: Client,
        server: Server,
        answers: Answers,
        bridge: Bridge | None,
    ) -> None:
        self._policy = policy
        self._session_id = session_id
        self._talk = talk
        self._client = client
        self._server = server
        self._answers = answers
        self._bridge = bridge
        self.must_end: Refusal | None = None  # the next command ends the session, for this cause

    def end(
        self, outcome: str, by: str, reason: str = "", *, reset_client: bool = False, reset_server: bool = False
    ) -> None:
        """Over: nothing is held any more, nothing follows."""
        if self._talk.phase != Phase.ENDED:
            self._talk.enter(Phase.ENDED)
            self._answers.forget()
            self._client.lines.take_pending()
            self._talk.tell(End(outcome, by, reason, reset_client, reset_server))

    def refuse(self, refusal: Refusal | None, *, name_server: bool = True) -> None:
        """421 with the cause, then over, now or later; None for nothing.

        Where half a line was forwarded no line can be said, and it is only over.
        """
        if refusal is None or self._talk.phase == Phase.ENDED:
            return
        talk = self._talk
        if refusal.when == Refusal.NOW or talk.phase == Phase.REFUSING:
            if not self._answers.inside_a_line:
                where = self._server.text if name_server else ""
                talk.to_client(closing(refusal.status, self._policy.route, refusal.cause, where, self._session_id))
            self.end(refusal.outcome, refusal.by, refusal.cause)
            return
        if refusal.when == Refusal.BEHIND_454:
            self.say_454(refusal.cause)
        self._answers.forget()
        self.must_end = refusal
        talk.begin_turn()
        talk.enter(Phase.REFUSING)
        talk.tell(DropServer())

    def client_gone(self) -> None:
        """The client has ended without a next command."""
        must_end = self.must_end
        assert must_end is not None
        # the server had refused: as without a proxy, the client has heard that and closed
        outcome = "client-closed" if must_end.outcome == "server-closed" else must_end.outcome
        self.end(outcome, "client", must_end.cause)

    def say_454(self, cause: str) -> None:
        """The client has asked for TLS, and was not answered yet."""
        self._talk.to_client(no_tls(self._policy.route, cause, self._server.text, self._session_id))

    def injected(self, event: str, detail: str) -> None:
        """Bytes where none may be: none is used, both sides closed, with 421 in place of the 220 where that has not
        left, or a 454 where that is the rule."""
        talk, bridge = self._talk, self._bridge
        talk.tell(Injected(event, detail))
        talk.tell(StarttlsAnswered("injection"))
        by = "server" if event.endswith("injection") else "client"
        if talk.phase == Phase.HELLO or talk.phase == Phase.SECURING_CLIENT:
            self.end("injection", by, detail)
        elif bridge is not None and bridge.answers_starttls and self._server.banner:
            self.refuse(Refusal("4.7.0", detail, "injection", when=Refusal.BEHIND_454))
        else:
            self.refuse(Refusal("4.7.0", detail, "injection", by))

    # -- the service stops -------------------------------------------------------------------------------------------

    @property
    def may_speak(self) -> bool:
        """Whether a line may be said to the client here: nothing is owed, nothing half said."""
        talk = self._talk
        if talk.owed or (talk.phase != Phase.COMMANDS and talk.phase != Phase.REFUSING):
            return False
        return not self._client.released and self._client.waiting is None and not self._answers.half_a_line

    def stop(self) -> None:
        """421: the proxy stops.  Nothing more is said where the server has said its last word."""
        if self._server.said_its_last:
            self.end(self._server.outcome("aborted"), "proxy")
        else:
            self.refuse(Refusal("4.3.2", "the proxy is being stopped, try again", "aborted"), name_server=False)

    # -- another server ----------------------------------------------------------------------------------------------

    def no_banner(self, refusal: Refusal) -> None:
        """This server is of no use; the next one may be."""
        if self._server.may_be_left:
            self.next_destination(refusal.cause)
        else:
            self.refuse(refusal)

    def next_destination(self, reason: str) -> None:
        """Give this server up; nothing of it has been shown."""
        self.forget_server()
        self._talk.tell(NextDestination(reason))

    def forget_server(self) -> None:
        """Nothing is known any more of the server that was connected; another will be."""
        self._talk.enter(Phase.CONNECTING)
        self._answers.forget()
        self._server.forget()

    # -- a server that says no more ----------------------------------------------------------------------------------

    def server_lost(self, rest: bytes, reset: bool) -> None:
        """Its connection is gone while it was read; `rest` is what may still be forwarded of what it said."""
        server, client = self._server, self._client
        if rest:
            self._talk.to_client(rest)
        outcome = server.outcome("server-reset" if reset else "server-closed")
        if client.released or self._answers.inside_a_line or (rest and rest[-1:] != b"\n"):
            # inside a line, or let go: nothing may be said any more; FIN for FIN, reset for reset
            self.end(outcome, "server", reset_client=reset)
        elif client.finished and not self._talk.owed:
            self.end(server.outcome("client-closed"), "client")
        elif server.said_its_last:
            self.end(outcome, "server")
        else:
            cause = "the server ended the connection" + (" by a reset" if reset else "")
            self.refuse(Refusal("4.4.2", cause, "server-reset" if reset else "server-closed", "server"))

    def late(self) -> None:
        """Whoever is to say something has not done so in time."""
        server, owed = self._server, self._talk.owed
        if owed:
            if owed[0].kind == Reply.BANNER:
                self.no_banner(Refusal("4.4.2", "no banner in time", "timeout", "server"))
            else:
                self._reply_late(owed[0])
        elif self._client.finished:
            self.end("timeout", "server", "the server did not end in time")
        elif self._talk.phase == Phase.HELLO:
            self.end("timeout", "client", "no TLS in time")  # it was told 220: no line can be said any more
        elif server.said_its_last:
            self.end(server.outcome("timeout"), "proxy", "nobody closed the connection in time")
        else:
            self.refuse(Refusal("4.4.2", "no command in time", "timeout", "client"))

    def _reply_late(self, owed: Owed) -> None:
        """The server does not end its reply in time: 421, behind a refusal that it began."""
        cause = "no reply in time"
        words = self._answers.cut_off() if owed.kind in (Reply.EHLO, Reply.STARTTLS) else b""
        if is_refusal(words):
            self._talk.to_client(words)
            if words[-1:] != b"\n":
                self.end("timeout", "server", cause)  # inside a line nothing can be said
        self.refuse(Refusal("4.4.2", cause, "timeout", "server"))
