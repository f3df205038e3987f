"""The server's half of a session: which reply answers which command, and what is done with its lines.

Replies are told apart by what is owed, in order (RFC 5321 4.2: exactly one reply a command).  Only these are held
back: an EHLO reply until it is whole (`waiting`), the reply to STARTTLS, since a 220 changes what every byte behind it
means, and replies to commands of the proxy's own, which nobody else asked for.  All other lines are forwarded as they
come, in as many lines as the server likes; what the session keeps of them is the last code.

A reply that nobody asked for is forwarded, too; only a 220 is not, since the client would take it for the answer to
the STARTTLS that it sends next, and begin TLS with whoever put it there.

Limits: a line over `MAX_REPLY_LINE` is forwarded in pieces; a held reply has at most `MAX_HELD` octets.
"""

from __future__ import annotations

from abc import abstractmethod

from proxy.smtp.reply.ehlo import is_blank_line
from proxy.smtp.reply.names import banner_host
from proxy.smtp.reply.replies import code_of, ends_behind_junk, ends_reply, is_refusal
from proxy.smtp.session.events import Injected, NextDestination, ReleaseServer, StarttlsAnswered
from proxy.smtp.session.parts.late import offers_trust
from proxy.smtp.session.state import MAX_HELD, MAX_REPLY_LINE, Owed, Phase, Reply
from proxy.smtp.session.waiting import EhloReplies

HELD = (Reply.EHLO, Reply.STARTTLS)  # replies that are shown when they are whole
_READS = (Phase.OPENING, Phase.COMMANDS)


class Answers(EhloReplies):
    """Reads what the server says."""

    __slots__ = ()

    def read_server(self) -> None:
        """Take every whole line that is there, then judge what is left at the end of the turn."""
        lines = self.server_lines
        if self.progress is None and not self.long_line and self._read_in_one():
            return
        while (line := lines.next()) is not None:
            self._line(line)
            if self.server_unread or self.phase not in _READS:
                return
        if lines.pending > MAX_REPLY_LINE:
            self._endless_line(lines.take_pending())
        if self.progress is not None:
            self.end_of_turn()

    def _read_in_one(self) -> bool:
        """The shortcuts: a line that came in one piece, and an EHLO reply that did and was read before."""
        raw = self.server_lines.take_in_one()
        if not raw:
            return False
        if self.owed and self.owed[0].kind is Reply.EHLO:
            if self.known_reply(raw):
                return True
        elif raw.find(b"\n") == len(raw) - 1:
            self._line(raw)
            return True
        self.server_lines.feed(raw)
        return False

    def _line(self, line: bytes) -> None:
        if self.long_line:
            self._long_line_ended(line)
            return
        owed = self.owed[0] if self.owed else None
        if owed is None:
            self._unasked(line)
            return
        kind = owed.kind
        if kind is Reply.EHLO:
            self.take_ehlo_line(line)
            return
        if kind is Reply.BANNER:
            if not self._banner_line(owed, line):
                return
        elif self.late_possible and self.is_late(line, kind):
            return
        elif owed.private or kind is Reply.STARTTLS:
            if not self._hold(line):
                return
        elif kind is Reply.UNREAD:
            self.to_client(line)
            self.release_server()
            return
        elif kind is Reply.UNREPAIRED and self._offers_to_stranger(line):
            return
        else:
            self.to_client(line)
        self.late_possible = False
        if ends_behind_junk(line) if kind is Reply.UNREPAIRED else ends_reply(line):
            self.reply_ended(owed, line)

    def _hold(self, line: bytes) -> bool:
        """Keep a line of a reply that is not shown as it comes."""
        self.held.append(line)
        self.held_size += len(line)
        if self.held_size > MAX_HELD:
            self.refuse("4.4.2", "a reply without an end", "error", "server")
            return False
        return True

    def reply_ended(self, owed: Owed, line: bytes) -> None:
        """The reply that was owed first is over; `line` is its last."""
        del self.owed[0]
        self.last_code = code_of(line)
        kind = owed.kind
        if kind is Reply.BANNER:
            for waiting in self.owed:
                waiting.at = self.now  # no server answers before its banner
            self.banner_ended(owed)
        elif kind is Reply.STARTTLS:
            self._starttls_ended(owed)
        elif owed.private:
            self.private_ended(owed)
        elif kind is Reply.UNREPAIRED:
            self.offers_read(False)
        elif kind is Reply.HELO:
            self.greeted_ok = 200 <= self.last_code < 300
        if self.last_code == 221 and not owed.private:
            self.completed = True
        self.client_since = self.now
        self.after_reply()

    # -- banner ------------------------------------------------------------------------------------------------------

    def _banner_line(self, owed: Owed, line: bytes) -> bool:
        """True when the line is one of the banner's and the session goes on with this server."""
        if not self.banner:
            code = code_of(line)
            blank = not code and is_blank_line(line)
            if code == 250 or (blank and self.told):
                # "line-before-banner": an EHLO reply that answers nothing; the client would take it for the banner.
                self._before_banner(owed, line)
                return False
            if 400 <= code < 500 and self.may_go_on_to_next:
                self.next_destination(line.strip().decode("latin-1"))
                return False
            if code:
                self.banner = b"220 " + (banner_host(line) or b"ESMTP")
        if owed.private:
            return self._hold(line)
        self.banner_shown = True
        self.to_client(line)
        return True

    def _before_banner(self, owed: Owed, line: bytes) -> None:
        mode = self.policy.repair.mode
        if mode != "off":
            self.found("line-before-banner", line, mode == "repair")
        if mode == "repair":
            return
        if owed.private:
            self._hold(line)
        else:
            self.banner_shown = True
            self.to_client(line)

    def no_banner(self, cause: str, outcome: str) -> None:
        """This server is of no use; the next one may be."""
        if self.may_go_on_to_next:
            self.next_destination(cause)
        else:
            self.refuse("4.4.2", cause, outcome, "server")

    def next_destination(self, reason: str) -> None:
        """Give this server up; nothing of it has been shown."""
        self.forget_server()
        self.out.append(NextDestination(reason))

    def forget_server(self) -> None:
        """Nothing is known any more of the server that was connected; another will be."""
        self.phase = Phase.CONNECTING
        self.owed.clear()
        self.server_lines.take_pending()
        self.forget_reply()
        self.banner = self.banner_lines = b""
        self.banner_shown = False
        self.server_tls = False
        self.late_possible = False
        self.last_code = 0

    # -- STARTTLS ----------------------------------------------------------------------------------------------------

    def _starttls_ended(self, owed: Owed) -> None:
        held = self.held
        lines = b"".join(held)
        # Clients go by the first code or by the last.
        accepted = self.last_code == 220 or code_of(held[0]) == 220
        self.forget_reply()
        if not accepted:
            self.starttls_refused(owed, lines)
        elif len(self.server_lines):
            self.injected("starttls-response-injection", "bytes of the server behind its 220 to STARTTLS")
        elif len(self.client_lines) and not owed.private:
            self.injected("starttls-pipelined", "bytes of the client behind STARTTLS, before the 220")
        else:
            self.starttls_accepted(owed, lines)

    def injected(self, event: str, detail: str) -> None:
        """Bytes where RFC 3207 allows none (CVE-2011-0411 and its mirror image): none is used, both sides closed."""
        self.out.append(Injected(event, detail))
        self.out.append(StarttlsAnswered("injection"))
        self.injection_found(event, detail)

    # -- lines that nobody asked for ---------------------------------------------------------------------------------

    def _unasked(self, line: bytes) -> None:
        if self.late_possible:
            if self.is_late(line, None):
                return
            self.late_possible = False
        elif self._offers_to_stranger(line):
            return
        code = code_of(line)
        if code:
            self.last_code = code
        if code == 220:
            self._unasked_220()
            return
        if code == 221:
            self.completed = True
        self.to_client(line)

    def _unasked_220(self) -> None:
        self.refuse("4.7.0", "the server sent a 220 that nobody asked for", "injection", "server")

    # -- lines without an end ----------------------------------------------------------------------------------------

    def _endless_line(self, piece: bytes) -> None:
        """A line passes the limit: what is there of it is dealt with as the line would be."""
        if self.long_line:
            self.to_client(piece)
            return
        owed = self.owed[0] if self.owed else None
        kind = owed.kind if owed is not None else None
        if kind is Reply.EHLO:
            self.endless_ehlo_line(piece)
            return
        if kind is Reply.UNREAD:
            self.to_client(piece)
            self.release_server()
            return
        if kind is Reply.BANNER and not self.banner and code_of(piece) != 220:
            self.no_banner("a line without an end in place of its banner", "error")
        elif kind is Reply.STARTTLS or (owed is not None and owed.private):
            self.refuse("4.4.2", "a reply line without an end", "error", "server")
        elif owed is None and code_of(piece) == 220:
            self._unasked_220()
        elif self.late_possible and self.is_late(piece, kind):
            self.refuse("4.4.2", "its EHLO reply went on without an end", "error", "server")
        elif kind is Reply.UNREPAIRED and self._offers_to_stranger(piece):
            pass
        else:
            self.late_possible = False
            if kind is Reply.BANNER:
                self.banner = self.banner or b"220 " + (banner_host(piece[:512]) or b"ESMTP")
                self.banner_shown = True
            self.long_line = piece[:4]
            self.long_of = owed
            self.to_client(piece)

    def _long_line_ended(self, line: bytes) -> None:
        """The rest of a line that is forwarded in pieces, with its end; a command may have been sent meanwhile."""
        start, self.long_line = self.long_line, b""
        owed, self.long_of = self.long_of, None
        self.to_client(line)
        if owed is None:
            self.last_code = code_of(start)
        elif ends_reply(start):
            self.reply_ended(owed, start)

    def _offers_to_stranger(self, line: bytes) -> bool:
        if self.client_trusted or self.xclient_done or not offers_trust(line):
            return False
        self.refuse_stranger()
        return True

    # -- ends --------------------------------------------------------------------------------------------------------

    def release_server(self) -> None:
        """Hand the server's direction over: what is here goes first, the rest is never read."""
        self.owed.clear()
        self.server_unread = True
        self.to_client_if_any(self.server_lines.take_pending())
        self.phase = Phase.RELEASED
        self.out.append(ReleaseServer(False))

    def server_lost(self, reset: bool) -> None:
        """Nothing more comes from the server, and its direction is still read."""
        outcome = "server-reset" if reset else "server-closed"
        rest = self._last_words()
        if self.phase is Phase.ENDED:
            return
        self.to_client_if_any(rest)
        if self.client_unread or self.long_line or (rest and rest[-1:] != b"\n"):
            # inside a line, or let go: nothing may be said any more; FIN for FIN, reset for reset
            self.end("completed" if self.completed else outcome, "server", reset_client=reset)
        elif self.finished and not self.owed:
            self.end("completed" if self.completed else "client-closed", "client")
        elif self.last_code in (221, 421):
            self.end("completed" if self.completed else outcome, "server")
        else:
            cause = "the server ended the connection" + (" by a reset" if reset else "")
            self.refuse("4.4.2", cause, outcome, "server")

    def _last_words(self) -> bytes:
        """Deliver an EHLO reply that was whole and only waited; return what else may be forwarded."""
        owed = self.owed[0] if self.owed else None
        progress = self.progress
        if owed is None or owed.private or progress is None or not progress.final_seen:
            return self.cut_off()
        rest = self.server_lines.take_pending()
        self.finish_ehlo()
        return b"" if self.policy.repair.mode == "repair" else rest

    def cut_off(self) -> bytes:
        """Nothing follows what is held or half said: return what of it may be forwarded, as it came.

        A reply that had to be whole before it could be shown is dropped, never completed; but a refusal tells why.
        """
        rest = self.server_lines.take_pending()
        owed = self.owed[0] if self.owed else None
        if owed is None or not (owed.private or owed.kind in HELD):
            return rest
        words = b"".join(self.held) + rest
        self.forget_reply()
        if owed.private or (owed.kind is Reply.STARTTLS and self.policy.bridge is not None):
            return b""
        if owed.kind is Reply.EHLO and self.policy.repair.mode != "repair":
            return words
        return words if is_refusal(words) else b""

    def reply_late(self) -> None:
        """The server does not end its reply in time: 421, behind a refusal that it began."""
        cause = "no reply in time"
        words = self.cut_off() if self.owed[0].kind in HELD else b""
        if is_refusal(words):
            self.to_client(words)
            if words[-1:] != b"\n":
                self.end("timeout", "server", cause)  # inside a line nothing can be said
        self.refuse("4.4.2", cause, "timeout", "server")

    def to_client_if_any(self, data: bytes) -> None:
        """Forward what came, if anything did."""
        if data:
            self.to_client(data)

    # -- what the other parts do -------------------------------------------------------------------------------------

    @abstractmethod
    def banner_ended(self, owed: Owed) -> None:
        """The banner is over; `banner` is its first line."""

    @abstractmethod
    def offers_read(self, offered: bool) -> None:
        """A whole EHLO reply was read, and did or did not offer XCLIENT or XFORWARD."""

    @abstractmethod
    def private_ended(self, owed: Owed) -> None:
        """The reply to a command of the proxy's own is over; its lines are in `held`."""

    @abstractmethod
    def starttls_accepted(self, owed: Owed, lines: bytes) -> None:
        """The server said 220 to STARTTLS, and nothing behind it."""

    @abstractmethod
    def starttls_refused(self, owed: Owed, lines: bytes) -> None:
        """The server said anything else to STARTTLS."""

    @abstractmethod
    def injection_found(self, event: str, detail: str) -> None:
        """End it, or say 454 where that is the rule."""
