"""One session, as a conversation: bytes and a time go in, actions and a deadline come out.

This is the client's half and what an edge calls.  It reads as little as it can: whole command lines, as long as they
are of the few verbs in `commands`, each with exactly one reply.  At the first other one it lets go of the client's
direction for good, and of the server's as soon as the replies still owed are through; from there on it can neither
misjudge where a message ends nor be used to smuggle one.

| phase      | the client says                | the server says                 | goes to                              |
|------------|--------------------------------|---------------------------------|--------------------------------------|
| CONNECTING | waits                          |                                 | OPENING when connected               |
| OPENING    | goes on, in whole lines        | banner                          | COMMANDS when it is over             |
| COMMANDS   | a verb that is read: goes on   | replies, in order               | COMMANDS                             |
|            | EHLO, STARTTLS: what follows   | EHLO reply: held, repaired      |                                      |
|            | waits for the reply            | 220 to STARTTLS                 | HELLO (bridge: SECURING)             |
|            | anything else: let go          | owed replies, then let go       | RELEASED when both are               |
| HELLO      | its first byte: let go of both | anything: injection             | RELEASED, or ENDED                   |
| SECURING   | waits (bridge)                 | TLS handshake, judged           | COMMANDS, inside TLS or after a 454  |

Anything may go to ENDED: a time-out, a lost peer, an injection.  While another destination is left, and in bridge
mode, the client's lines wait until the banner is over.
"""

from __future__ import annotations

from typing import Final

from proxy.smtp.reply.names import is_full_name
from proxy.smtp.session.bridge import Bridge
from proxy.smtp.session.commands import BEFORE_TLS, MAX_COMMAND, argument_of, verb_of
from proxy.smtp.session.events import Action, FinishServer, Found, ReleaseClient, ReleaseServer, StarttlsAnswered
from proxy.smtp.session.policy import DestinationMemory
from proxy.smtp.session.state import MAX_OWED, Owed, Phase, Reply

# What is pipelined behind these waits for their reply.
HOLDS_BACK: Final = (Reply.EHLO, Reply.UNREPAIRED, Reply.STARTTLS)
KINDS: Final = {
    b"EXPN": Reply.LISTING,
    b"HELO": Reply.HELO,
    b"HELP": Reply.HELP,
    b"NOOP": Reply.NOOP,
    b"VRFY": Reply.LISTING,
}


class Session(Bridge):
    """One client and its server.  Every method returns the actions to carry out, in order; none raises for what a
    peer sent."""

    __slots__ = ()

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
        self.now = now
        if self.phase is Phase.CONNECTING:
            self.destination = f"{name} port {port}" if name == address else f"{name} ({address}) port {port}"
            self.destination_name = b"" if name == address else name.encode("ascii", "replace")
            self.destination_address = address.encode("ascii", "replace")
            self.memory = memory if memory is not None else DestinationMemory()
            self.another_left = another_left
            self.open_server()
        return self.done()

    def unreachable(self, status: str, cause: str, destination: str, now: float) -> list[Action]:
        """No destination could be connected: `status` is 4.4.1, 4.4.3 or 4.4.6."""
        self.now = now
        self.destination = destination
        self.refuse(status, cause, "unreachable")
        return self.done()

    def server_data(self, data: bytes, now: float) -> list[Action]:
        """All that could be read from the server in this turn."""
        self.now = self.heard_at = now
        phase = self.phase
        if phase is Phase.ENDED or phase is Phase.CONNECTING or self.must_end:
            pass
        elif self.server_unread:
            self.to_client(data)
        elif phase is Phase.HELLO:
            self.injected("starttls-response-injection", "bytes of the server behind its 220, before TLS")
        elif phase is Phase.SECURING:
            self.spoke_early(data)
        else:
            self.server_lines.feed(data)
            self.read_server()
        return self.done()

    def server_ended(self, reset: bool, now: float) -> list[Action]:
        """The server closed (`reset`: by a reset), or cannot be reached any more."""
        self.now = now
        phase = self.phase
        if phase is Phase.ENDED or phase is Phase.CONNECTING or self.must_end:
            pass
        elif phase is Phase.OPENING and self.may_go_on_to_next:
            self.next_destination("closed before its banner")
        elif phase is Phase.SECURING and not self.securing_client:
            return self.server_tls_failed("the server ended the connection", now)
        elif self.asking:
            self.question_broke()
        elif self.server_unread or phase is Phase.HELLO:
            outcome = "server-reset" if reset else "server-closed"
            self.end("completed" if self.completed else outcome, "server", reset_client=reset)
        else:
            self.server_lost(reset)
        return self.done()

    # -- what happens to the client's connection ---------------------------------------------------------------------

    def client_data(self, data: bytes, now: float) -> list[Action]:
        """All that could be read from the client in this turn."""
        self.now = now
        if self.phase is Phase.ENDED:
            pass
        elif self.client_unread:
            self.to_server(data)
        elif self.phase is Phase.HELLO:
            self._hello()
            self.to_server(data)
        elif self.securing_client:
            self.injected("starttls-pipelined", "bytes of the client in clear, behind the 220 to STARTTLS")
        elif not len(self.client_lines) and data and data.find(b"\n") == len(data) - 1 and self._may_read():
            self.command(data)  # one line in one piece, as it nearly always is
        else:
            self.client_lines.feed(data)
            self.read_client()
        return self.done()

    def client_ended(self, reset: bool, now: float) -> list[Action]:
        """The client closed its side (`reset`: by a reset).  What it said before still goes on."""
        self.now = now
        self.client_closed = True
        if self.phase is Phase.ENDED:
            pass
        elif reset:
            self.end("completed" if self.completed else "client-reset", "client", reset_server=True)
        elif self.phase is Phase.CONNECTING and not len(self.client_lines) and self.waiting_line is None:
            self.end("client-closed", "client")
        elif self.client_unread:
            self.out.append(FinishServer())
        elif self.phase is Phase.HELLO:
            self._hello()
        else:
            self.read_client()
        return self.done()

    def _hello(self) -> None:
        """The client has answered the 220: both directions are the peers' own."""
        self.client_unread = self.server_unread = True
        self.phase = Phase.RELEASED
        self.out.append(ReleaseClient())
        self.out.append(ReleaseServer(True))
        if self.client_closed:
            self.out.append(FinishServer())

    def _may_read(self) -> bool:
        """Whether the client's next line may be looked at now."""
        if self.phase is not Phase.COMMANDS and (
            self.phase is not Phase.OPENING or self.another_left or self.policy.bridge is not None
        ):
            return False
        if self.client_unread or self.finished or self.waiting_line is not None or self.starttls_waits:
            return False
        owed = self.owed
        if owed:
            last = owed[-1]
            return not last.private and last.kind not in HOLDS_BACK and len(owed) < MAX_OWED
        return True

    def read_client(self) -> None:
        """Send on every whole line that may go."""
        lines = self.client_lines
        while self._may_read():
            line = lines.next()
            if line is not None:
                self.command(line)
            elif lines.pending > MAX_COMMAND:
                self.command(lines.take_pending())
            else:
                if self.client_closed:
                    self._finish_server(lines.take_pending())
                break

    def _finish_server(self, rest: bytes) -> None:
        """The client has ended: half a line goes as it is, and then the end."""
        if self.must_end:
            self.end(self.must_end_as, "client", self.must_end)
            return
        if rest and not self.tls_missing:  # half a MAIL in clear is as bad as a whole one
            self.to_server(rest)
        self.finished = True
        self.heard_at = self.now
        self.out.append(FinishServer())

    def command(self, line: bytes) -> None:
        """Deal with one command line."""
        verb = verb_of(line)
        if self.must_end:
            self.refuse("4.7.0", self.must_end, self.must_end_as)
        elif self.tls_missing and verb not in BEFORE_TLS:
            self.refuse("4.7.0", "TLS is required here: use STARTTLS first", "refused", "client")
        elif verb == b"EHLO" or verb == b"LHLO":
            line = self._named(line)
            self.ehlo_line = self.greeted_line = line
            self.greeted_ok = False
            self._send(Reply.EHLO, line)
        elif verb == b"STARTTLS":
            self._starttls(line)
        elif not verb:
            if self.stranger_may_go(line):
                self._let_go(line)
        elif verb == b"XCLIENT" or verb == b"XFORWARD":
            if self.stranger_may_go(line):
                self._send(Reply.OTHER, line)
        else:
            if verb == b"HELO":
                line = self._named(line)
                self.greeted_line = line
                self.greeted_ok = False
            self._send(KINDS.get(verb, Reply.OTHER), line)

    def _named(self, line: bytes) -> bytes:
        """An EHLO or HELO line as it goes on: with `client_name` where its own name is none that RFC 5321 allows."""
        self.client_name = argument_of(line)
        name, mode = self.policy.client_name, self.policy.repair.mode
        if not name or mode == "off" or is_full_name(self.client_name):
            return line
        repaired = mode == "repair"
        end = b"\r\n" if line.endswith(b"\r\n") else b"\n"
        after = line.split(None, 1)[0] + b" " + name + end if repaired else line
        told = (after.rstrip(b"\r\n"),)
        self.out.append(Found("client-name-invalid", (line.rstrip(b"\r\n"),), repaired, told, "client"))
        return after

    def _send(self, kind: Reply, line: bytes) -> None:
        self.owed.append(Owed(kind, self.now))
        self.to_server(line)

    def _let_go(self, line: bytes) -> None:
        """An unknown command: it and all that follows goes on unread."""
        self.client_unread = True
        self.to_server(line + self.client_lines.take_pending())
        self.out.append(ReleaseClient())
        self.owed.append(Owed(Reply.UNREAD, self.now))
        if self.client_closed:
            self.out.append(FinishServer())
        self._let_server_go()

    def _let_server_go(self) -> None:
        """Let go of the server's direction too, if nothing is owed any more that has to be read.

        After an EHLO reply one more reply line is looked at: were it a late line of that EHLO reply, the client would
        take it for the answer to MAIL, and the answer to MAIL for that to RCPT.
        """
        if self.owed[0].kind is Reply.UNREAD and not (self.late_possible and self.policy.repair.mode == "repair"):
            self.release_server()

    # -- turns -------------------------------------------------------------------------------------------------------

    def after_reply(self) -> None:
        """A reply is through: let go, drain, or go on with what was held behind it."""
        if self.client_unread:
            if self.owed:
                self._let_server_go()
        elif self.waiting_line is not None:
            if not self.reopening:
                self.go_on_waiting()
        elif self.draining and self._idle():
            self.drain_now()
        elif self.starttls_waits:
            self.starttls_due()
            self.read_client()
        elif len(self.client_lines) or self.client_closed:
            self.read_client()

    def _idle(self) -> bool:
        """Whether a line may be said to the client here: nothing is owed, nothing half said."""
        if self.phase is not Phase.COMMANDS or self.owed or self.client_unread or self.waiting_line is not None:
            return False
        return not self.server_lines.pending and not self.long_line

    def drain(self, now: float) -> list[Action]:
        """The service stops: end the session at the first place where a line may be said, if it has not let go."""
        self.now = now
        self.draining = True
        unseen = self.phase is Phase.CONNECTING or (self.phase is Phase.OPENING and not self.banner_shown)
        if unseen or self._idle():
            self.drain_now()
        return self.done()

    def drain_now(self) -> None:
        """421: the proxy stops.  Nothing more is said where the server has said its last word."""
        if self.last_code in (221, 421):
            self.end("completed" if self.completed else "aborted", "proxy")
            return
        self.refuse("4.3.2", "the proxy is being stopped, try again", "aborted", name_server=False)

    def time_passed(self, now: float) -> list[Action]:
        """`deadline` has come; called too early, it does nothing."""
        self.now = now
        deadline = self.deadline
        if deadline is not None and now >= deadline:
            if self.silent_until is not None and now >= self.silent_until:
                self.silence()
            else:
                self._late_peer()
        return self.done()

    def _late_peer(self) -> None:
        if self.owed:
            if self.owed[0].kind is Reply.BANNER:
                self.no_banner("no banner in time", "timeout")
            else:
                self.reply_late()
        elif self.finished:
            self.end("timeout", "server", "the server did not end in time")
        elif self.phase is Phase.HELLO:
            self.end("timeout", "client", "no TLS in time")  # it was told 220: no line can be said any more
        elif self.last_code in (221, 421):
            self.end("completed" if self.completed else "timeout", "proxy", "nobody closed the connection in time")
        else:
            self.refuse("4.4.2", "no command in time", "timeout", "client")

    # -- STARTTLS ----------------------------------------------------------------------------------------------------

    def _starttls(self, line: bytes) -> None:
        if not self.starttls_is_ours():
            # In bridge mode this is a letting go; in pass-through what is offered inside TLS can't be known before.
            if self.policy.bridge is None or self.stranger_may_go(line):
                self._send(Reply.STARTTLS, line)
        elif self.tls_is_asked_for:
            self._send(Reply.STARTTLS, line)
        else:
            self.starttls_due()

    def starttls_accepted(self, owed: Owed, lines: bytes) -> None:
        """Pass-through: forward the 220; the client's next byte is the TLS session's first."""
        if owed.private or self.starttls_is_ours():
            self.begin_server_tls()
            return
        self.to_client(lines)
        self.phase = Phase.HELLO
        self.out.append(StarttlsAnswered("accepted"))
        if self.client_closed:
            self._hello()

    def starttls_refused(self, owed: Owed, lines: bytes) -> None:
        """Forward what the server said; what was held behind STARTTLS goes on."""
        if owed.private or self.starttls_is_ours():
            self.bridge_refused(owed, lines)
            return
        self.out.append(StarttlsAnswered("refused"))
        self.to_client(lines)

    def injection_found(self, event: str, detail: str) -> None:
        """Close both sides, with 421 in place of the 220 where that has not left."""
        by = "server" if event.endswith("injection") else "client"
        if self.phase is Phase.HELLO or self.securing_client:
            self.end("injection", by, detail)
        elif self.starttls_is_ours() and self.banner:
            self.injected_before_tls(detail)
        else:
            self.refuse("4.7.0", detail, "injection", by)
