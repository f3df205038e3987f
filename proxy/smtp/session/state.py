"""What a session knows and holds; the base that its parts stand on.

`waiting` (EHLO replies), `answers` (all that the server says), `trust` (XCLIENT), `bridge` (TLS on both sides) and
`session` (the client, and what an edge calls) add the rules, each to the one before.

Every byte that was fed is in exactly one place: `client_lines` (not yet sent on), `server_lines` (not yet a whole
line), `held` (the lines of the reply that is being collected), or the output of the current call.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from proxy.smtp.lines import LineBuffer
from proxy.smtp.reply.ehlo import ReplyProgress
from proxy.smtp.session.events import Action, End, Found, ToClient, ToServer
from proxy.smtp.session.notices import closing
from proxy.smtp.session.policy import DestinationMemory, SessionPolicy

MAX_REPLY_LINE: Final = 16384  # a reply line beyond it is not read any further (Exim reads 4096, Postfix 2048)
MAX_WAITING: Final = 65536  # client bytes that may wait; beyond it the edge stops reading (one socket buffer's worth)
MAX_HELD: Final = 65536  # octets of a reply that is held for the proxy itself, or of that to STARTTLS
MAX_OWED: Final = 1000  # replies that may be owed; then the client is not read (Postfix drops a client that pipelines
# 100 junk commands, smtpd_junk_command_limit; a real one sends a recipient a command, and those are not read here)
EHLO_WAIT: Final = 0.2  # seconds that a reply with a doubtful end waits for more
BANNER_OR_NEXT: Final = 30.0  # seconds that a silent server is given while another destination is left
GOES_ON_AFTER: Final = 60.0  # seconds of silence after which a server that goes on after the usual wait is over
NOTHING_LEARNT: Final = DestinationMemory()  # shared, and never written to: where there is no server


class Phase(Enum):
    """Where the session stands.

    CONNECTING -> OPENING -> COMMANDS -> (HELLO ->) RELEASED -> ENDED; bridge mode has SECURING while a handshake is
    under way on either side.  Any phase may go to ENDED.
    """

    CONNECTING = auto()  # no server yet; what the client says waits
    OPENING = auto()  # the server is connected, its banner is not over
    COMMANDS = auto()  # commands and replies are read
    HELLO = auto()  # 220 to STARTTLS was forwarded; the client's first byte is awaited
    SECURING = auto()  # bridge: a TLS handshake is under way
    RELEASED = auto()  # both directions are byte relays
    ENDED = auto()


class Reply(Enum):
    """What kind of reply is owed next, since that decides how it is read."""

    BANNER = auto()
    EHLO = auto()
    STARTTLS = auto()
    LISTING = auto()  # to EXPN or VRFY: may be several lines of free text
    HELO = auto()
    HELP = auto()  # may be so, too
    NOOP = auto()
    OTHER = auto()
    XCLIENT = auto()  # to the proxy's own XCLIENT
    UNREAD = auto()  # to the command at which the client's direction was let go
    UNREPAIRED = auto()  # the rest of an EHLO reply that is too long to be repaired


class Owed:
    """A reply that the server owes: its kind, when its command was sent, whether the client may see it."""

    __slots__ = ("at", "kind", "private")

    def __init__(self, kind: Reply, at: float, private: bool = False) -> None:
        self.kind = kind
        self.at = at
        self.private = private  # to a command of the proxy's own


class SessionState:
    """The facts of one session and its output; no rule of the dialogue stands here."""

    __slots__ = (
        "another_left", "asked_afresh", "asking", "banner", "banner_lines", "banner_shown", "client_closed",
        "client_lines", "client_name", "client_since", "client_trusted", "client_unread", "completed",
        "destination", "destination_address", "destination_name", "draining", "ehlo_line", "ended_unterminated",
        "finished", "greeted_line", "greeted_ok", "heard_at", "held", "held_size", "inside_tls", "last_code",
        "late_goes_on", "late_possible", "long_line", "long_of", "memory", "must_end", "must_end_as", "now",
        "out", "owed", "phase", "policy", "progress", "reopen_tls", "reopening", "securing_client",
        "server_lines", "server_tls", "server_unread", "session_id", "silent_until", "starttls_waits", "told",
        "waiting_line", "xclient_address", "xclient_done", "xclient_safe",
    )  # fmt: skip

    def __init__(
        self,
        policy: SessionPolicy,
        now: float,
        *,
        client_trusted: bool = False,
        client_address: str = "",
        session_id: str = "",
    ) -> None:
        """`client_trusted`: may use XCLIENT where the server offers it; `client_address`: textual, for XCLIENT;
        `session_id`: what the log calls the session, for the texts of the proxy's own replies."""
        self.policy = policy
        self.session_id = session_id
        self.now = now
        self.phase = Phase.CONNECTING
        self.out: list[Action] = []
        self.owed: list[Owed] = []  # in order; at most MAX_OWED
        # the client
        self.client_lines = LineBuffer(MAX_WAITING)
        self.client_name = b""  # the argument of its last EHLO or HELO, as it said it
        self.ehlo_line = b""  # that line, for repeating it
        self.greeted_line = b""  # its last EHLO or HELO line
        self.greeted_ok = False  # that was a HELO, and answered 2xx
        self.client_since = now  # since when it is expected to speak
        self.client_trusted = client_trusted
        self.client_closed = False
        self.client_unread = False  # its direction is released
        self.waiting_line: bytes | None = None  # its command that waits until it is known what the server offers
        self.finished = False  # it has ended, all it said went on, and the server was told; only replies may come
        # the server
        self.server_lines = LineBuffer(MAX_REPLY_LINE)
        self.server_unread = False  # its direction is released
        self.destination = ""
        self.destination_name = b""
        self.destination_address = b""
        self.memory = NOTHING_LEARNT  # of a server there is not yet
        self.another_left = False
        self.banner = b""  # "220 " and its first word: all that is looked at, and the same in all sessions
        self.banner_shown = False  # something of it has reached the client
        self.heard_at = now  # when it last spoke, once the client has ended
        # the reply that is coming
        self.held: list[bytes] = []
        self.held_size = 0
        self.progress: ReplyProgress | None = None
        self.silent_until: float | None = None
        self.long_line = b""  # the start of a reply line that is forwarded in pieces
        self.long_of: Owed | None = None  # and the reply that it is part of
        # what was seen
        self.last_code = 0
        self.completed = False  # 221 was seen
        self.draining = False
        self.told: tuple[str, ...] = ()  # findings outside of EHLO replies that were told of
        # an EHLO reply has ended, no other reply line has come since ...
        self.late_possible = False
        self.late_goes_on = False  # ... and the last late line promised another
        self.ended_unterminated = False  # ... and it was taken for over after a silence
        # XCLIENT
        self.xclient_address = client_address
        self.xclient_done = False
        self.xclient_safe = client_trusted  # no stranger can borrow the server's trust through XCLIENT here
        self.asking = False  # the server is being asked what it offers, on this connection
        self.asked_afresh = False  # that broke a connection, and another was made
        # bridge mode
        self.inside_tls = False  # what the client says comes out of TLS
        self.server_tls = False  # what the server says does
        self.securing_client = False  # in SECURING: it is the client's handshake that is under way
        self.starttls_waits = False  # a STARTTLS that the proxy answers waits for the replies that are owed
        self.banner_lines = b""  # the banner, while the server's side is made ready first
        self.reopening = False  # this connection was made anew after a 454, and the server has to be greeted
        self.reopen_tls = False  # ... inside TLS, as it was before
        self.must_end = ""  # the cause for which the next command ends the session, and ...
        self.must_end_as = ""  # ... with which outcome

    # -- what the edge asks ------------------------------------------------------------------------------------------

    @property
    def wants_client(self) -> bool:
        """False while so much of the client's waits here that the edge should stop reading."""
        return len(self.client_lines) <= MAX_WAITING

    @property
    def deadline(self) -> float | None:
        """When `time_passed` is to be called next, on the clock of `now`; None for never."""
        if self.phase in (Phase.ENDED, Phase.RELEASED, Phase.CONNECTING, Phase.SECURING):
            return None
        due = self.silent_until
        policy = self.policy
        late: float | None = None
        if self.owed:
            first = self.owed[0]
            if first.kind is Reply.BANNER:
                span = policy.banner_timeout
                late = first.at + (min(span, BANNER_OR_NEXT) if self.may_go_on_to_next else span)
            elif first.kind is not Reply.UNREAD:  # for which the relay's idle time-out rules
                late = first.at + policy.command_timeout
        elif self.finished:
            late = self.heard_at + policy.half_closed_timeout
        else:
            late = self.client_since + policy.command_timeout
        if due is None or (late is not None and late < due):
            return late
        return due

    @property
    def may_go_on_to_next(self) -> bool:
        """Whether this server can still be given up for the next destination: nothing of it was shown."""
        return self.another_left and not self.banner_shown

    # -- output ------------------------------------------------------------------------------------------------------

    def done(self) -> list[Action]:
        """The output of the call that ends here."""
        out = self.out
        if not out:
            return []
        self.out = []
        before: type[Action] | None = None
        for action in out:
            kind = type(action)
            if kind is before and (kind is ToClient or kind is ToServer):
                return joined(out)
            before = kind
        return out

    def to_client(self, data: bytes) -> None:
        """Forward.  What goes there in the same call without another action between leaves in one write."""
        self.out.append(ToClient(data))

    def to_server(self, data: bytes) -> None:
        """The same towards the server."""
        self.out.append(ToServer(data))

    def end(
        self, outcome: str, by: str, reason: str = "", *, reset_client: bool = False, reset_server: bool = False
    ) -> None:
        """Over: nothing is held any more, nothing follows."""
        if self.phase is not Phase.ENDED:
            self.phase = Phase.ENDED
            self.held.clear()
            self.owed.clear()
            self.progress = None
            self.silent_until = None
            self.client_lines.take_pending()
            self.server_lines.take_pending()
            self.out.append(End(outcome, by, reason, reset_client, reset_server))

    def refuse(self, status: str, cause: str, outcome: str, by: str = "proxy", *, name_server: bool = True) -> None:
        """421 with the cause, then over.  Where half a line was forwarded no line can be said, and it is only over."""
        if self.phase is not Phase.ENDED:
            if not self.long_line:
                where = self.destination if name_server else ""
                self.to_client(closing(status, self.policy.route, cause, where, self.session_id))
            self.end(outcome, by, cause)

    def found(self, finding: str, line: bytes, repaired: bool) -> None:
        """Tell of a finding outside of an EHLO reply, once a session, since a server may send any number of them."""
        if finding not in self.told:
            self.told = (*self.told, finding)
            self.out.append(Found(finding, (line,), repaired))


def joined(out: list[Action]) -> list[Action]:
    """The actions with what goes to the same peer in a row made one."""
    result: list[Action] = []
    parts: list[bytes] = []
    last: type[ToClient] | type[ToServer] | None = None
    for action in out:
        if isinstance(action, (ToClient, ToServer)):
            kind = type(action)
            if kind is not last:
                if last is not None:
                    result.append(last(b"".join(parts)))
                    parts = []
                last = kind
            parts.append(action.data)
        else:
            if last is not None:
                result.append(last(b"".join(parts)))
                parts = []
                last = None
            result.append(action)
    if last is not None:
        result.append(last(b"".join(parts)))
    return result
