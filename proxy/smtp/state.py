"""What a session knows and holds; the base that its two halves, `answers` (server) and `session` (client), stand on.

Every byte that was fed is in exactly one place: `client_lines` (not yet sent on), `server_lines` (not yet a whole
line), `held` (the lines of the reply that is being collected), or the output of the current call.
"""

from __future__ import annotations

from abc import ABC
from collections import deque
from enum import Enum, auto
from typing import Final

from proxy.smtp.ehlo import ReplyProgress
from proxy.smtp.events import Action, End, Found, ToClient, ToServer
from proxy.smtp.lines import LineBuffer
from proxy.smtp.notices import closing
from proxy.smtp.policy import DestinationMemory, SessionPolicy

MAX_REPLY_LINE: Final = 16384  # a reply line beyond it is not read any further (Exim reads 4096, Postfix 2048)
MAX_WAITING: Final = 65536  # client bytes that may wait; beyond it the edge stops reading (one socket buffer's worth)
EHLO_WAIT: Final = 0.2  # seconds that a reply with a doubtful end waits for more
BANNER_OR_NEXT: Final = 30.0  # seconds that a silent server is given while another destination is left
GOES_ON_AFTER: Final = 60.0  # seconds of silence after which a server that goes on after the usual wait is over


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
    OTHER = auto()
    QUIT = auto()
    UNREAD = auto()  # to the command at which the client's direction was let go
    UNREPAIRED = auto()  # the rest of an EHLO reply that is too long to be repaired


class Owed:
    """A reply that the server owes: its kind, when its command was sent, whether the client may see it."""

    __slots__ = ("at", "kind", "private")

    def __init__(self, kind: Reply, at: float, private: bool = False) -> None:
        self.kind = kind
        self.at = at
        self.private = private  # to a command of the proxy's own


class SessionState(ABC):
    """The facts of one session and its output; no rule of the dialogue stands here."""

    __slots__ = (
        "another_left", "banner", "client_closed", "client_lines", "client_name", "client_since", "client_trusted", "client_unread",
        "completed", "destination", "destination_address", "destination_name", "draining", "ehlo_line", "greeted_line", "held",
        "inside_tls", "last_code", "late_possible", "long_line", "memory", "now", "out", "owed", "phase", "policy",
        "progress", "server_lines", "server_tls", "ended_unterminated", "server_unread", "silent_until", "xclient_address", "xclient_done", "xclient_safe",
        "must_end", "waiting_line", "banner_lines", "inside_fresh", "starttls_waits",
    )

    def __init__(self, policy: SessionPolicy, now: float, *, client_trusted: bool = False, client_address: str = "") -> None:
        """`client_trusted`: may use XCLIENT where the server offers it; `client_address`: textual, for XCLIENT."""
        self.policy = policy
        self.now = now
        self.phase = Phase.CONNECTING
        self.out: list[Action] = []
        self.owed: deque[Owed] = deque()
        self.client_lines = LineBuffer(MAX_WAITING)
        self.server_lines = LineBuffer(MAX_REPLY_LINE)
        self.held: list[bytes] = []
        self.progress: ReplyProgress | None = None
        self.silent_until: float | None = None
        self.banner = b""
        self.client_name = b""
        self.ehlo_line = b""  # the client's last EHLO line, for repeating it
        self.greeted_line = b""  # its last EHLO or HELO line
        self.client_since: float | None = None  # since when the client is expected to speak
        self.client_trusted = client_trusted
        self.client_closed = False
        self.client_unread = False  # the client's direction is released
        self.server_unread = False  # the server's direction is released
        self.completed = False  # 221 was seen
        self.last_code = 0
        self.long_line = b""  # the start of a reply line that is forwarded in pieces
        self.late_possible = False  # an EHLO reply has ended, no other reply line has come since
        self.ended_unterminated = False  # that EHLO reply was taken for over after a silence
        self.destination = ""
        self.destination_name = b""
        self.destination_address = b""
        self.memory = DestinationMemory()
        self.another_left = False
        self.draining = False
        self.inside_tls = False  # bridge: what the client says comes out of TLS
        self.server_tls = False  # bridge: what the server says does
        self.xclient_address = client_address
        self.xclient_done = False
        self.xclient_safe = client_trusted  # no stranger can borrow the server's trust through XCLIENT here
        self.waiting_line: bytes | None = None  # the command that waits for `offers_known`
        self.banner_lines = b""  # bridge: the banner, while the server's side is made ready first
        self.inside_fresh = False  # bridge: this connection was made anew after a 454
        self.starttls_waits = False  # bridge: the client's STARTTLS is answered once no other reply is owed
        self.must_end = ""  # bridge: after a 454, the cause for which the next command ends the session

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
        if self.owed:
            first = self.owed[0]
            if first.kind is Reply.UNREAD:
                late = None  # the relay's idle time-out rules from here on
            elif first.kind is Reply.BANNER:
                span = self.policy.banner_timeout
                late = first.at + (min(span, BANNER_OR_NEXT) if self.another_left else span)
            else:
                late = first.at + self.policy.command_timeout
        elif self.client_since is not None and not self.client_unread:
            late = self.client_since + self.policy.command_timeout
        else:
            late = None
        if due is None or (late is not None and late < due):
            return late
        return due

    # -- output ------------------------------------------------------------------------------------------------------

    def done(self) -> list[Action]:
        """The output of the call that ends here."""
        out = self.out
        if out:
            self.out = []
        return out

    def to_client(self, data: bytes) -> None:
        """Forward, joined with what goes there in the same turn, so that a reply leaves in one write."""
        out = self.out
        if out and type(out[-1]) is ToClient:
            out[-1] = ToClient(out[-1].data + data)
        else:
            out.append(ToClient(data))

    def to_server(self, data: bytes) -> None:
        """The same towards the server."""
        out = self.out
        if out and type(out[-1]) is ToServer:
            out[-1] = ToServer(out[-1].data + data)
        else:
            out.append(ToServer(data))

    def end(self, outcome: str, by: str, reason: str = "", *, reset_client: bool = False, reset_server: bool = False) -> None:
        """Over: nothing is held any more, nothing follows."""
        if self.phase is not Phase.ENDED:
            self.phase = Phase.ENDED
            self.held.clear()
            self.silent_until = None
            self.out.append(End(outcome, by, reason, reset_client, reset_server))

    def refuse(self, status: str, cause: str, outcome: str, by: str = "proxy", *, name_server: bool = True) -> None:
        """421 with the cause, then over."""
        if self.phase is not Phase.ENDED:
            self.to_client(closing(status, self.policy.route, cause, self.destination if name_server else ""))
            self.end(outcome, by, cause)

    def found(self, finding: str, line: bytes, repaired: bool) -> None:
        """Tell of a finding outside of an EHLO reply."""
        self.out.append(Found(finding, (line,), repaired))
