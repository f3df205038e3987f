"""What the edge tells of a session: the one seam between sessions and the daemon's logs, metrics and status.

The edge calls an `Observer`; it never formats a log line and never counts.  Every method takes the session's `Story`
(who, where, what became of it so far), a plain mutable record that the edge fills in as the session goes on and that
is complete when `session_ended` is called, exactly once a session.

Nothing here holds message bytes or credentials: reply lines of EHLO are the only bytes of the dialogue that are told.
"""

from __future__ import annotations

from typing import Protocol

from proxy.smtp.reply.repair import RepairResult


class Story:
    """The facts of one session, for its log events and its metrics.

    Times are seconds on the reactor's clock.  `client` and `destination` are textual addresses.
    """

    __slots__ = (
        "by", "bytes_from_client", "bytes_from_server", "client", "client_port", "destination", "destination_name",
        "ehlo", "number", "outcome", "reason", "repaired", "route", "sni", "started_at", "tls", "tls_version",
    )  # fmt: skip

    def __init__(self, number: int, route: str, client: str, client_port: int, started_at: float) -> None:
        self.number = number  # unique in the process; the log's `session` is made from it
        self.route = route
        self.client = client
        self.client_port = client_port
        self.started_at = started_at
        self.destination = ""  # "192.0.2.10:25" once known
        self.destination_name = ""  # as configured, when that is a name
        self.outcome = ""  # completed, client-closed, server-reset, refused, unreachable, timeout, ...
        self.by = ""  # client, server, proxy
        self.reason = ""  # a few words for a person, when there is something to say
        self.ehlo = "none"  # good, repaired, observed, refused, none
        self.repaired: tuple[str, ...] = ()  # ids of the findings that were repaired
        self.tls = "none"  # none, passthrough, bridge
        self.tls_version = ""
        self.sni = ""
        self.bytes_from_client = 0
        self.bytes_from_server = 0


class Observer(Protocol):
    """What a daemon, or a test, does with what happens.  No method may raise or block."""

    def session_started(self, story: Story) -> None:
        """A client was admitted."""

    def destination_connected(self, story: Story, seconds: float) -> None:
        """The server of this session is connected; `seconds` since the attempt began."""

    def destination_failed(self, route: str, destination: str, name: str, reason: str, story: Story | None) -> None:
        """One attempt at one destination failed."""

    def ehlo_replied(self, story: Story, result: RepairResult, seconds: float, phase: str) -> None:
        """An EHLO reply was judged. `seconds` from the command to the whole reply; `phase` is `clear` or `tls`."""

    def starttls_answered(self, story: Story, result: str) -> None:
        """`result`: accepted, refused, injection, failed."""

    def tls_started(
        self, story: Story, side: str, version: str, sni: str, cipher: str, verified: str, not_after: float
    ) -> None:
        """TLS is up. `side`: client, server (bridge) or passthrough; `not_after`: Unix time, 0 when unknown."""

    def injected(self, story: Story, event: str, detail: str) -> None:
        """`event`: starttls-pipelined or starttls-response-injection."""

    def noticed(self, story: Story | None, event: str, level: str, fields: dict[str, object]) -> None:
        """Anything else worth a line: `level` is debug, info, warning or error."""

    def certificate_seen(self, route: str, side: str, subject: str, not_after: float) -> None:
        """A certificate is in use: ours towards clients (`client`) or a server's; `not_after` is a Unix time."""

    def refused(self, story: Story) -> None:
        """A client got no session; `story.outcome` is refused, `story.reason` says why. No session_ended follows."""

    def session_ended(self, story: Story, seconds: float) -> None:
        """The session is over; exactly one for each session_started."""
