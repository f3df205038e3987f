"""An EHLO reply on its way through: when it is over, what is done with it, and what comes too late.

The reply is held until it is whole, since it may need repair.  Where it ends is a judgement when the server does not
say it properly.  RFC 5321 4.2.1 ends a reply at the first line with a space behind the code; servers were seen that
put it on every line, on the wrong line, or on none.  So the end is

* a final line, and nothing behind it in the same turn: what stands there in one turn is one reply;
* for a reply of one line, or one without a greeting so far, `EHLO_WAIT` of silence after that; so, too, for a server
  that was once seen to go on after a final line, and when half a line stands behind the final one;
* without any final line, `unterminated_after` of silence, or `GOES_ON_AFTER` where that was not enough before;
* at once a final 4xx or 5xx line, or a lone line with any other code than 250 (`220 …`): it is complete in itself.

When a server then goes on all the same, its lines would shift every reply behind them, and a mail could be taken for
accepted that was not.  What such a line is, is `late`'s to say; it is removed while nothing but STARTTLS is
outstanding, and ends the session otherwise.  In the modes `observe` and `off` nothing is removed and nothing
completed: what was held goes on as it came.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Final

from proxy.smtp.lines import split_lines
from proxy.smtp.reply.ehlo import ReplyProgress
from proxy.smtp.reply.repair import EhloContext, RepairResult, repair_reply
from proxy.smtp.reply.replies import code_of, ends_behind_junk, ends_reply
from proxy.smtp.session.events import EhloReplied
from proxy.smtp.session.parts.late import Verdict, judged_late, offers_trust
from proxy.smtp.session.state import EHLO_WAIT, GOES_ON_AFTER, Owed, Reply, SessionState

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


_recalled_context = lru_cache(maxsize=1024)(EhloContext)


class EhloReplies(SessionState, ABC):
    """Collects EHLO replies and judges them when they are over."""

    __slots__ = ()

    # -- collecting --------------------------------------------------------------------------------------------------

    def known_reply(self, raw: bytes) -> bool:
        """See to a reply of which the same was read before; False when it has to be read."""
        if len(raw) <= MAX_RECALLED and not self.memory.goes_on(self.now) and leaves_at_once(raw, self.banner):
            self.held.append(raw)
            self.finish_ehlo()
            return True
        return False

    def take_ehlo_line(self, line: bytes) -> None:
        """Take in one line of the reply."""
        progress = self.progress
        if progress is None:
            progress = self.progress = ReplyProgress(self.banner)
        progress.add(line)
        self.held.append(line)
        if progress.too_long:
            self.pass_unrepaired()
        elif (progress.refused and ends_reply(line)) or (progress.lines == 1 and progress.settled):
            self.finish_ehlo()  # complete in itself: no refusal, and no lone 220, is ever joined with what follows

    def endless_ehlo_line(self, piece: bytes) -> None:
        """A line that passes every limit: what came of it so far belongs to a reply that is too long."""
        self.held.append(piece)
        self.pass_unrepaired()

    def end_of_turn(self) -> None:
        """Nothing more is there at the moment: is the reply over, or how long may it be silent?"""
        progress = self.progress
        assert progress is not None
        if not progress.final_seen:
            wait = self.policy.unterminated_after
            self.silent_until = self.now + (max(wait, GOES_ON_AFTER) if self.memory.goes_on_slowly(self.now) else wait)
        elif self.policy.repair.mode == "off":
            self.finish_ehlo()
        elif self.server_lines.pending or self.memory.goes_on(self.now) or not progress.settled:
            self.silent_until = self.now + EHLO_WAIT
        else:
            self.finish_ehlo()

    def silence(self) -> None:
        """The server has been silent for as long as an unfinished EHLO reply is given."""
        progress = self.progress
        assert progress is not None
        self.silent_until = None
        if progress.final_seen:
            self.finish_ehlo()
        elif progress.ok_seen and not progress.refused and not self.server_lines.pending:
            self.finish_ehlo(unterminated=True)
        # half a line, and a refusal without a last line, end nothing; the command time-out will

    def forget_reply(self) -> None:
        """Nothing is held any more."""
        self.held.clear()
        self.held_size = 0
        self.progress = None
        self.silent_until = None

    # -- the end -----------------------------------------------------------------------------------------------------

    def finish_ehlo(self, *, unterminated: bool = False) -> None:
        """The reply is over: judge it, repair it, show it in one write."""
        owed = self.owed.pop(0)
        held = self.held
        raw = b"".join(held) if len(held) > 1 else held[0]
        self.last_code = next((code for line in reversed(held) if (code := code_of(line))), 0)
        self.forget_reply()
        result = repair_reply(raw, self.policy.repair, self.ehlo_context(), False, unterminated)
        self.ended_unterminated = unterminated
        self.late_possible = not result.refused
        self.late_goes_on = False
        self.client_since = self.now
        for finding in result.findings:
            if finding.id == "final-line-early" or finding.id == "final-line-missing":
                self.memory.saw_going_on(self.now)
        if owed.private:
            self.private_ehlo_ended(result)
            return
        if self.begin_xclient(result):
            return
        self.out.append(EhloReplied(result, self.now - owed.at, self.inside_tls))
        if self.stranger_offered(result):
            return
        if self.last_code == 221:
            self.completed = True
        self.to_client(result.reply)
        self.after_reply()

    def pass_unrepaired(self) -> None:
        """`reply-too-long`: it goes as it comes, up to the first final line."""
        owed = self.owed[0]
        if owed.private:
            self.refuse("4.4.2", "its EHLO reply is too long", "error", "server")
            return
        raw = b"".join(self.held)
        self.forget_reply()
        result = repair_reply(raw, self.policy.repair, self.ehlo_context())
        self.out.append(EhloReplied(result, self.now - owed.at, self.inside_tls))
        if self.stranger_offered(result):
            return
        self.xclient_safe = self.client_trusted  # the rest may still offer it
        self.late_possible = False
        self.to_client(raw)
        owed.kind = Reply.UNREPAIRED
        last = raw[raw.rfind(b"\n", 0, -1) + 1 :]
        if last[-1:] != b"\n":
            self.long_line = last[:4]
            self.long_of = owed
        elif ends_behind_junk(last):
            self.reply_ended(owed, last)

    def ehlo_context(self) -> EhloContext:
        """What is known of the session that the reply is part of."""
        bridge = self.policy.bridge
        hidden = offered = False
        if bridge is not None:
            hidden = self.inside_tls or bridge.client != "starttls"
            offered = not hidden and bridge.server != "starttls"
        return _recalled_context(
            self.banner,
            self.destination_name,
            self.destination_address,
            self.client_name,
            self.server_tls and not offered,  # inside_tls
            hidden,
            offered,
            self.client_trusted or self.xclient_done,
        )

    # -- too late ----------------------------------------------------------------------------------------------------

    def is_late(self, line: bytes, kind: Reply | None) -> bool:
        """See to a line that may be a late one of the EHLO reply; `kind` is the reply that is owed, if any.

        True when the line is not to be used: it was removed, or the session is over.
        """
        if offers_trust(line) and not self.client_trusted and not self.xclient_done:
            self.refuse_stranger()
            return True
        mode = self.policy.repair.mode
        verdict = judged_late(line, kind, self.banner, self.late_goes_on, self.memory.goes_on(self.now))
        if mode == "off" or verdict is Verdict.REPLY:
            return False
        if verdict is Verdict.BLANK:
            finding = "blank-line"
        else:
            finding = "final-line-missing" if self.ended_unterminated else "final-line-early"
            self.memory.saw_going_on(self.now, after_silence=self.ended_unterminated)
        self.found(finding, line, mode == "repair")
        if mode != "repair":
            return False
        if verdict is Verdict.LATE:
            self.late_goes_on = line[3:4] == b"-"
            if kind is not None and kind is not Reply.STARTTLS:
                self.refuse("4.4.2", "its EHLO reply went on while another reply was due", "error", "server")
        return True

    # -- what the other parts do -------------------------------------------------------------------------------------

    @abstractmethod
    def reply_ended(self, owed: Owed, line: bytes) -> None:
        """The reply that was owed first is over; `line` is its last."""

    @abstractmethod
    def after_reply(self) -> None:
        """A reply is through: what was held behind it may go on."""

    @abstractmethod
    def begin_xclient(self, result: RepairResult) -> bool:
        """Send XCLIENT, if what is offered allows it, and repeat EHLO.  False when it does not."""

    @abstractmethod
    def stranger_offered(self, result: RepairResult) -> bool:
        """See to an offer of XCLIENT or XFORWARD.  True when it ends the session."""

    @abstractmethod
    def refuse_stranger(self) -> None:
        """End the session of a client that must not see such an offer."""

    @abstractmethod
    def private_ehlo_ended(self, result: RepairResult) -> None:
        """The reply to an EHLO of the proxy's own is over."""
