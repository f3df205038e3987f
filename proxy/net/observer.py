"""What the edge tells of a session: the one seam between sessions and the daemon's logs, metrics and status.

The edge calls an `Observer`; it never formats a log line and never counts.  Every method takes the session's `Story`
(who, where, what became of it so far), a plain mutable record that the edge fills in as the session goes on and that
is complete when `session_ended` is called, exactly once a session.

Nothing here holds message bytes or credentials: reply lines of EHLO are the only bytes of the dialogue that are told.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from os import getpid
from time import time
from typing import Final, Protocol

from proxy.smtp.reply.repair import RepairResult

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def _written(number: int, digits: int) -> str:
    """The last so many digits of a number in base 36."""
    return "" if digits == 0 else _written(number // 36, digits - 1) + _DIGITS[number % 36]


def _ids() -> Iterator[str]:
    begun = 0
    while True:
        begun = max(begun + 1, int(time() * 10))
        head = _written(begun, 7) + _written(getpid(), 2)
        for number in product(_DIGITS, repeat=3):
            yield head + "".join(number)


_names: Final = _ids()


def session_id() -> str:
    """A name for one session that no other has, in this process or another, now or after a restart.

    Twelve letters and digits: when the count began, in tenths of a second (7), the process (2) and the count (3), in
    base 36.  It is `session=` in the log and stands at the end of our 421: `grep` finds one by the other.
    """
    return next(_names)


class Story:
    """The facts of one session, for its log events and its metrics.

    Times are seconds on the reactor's clock.  `client` and `destination` are textual addresses.  The log of the sender,
    ours and that of the server are joined by `client_port` and `ehlo_name` on one side, `source_port` on the other.
    """

    __slots__ = (
        "alert", "by", "bytes_from_client", "bytes_from_server", "client", "client_port", "destination",
        "destination_name", "ehlo", "ehlo_name", "id", "outcome", "reason", "repaired", "route", "sni", "source_port",
        "started_at", "tls", "tls_version",
    )  # fmt: skip

    def __init__(self, id: str, route: str, client: str, client_port: int, started_at: float) -> None:
        self.id = id  # of `session_id`: the log's `session`
        self.route = route
        self.client = client
        self.client_port = client_port
        self.started_at = started_at
        self.ehlo_name = ""  # the client's own, of its last EHLO, LHLO or HELO that was read; Latin-1, at most 255
        self.destination = ""  # "192.0.2.10:25" as soon as it is tried
        self.destination_name = ""  # as configured, when that is a name
        self.source_port = 0  # ours, towards the server
        self.outcome = ""  # completed, client-closed, server-reset, refused, unreachable, timeout, ...
        self.by = ""  # client, server, proxy
        self.reason = ""  # a few words for a person, when there is something to say
        self.ehlo = "none"  # good, repaired, observed, report, refused, none
        self.repaired: tuple[str, ...] = ()  # ids of the findings that were repaired
        self.tls = "none"  # none, passthrough, bridge
        self.tls_version = ""
        self.sni = ""
        self.alert = ""  # the TLS alert that was seen: "unknown_ca"
        self.bytes_from_client = 0
        self.bytes_from_server = 0

    def tried(self, destination: str, name: str) -> None:
        """This address, of this name, was tried and failed; a session that is never connected tells the last one."""
        self.destination = destination
        self.destination_name = name

    def connected(self, destination: str, name: str, source_port: int) -> None:
        """The server is connected, from this port of ours."""
        self.destination = destination
        self.destination_name = name
        self.source_port = source_port

    def left(self, from_server: int) -> None:
        """The server is given up; so many bytes came from it."""
        self.bytes_from_server += from_server

    def client_is(self, ehlo_name: str) -> None:
        """How the client called itself."""
        self.ehlo_name = ehlo_name

    def ehlo_judged(self, result: RepairResult, mode: str) -> None:
        """An EHLO reply was read; what was repaired once is told of the whole session."""
        if result.refused:
            self.ehlo = "refused"
        elif result.changed and mode == "repair":
            self.ehlo = "repaired"
        elif self.ehlo != "repaired":
            found = "observed" if mode == "observe" else "report"
            self.ehlo = found if result.findings else "good"
        for finding in result.findings:
            if finding.repaired:
                self.also_repaired(finding.id)

    def also_repaired(self, finding: str) -> None:
        """This was repaired."""
        if finding not in self.repaired:
            self.repaired = (*self.repaired, finding)

    def passes_through(self) -> None:
        """TLS is the two peers' own."""
        self.tls = "passthrough"

    def hellos_seen(self, version: str, sni: str) -> None:
        """What the hellos of the two peers said in clear."""
        self.tls_version = version
        self.sni = sni

    def alert_seen(self, alert: str) -> None:
        """The first alert in clear, or "" for none."""
        self.alert = alert

    def inside_bridge(self, version: str, sni: str = "") -> None:
        """TLS ends at the proxy: towards the client, or towards the server where the client has none."""
        self.tls = "bridge"
        self.tls_version = version
        self.sni = sni

    def ended(self, outcome: str, by: str, reason: str, from_client: int = 0, from_server: int = 0) -> None:
        """What became of it, who ended it first, why, in a few words, and how many bytes came from each side."""
        self.outcome = outcome
        self.by = by
        self.reason = reason
        self.bytes_from_client = from_client
        self.bytes_from_server += from_server


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
        self,
        story: Story,
        side: str,
        version: str,
        sni: str,
        cipher: str,
        verified: str,
        not_after: float,
        group: str = "",
    ) -> None:
        """TLS is up. `side`: client, server (bridge) or passthrough; `not_after`: Unix time, 0 when unknown;
        `group`: of the key exchange."""

    def injected(self, story: Story, event: str, detail: str) -> None:
        """`event`: starttls-pipelined or starttls-response-injection."""

    def noticed(self, story: Story | None, event: str, level: str, fields: dict[str, object]) -> None:
        """Anything else worth a line: `level` is debug, info, warning or error."""

    def certificate_seen(self, route: str, side: str, subject: str, not_after: float) -> None:
        """A certificate is in use: ours towards clients (`client`) or a server's; `not_after` is a Unix time."""

    def refused(self, story: Story, kind: str) -> None:
        """A client got no session; `story.outcome` is refused, `story.reason` says why. No session_ended follows.

        `kind`: not_allowed, route_full, client_full, draining, no_descriptors, proxy_header.
        """

    def refused_in_session(self, story: Story, kind: str) -> None:
        """A rule ends a session that runs (`xclient`); its session_ended follows."""

    def bytes_flowed(self, story: Story, from_client: int, from_server: int) -> None:
        """So many bytes each way until now, of a session that runs; session_ended has the last word."""

    def slow_turn(self, owner: str, seconds: float) -> None:
        """One callback, of this owner, has held every session of the process for so long."""

    def session_ended(self, story: Story, seconds: float) -> None:
        """The session is over; exactly one for each session_started."""
