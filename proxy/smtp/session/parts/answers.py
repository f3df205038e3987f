"""What the server says, line by line, as far as it concerns nobody but the client: the rest is told to the session.

Replies are told apart by what is owed, in order.  Only these are held back (`held`): an EHLO reply until it is whole,
the reply to STARTTLS, and replies to commands of the proxy's own.  All other lines are forwarded as they come, in as
many lines as the server likes; what is kept of them is the last code.  `read` goes on until something is for the
session to decide, and says what (`Said`); asked again it goes on behind that.

A reply that nobody asked for is forwarded, too; only a 220 is not, since the client would take it for the answer to
the STARTTLS that it sends next, and begin TLS with whoever put it there.

When a server goes on behind what was taken for the end of its EHLO reply, its lines would shift every reply behind
them, and a mail could be taken for accepted that was not.  What such a line is, is `late`'s to say; it is removed while
nothing but STARTTLS is outstanding, and ends the session otherwise.  In the modes `observe` and `off` nothing is
removed and nothing completed: what was held goes on as it came.

Limits: a line over `MAX_REPLY_LINE` is forwarded in pieces; a held reply has at most `MAX_HELD` octets.
"""

from __future__ import annotations

from typing import Final

from proxy.smtp.lines import LineBuffer
from proxy.smtp.reply.ehlo import is_blank_line
from proxy.smtp.reply.names import banner_host
from proxy.smtp.reply.replies import code_of, ends_behind_junk, ends_reply, is_refusal
from proxy.smtp.session.events import Found
from proxy.smtp.session.parts.held import MORE, OVER, OVER_BY_SILENCE, TOO_LONG, Held
from proxy.smtp.session.parts.late import LateLines, Verdict
from proxy.smtp.session.parts.server import Server
from proxy.smtp.session.parts.talk import DEADLINE_NEARER, Owed, Talk
from proxy.smtp.session.parts.trust import Trust
from proxy.smtp.session.policy import SessionPolicy
from proxy.smtp.session.terms import MAX_REPLY_LINE, Refusal, Reply


class Said:
    """What the session has to decide on.

    For `REPLY` the reply that is owed first is over, its lines are forwarded, or `held` where nobody may see them yet;
    for `EHLO` all of it is `held`; for `REFUSAL` and `NO_BANNER` the cause is in `refusal`.
    """

    NOTHING: Final = 0  # all that is there was read: the one that is false
    REPLY: Final = 1
    EHLO: Final = 2
    EHLO_BY_SILENCE: Final = 3
    EHLO_TOO_LONG: Final = 4
    FIRST_UNREAD: Final = 5  # the first line that the session does not read was forwarded
    NO_BANNER: Final = 6  # this server is of no use; the next one may be
    STRANGER: Final = 7  # XCLIENT or XFORWARD is offered to a client that must not see it
    REFUSAL: Final = 8


_OF_HELD: Final = {
    MORE: Said.NOTHING,
    OVER: Said.EHLO,
    OVER_BY_SILENCE: Said.EHLO_BY_SILENCE,
    TOO_LONG: Said.EHLO_TOO_LONG,
}
_HELD: Final = (Reply.EHLO, Reply.STARTTLS)  # replies that are shown when they are whole


class Answers:
    """The server's half of the dialogue."""

    __slots__ = (
        "_long_line", "_long_of", "_policy", "_server", "_talk", "_trust", "held", "late", "lines", "refusal",
    )  # fmt: skip

    def __init__(self, policy: SessionPolicy, talk: Talk, server: Server, trust: Trust) -> None:
        self._policy = policy
        self._talk = talk
        self._server = server
        self._trust = trust
        self.lines = LineBuffer(MAX_REPLY_LINE)
        self.held = Held()
        self.late = LateLines()
        self.refusal: Refusal | None = None
        self._long_line = b""  # the start of a reply line that is forwarded in pieces
        self._long_of: Owed | None = None  # and the reply that it is part of

    @property
    def inside_a_line(self) -> bool:
        """Whether half a line was forwarded, so that nothing else may be said to the client."""
        return self._long_line != b""

    @property
    def half_a_line(self) -> bool:
        """Whether the server has begun a line."""
        return self.lines.pending > 0 or self._long_line != b""

    def read(self) -> int:
        """Take every whole line that is there, then judge what is left at the end of the turn."""
        lines = self.lines
        owed = self._talk.owed
        if owed and owed[0].kind == Reply.EHLO and self._came_whole():
            return Said.EHLO
        while (line := lines.next()) is not None:
            said = self._line(line)
            if said:
                return said
        if lines.overlong:
            said = self._endless_line(lines.take_pending())
            if said:
                return said
        if self.held.is_ehlo:
            over = self.held.turn_over(self._talk.now, lines.pending > 0, self._policy, self._server.memory)
            if over == MORE:
                self._talk.tell(DEADLINE_NEARER)
            return _OF_HELD[over]
        return Said.NOTHING

    def _came_whole(self) -> bool:
        """What is there is an EHLO reply whose end leaves no doubt."""
        if self._long_line or self._server.memory.goes_on(self._talk.now):
            return False
        return self.held.keep_whole(self.lines, self._server.banner)

    def silence(self) -> int:
        """It was silent for as long as an EHLO reply whose end is in doubt is given."""
        return _OF_HELD[self.held.silence(self.lines.pending > 0)]

    def _line(self, line: bytes) -> int:
        if self._long_line:
            return self._long_line_ended(line)
        waiting = self._talk.owed
        if not waiting:
            return self._unasked(line)
        owed = waiting[0]
        kind = owed.kind
        if kind < Reply.STARTTLS:
            if kind == Reply.UNREPAIRED:
                return self._unrepaired(line)
            return _OF_HELD[self.held.add(line, self._server.banner)]
        code = code_of(line)
        if kind == Reply.BANNER:
            if not self._server.banner:
                said = self._before_banner(owed, line, code)
                if said >= 0:
                    return said
        elif self.late.possible:
            said = self._late(line, kind)
            if said >= 0:
                return said
            self.late.end()
        if owed.private or kind == Reply.STARTTLS:
            if not self.held.keep(line):
                return self._refused("a reply without an end")
        else:
            self._talk.to_client(line)
            if kind == Reply.UNREAD:
                return Said.FIRST_UNREAD
        if code and line[3:4] != b"-":  # `ends_reply`
            self._server.said(code, owed.private)
            return Said.REPLY
        return Said.NOTHING

    def _unrepaired(self, line: bytes) -> int:
        """A line of an EHLO reply that passes as it comes."""
        if self._trust.offered_to_stranger(line):
            return Said.STRANGER
        self._talk.to_client(line)
        if not ends_behind_junk(line):
            return Said.NOTHING
        self._server.said(code_of(line))
        return Said.REPLY

    def _refused(self, cause: str, outcome: str = "error", status: str = "4.4.2") -> int:
        self.refusal = Refusal(status, cause, outcome, "server")
        return Said.REFUSAL

    # -- banner ------------------------------------------------------------------------------------------------------

    def _before_banner(self, owed: Owed, line: bytes, code: int) -> int:
        """A line before the banner's first, or that first one.  -1 when it is to be forwarded or held."""
        server = self._server
        if code == 250 or (not code and self._talk.has_told("line-before-banner") and is_blank_line(line)):
            # "line-before-banner": an EHLO reply that answers nothing; the client would take it for the banner.
            mode = self._policy.repair.mode
            if mode != "off":
                self._talk.tell_once(Found("line-before-banner", (line,), mode == "repair"))
            if mode == "repair":
                return Said.NOTHING
            if not owed.private:
                server.is_shown()
                self._talk.to_client(line)
            elif not self.held.keep(line):
                return self._refused("a reply without an end")
            return Said.NOTHING
        if 400 <= code < 500 and server.may_be_left:
            self.refusal = Refusal("4.4.2", line.strip().decode("latin-1"), "error", "server")
            return Said.NO_BANNER
        if code:
            server.greeted(b"220 " + (banner_host(line) or b"ESMTP"))
        if not owed.private:
            server.is_shown()
        return -1

    # -- lines that nobody asked for, or that come too late ----------------------------------------------------------

    def _unasked(self, line: bytes) -> int:
        server = self._server
        if self.late.possible:
            said = self._late(line, None)
            if said >= 0:
                return said
            self.late.end()
        elif self._trust.offered_to_stranger(line):
            return Said.STRANGER
        code = code_of(line)
        if code:
            server.said(code)
        if code == 220:
            return self._unasked_220()
        self._talk.to_client(line)
        return Said.NOTHING

    def _unasked_220(self) -> int:
        return self._refused("the server sent a 220 that nobody asked for", "injection", "4.7.0")

    def _late(self, line: bytes, kind: int | None) -> int:
        """A line that may be a late one of the EHLO reply; `kind` is the reply that is owed.  -1 when it is none, or
        is to be used all the same."""
        trust = self._trust
        mode = self._policy.repair.mode
        if mode == "off":
            return Said.STRANGER if trust.offered_to_stranger(line) else -1
        server = self._server
        verdict = self.late.judge(line, kind, server.banner, server.memory, self._talk.now, trust.may_see)
        if verdict == Verdict.REPLY:
            return -1
        if verdict == Verdict.OFFER:
            return Said.STRANGER
        finding = "blank-line" if verdict == Verdict.BLANK else self.late.finding
        self._talk.tell_once(Found(finding, (line,), mode == "repair"))
        if mode != "repair":
            return -1
        if verdict == Verdict.LATE and kind is not None and kind != Reply.STARTTLS:
            return self._refused("its EHLO reply went on while another reply was due")
        return Said.NOTHING

    def read_late(self) -> int:
        """While the client begins TLS: remove late lines, and say -1 when anything else is there."""
        while self.late.possible and (line := self.lines.next()) is not None:
            said = self._late(line, None)
            if said:
                return said
        return -1 if self.lines.held else Said.NOTHING

    # -- lines without an end ----------------------------------------------------------------------------------------

    def _endless_line(self, piece: bytes) -> int:
        """A line passes the limit: what is there of it is dealt with as the line would be."""
        talk = self._talk
        if self._long_line:
            talk.to_client(piece)
            return Said.NOTHING
        owed = talk.owed[0] if talk.owed else None
        if owed is None:
            if code_of(piece) == 220:
                return self._unasked_220()
        elif owed.kind == Reply.EHLO:
            self.held.add_endless(piece)
            return Said.EHLO_TOO_LONG
        elif owed.kind == Reply.UNREAD:
            talk.to_client(piece)
            return Said.FIRST_UNREAD
        elif owed.kind == Reply.BANNER and not self._server.banner and code_of(piece) != 220:
            self.refusal = Refusal("4.4.2", "a line without an end in place of its banner", "error", "server")
            return Said.NO_BANNER
        elif owed.kind == Reply.STARTTLS or owed.private:
            return self._refused("a reply line without an end")
        kind = owed.kind if owed is not None else None
        if self.late.possible:
            said = self._late(piece, kind)
            if not said:
                return self._refused("its EHLO reply went on without an end")
            if said >= 0:
                return said
        if kind == Reply.UNREPAIRED and self._trust.offered_to_stranger(piece):
            return Said.STRANGER
        self.late.end()
        if kind == Reply.BANNER:
            if not self._server.banner:
                self._server.greeted(b"220 " + (banner_host(piece[:512]) or b"ESMTP"))
            self._server.is_shown()
        self._long_line = piece[:4]
        self._long_of = owed
        talk.to_client(piece)
        return Said.NOTHING

    def _long_line_ended(self, line: bytes) -> int:
        """The rest of a line that is forwarded in pieces, with its end; a command may have been sent meanwhile."""
        start, self._long_line = self._long_line, b""
        owed, self._long_of = self._long_of, None
        self._talk.to_client(line)
        if owed is None:
            self._server.said(code_of(start))
        elif ends_reply(start):
            self._server.said(code_of(start), owed.private)
            return Said.REPLY
        return Said.NOTHING

    # -- a reply that is too long ------------------------------------------------------------------------------------

    def passes_unrepaired(self, raw: bytes) -> int:
        """`reply-too-long`: what was held goes as it came, and so does what follows up to the first final line."""
        self.late.end()
        self._talk.to_client(raw)
        self._talk.first_passes_unrepaired()
        last = raw[raw.rfind(b"\n", 0, -1) + 1 :]
        if last[-1:] != b"\n":
            self._long_line = last[:4]
            self._long_of = self._talk.owed[0]
        elif ends_behind_junk(last):
            self._server.said(code_of(last))
            return Said.REPLY
        return Said.NOTHING

    # -- ends --------------------------------------------------------------------------------------------------------

    def cut_off(self) -> bytes:
        """Nothing follows what is held or half said: return what of it may be forwarded, as it came.

        A reply that had to be whole before it could be shown is dropped, never completed; but a refusal tells why.
        """
        rest = self.lines.take_pending()
        owed = self._talk.owed[0] if self._talk.owed else None
        if owed is None or not (owed.private or owed.kind in _HELD):
            return rest
        words = self.held.take() + rest
        if owed.private or (owed.kind == Reply.STARTTLS and self._policy.bridge is not None):
            return b""
        if owed.kind == Reply.EHLO and self._policy.repair.mode != "repair":
            return words
        return words if is_refusal(words) else b""

    def cut_off_behind(self) -> bytes:
        """The same for what stands behind an EHLO reply that is whole: half a line of it, which a repaired reply can't
        have."""
        rest = self.lines.take_pending()
        return b"" if self._policy.repair.mode == "repair" else rest

    def release(self) -> bytes:
        """Nothing is read any more: what is here is returned, and goes first."""
        self._talk.owe_nothing()
        return self.lines.take_pending()

    def forget(self) -> None:
        """The server that said it is given up."""
        self._talk.owe_nothing()
        self.lines.take_pending()
        self.held.take()
        self.late.end()
