"""What only bridge mode has: TLS on each side by itself, the server's first.  Of pass-through, the fresh connection.

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

from proxy.smtp.reply.repair import EhloContext, RepairResult
from proxy.smtp.session.commands import verb_of
from proxy.smtp.session.events import ClientTls, DropServer, FreshConnection, ServerTls, StarttlsAnswered
from proxy.smtp.session.parts.client import Client
from proxy.smtp.session.parts.server import Server
from proxy.smtp.session.parts.talk import Talk
from proxy.smtp.session.policy import SessionPolicy
from proxy.smtp.session.terms import Phase, Refusal, Reply

READY: Final = b"220 2.0.0 Ready to start TLS\r\n"
REFUSED_BANNER: Final = "its banner was a refusal"


class Bridge:
    """How far both sides are: opened, in TLS, greeted on a fresh connection, or about to end."""

    __slots__ = (
        "_banner", "_client", "_policy", "_reopens_tls", "_server", "_sides", "_talk", "answers_starttls",
        "asks_starttls", "inside_tls", "must_end", "reopening", "required", "securing_client", "starttls_waits",
        "tls_missing",
    )  # fmt: skip

    def __init__(self, policy: SessionPolicy, talk: Talk, client: Client, server: Server) -> None:
        self._policy = policy
        sides = self._sides = policy.bridge  # None in pass-through
        self.required = sides is not None and sides.required  # no mail may go in clear
        # The client's STARTTLS brings it TLS with the proxy.  Otherwise it is between the two peers: in pass-through,
        # inside TLS, and where the operator wants no TLS with the client.
        self.answers_starttls = sides is not None and sides.client == "starttls"
        self.tls_missing = self.required and self.answers_starttls  # required of this client, and not there yet
        self.asks_starttls = sides is not None and sides.server == "starttls"  # the server's side begins so
        self._talk = talk
        self._client = client
        self._server = server
        self.inside_tls = False  # what the client says comes out of TLS
        self.securing_client = False  # in SECURING: it is the client's handshake that is under way
        self.starttls_waits = False  # a STARTTLS that the proxy answers waits for the replies that are owed
        self._banner = b""  # the banner's lines, while the server's side is made ready first
        self.reopening = False  # this connection was made anew, and the server has to be greeted
        self._reopens_tls = False  # ... inside TLS, as it was before
        self.must_end: Refusal | None = None  # the next command ends the session, for this cause

    # -- what the policy says ----------------------------------------------------------------------------------------

    @property
    def _secures_first(self) -> bool:
        """Whether the server's side is made ready before the client hears anything."""
        sides = self._sides
        return sides is not None and sides.client != "starttls" and sides.server == "starttls"

    def context(self, may_see: bool) -> EhloContext:
        """What is known of the session that an EHLO reply is part of; `may_see`: the client may see XCLIENT."""
        sides = self._sides
        server = self._server
        hidden = offered = False
        if sides is not None:
            hidden = self.inside_tls or sides.client != "starttls"
            offered = not hidden and sides.server != "starttls"
        return EhloContext(
            server.banner, server.name, server.address, self._client.name, server.tls and not offered, hidden, offered,
            may_see,
        )  # fmt: skip

    # -- opening -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """The server is connected: await its banner, in TLS if it is that kind of server."""
        sides = self._sides
        if sides is not None:
            self.inside_tls = self.inside_tls or sides.client == "implicit"
            if sides.server == "implicit":
                self.secure_server()
                return
        self._await_banner()

    def _await_banner(self) -> None:
        self._talk.enter(Phase.OPENING)
        # Held back while the server's side is made ready first, or when the client has seen one already.
        self._talk.owed.add(Reply.BANNER, self._talk.now, self._secures_first or self.reopening)

    def banner_held(self, lines: bytes) -> Refusal | None:
        """The banner that the client has not seen is over: something has to be said to the server first."""
        if self.reopening and not self._reopens_tls:
            return self._greet_again()
        if self._server.last_code == 220:
            self._banner = lines
            self._talk.ask(Reply.EHLO, b"EHLO " + self._policy.ehlo_name + b"\r\n", True)
        elif self.reopening:
            return Refusal("4.4.2", REFUSED_BANNER, "error", "server")
        else:
            self._show_banner(lines)
            if self.required:
                cause = f"the server's side could not be made ready: {REFUSED_BANNER}"
                return Refusal("4.7.0", cause, "server-closed", "server", Refusal.AT_NEXT)
        return None

    def _greet_again(self) -> Refusal | None:
        """A fresh connection: the client has seen a banner, the server has not heard the client."""
        line = self._client.greeting
        if self._server.last_code != 220:
            return Refusal("4.4.2", REFUSED_BANNER, "error", "server")
        if not line:
            self.reopening = False
        else:
            self._talk.ask(Reply.HELO if verb_of(line) == b"HELO" else Reply.EHLO, line, True)
        return None

    @property
    def repeats_greeting(self) -> bool:
        """Whether the EHLO of the proxy's own is the client's, said once more."""
        return self.reopening and not self._reopens_tls

    def greeted_again(self) -> None:
        """The server is where it was on the connection before."""
        self.reopening = False

    def offers_read(self, result: RepairResult) -> Refusal | None:
        """The proxy's own EHLO was answered while the server's side is made ready: ask for TLS."""
        added = any(line.strip().upper() == b"STARTTLS" for line in self._policy.repair.add)
        if b"STARTTLS" in result.offered or added:
            self._talk.ask(Reply.STARTTLS, b"STARTTLS\r\n", True)
        elif self.required or self.reopening:
            return Refusal("4.7.0", "the server does not offer STARTTLS", "tls-failed", "server")
        else:
            self._show_banner(self._banner)
        return None

    def _show_banner(self, lines: bytes) -> None:
        self._banner = b""
        self._server.is_shown()
        self._talk.to_client(lines)

    # -- STARTTLS ----------------------------------------------------------------------------------------------------

    def waits_to_answer(self) -> bool:
        """The proxy is to answer a STARTTLS by itself; True while replies to earlier commands are owed."""
        self.starttls_waits = len(self._talk.owed) > 0
        return self.starttls_waits

    def secure_server(self) -> None:
        """The server is ready for TLS: shake hands with it, and judge it, before the client hears of it."""
        self._talk.enter(Phase.SECURING)
        self._talk.tell(ServerTls())

    def accept_client(self) -> None:
        """The server's side is as it has to be: 220 to the client."""
        self._talk.to_client(READY)
        self._talk.enter(Phase.SECURING)
        self.securing_client = True
        self._talk.tell(StarttlsAnswered("accepted"))
        self._talk.tell(ClientTls())

    def starttls_refused(self, cause: str, private: bool) -> Refusal | None:
        """The server will not have TLS: clear only where the operator allows it."""
        if not private:
            return Refusal("4.7.0", cause, "tls-failed", when=Refusal.BEHIND_454) if self.required else None
        if self.required or self.reopening:
            return Refusal("4.7.0", cause, "tls-failed", "server")
        self._show_banner(self._banner)
        return None

    def end_at_next(self, refusal: Refusal) -> None:
        """No mail in clear may follow: the server hears no more, and the client's next command is its last."""
        self.must_end = refusal
        self._talk.enter(Phase.COMMANDS)
        self._talk.tell(DropServer())

    def open_afresh(self) -> None:
        """Go on over a fresh connection, as if the client had said there what it has said here."""
        self._reopens_tls = self._server.tls and self.asks_starttls
        self._banner = b""
        self.reopening = True
        self._talk.tell(FreshConnection())

    # -- handshakes --------------------------------------------------------------------------------------------------

    @property
    def securing_server(self) -> bool:
        """Whether it is the server's handshake that is under way."""
        return self._talk.phase == Phase.SECURING and not self.securing_client and self._sides is not None

    def server_ready(self) -> Refusal | None:
        """The server's side is in TLS and has met its policy; the client is next where it has asked for it."""
        sides = self._sides
        assert sides is not None
        self._server.in_tls()
        if sides.server == "implicit":
            self._await_banner()
        elif self.reopening:
            self._reopens_tls = False
            self._talk.enter(Phase.COMMANDS)
            return self._greet_again()
        elif sides.client != "starttls":
            self._talk.enter(Phase.COMMANDS)
            self._show_banner(self._banner)
        return None

    @property
    def clients_turn(self) -> bool:
        """Whether the client waits for its 220, the server's side being ready."""
        return self._talk.phase == Phase.SECURING and self.answers_starttls

    def server_failed(self, reason: str) -> Refusal:
        """The handshake failed or the identity did not meet the policy; that connection is of no use any more."""
        self._talk.tell(StarttlsAnswered("failed"))
        if self.answers_starttls and self.asks_starttls and not self.reopening:
            return Refusal("4.7.0", reason, "tls-failed", when=Refusal.BEHIND_454)
        return Refusal("4.7.0", reason, "tls-failed", "server")

    def client_ready(self) -> None:
        """The client's side is in TLS: the dialogue begins afresh."""
        self.securing_client = False
        self.inside_tls = True
        self.answers_starttls = self.tls_missing = False
        self._talk.enter(Phase.COMMANDS)
