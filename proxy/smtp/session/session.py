"""One session, as a conversation: bytes and a time go in, actions and a deadline come out.

It reads as little as it can: whole command lines, as long as they are of the few verbs in `commands`, each with exactly
one reply.  At the first other one it lets go of the client's direction for good, and of the server's as soon as the
replies still owed are through; from there on it can neither misjudge where a message ends nor be used to smuggle one.

| phase      | the client says                | the server says                 | goes to                              |
|------------|--------------------------------|---------------------------------|--------------------------------------|
| CONNECTING | waits                          |                                 | OPENING when connected               |
| OPENING    | goes on, in whole lines        | banner                          | COMMANDS when it is over             |
| COMMANDS   | a verb that is read: goes on   | replies, in order               | COMMANDS                             |
|            | EHLO, STARTTLS: what follows   | EHLO reply: held, repaired      |                                      |
|            | waits for the reply            | 220 to STARTTLS                 | HELLO (bridge: SECURING_SERVER)      |
|            | anything else: let go          | owed replies, then let go       | RELEASED when both are               |
| HELLO      | its first byte: let go of both | anything: injection             | RELEASED, or ENDED                   |
| SECURING_… | waits (bridge)                 | TLS handshake, judged           | COMMANDS, inside TLS, or REFUSING    |
| REFUSING   | is told why (bridge)           | is dropped                      | ENDED                                |

Anything may go to ENDED: a time-out, a lost peer, an injection.  While another destination is left, and in bridge
mode, the client's lines wait until the banner is over.

The session is put together of parts (`proxy.smtp.session.parts`), each with its own fields: what the client and the
server have said and are known to be, what is owed and said, the trust in XCLIENT, the bridge.  They say what happened;
what follows is decided here, for the peers' ends and the clock, and in `dialogue` for commands and replies.
"""

from __future__ import annotations

from typing import Final

from proxy.smtp.session.dialogue import BEHIND_STARTTLS, Dialogue
from proxy.smtp.session.events import Action, FinishServer
from proxy.smtp.session.policy import DestinationMemory
from proxy.smtp.session.terms import BANNER_OR_NEXT, MAX_WAITING, Phase, Refusal, Reply

TIMED: Final = (Phase.COMMANDS, Phase.OPENING, Phase.HELLO, Phase.REFUSING)  # somebody is late some time


class Session(Dialogue):
    """One client and its server.  Every method returns the actions to carry out, in order; none raises for what a
    peer sent."""

    __slots__ = ()

    # -- what the edge asks ------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """When something last happened."""
        return self.talk.now

    @property
    def phase(self) -> int:
        """Where it stands."""
        return self.talk.phase

    @property
    def client_name(self) -> bytes:
        """By which name the client has greeted last."""
        return self.client.name

    @property
    def wants_client(self) -> bool:
        """False while so much of the client's waits here that the edge should stop reading."""
        return len(self.client.lines.held) <= MAX_WAITING

    @property
    def deadline(self) -> float | None:
        """When `time_passed` is to be called next, on the clock of `now`; None for never.

        `DeadlineNearer` says when to look.
        """
        talk, policy = self.talk, self._policy
        late_at: float | None = None
        if talk.phase not in TIMED:
            return None
        if not talk.owed:
            late_at = talk.since + (policy.half_closed_timeout if self.client.finished else policy.command_timeout)
        elif talk.owed[0].kind == Reply.BANNER:
            span = policy.banner_timeout
            late_at = talk.owed[0].at + (min(span, BANNER_OR_NEXT) if self.server.may_be_left else span)
        elif talk.owed[0].kind != Reply.UNREAD:  # for that one the relay's idle time-out rules
            late_at = talk.owed[0].at + policy.command_timeout
        due = self.answers.held.silent_until
        return late_at if due is None or (late_at is not None and late_at < due) else due

    # -- what happens to the server's connection ---------------------------------------------------------------------

    def server_connected(
        self,
        now: float,
        *,
        name: str,
        address: str,
        port: int,
        memory: DestinationMemory | None = None,
        another_left: bool = False,
    ) -> list[Action]:
        """A destination is connected: `name` as configured (an address too), its textual `address` and `port`.

        `another_left`: a destination is left that was not tried yet; a 4xx banner or none then moves on to it.
        """
        self.talk.begin(now)
        if self.talk.phase == Phase.CONNECTING:
            self.server.connected(name, address, port, memory, another_left)
            if self.bridge is not None:
                self.bridge.open()
            else:
                self.talk.await_banner(self.server.fresh)  # not shown where the client has seen one already
            self.read_client()
        return self.talk.done()

    def unreachable(self, status: str, cause: str, destination: str, now: float) -> list[Action]:
        """No destination could be connected: `status` is 4.4.1, 4.4.3 or 4.4.6."""
        self.talk.begin(now)
        self.server.unreachable(destination)
        self.ends.refuse(Refusal(status, cause, "unreachable"))
        return self.talk.done()

    def server_data(self, data: bytes, now: float) -> list[Action]:
        """All that could be read from the server in this turn."""
        talk = self.talk
        talk.begin(now)
        phase = talk.phase
        if phase == Phase.COMMANDS or phase == Phase.OPENING:
            if self.client.finished:
                talk.begin_turn()
            self.answers.lines.feed(data)
            self.read_server()
        elif phase == Phase.RELEASED:
            talk.to_client(data)
        elif phase == Phase.HELLO:
            self.ends.injected("starttls-response-injection", "bytes of the server behind its 220, before TLS")
        elif phase == Phase.SECURING_SERVER or phase == Phase.SECURING_CLIENT:
            self._spoke_early(data)
        return talk.done()

    def _spoke_early(self, data: bytes) -> None:
        """Bytes of the server while a handshake is under way: none may come up inside TLS.

        Only the late lines of an EHLO reply are removed, as anywhere else.
        """
        answers = self.answers
        answers.lines.feed(data)
        said = answers.read_late() if self.talk.phase == Phase.SECURING_CLIENT else -1
        if said >= 0:
            self.follow(said)
            return
        answers.lines.take_pending()
        self.ends.injected("starttls-response-injection", "bytes of the server while TLS was being set up")
        self.read_client()

    def server_ended(self, reset: bool, now: float) -> list[Action]:
        """The server closed (`reset`: by a reset), or cannot be reached any more."""
        server, phase = self.server, self.talk.phase
        self.talk.begin(now)
        if phase == Phase.ENDED or phase == Phase.CONNECTING or phase == Phase.REFUSING:
            pass
        elif phase == Phase.OPENING and server.may_be_left:
            self.ends.next_destination("closed before its banner")
        elif phase == Phase.SECURING_SERVER:
            return self.server_tls_failed("the server ended the connection", now)
        elif self.trust.asking:
            self.errands.question_broke()
        elif phase == Phase.RELEASED or phase == Phase.HELLO:
            outcome = server.outcome("server-reset" if reset else "server-closed")
            self.ends.end(outcome, "server", reset_client=reset)
        else:
            self._server_lost(reset)
        return self.talk.done()

    def _server_lost(self, reset: bool) -> None:
        """Nothing more comes from the server: deliver an EHLO reply that was whole and only waited, and end."""
        answers, owed = self.answers, self.talk.owed
        if not owed or owed[0].private or not answers.held.is_whole:
            rest = answers.cut_off()
        else:
            rest = answers.cut_off_behind()
            self.ehlo_over(False)
        if self.talk.phase != Phase.ENDED:
            self.ends.server_lost(rest, reset)

    # -- what happens to the client's connection ---------------------------------------------------------------------

    def client_data(self, data: bytes, now: float) -> list[Action]:
        """All that could be read from the client in this turn."""
        talk = self.talk
        talk.begin(now)
        phase = talk.phase
        if phase < Phase.HELLO and not self.client.released:
            self.client.lines.feed(data)
            self.read_client()
        elif phase == Phase.HELLO:
            self.first_byte_of_tls()
            talk.to_server(data)
        elif phase == Phase.SECURING_CLIENT:
            self.ends.injected("starttls-pipelined", "bytes of the client in clear, behind the 220 to STARTTLS")
        elif phase != Phase.ENDED:
            talk.to_server(data)
        return talk.done()

    def read_on(self, now: float) -> list[Action]:
        """Go on where a call stopped for the number of commands: `ReadOn` was told."""
        self.talk.begin(now)
        self.read_client()
        return self.talk.done()

    def client_ended(self, reset: bool, now: float) -> list[Action]:
        """The client closed its side (`reset`: by a reset).  What it said before still goes on."""
        client, phase = self.client, self.talk.phase
        self.talk.begin(now)
        client.ended()
        if phase == Phase.ENDED:
            pass
        elif reset:
            self.ends.end(self.server.outcome("client-reset"), "client", reset_server=True)
        elif phase == Phase.CONNECTING and not client.lines.held and client.waiting is None:
            self.ends.end("client-closed", "client")
        elif client.released:
            self.talk.tell(FinishServer())
        elif phase == Phase.HELLO:
            self.first_byte_of_tls()
        else:
            self.read_client()
        return self.talk.done()

    # -- TLS of bridge mode ------------------------------------------------------------------------------------------

    def server_tls_ready(self, now: float) -> list[Action]:
        """The server's side is in TLS and has met its policy."""
        talk, bridge = self.talk, self.bridge
        talk.begin(now)
        if bridge is not None and talk.phase == Phase.SECURING_SERVER:
            self.answers.late.end()
            if bridge.server_ready():
                self.errands.greet_again()
            if talk.phase != Phase.SECURING_SERVER:
                talk.begin_turn()
                self.after_reply()
            elif self.client.lines.held:
                self.ends.injected("starttls-pipelined", BEHIND_STARTTLS)
                self.read_client()
            else:
                bridge.accept_client()
        return talk.done()

    def server_tls_failed(self, reason: str, now: float) -> list[Action]:
        """The handshake failed or the identity did not meet the policy; that connection is of no use any more."""
        talk, bridge = self.talk, self.bridge
        talk.begin(now)
        if bridge is not None and talk.phase == Phase.SECURING_SERVER:
            refusal = bridge.server_failed(reason)
            if self.server.may_be_left and not bridge.asks_starttls:
                self.ends.next_destination(reason)
            else:
                self.ends.refuse(refusal)
                self.read_client()
        return talk.done()

    def client_tls_ready(self, now: float) -> list[Action]:
        """The client's side is in TLS: the dialogue begins afresh."""
        talk, bridge = self.talk, self.bridge
        talk.begin(now)
        if bridge is not None and talk.phase == Phase.SECURING_CLIENT:
            bridge.client_ready()
            self.trust.inside_tls()
            self.answers.late.end()
            self.server.said(0)
            talk.begin_turn()
            self.after_reply()
        return talk.done()

    def client_tls_failed(self, reason: str, now: float) -> list[Action]:
        """The client's handshake failed: nothing can be said to it any more."""
        self.talk.begin(now)
        self.ends.end("tls-failed", "client", reason)
        return self.talk.done()

    # -- time, and the service ---------------------------------------------------------------------------------------

    def time_passed(self, now: float) -> list[Action]:
        """`deadline` has come; called too early, it does nothing."""
        self.talk.begin(now)
        deadline = self.deadline
        if deadline is not None and now >= deadline:
            silent_until = self.answers.held.silent_until
            if silent_until is not None and now >= silent_until:
                self.follow(self.answers.silence())
            else:
                self.ends.late()
        return self.talk.done()

    def drain(self, now: float) -> list[Action]:
        """The service stops: end the session at the first place where a line may be said, if it has not let go."""
        self.talk.begin(now)
        self._draining = True
        phase = self.talk.phase
        unseen = phase == Phase.CONNECTING or (phase == Phase.OPENING and not self.server.shown)
        if unseen or self.ends.may_speak:
            self.ends.stop()
        return self.talk.done()
