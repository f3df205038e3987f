"""How a route does, in a word and a sentence: the one judgement on the status page.

Green (`good`) is only a route that has served somebody within the last hour, or that nobody has come to since.  A route
that serves nobody is `bad`, whatever its destinations say of themselves: it listens nowhere, no destination answers, it
is full, or everybody was refused, failed, or was turned away by the server for an hour.  One that nobody has used, or
to which only such came as go without a word (port scans, health checks), is `quiet`, and `warn` is in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from proxy.daemon.admin.status import RouteCauses

RECENT: Final = 3600.0  # seconds
MANY_IN_ROW: Final = 5
NEARLY_FULL: Final = 0.9
NO_CAUSES: Final = RouteCauses("repair", {}, {}, 0.0, 0.0, 0)


@dataclass(frozen=True, slots=True)
class Health:
    """`kind` is good, warn, bad or quiet."""

    kind: str
    word: str
    why: str = ""

    @property
    def serves(self) -> bool:
        """Somebody, and whoever comes next."""
        return self.kind == "good" or (self.kind == "warn" and self.word != "draining")


def health_of(route: dict[str, Any], causes: RouteCauses, *, draining: bool, now: float) -> Health:
    """Of a route of `/status.json`, at `now` (Unix time)."""
    if draining:
        return Health("warn", "draining", "no new sessions are accepted")
    if not route["listen"]:
        return Health("bad", "serves nobody", "it listens on nothing any more")
    states = [one["up"] for one in route["destinations"]]
    if False in states and True not in states:
        return Health("bad", "serves nobody", "no destination answers")
    limit = route["sessions_limit"]
    if limit and route["sessions_open"] >= limit:
        taken = f"all {limit:,} sessions are taken" if limit > 1 else "its one session is taken"
        return Health("bad", "full", f"{taken}; more clients get 421")
    served, failed = causes.served_at, causes.failed_at
    since = "for an hour" if served else "since the start"
    if failed > served and now - served > RECENT:
        return Health("bad", "serves nobody", f"every client was refused, failed, or was turned away {since}")
    if causes.failed_in_row >= MANY_IN_ROW:
        return Health("warn", "failing", f"the last {causes.failed_in_row:,} sessions failed")
    if limit and route["sessions_open"] >= NEARLY_FULL * limit:
        return Health("warn", "nearly full", f"{route['sessions_open']:,} of {limit:,} sessions are taken")
    if False in states:
        return Health("warn", "serving", "but not all destinations answer")
    if causes.unserved_at > served and now - served > RECENT:
        return Health("quiet", "no mail", f"clients came and went without a word {since}")
    if not served:
        return Health("quiet", "no session yet")
    return Health("good", "serving")
