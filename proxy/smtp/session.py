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

Anything may go to ENDED: a time-out, a lost peer, an injection.
"""

from __future__ import annotations

from typing import Final

from proxy.smtp.bridge import Bridge
from proxy.smtp.commands import BEFORE_TLS, MAX_COMMAND, argument_of, verb_of
from proxy.smtp.events import Action, AskOffers, FinishServer, ReleaseClient, ReleaseServer, StarttlsAnswered
from proxy.smtp.policy import DestinationMemory
from proxy.smtp.repair import RepairResult
from proxy.smtp.state import Owed, Phase, Reply

HOLDS_BACK: Final = (Reply.EHLO, Reply.STARTTLS)  # what is pipelined behind these waits for their reply


class Session(Bridge):
    """One client and its server.  Every method returns the actions to carry out, in order; none raises for what a
    peer sent."""

    __slots__ = ()

    # -- what happens to the server's connection ---------------------------------------------------------------------

    def server_connected(
        self, now: float, *, name: str, address: str, port: int, memory: DestinationMemory | None = None, another_left: bool = False
    ) -> list[Action]:
        """A destination is connected: `name` as configured (an address too), its textual `address` and `port`.

        `another_left`: a destination is left that was not tried yet; a 4xx banner or none then moves on to it.
        """
        self.now = now
        self.destination = f"{name} port {port}" if name == address else f"{name} ({address}) port {port}"
        self.destination_name = b"" if name == address else name.encode("ascii", "replace")
        self.destination_address = address.encode("ascii", "replace")
        if memory is not None:
            self.memory = memory
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
        self.now = now
        phase = self.phase
        if phase is Phase.HELLO:
            self.injected("starttls-response-injection", "bytes of the server behind its 220, before the client's first")
        elif phase is Phase.SECURING:
            self.spoke_early(data)
        elif phase is Phase.RELEASED or self.server_unread:
            self.to_client(data)
        elif phase is not Phase.ENDED:
            self.server_lines.feed(data)
            self.read_server()
        return self.done()

    def server_ended(self, reset: bool, now: float) -> list[Action]:
        """The server closed (`reset`: by a reset), or cannot be reached any more."""
        self.now = now
        phase = self.phase
        outcome = "server-reset" if reset else "server-closed"
        if phase is Phase.OPENING and self.another_left:
            self.next_destination("closed before its banner")
        elif phase in (Phase.ENDED, Phase.CONNECTING):
            pass
        elif phase is Phase.HELLO or phase is Phase.RELEASED:
            self.end("completed" if self.completed else outcome, "server", reset_client=reset)
        else:
            self._server_lost(outcome, reset)
        return self.done()

    def _server_lost(self, outcome: str, reset: bool) -> None:
        progress = self.progress
        if progress is not None:
            if self.policy.repair.mode != "repair":
                rest = b"".join(self.held)
                self.held.clear()
                self.to_client(rest)
            elif progress.final_seen and not self.server_lines.pending:
                self.finish_ehlo()
            self.server_lines.take_pending()  # a reply that was cut off is dropped, never completed
        if self.phase is Phase.ENDED:
            return
        inside_line = self.server_lines.pending or self.long_line
        if self.client_unread or inside_line:
            self.to_client_if_any(self.server_lines.take_pending())
            self.end("completed" if self.completed else outcome, "server", reset_client=reset)
        elif self.last_code in (221, 421):
            self.end("completed" if self.completed else outcome, "server")
        elif self.must_end:
            self.refuse("4.7.0", self.must_end, "tls-failed")
        else:
            self.refuse("4.4.2", "the server ended the connection" + (" by a reset" if reset else ""), outcome, "server")

    def to_client_if_any(self, data: bytes) -> None:
        """Forward what came, if anything did."""
        if data:
            self.to_client(data)

    # -- what happens to the client's connection ---------------------------------------------------------------------

    def client_data(self, data: bytes, now: float) -> list[Action]:
        """All that could be read from the client in this turn."""
        self.now = now
        if self.phase is Phase.HELLO:
            self._hello()
            self.to_server(data)
        elif self.client_unread:
            self.to_server(data)
        elif self.phase is not Phase.ENDED:
            if not len(self.client_lines) and data.find(b"\n") == len(data) - 1 and self._may_read():
                self._command(data)  # one line in one piece, as it nearly always is
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
        elif self.phase is Phase.CONNECTING and not len(self.client_lines):
            self.end("client-closed", "client")
        elif self.phase is Phase.HELLO:
            self._hello()
            self.out.append(FinishServer())
        elif self.client_unread:
            self.out.append(FinishServer())
        else:
            self.read_client()
        return self.done()

    def _hello(self) -> None:
        """The client has answered the 220: both directions are the peers' own."""
        self.client_unread = self.server_unread = True
        self.phase = Phase.RELEASED
        self.out.append(ReleaseClient())
        self.out.append(ReleaseServer(True))

    def _may_read(self) -> bool:
        """Whether the client's next line may be looked at now."""
        if self.client_unread or self.waiting_line is not None or self.starttls_waits:
            return False
        if self.phase is Phase.OPENING:
            if self.another_left or self.policy.bridge is not None:
                return False
        elif self.phase is not Phase.COMMANDS:
            return False
        if self.owed:
            last = self.owed[-1]
            return not last.private and last.kind not in HOLDS_BACK
        return True

    def read_client(self) -> None:
        """Send on every whole line that may go."""
        lines = self.client_lines
        while self._may_read():
            line = lines.next()
            if line is not None:
                self._command(line)
                continue
            if lines.pending > MAX_COMMAND:
                self._command(lines.take_pending())
            elif self.client_closed:
                rest = lines.take_pending()
                if self.must_end:
                    self.end("tls-failed", "client", self.must_end)
                    break
                if not self.tls_missing:  # half a MAIL in clear is as bad as a whole one
                    self.to_server_if_any(rest)
                self.client_unread = True
                self.owed.append(Owed(Reply.UNREAD, self.now))
                self.out.append(FinishServer())
                self.let_server_go()
            break

    def to_server_if_any(self, data: bytes) -> None:
        """Forward what came, if anything did."""
        if data:
            self.to_server(data)

    def _command(self, line: bytes) -> None:
        verb = verb_of(line)
        if self.must_end:
            self.refuse("4.7.0", self.must_end, "tls-failed")
            return
        if self.tls_missing and verb not in BEFORE_TLS:
            self.refuse("4.7.0", "TLS is required here: use STARTTLS first", "refused", "client")
            return
        if verb == b"EHLO" or verb == b"LHLO":
            self.client_name = argument_of(line)
            self.ehlo_line = self.greeted_line = line
            self._send(Reply.EHLO, line)
        elif verb == b"STARTTLS":
            if not self.bridge_starttls():
                self._send(Reply.STARTTLS, line)
        elif verb == b"QUIT":
            self._send(Reply.QUIT, line)
        elif not verb or verb == b"XCLIENT" or verb == b"XFORWARD":
            if not self.xclient_safe and not self._stranger_may_go(line):
                return
            if verb:
                self._send(Reply.OTHER, line)
            else:
                self._let_go(line)
        else:
            if verb == b"HELO":
                self.greeted_line = line
            self._send(Reply.OTHER, line)

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
        self.let_server_go()

    def let_server_go(self) -> None:
        """Let go of the server's direction too, if nothing is owed any more that has to be read.

        After an EHLO reply one more reply line is looked at: were it a late line of that EHLO reply, the client would
        take it for the answer to MAIL, and the answer to MAIL for that to RCPT.
        """
        if self.owed[0].kind is Reply.UNREAD and not (self.late_possible and self.policy.repair.mode == "repair"):
            self.release_server()

    # -- XCLIENT -----------------------------------------------------------------------------------------------------

    def _stranger_may_go(self, line: bytes) -> bool:
        """Before anything is let through that could be, or hide, an XCLIENT: does this server take one from us?"""
        offered = self.memory.offers(self.now)
        if offered is None:
            self.waiting_line = line
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
                self._command(line)
                self.read_client()
        return self.done()

    def begin_xclient(self, result: RepairResult) -> bool:
        """XCLIENT ADDR=…, as Postfix documents it: its 220 is a new banner, after which EHLO has to be repeated."""
        offered = next((line[4:].upper().split() for line in result.after if line[4:12].upper() == b"XCLIENT "), [])
        if b"ADDR" not in offered or not self.xclient_address:
            return False
        address = self.xclient_address
        words = [b"XCLIENT", b"ADDR=" + (b"IPV6:" if ":" in address else b"") + address.encode("ascii")]
        if b"NAME" in offered:
            words.append(b"NAME=[UNAVAILABLE]")
        self.xclient_done = True
        self.late_possible = False
        self.owed.append(Owed(Reply.OTHER, self.now, private=True))
        self.to_server(b" ".join(words) + b"\r\n")
        return True

    def xclient_ended(self) -> None:
        """The reply to our XCLIENT: repeat the client's EHLO, whose reply is the one that is shown."""
        if self.last_code == 220:
            self._send(Reply.EHLO, self.ehlo_line)
        else:
            self.refuse("4.7.1", "the server refused XCLIENT", "refused")

    # -- turns -------------------------------------------------------------------------------------------------------

    def after_reply(self) -> None:
        """A reply is through: let go, drain, or go on with what was held behind it."""
        if self.phase is Phase.ENDED or self.server_unread:
            return
        if self.client_unread:
            if self.owed:
                self.let_server_go()
            return
        if self.draining and self._idle():
            self.drain_now()
        elif self.starttls_waits:
            self.starttls_due()
        elif len(self.client_lines) or self.client_closed:
            self.read_client()

    def _idle(self) -> bool:
        """Whether a line may be said to the client here: nothing is owed, nothing half said."""
        return not self.owed and not self.server_lines.pending and self.phase is Phase.COMMANDS and self.waiting_line is None

    def drain(self, now: float) -> list[Action]:
        """The service stops: end the session at the first place where a line may be said, if it has not let go."""
        self.now = now
        self.draining = True
        unseen = self.phase is Phase.CONNECTING or (self.phase is Phase.OPENING and not self.banner)
        if unseen or (self._idle() and not self.client_unread):
            self.drain_now()
        return self.done()

    def drain_now(self) -> None:
        """421: the proxy stops."""
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
        if not self.owed:
            self.refuse("4.4.2", "no command in time", "timeout", "client")
        elif self.owed[0].kind is Reply.BANNER and self.another_left:
            self.next_destination("no banner in time")
        elif self.owed[0].kind is Reply.BANNER:
            self.refuse("4.4.2", "no banner in time", "timeout", "server")
        else:
            self.refuse("4.4.2", "no reply in time", "timeout", "server")

    # -- STARTTLS ----------------------------------------------------------------------------------------------------

    def starttls_accepted(self, owed: Owed, lines: bytes) -> None:
        """Pass-through: forward the 220; the client's next byte is the TLS session's first."""
        if self.is_ours(owed):
            self.bridge_accepted(owed, lines)
            return
        self.to_client(lines)
        self.phase = Phase.HELLO
        self.out.append(StarttlsAnswered("accepted"))

    def starttls_refused(self, owed: Owed, lines: bytes) -> None:
        """Forward what the server said; what was held behind STARTTLS goes on."""
        if self.is_ours(owed):
            self.bridge_refused(owed, lines)
            return
        self.out.append(StarttlsAnswered("refused"))
        self.to_client(lines)

    def injection_found(self, event: str, detail: str) -> None:
        """Close both sides, with 421 in place of the 220 where that has not left."""
        bridge = self.policy.bridge
        if self.phase is Phase.HELLO or self.phase is Phase.SECURING:
            self.end("injection", "server", detail)
        elif bridge is not None and bridge.client == "starttls" and not self.inside_tls:
            self.bridge_injection(detail)
        else:
            self.refuse("4.7.0", detail, "injection", "server" if event.endswith("injection") else "client")
