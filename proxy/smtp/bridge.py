"""The part of a session that only bridge mode has: TLS on each side by itself, the server's first.

Order at STARTTLS: ask the server, take its 220, let the edge shake hands and judge its identity, and only then answer
220 to the client.  A client that was told 220 cannot be told anything else any more (some senders fall back to clear
only before it), so whatever goes wrong on the server's side is a 454 to the client.  What comes after a 454 depends on
why: where the server has no TLS to give and the operator does not require it, the mail goes on in clear over a fresh
connection; a failed handshake or identity never ends in clear.

Inside TLS nothing of before is left: RFC 3207 4.2 asks both sides to forget it, and the buffers are checked to be
empty, so that nothing which was said in clear can be taken for part of the protected dialogue.
"""

from __future__ import annotations

from abc import abstractmethod

from proxy.smtp.answers import Answers
from proxy.smtp.events import Action, ClientTls, DropServer, FreshConnection, ServerTls, StarttlsAnswered
from proxy.smtp.notices import no_tls
from proxy.smtp.repair import RepairResult
from proxy.smtp.state import Owed, Phase, Reply

READY = b"220 2.0.0 Ready to start TLS\r\n"


class Bridge(Answers):
    """Opening, securing and the 454; in pass-through only the opening is used."""

    __slots__ = ()

    @property
    def tls_missing(self) -> bool:
        """Whether TLS is required of this client and is not there yet."""
        bridge = self.policy.bridge
        return bridge is not None and bridge.required and bridge.client == "starttls" and not self.inside_tls

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
        self.banner = b""
        # Held back while the server's side is made ready first, or when the client has seen one already.
        private = self._secures_first or bool(self.greeted_line)
        self.owed.append(Owed(Reply.BANNER, self.now, private))
        if not self._secures_first and self.policy.bridge is None and len(self.client_lines):
            self.read_client()

    @property
    def _secures_first(self) -> bool:
        bridge = self.policy.bridge
        if bridge is None or bridge.client == "starttls":
            return False
        return bridge.server == "starttls" and not self.server_tls

    def banner_ended(self, owed: Owed) -> None:
        """Go on to commands, unless something has to be said to the server first."""
        self.phase = Phase.COMMANDS
        if not owed.private:
            return
        if self.last_code != 220:
            if self.greeted_line:
                self.refuse("4.4.2", "its banner was a refusal", "error", "server")
            else:
                self.show_banner()
            return
        if self.greeted_line:
            # A fresh connection after a 454: the client has been greeted, the server has to be.
            self.held.clear()
            line = self.greeted_line
            kind = Reply.EHLO if line[:1] not in b"Hh" else Reply.OTHER
        else:
            line = b"EHLO " + self.policy.ehlo_name + b"\r\n"
            kind = Reply.EHLO
            self.banner_lines = b"".join(self.held)
            self.held.clear()
        self.owed.append(Owed(kind, self.now, private=True))
        self.to_server(line)

    def show_banner(self) -> None:
        """What was held of the banner goes to the client."""
        lines = self.banner_lines or b"".join(self.held)
        self.banner_lines = b""
        self.held.clear()
        self.to_client(lines)

    def private_ehlo_ended(self, owed: Owed, result: RepairResult) -> None:
        """Our own EHLO was answered: ask for TLS if this is the opening, else go on where the client was."""
        if not self._secures_first:
            # A fresh connection may lead to another of the destinations, with a list of its own.
            if not result.refused:
                self.memory.learn_offers(result.offers_xclient, self.now)
            if result.offers_xclient and not self.client_trusted:
                self.refuse_stranger()
            else:
                self.after_reply()
        elif b"STARTTLS" in result.offered:
            self.owed.append(Owed(Reply.STARTTLS, self.now, private=True))
            self.to_server(b"STARTTLS\r\n")
        elif self.bridge_required:
            self.refuse("4.7.0", "the server does not offer STARTTLS", "tls-failed", "server")
        else:
            self.show_banner()
            self.after_reply()

    def private_ended(self, owed: Owed) -> None:
        """The reply to XCLIENT, or to the HELO that was repeated on a fresh connection."""
        self.held.clear()
        if self.xclient_done and not self.inside_fresh:
            self.xclient_ended()

    @property
    def bridge_required(self) -> bool:
        """Whether no mail may go in clear."""
        return self.policy.bridge is not None and self.policy.bridge.required

    # -- STARTTLS ----------------------------------------------------------------------------------------------------

    def bridge_starttls(self) -> bool:
        """The client asks for TLS.  True when that is not the server's business."""
        bridge = self.policy.bridge
        if bridge is None or self.inside_tls or bridge.server == "starttls" or bridge.client != "starttls":
            return False
        self.starttls_waits = True
        self.starttls_due()
        return True

    def starttls_due(self) -> None:
        """Answer the STARTTLS that is not the server's business, once the replies to earlier commands are through.

        The server's side has met its policy before its banner was shown.
        """
        if self.owed:
            return
        self.starttls_waits = False
        if len(self.client_lines):
            self.injected("starttls-pipelined", "bytes of the client behind STARTTLS, before the 220")
            self.read_client()
        elif len(self.server_lines):
            self.injected("starttls-response-injection", "bytes of the server that answer nothing, before the 220")
        else:
            self._accept_client()

    def is_ours(self, owed: Owed) -> bool:
        """Whether a STARTTLS is the proxy's to carry out; otherwise it is between the two peers, as in pass-through."""
        bridge = self.policy.bridge
        return bridge is not None and (owed.private or (bridge.client == "starttls" and not self.inside_tls))

    def bridge_accepted(self, owed: Owed, lines: bytes) -> None:
        """The server is ready for TLS: shake hands with it, and judge it, before the client hears of it."""
        self.phase = Phase.SECURING
        self.out.append(ServerTls())

    def bridge_refused(self, owed: Owed, lines: bytes) -> None:
        """The server will not have TLS: 454, and then clear only where the operator allows it."""
        said = lines.split(b"\r\n", 1)[0].decode("latin-1")
        self.out.append(StarttlsAnswered("refused"))
        cause = f"the server refused STARTTLS: {said}"
        if owed.private:
            if self.bridge_required:
                self.refuse("4.7.0", cause, "tls-failed", "server")
            else:
                self.show_banner()
            return
        self.to_client(no_tls(self.policy.route, cause, self.destination))
        if self.bridge_required or self.xclient_done:
            # (What XCLIENT told that server cannot be repeated unseen on another connection.)
            self._must_end(cause)
        else:
            self.phase = Phase.CONNECTING
            self.inside_fresh = True
            self.xclient_safe = self.client_trusted
            self.owed.clear()
            self.server_lines.take_pending()
            self.out.append(FreshConnection())

    def bridge_injection(self, detail: str) -> None:
        """454 as for any failure of the server's side; the next command ends the session."""
        self.to_client(no_tls(self.policy.route, detail, self.destination))
        self._must_end(detail)

    def _must_end(self, cause: str) -> None:
        """After a 454 that no mail in clear may follow: the server hears no more, and the next command is the last."""
        self.must_end = cause
        self.owed.clear()
        self.server_lines.take_pending()
        self.out.append(DropServer())

    def spoke_early(self, data: bytes) -> None:
        """Bytes of the server between our 220 and the end of the client's handshake: none may come up inside its TLS.

        Only the late lines of an EHLO reply are removed, as anywhere else.
        """
        lines = self.server_lines
        lines.feed(data)
        while self.late_possible and (line := lines.next()) is not None:
            if not self.is_late(line, None):
                break
        else:
            if not len(lines):
                return
        lines.take_pending()
        self.injected("starttls-response-injection", "bytes of the server before the client's TLS was ready")

    def _accept_client(self) -> None:
        self.to_client(READY)
        self.phase = Phase.SECURING
        self.out.append(StarttlsAnswered("accepted"))
        self.out.append(ClientTls())

    # -- handshakes --------------------------------------------------------------------------------------------------

    def server_tls_ready(self, now: float) -> list[Action]:
        """The server's side is in TLS and has met its policy."""
        self.now = now
        if self.phase is Phase.SECURING:
            self.server_tls = True
            bridge = self.policy.bridge
            assert bridge is not None
            if bridge.server == "implicit":
                self._await_banner()
            elif bridge.client != "starttls":
                self.phase = Phase.COMMANDS
                self.late_possible = False
                self.show_banner()
                self.client_since = now
                self.after_reply()
            elif len(self.client_lines):
                self.phase = Phase.COMMANDS
                self.client_since = now
                self.injected("starttls-pipelined", "bytes of the client behind STARTTLS, before the 220")
                self.read_client()
            else:
                self._accept_client()
        return self.done()

    def server_tls_failed(self, reason: str, now: float) -> list[Action]:
        """The handshake failed or the identity did not meet the policy; that connection is of no use any more."""
        self.now = now
        if self.phase is Phase.SECURING:
            self.out.append(StarttlsAnswered("failed"))
            bridge = self.policy.bridge
            assert bridge is not None
            if bridge.client == "starttls" and bridge.server == "starttls":
                self.to_client(no_tls(self.policy.route, reason, self.destination))
                self._must_end(reason)
                self.phase = Phase.COMMANDS
                self.client_since = now
                self.read_client()
            elif bridge.server == "implicit" and self.another_left:
                self.next_destination(reason)
            else:
                self.refuse("4.7.0", reason, "tls-failed", "server")
        return self.done()

    def client_tls_ready(self, now: float) -> list[Action]:
        """The client's side is in TLS: the dialogue begins afresh."""
        self.now = now
        if self.phase is Phase.SECURING:
            assert not len(self.client_lines)
            assert not len(self.server_lines)
            self.inside_tls = True
            self.phase = Phase.COMMANDS
            self.client_name = self.greeted_line = self.ehlo_line = b""
            self.xclient_safe = self.client_trusted
            self.late_possible = False
            self.last_code = 0
            self.client_since = now
        return self.done()

    def client_tls_failed(self, reason: str, now: float) -> list[Action]:
        """The client's handshake failed: nothing can be said to it any more."""
        self.now = now
        self.end("tls-failed", "client", reason)
        return self.done()

    # -- what the client's half does ---------------------------------------------------------------------------------

    @abstractmethod
    def read_client(self) -> None:
        """Send on every whole line that may go."""

    @abstractmethod
    def xclient_ended(self) -> None:
        """The reply to our XCLIENT has come."""
