"""The server's half of a session: which reply answers which command, and what is done with its lines.

Replies are told apart by what is owed, in order (RFC 5321 4.2: exactly one reply a command).  Only two kinds are held
back: an EHLO reply until it is whole, since it may need repair, and the reply to STARTTLS, since a 220 changes what
every byte behind it means.  All other lines are forwarded as they come.

Where an EHLO reply ends is a judgement when the server does not say it properly.  RFC 5321 4.2.1 ends a reply at the
first line with a space behind the code; servers were seen that put it on every line, on the wrong line, or on none.
So the end is: a final line, and nothing behind it in the same turn; for a reply of one line, or one without a greeting
so far, after `EHLO_WAIT` of silence; and without any final line, after `unterminated_after` of silence.  When a server
then goes on all the same, its lines would shift every reply behind them, and a mail could be taken for accepted that
was not.  They are removed while nothing but STARTTLS is outstanding, and end the session otherwise.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache
from typing import Final

from proxy.smtp.ehlo import ReplyProgress, looks_like_ehlo_line
from proxy.smtp.events import EhloReplied, Injected, NextDestination, ReleaseServer, StarttlsAnswered, XclientOffered
from proxy.smtp.lines import split_lines
from proxy.smtp.repair import EhloContext, RepairResult, repair_reply
from proxy.smtp.replies import code_of, ends_reply
from proxy.smtp.state import EHLO_WAIT, GOES_ON_AFTER, MAX_REPLY_LINE, Owed, Phase, Reply, SessionState

NOT_TRUSTED: Final = "not available to this client"
MAX_RECALLED: Final = 4096  # octets of a reply whose end is remembered; real ones have some hundred


@lru_cache(maxsize=256)
def leaves_at_once(raw: bytes, banner: bytes) -> bool:
    """Whether these whole lines are one EHLO reply of 250 lines whose end leaves no doubt."""
    progress = ReplyProgress(banner)
    for line in split_lines(raw):
        if progress.final_seen or line[:3] != b"250":
            return False
        progress.add(line)
    return progress.final_seen and progress.settled and not progress.too_long


class Answers(SessionState):
    """Reads what the server says."""

    __slots__ = ()

    def read_server(self) -> None:
        """Take every whole line that is there, then judge what is left at the end of the turn."""
        lines = self.server_lines
        if self.progress is None and self.owed and self.owed[0].kind is Reply.EHLO and self._known_reply():
            return
        while True:
            line = lines.next()
            if line is None:
                break
            self._line(line)
            if self.phase is Phase.ENDED or self.server_unread:
                return
            if self.phase is Phase.HELLO or self.phase is Phase.CONNECTING or self.phase is Phase.SECURING:
                return
        if lines.pending > MAX_REPLY_LINE:
            self._endless_line()
        if self.progress is not None:
            self._end_of_turn()

    def _known_reply(self) -> bool:
        """The shortcut for the usual case: the reply came in one piece, and the same was read before."""
        raw = self.server_lines.take_in_one()
        if not raw:
            return False
        if len(raw) <= MAX_RECALLED and not self.memory.ends_early and leaves_at_once(raw, self.banner):
            self.held.append(raw)
            self.finish_ehlo()
            return True
        self.server_lines.feed(raw)
        return False

    def _line(self, line: bytes) -> None:
        if self.long_line:
            line, whole = self.long_line + line[-2:], line  # only its start and its end matter
        else:
            whole = line
        owed = self.owed[0] if self.owed else None
        if owed is None:
            self._unasked(whole)
            return
        kind = owed.kind
        if kind is Reply.EHLO:
            self._ehlo_line(whole)
            return
        if kind is Reply.BANNER:
            if not self._banner_line(owed, whole):
                return
        elif self.late_possible and self.is_late(whole, kind):
            return
        elif kind is Reply.STARTTLS:
            self.held.append(whole)
        elif kind is Reply.UNREAD:
            self.to_client(whole)
            self.release_server()
            return
        elif owed.private:
            self.held.append(whole)
        else:
            self.to_client(whole)
        self.late_possible = False
        self.long_line = b""
        if ends_reply(line):
            self.last_code = code_of(line)
            self._reply_ended(owed)

    def _reply_ended(self, owed: Owed) -> None:
        """The reply that was owed first is over."""
        self.owed.popleft()
        kind = owed.kind
        if kind is Reply.BANNER:
            self.banner_ended(owed)
        elif kind is Reply.STARTTLS:
            self._starttls_ended(owed)
        elif owed.private:
            self.private_ended(owed)
        elif kind is Reply.QUIT and self.last_code == 221:
            self.completed = True
        self.client_since = self.now
        self.after_reply()

    # -- banner ------------------------------------------------------------------------------------------------------

    def _banner_line(self, owed: Owed, line: bytes) -> bool:
        """True when the line is one of the banner's and the session goes on with this server."""
        code = code_of(line)
        if not self.banner:
            if code == 250 and self.policy.repair.mode != "off":
                # "line-before-banner": an EHLO reply that answers nothing; the client would take it for the banner.
                repaired = self.policy.repair.mode == "repair"
                self.found("line-before-banner", line, repaired)
                if not repaired:
                    self.to_client(line)
                return False
            if 400 <= code < 500 and self.another_left:
                self.next_destination(line.strip().decode("latin-1"))
                return False
            self.banner = line
        if owed.private:
            self.held.append(line)
        else:
            self.to_client(line)
        return True

    def next_destination(self, reason: str) -> None:
        """Give this server up; nothing of it has been shown."""
        self.phase = Phase.CONNECTING
        self.owed.clear()
        self.server_lines.take_pending()
        self.banner = b""
        self.out.append(NextDestination(reason))

    # -- the EHLO reply ----------------------------------------------------------------------------------------------

    def _ehlo_line(self, line: bytes) -> None:
        progress = self.progress
        if progress is None:
            progress = self.progress = ReplyProgress(self.banner)
        progress.add(line)
        self.held.append(line)
        if progress.too_long:
            self._pass_unrepaired()
        elif progress.final_seen and (progress.refused or (progress.lines == 1 and code_of(line) != 250)):
            self.finish_ehlo()  # complete in itself: no refusal, and no lone 220, is ever joined with what follows

    def _pass_unrepaired(self) -> None:
        """`reply-too-long`: the rest of the reply goes as it comes."""
        owed = self.owed.popleft()
        raw = b"".join(self.held)
        self._forget_reply()
        result = repair_reply(raw, self.policy.repair, self._context())
        self.out.append(EhloReplied(result, self.now - owed.at, self.inside_tls))
        if self._xclient_refused(result):
            return
        self.to_client(raw)
        if ends_reply(raw[raw.rfind(b"\n", 0, -1) + 1 :]) and not self.long_line:
            self._reply_ended(Owed(Reply.OTHER, owed.at))
        else:
            self.owed.appendleft(Owed(Reply.UNREPAIRED, owed.at))

    def _end_of_turn(self) -> None:
        progress = self.progress
        assert progress is not None
        if self.server_lines.pending:
            # The line that has begun belongs to the reply, so the reply is not over.
            self.silent_until = self.now + self.policy.unterminated_after
        elif not progress.final_seen:
            self.silent_until = self.now + (GOES_ON_AFTER if self.memory.goes_on else self.policy.unterminated_after)
        elif self.policy.repair.mode == "off" or (progress.settled and not self.memory.ends_early):
            self.finish_ehlo()
        else:
            self.silent_until = self.now + EHLO_WAIT

    def silence(self) -> None:
        """The server has been silent for as long as an unfinished EHLO reply is given."""
        progress = self.progress
        self.silent_until = None
        if progress is None or (self.server_lines.pending and not progress.final_seen):
            return  # half a line ends nothing; the command time-out will
        if progress.final_seen or self.policy.repair.mode != "off":
            self.finish_ehlo(unterminated=not progress.final_seen)

    def finish_ehlo(self, *, unterminated: bool = False) -> None:
        """The reply is over: judge it, repair it, show it in one write."""
        owed = self.owed.popleft()
        raw = b"".join(self.held)
        self.last_code = code_of(self.held[-1])
        self._forget_reply()
        result = repair_reply(raw, self.policy.repair, self._context(), False, unterminated)
        self.ended_unterminated = unterminated
        self.late_possible = not result.refused
        self.client_since = self.now
        if owed.private:
            self.private_ehlo_ended(owed, result)
            return
        self.out.append(EhloReplied(result, self.now - owed.at, self.inside_tls))
        if self._xclient_refused(result):
            return
        self.to_client(result.reply)
        self.after_reply()

    def _forget_reply(self) -> None:
        self.held.clear()
        self.progress = None
        self.silent_until = None

    def _context(self) -> EhloContext:
        bridge = self.policy.bridge
        return EhloContext(
            banner=self.banner,
            destination_name=self.destination_name,
            destination_address=self.destination_address,
            client_name=self.client_name,
            inside_tls=self.server_tls,
            hide_starttls=bridge is not None and (self.inside_tls or bridge.client != "starttls"),
            offer_starttls=bridge is not None and bridge.client == "starttls" and bridge.server != "starttls" and not self.inside_tls,
            client_trusted=self.client_trusted,
        )

    def _xclient_refused(self, result: RepairResult) -> bool:
        """See to an offer of XCLIENT or XFORWARD.  True when the reply is not to be shown."""
        if not result.refused:
            self.memory.learn_offers(result.offers_xclient, self.now)
        if not result.offers_xclient:
            self.xclient_safe = True
            return False
        if self.xclient_done:
            # The server now judges the client by its own address, and trusts that.
            self.xclient_safe = True
            return False
        if self.policy.xclient and self.begin_xclient(result):
            return True
        if self.client_trusted:
            return False
        self.refuse_stranger()
        return True

    def refuse_stranger(self) -> None:
        """421 4.7.1: the server would take this client's word for whatever XCLIENT says."""
        self.out.append(XclientOffered())
        self.refuse("4.7.1", NOT_TRUSTED, "refused")

    # -- STARTTLS ----------------------------------------------------------------------------------------------------

    def _starttls_ended(self, owed: Owed) -> None:
        lines = b"".join(self.held)
        codes = (code_of(self.held[0]), self.last_code)
        self.held.clear()
        if 220 not in codes:
            self.starttls_refused(owed, lines)
            return
        if len(self.server_lines):
            self.injected("starttls-response-injection", "bytes of the server behind its 220 to STARTTLS")
        elif len(self.client_lines) and not owed.private:
            self.injected("starttls-pipelined", "bytes of the client behind STARTTLS, before the 220")
        else:
            self.starttls_accepted(owed, lines)

    def injected(self, event: str, detail: str) -> None:
        """Bytes where RFC 3207 allows none (CVE-2011-0411 and its mirror image): none is used, both sides are closed."""
        self.out.append(Injected(event, detail))
        self.out.append(StarttlsAnswered("injection"))
        self.injection_found(event, detail)

    # -- lines that nobody asked for ---------------------------------------------------------------------------------

    def _unasked(self, line: bytes) -> None:
        if self.late_possible and self.is_late(line, None):
            return
        self.late_possible = False
        self.last_code = code_of(line)
        if self.last_code == 220:
            self.injected_reply()
            return
        self.to_client(line)

    def injected_reply(self) -> None:
        """A 220 that nobody asked for would be taken for the answer to the STARTTLS that comes next."""
        self.refuse("4.7.0", "the server sent a 220 that nobody asked for", "injection", "server")

    def is_late(self, line: bytes, kind: Reply | None) -> bool:
        """See to a line of an EHLO reply that was taken for over.  True when the line is not to be used."""
        blank = not line.strip(b" \t\r\n")
        if self.policy.repair.mode != "repair" or not (blank or looks_like_ehlo_line(line)):
            return False
        if self.ended_unterminated:
            self.memory.goes_on = True
        else:
            self.memory.ends_early = True
        finding = "blank-line" if blank else "final-line-missing" if self.ended_unterminated else "final-line-early"
        self.found(finding, line, True)
        if not blank and kind is not None and kind is not Reply.STARTTLS:
            self.refuse("4.4.2", "its EHLO reply went on while another reply was due", "error", "server")
        return True

    # -- lines without an end ----------------------------------------------------------------------------------------

    def _endless_line(self) -> None:
        kind = self.owed[0].kind if self.owed else None
        if kind is Reply.STARTTLS or (self.owed and self.owed[0].private):
            self.refuse("4.4.2", "a reply line without an end", "error", "server")
            return
        piece = self.server_lines.take_pending()
        if kind is Reply.EHLO:
            if self.progress is None:
                self.progress = ReplyProgress(self.banner)
            self.held.append(piece)
            self.long_line = self.long_line or piece[:4]
            self._pass_unrepaired()
            return
        self.long_line = self.long_line or piece[:4]
        self.to_client(piece)
        if kind is Reply.UNREAD:
            self.release_server()

    def release_server(self) -> None:
        """Hand the server's direction over: what is here goes first, the rest is never read."""
        self.owed.clear()
        self.server_unread = True
        rest = self.server_lines.take_pending()
        if rest:
            self.to_client(rest)
        self.phase = Phase.RELEASED
        self.out.append(ReleaseServer(False))

    # -- what the client's half does ---------------------------------------------------------------------------------

    @abstractmethod
    def after_reply(self) -> None:
        """A reply is through: what was held behind it may go on."""

    @abstractmethod
    def banner_ended(self, owed: Owed) -> None:
        """The banner is over; `banner` is its first line."""

    @abstractmethod
    def begin_xclient(self, result: RepairResult) -> bool:
        """Send XCLIENT, if what is offered allows it, and repeat EHLO.  False when it does not."""

    @abstractmethod
    def private_ended(self, owed: Owed) -> None:
        """The reply to a command of the proxy's own is over; its lines are in `held`."""

    @abstractmethod
    def private_ehlo_ended(self, owed: Owed, result: RepairResult) -> None:
        """The same for an EHLO of the proxy's own."""

    @abstractmethod
    def starttls_accepted(self, owed: Owed, lines: bytes) -> None:
        """The server said 220 to STARTTLS, and nothing behind it."""

    @abstractmethod
    def starttls_refused(self, owed: Owed, lines: bytes) -> None:
        """The server said anything else to STARTTLS."""

    @abstractmethod
    def injection_found(self, event: str, detail: str) -> None:
        """End it, or say 454 where that is the rule."""
