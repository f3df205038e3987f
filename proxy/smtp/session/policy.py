"""What the operator wants of a session, and what earlier sessions learnt of its destination.

`SessionPolicy` and `BridgePolicy` are read-only and shared by all sessions of a route.  `DestinationMemory` is the one
thing that sessions share and change: three facts about how a server behaves, none of them a peer's bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.smtp.reply.repair import RepairPolicy

OFFERS_KNOWN_FOR = 300.0  # seconds that an answer about XCLIENT is trusted; an operator changes such lists by hand


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


@dataclass(slots=True)
class DestinationMemory:
    """How this destination was seen to behave.

    `ends_early`: it sent EHLO lines after a final one; its EHLO replies wait for a little silence.  `goes_on`: it sent
    more after a silence that was taken for the end; it is then given a minute of it.  `offers_…`: whether it offers
    XCLIENT or XFORWARD to this proxy's address, and when that was last seen.
    """

    ends_early: bool = False
    goes_on: bool = False
    offers_xclient: bool = False
    offers_known_at: float | None = None

    def learn_offers(self, offered: bool, now: float) -> None:
        """An EHLO reply was read; `offered`: it showed XCLIENT or XFORWARD."""
        self.offers_xclient = offered
        self.offers_known_at = now

    def offers(self, now: float) -> bool | None:
        """Whether XCLIENT or XFORWARD is offered here; None when that is not known, or not any more."""
        if self.offers_known_at is None or now - self.offers_known_at > OFFERS_KNOWN_FOR:
            return None
        return self.offers_xclient
