"""What only bridge mode has: TLS on each side by itself, the server's first.  A session of pass-through has none.

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
from proxy.smtp.session.events import ClientTls, ServerTls, StarttlsAnswered
from proxy.smtp.session.parts.client import Client
from proxy.smtp.session.parts.server import Server
from proxy.smtp.session.parts.talk import Talk
from proxy.smtp.session.policy import BridgePolicy, SessionPolicy
from proxy.smtp.session.terms import Phase, Refusal, Reply

READY: Final = b"220 2.0.0 Ready to start TLS\r\n"
REFUSED_BANNER: Final = "its banner was a refusal"


class Bridge:
    """How far both sides are: opened, or in TLS."""

    __slots__ = (
        "_banner", "_client", "_policy", "_required", "_server", "_sides", "_talk", "answers_starttls",
        "asks_starttls", "reopens_tls", "tls_missing",
    )  # fmt: skip

    def __init__(self, policy: SessionPolicy, sides: BridgePolicy, talk: Talk, client: Client, server: Server) -> None:
        self._policy = policy
        self._sides = sides
        self._talk = talk
        self._client = client
        self._server = server
        self._required = sides.required  # no mail may go in clear
        # The client's STARTTLS brings it TLS with the proxy.  Otherwise it is between the two peers: inside TLS, and
        # where the operator wants no TLS with the client.
        self.answers_starttls = sides.client == "starttls"
        self.tls_missing = sides.required and self.answers_starttls  # required of this client, and not there yet
        self.asks_starttls = sides.server == "starttls"  # the server's side begins so
        self.reopens_tls = False  # a fresh connection is to be inside TLS, as the one before was
        self._banner = b""  # the banner's lines, while the server's side is made ready first
        if sides.client == "implicit":
            client.in_tls()

    def starttls_shown(self) -> tuple[bool, bool]:
        """What becomes of STARTTLS in an EHLO reply: whether the server's is hidden, whether the proxy offers it."""
        hidden = self._client.tls or self._sides.client != "starttls"
        return hidden, not hidden and not self.asks_starttls

    # -- opening -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """The server is connected: await its banner, in TLS if it is that kind of server.

        It is held back while the server's side is made ready first, or when the client has seen one already.
        """
        if self._sides.server == "implicit":
            self.secure_server()
        else:
            self._talk.await_banner(self._server.fresh or (self.asks_starttls and self._sides.client != "starttls"))

    def banner_held(self, lines: bytes) -> Refusal | None:
        """A banner is over that the client has not seen, since the server's side is made ready first."""
        if self._server.last_code == 220:
            self._banner = lines
            self._talk.ask(Reply.EHLO, b"EHLO " + self._policy.ehlo_name + b"\r\n", True)
        elif self._server.fresh:
            return Refusal("4.4.2", REFUSED_BANNER, "error", "server")
        else:
            self._show_banner(lines)
            if self._required:
                cause = f"the server's side could not be made ready: {REFUSED_BANNER}"
                return Refusal("4.7.0", cause, "server-closed", "server", Refusal.AT_NEXT)
        return None

    def offers_read(self, result: RepairResult) -> Refusal | None:
        """The proxy's own EHLO was answered while the server's side is made ready: ask for TLS."""
        added = any(line.strip().upper() == b"STARTTLS" for line in self._policy.repair.add)
        if b"STARTTLS" in result.offered or added:
            self._talk.ask(Reply.STARTTLS, b"STARTTLS\r\n", True)
        elif self._required or self._server.fresh:
            return Refusal("4.7.0", "the server does not offer STARTTLS", "tls-failed", "server")
        else:
            self._show_banner(self._banner)
        return None

    def _show_banner(self, lines: bytes) -> None:
        self._banner = b""
        self._server.is_shown()
        self._talk.to_client(lines)

    # -- STARTTLS ----------------------------------------------------------------------------------------------------

    def secure_server(self) -> None:
        """The server is ready for TLS: shake hands with it, and judge it, before the client hears of it."""
        self._talk.enter(Phase.SECURING_SERVER)
        self._talk.tell(ServerTls())

    def accept_client(self) -> None:
        """The server's side is as it has to be: 220 to the client."""
        self._talk.to_client(READY)
        self._talk.enter(Phase.SECURING_CLIENT)
        self._talk.tell(StarttlsAnswered("accepted"))
        self._talk.tell(ClientTls())

    def starttls_refused(self, cause: str, private: bool) -> Refusal | None:
        """The server will not have TLS: clear only where the operator allows it."""
        if not private:
            return Refusal("4.7.0", cause, "tls-failed", when=Refusal.BEHIND_454) if self._required else None
        if self._required or self._server.fresh:
            return Refusal("4.7.0", cause, "tls-failed", "server")
        self._show_banner(self._banner)
        return None

    def open_afresh(self) -> None:
        """A fresh connection is made, in place of this one."""
        self.reopens_tls = self._server.tls and self.asks_starttls
        self._banner = b""

    # -- handshakes --------------------------------------------------------------------------------------------------

    def server_ready(self) -> bool:
        """The server's side is in TLS and has met its policy; where the client has asked for it, it is next.

        True when it is a fresh connection, on which the client's greeting is due.
        """
        self._server.in_tls()
        if not self.asks_starttls:
            self._talk.await_banner(self._server.fresh)
        elif self._server.fresh:
            self.reopens_tls = False
            self._talk.enter(Phase.COMMANDS)
            return True
        elif self._sides.client != "starttls":
            self._talk.enter(Phase.COMMANDS)
            self._show_banner(self._banner)
        return False

    def server_failed(self, reason: str) -> Refusal:
        """The handshake failed or the identity did not meet the policy; that connection is of no use any more."""
        self._talk.tell(StarttlsAnswered("failed"))
        if self.answers_starttls and self.asks_starttls and not self._server.fresh:
            return Refusal("4.7.0", reason, "tls-failed", when=Refusal.BEHIND_454)
        return Refusal("4.7.0", reason, "tls-failed", "server")

    def client_ready(self) -> None:
        """The client's side is in TLS: the dialogue begins afresh."""
        self.answers_starttls = self.tls_missing = False
        self._client.in_tls()
        self._talk.enter(Phase.COMMANDS)
