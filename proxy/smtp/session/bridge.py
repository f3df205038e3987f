"""The part of a session that only bridge mode has: TLS on each side by itself, the server's first.

Order at STARTTLS: ask the server, take its 220, let the edge shake hands and judge its identity, and only then answer
220 to the client.  A client that was told 220 cannot be told anything else any more (some senders fall back to clear
only before it), so whatever goes wrong on the server's side is a 454 to the client.  What comes after a 454 depends on
why: where the server has no TLS to give and the operator does not require it, the mail goes on in clear over a fresh
connection; a failed handshake or identity, and injected bytes, never end in clear: the next command is the last.

Where the server's side has TLS without STARTTLS, or none, the proxy answers STARTTLS by itself, in its turn.  Where
the client's side has no STARTTLS, the server's is made ready before the client sees a banner.

Inside TLS nothing of before is left: RFC 3207 4.2 asks both sides to forget it, and what came while a handshake was
under way is never read as a line, so that nothing which was said in clear can be taken for part of the protected
dialogue.
"""

from __future__ import annotations

from typing import Final

from proxy.smtp.reply.repair import RepairResult
from proxy.smtp.session.commands import verb_of
from proxy.smtp.session.events import Action, ClientTls, DropServer, FreshConnection, ServerTls, StarttlsAnswered
from proxy.smtp.session.notices import no_tls
from proxy.smtp.session.state import Owed, Phase, Reply
from proxy.smtp.session.trust import Trust

READY: Final = b"220 2.0.0 Ready to start TLS\r\n"
BEHIND_STARTTLS: Final = "bytes of the client behind STARTTLS, before the 220"


class Bridge(Trust):
    """Opening, securing and the 454; in pass-through only the opening is used."""

    __slots__ = ()

    @property
    def tls_missing(self) -> bool:
        """Whether TLS is required of this client and is not there yet."""
        bridge = self.policy.bridge
        return bridge is not None and bridge.required and bridge.client == "starttls" and not self.inside_tls

    @property
    def tls_required(self) -> bool:
        """Whether no mail may go in clear."""
        return self.policy.bridge is not None and self.policy.bridge.required

    @property
    def secures_first(self) -> bool:
        """Whether the server's side is made ready before the client hears anything."""
        bridge = self.policy.bridge
        return bridge is not None and bridge.client != "starttls" and bridge.server == "starttls"

    # -- opening -----------------------------------------------------------------------------------------------------

    def open_server(self) -> None:
        """The server is connected: await its banner, in TLS if it is that kind of server."""
        bridge = self.policy.bridge
        if bridge is not None:
            self.inside_tls = self.inside_tls or bridge.client == "implicit"
            if bridge.server == "implicit":
                self.phase = Phase.SECURING
                self.out.append(ServerTls())
                return
        self._await_banner()

    def _await_banner(self) -> None:
        self.phase = Phase.OPENING
        # Held back while the server's side is made ready first, or when the client has seen one already.
        self.owed.append(Owed(Reply.BANNER, self.now, private=self.secures_first or self.reopening))
        if len(self.client_lines):
            self.read_client()

    def banner_ended(self, owed: Owed) -> None:
        """Go on to commands, unless something has to be said to the server first."""
        self.phase = Phase.COMMANDS
        if not owed.private:
            return
        lines = b"".join(self.held)
        self.forget_reply()
        if self.reopening and not self.reopen_tls:
            self._greet_again()
        elif self.last_code == 220:
            self.banner_lines = lines
            self._ask_privately(Reply.EHLO, b"EHLO " + self.policy.ehlo_name + b"\r\n")
        else:
            if self.reopening:
                self.refuse("4.4.2", "its banner was a refusal", "error", "server")
                return
            self._show_banner(lines)
            if self.tls_required:
                self._end_at_next("the server's side could not be made ready: its banner was a refusal", "refused")

    def _greet_again(self) -> None:
        """A fresh connection after a 454: the client has seen a banner, the server has not heard the client."""
        line = self.greeted_line
        if self.last_code != 220:
            self.refuse("4.4.2", "its banner was a refusal", "error", "server")
        elif not line:
            self.reopening = False
        else:
            self._ask_privately(Reply.HELO if verb_of(line) == b"HELO" else Reply.EHLO, line)

    def _ask_privately(self, kind: Reply, line: bytes) -> None:
        self.owed.append(Owed(kind, self.now, private=True))
        self.to_server(line)

    def _show_banner(self, lines: bytes) -> None:
        self.banner_lines = b""
        self.banner_shown = True
        self.to_client(lines)

    def private_ehlo_ended(self, result: RepairResult) -> None:
        """Our own EHLO was answered: ask for TLS if this is the opening, else go on where the client was."""
        if self.asking:
            self.question_answered(result)
        elif self.reopening and not self.reopen_tls:
            # The fresh connection may have led to another server, with a list of its own.
            if result.refused:
                self.refuse("4.4.2", "it refused the EHLO that was repeated", "error", "server")
            elif not self.begin_xclient(result) and not self.stranger_offered(result):
                self.reopening = False
                self.after_reply()
        elif b"STARTTLS" in result.offered or self._starttls_added:
            self._ask_privately(Reply.STARTTLS, b"STARTTLS\r\n")
        elif self.tls_required or self.reopening:
            self.refuse("4.7.0", "the server does not offer STARTTLS", "tls-failed", "server")
        else:
            self._show_banner(self.banner_lines)
            self.after_reply()

    @property
    def _starttls_added(self) -> bool:
        """Whether the operator says that the server has STARTTLS, whatever it shows."""
        return any(line.strip().upper() == b"STARTTLS" for line in self.policy.repair.add)

    def private_ended(self, owed: Owed) -> None:
        """The reply to XCLIENT, or to the HELO that was repeated on a fresh connection."""
        self.forget_reply()
        if owed.kind is Reply.XCLIENT:
            self.xclient_ended()
        elif self.asking:
            self.question_over(owed.kind)
        elif self.last_code >= 400:
            self.refuse("4.4.2", "it refused the HELO that was repeated", "error", "server")
        else:
            self.reopening = False

    # -- STARTTLS ----------------------------------------------------------------------------------------------------

    def starttls_is_ours(self) -> bool:
        """Whether the client's STARTTLS brings it TLS with the proxy.

        Otherwise it is between the two peers, as in pass-through: inside TLS, and where the operator wants no TLS with
        the client.
        """
        bridge = self.policy.bridge
        return bridge is not None and bridge.client == "starttls" and not self.inside_tls

    @property
    def tls_is_asked_for(self) -> bool:
        """Whether the server's side of a STARTTLS that is ours begins with STARTTLS, too."""
        return self.policy.bridge is not None and self.policy.bridge.server == "starttls"

    def starttls_due(self) -> None:
        """Answer the STARTTLS that is not the server's business, once the replies to earlier commands are through.

        The server's side has met its policy before its banner was shown.
        """
        self.starttls_waits = bool(self.owed)
        if self.starttls_waits:
            return
        if len(self.client_lines):
            self.injected("starttls-pipelined", BEHIND_STARTTLS)
        elif len(self.server_lines):
            self.injected("starttls-response-injection", "bytes of the server that answer nothing, before the 220")
        else:
            self._accept_client()

    def begin_server_tls(self) -> None:
        """The server is ready for TLS: shake hands with it, and judge it, before the client hears of it."""
        self.phase = Phase.SECURING
        self.out.append(ServerTls())

    def bridge_refused(self, owed: Owed, lines: bytes) -> None:
        """The server will not have TLS: 454, and then clear only where the operator allows it."""
        said = lines.split(b"\n", 1)[0].strip().decode("latin-1")
        cause = f"the server refused STARTTLS: {said}"
        self.out.append(StarttlsAnswered("refused"))
        if owed.private:
            if self.tls_required or self.reopening:
                self.refuse("4.7.0", cause, "tls-failed", "server")
            else:
                self._show_banner(self.banner_lines)
            return
        self._say_454(cause)
        if self.tls_required:
            self._end_at_next(cause, "tls-failed")
        elif not self.draining:
            self.open_afresh()  # in clear: the server has been told of TLS on this one

    def open_afresh(self) -> None:
        """Go on over a fresh connection, as if the client had said there what it has said here."""
        self.reopen_tls = self.server_tls and self.tls_is_asked_for
        self.forget_server()
        self.reopening = True
        self.xclient_done = False
        self.xclient_safe = self.client_trusted
        self.out.append(FreshConnection())

    def injected_before_tls(self, detail: str) -> None:
        """454 as for any failure of the server's side: the client has asked for TLS, and was not answered yet."""
        self._say_454(detail)
        self._end_at_next(detail, "injection")

    def _say_454(self, cause: str) -> None:
        self.to_client(no_tls(self.policy.route, cause, self.destination, self.session_id))

    def _end_at_next(self, cause: str, outcome: str) -> None:
        """No mail in clear may follow: the server hears no more, and the client's next command is its last."""
        self.must_end = cause
        self.must_end_as = outcome
        self.phase = Phase.COMMANDS
        self.owed.clear()
        self.server_lines.take_pending()
        self.late_possible = False
        self.client_since = self.now
        self.out.append(DropServer())

    def _accept_client(self) -> None:
        self.to_client(READY)
        self.phase = Phase.SECURING
        self.securing_client = True
        self.out.append(StarttlsAnswered("accepted"))
        self.out.append(ClientTls())

    # -- handshakes --------------------------------------------------------------------------------------------------

    def spoke_early(self, data: bytes) -> None:
        """Bytes of the server while a handshake is under way: none may come up inside TLS.

        Only the late lines of an EHLO reply are removed, as anywhere else.
        """
        lines = self.server_lines
        lines.feed(data)
        while self.late_possible and self.securing_client and (line := lines.next()) is not None:
            if not self.is_late(line, None):
                break
        else:
            if not len(lines) or self.phase is Phase.ENDED:
                return
        lines.take_pending()
        self.injected("starttls-response-injection", "bytes of the server while TLS was being set up")
        self.read_client()

    def server_tls_ready(self, now: float) -> list[Action]:
        """The server's side is in TLS and has met its policy."""
        self.now = now
        bridge = self.policy.bridge
        if bridge is not None and self.phase is Phase.SECURING and not self.securing_client:
            self.server_tls = True
            self.late_possible = False
            if bridge.server == "implicit":
                self._await_banner()
            elif self.reopening:
                self.reopen_tls = False
                self.phase = Phase.COMMANDS
                self._greet_again()
                self.after_reply()
            elif bridge.client != "starttls":
                self.phase = Phase.COMMANDS
                self._show_banner(self.banner_lines)
                self.client_since = now
                self.after_reply()
            elif len(self.client_lines):
                self.injected("starttls-pipelined", BEHIND_STARTTLS)
                self.read_client()
            else:
                self._accept_client()
        return self.done()

    def server_tls_failed(self, reason: str, now: float) -> list[Action]:
        """The handshake failed or the identity did not meet the policy; that connection is of no use any more."""
        self.now = now
        bridge = self.policy.bridge
        if bridge is not None and self.phase is Phase.SECURING and not self.securing_client:
            self.out.append(StarttlsAnswered("failed"))
            if bridge.client == "starttls" and bridge.server == "starttls" and not self.reopening:
                self._say_454(reason)
                self._end_at_next(reason, "tls-failed")
                self.read_client()
            elif bridge.server == "implicit" and self.may_go_on_to_next:
                self.next_destination(reason)
            else:
                self.refuse("4.7.0", reason, "tls-failed", "server")
        return self.done()

    def client_tls_ready(self, now: float) -> list[Action]:
        """The client's side is in TLS: the dialogue begins afresh."""
        self.now = now
        if self.securing_client and self.phase is Phase.SECURING:
            self.securing_client = False
            self.inside_tls = True
            self.phase = Phase.COMMANDS
            self.client_name = self.greeted_line = self.ehlo_line = b""
            self.greeted_ok = False
            self.xclient_safe = self.client_trusted or self.xclient_done
            self.late_possible = False
            self.last_code = 0
            self.client_since = now
            self.after_reply()
        return self.done()

    def client_tls_failed(self, reason: str, now: float) -> list[Action]:
        """The client's handshake failed: nothing can be said to it any more."""
        self.now = now
        self.end("tls-failed", "client", reason)
        return self.done()
