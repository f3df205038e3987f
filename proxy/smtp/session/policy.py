"""What the operator wants of a session, and what earlier sessions learnt of its destination.

`SessionPolicy` and `BridgePolicy` are read-only and shared by all sessions of a route.  `DestinationMemory` is the one
thing that sessions share and change: a few times at which a server was seen to do something, none of them a peer's
bytes.  What is remembered is forgotten, since servers are repaired and replaced: nothing is held against one for good.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.smtp.reply.repair import RepairPolicy

OFFERS_KNOWN_FOR = 300.0  # seconds that an answer about XCLIENT is trusted; an operator changes such lists by hand
GOING_ON_KNOWN_FOR = 3600.0  # seconds after the last time that a server is held to go on after the end of a reply


@dataclass(frozen=True, slots=True)
class BridgePolicy:
    """Which sides have TLS, and whether mail may go without it: `starttls`, `implicit` or `none` for each side."""

    client: str = "starttls"
    server: str = "starttls"
    required: bool = True


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """All times are spans in seconds."""

    route: str = "default"
    repair: RepairPolicy = field(default_factory=RepairPolicy)
    unterminated_after: float = 15.0
    banner_timeout: float = 300.0
    command_timeout: float = 300.0
    half_closed_timeout: float = 600.0
    xclient: bool = False
    ehlo_name: bytes = b"localhost"
    bridge: BridgePolicy | None = None
    client_name: bytes = b""  # goes on in place of an EHLO or HELO argument that is none; empty: untouched


@dataclass(slots=True)
class DestinationMemory:
    """How this destination, at one address, was seen to behave.  All times are on the clock of the sessions."""

    went_on_at: float | None = None  # an EHLO reply went on after its end, or its end was put right
    went_on_slowly_at: float | None = None  # one did so after a silence that had been taken for its end
    offers_seen: dict[bool, tuple[bool, float]] = field(default_factory=dict)  # in TLS or not: offered, when

    def saw_going_on(self, now: float, *, after_silence: bool = False) -> None:
        """EHLO lines came behind an end, or the end was put right; `after_silence`: it was one by silence."""
        self.went_on_at = now
        if after_silence:
            self.went_on_slowly_at = now

    def goes_on(self, now: float) -> bool:
        """Whether this server may go on after a final line: its EHLO replies wait for a little silence."""
        return self.went_on_at is not None and now - self.went_on_at <= GOING_ON_KNOWN_FOR

    def goes_on_slowly(self, now: float) -> bool:
        """Whether it may go on after `unterminated_after` of silence: it is given a minute of it."""
        return self.went_on_slowly_at is not None and now - self.went_on_slowly_at <= GOING_ON_KNOWN_FOR

    def learn_offers(self, offered: bool, now: float, *, inside_tls: bool = False) -> None:
        """An EHLO reply was read; `offered`: it showed XCLIENT or XFORWARD.  Not offered is also what can't be asked.

        What is offered in clear says nothing about inside TLS, and the other way round.
        """
        self.offers_seen[inside_tls] = (offered, now)

    def offers(self, now: float, *, inside_tls: bool = False) -> bool | None:
        """Whether XCLIENT or XFORWARD is offered here; None when that is not known, or not any more."""
        offered, at = self.offers_seen.get(inside_tls, (None, now))
        return offered if now - at <= OFFERS_KNOWN_FOR else None
