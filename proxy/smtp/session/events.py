"""What the session asks of its edge: one small frozen dataclass an action.

What goes into the session are its methods (`client_data`, `server_data`, `client_ended`, ...), each with the time; each
returns a list of these, to be carried out in order.  An edge may do nothing else with a peer's bytes.

Those of every session have an `__init__` that is written out, and are not frozen: what `dataclass` makes for a frozen
one takes 0.5 us, and is never compiled.  They are not written to either.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.smtp.reply.repair import RepairResult


@dataclass(slots=True, init=False, unsafe_hash=True)
class ToClient:
    """Send these bytes to the client, in one write."""

    data: bytes

    def __init__(self, data: bytes) -> None:
        self.data = data


@dataclass(slots=True, init=False, unsafe_hash=True)
class ToServer:
    """Send these bytes to the server, in one write."""

    data: bytes

    def __init__(self, data: bytes) -> None:
        self.data = data


@dataclass(frozen=True, slots=True)
class FinishServer:
    """The client has said its last: half-close the connection to the server once all is sent."""


@dataclass(frozen=True, slots=True)
class ReleaseClient:
    """What the client sends from now on goes to the server unread; the session holds none of it."""


@dataclass(frozen=True, slots=True)
class ReadOn:
    """More of the client's could go on than one call works through: call `read_on` when others have had their turn."""


@dataclass(frozen=True, slots=True)
class DeadlineNearer:
    """`deadline` may be nearer than it was: a banner is awaited, or the rest of an EHLO reply.

    All others are a whole span of the policy away when they come; for them it is enough to look at it once a span.
    """


@dataclass(slots=True, init=False, unsafe_hash=True)
class ReleaseServer:
    """What the server sends from now on goes to the client unread; the session holds none of it.

    `tls` is true when a STARTTLS brought it about: what follows are TLS records of the two peers.
    """

    tls: bool

    def __init__(self, tls: bool) -> None:
        self.tls = tls


@dataclass(frozen=True, slots=True)
class NextDestination:
    """Give this server up without a word to the client and connect to the next destination."""

    reason: str


@dataclass(frozen=True, slots=True)
class FreshConnection:
    """Close this server connection without a word and make another; the session speaks first on it by itself."""


@dataclass(frozen=True, slots=True)
class DropServer:
    """Close this server connection without a word; the session only has something to say to the client yet."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """Begin TLS with the server and judge it; tell by `server_tls_ready` or `server_tls_failed`."""


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Once all is sent, begin TLS with the client; tell by `client_tls_ready` or `client_tls_failed`."""


@dataclass(frozen=True, slots=True)
class End:
    """The session is over: send what is left, then close both sides.  A `reset_…` side is reset, not closed."""

    outcome: str
    by: str
    reason: str = ""
    reset_client: bool = False
    reset_server: bool = False


@dataclass(slots=True, init=False, unsafe_hash=True)
class EhloReplied:
    """To be told: an EHLO reply was judged, `seconds` after its command."""

    result: RepairResult
    seconds: float
    inside_tls: bool

    def __init__(self, result: RepairResult, seconds: float, inside_tls: bool) -> None:
        self.result = result
        self.seconds = seconds
        self.inside_tls = inside_tls


@dataclass(slots=True, init=False, unsafe_hash=True)
class StarttlsAnswered:
    """To be told: `result` is accepted, refused, injection or failed.  `reply`: the server's, when it has refused."""

    result: str
    reply: bytes = field(default=b"", compare=False)

    def __init__(self, result: str, reply: bytes = b"") -> None:
        self.result = result
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Injected:
    """To be told: bytes where none may be, around STARTTLS.  `event` is the name of the log event."""

    event: str
    detail: str


@dataclass(frozen=True, slots=True)
class Found:
    """To be told: a finding outside of an EHLO reply: lines before the banner, lines that came too late, `phase` late;
    a name that a client may not say, `phase` client.  `after`: what goes on in place of `lines`."""

    finding: str
    lines: tuple[bytes, ...]
    repaired: bool
    after: tuple[bytes, ...] = ()
    phase: str = "late"


@dataclass(frozen=True, slots=True)
class XclientOffered:
    """To be told: the session was ended for an offer of XCLIENT or XFORWARD to a client that is not trusted."""


@dataclass(frozen=True, slots=True)
class SaidPrivately:
    """To be told: the proxy says this to the server by itself, for a client that said no EHLO."""

    line: bytes


Action = (
    ToClient
    | ToServer
    | FinishServer
    | ReleaseClient
    | ReadOn
    | DeadlineNearer
    | ReleaseServer
    | NextDestination
    | FreshConnection
    | DropServer
    | ServerTls
    | ClientTls
    | End
    | EhloReplied
    | StarttlsAnswered
    | Injected
    | Found
    | XclientOffered
    | SaidPrivately
)
