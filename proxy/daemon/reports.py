"""What becomes of what the edge tells: log events, counters, and the state of the destinations.

`Reports` is the daemon's `proxy.net.observer.Observer`, one a process.  It decides what is said and how loudly:

* at level info a session is one line, `session-end`; a failed one is a warning (`proxy.daemon.log.sessions`);
* `ehlo-findings` with the reply before and after is told the first time for a destination and when the findings change,
  and not more often than once a session and phase, whatever the peers do;
* a destination that fails is told when it goes down and when the cause changes, and when it answers again;
* warnings and findings are told one by one up to twenty a minute of a route and kind, then counted
  (`proxy.daemon.log.rates`): one line a minute, at the same level, whose event is the kind: `refused route=… count=80`;
  what is held back is told at level debug.

With several workers each tells what it sees first.  No method raises or blocks, whatever a peer has sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.daemon.admin.destinations import Destinations
from proxy.daemon.admin.figures.counters import Metrics, RouteMetrics, Snapshot
from proxy.daemon.admin.figures.declarations import WELL
from proxy.daemon.admin.status import LastHour
from proxy.daemon.log.logs import EventLog
from proxy.daemon.log.rates import Rates
from proxy.daemon.log.sessions import destination as _destination
from proxy.daemon.log.sessions import end_fields, level_of_end, session_fields
from proxy.daemon.log.values import utc

if TYPE_CHECKING:
    from proxy.net.observer import Story
    from proxy.smtp.reply.repair import RepairResult

EXPIRES_SOON = 14 * 24 * 3600.0
_A_DAY = 24 * 3600.0
_MAX_WARNED = 1024
_MAX_NOTICE = 600  # bytes of one text of ours in `noticed`; a peer's text is given as bytes and cut at 200
_RANK = {"": 0, "accepted": 1, "refused": 2, "failed": 3, "injection": 4}  # the worst of a session is its result


class _Open:
    """What is kept of a session that runs, for its counters and so that it says nothing twice."""

    __slots__ = ("counts", "from_client", "from_server", "greeted", "offered", "starttls", "told")

    def __init__(self, counts: RouteMetrics) -> None:
        self.counts = counts  # of its route
        self.from_client = 0  # bytes that were counted already
        self.from_server = 0
        self.greeted = False  # an EHLO was taken
        self.offered = False  # STARTTLS
        self.starttls = ""  # what became of it
        self.told: tuple[str, ...] = ()  # the phases whose findings were told

    def answered(self, result: str) -> None:
        """STARTTLS was answered, or failed behind its answer."""
        if _RANK[result] >= _RANK[self.starttls]:
            self.starttls = result

    def may_tell(self, phase: str) -> bool:
        """Whether the findings of this phase were not told yet; from now on they were."""
        if phase in self.told:
            return False
        self.told = (*self.told, phase)
        return True

    def flowed(self, from_client: int, from_server: int) -> None:
        """The session has had so many bytes: count what is more than was known."""
        self.counts.flowed(from_client - self.from_client, from_server - self.from_server)
        self.from_client = from_client
        self.from_server = from_server

    @property
    def result(self) -> str:
        """Of `ehlo_proxy_starttls_total`, one a session."""
        return self.starttls or ("not_used" if self.offered else "not_offered")


class Reports:
    """An Observer that logs to `log` and counts in `metrics`; `now` is the time of day in Unix seconds."""

    def __init__(self, log: EventLog, metrics: Metrics | None = None, *, now: Callable[[], float] = time.time) -> None:
        self.log = log
        self.metrics = metrics or Metrics()
        self.hour = LastHour()
        self.destinations = Destinations()
        self._open: dict[Story, _Open] = {}
        self._now = now
        self._rates = Rates(now())
        self._warned: dict[tuple[str, str, str], float] = {}

    @property
    def sessions_open(self) -> int:
        """How many sessions run."""
        return len(self._open)

    # What the edge calls.

    def session_started(self, story: Story) -> None:
        counts = self.metrics.route(story.route)
        counts.began()
        self._open[story] = _Open(counts)
        if self.log.debug_on:
            self._emit(story, "debug", "session-start", {})

    def destination_connected(self, story: Story, seconds: float) -> None:
        self._of(story).counts.connect.observe(seconds)
        state = self.destinations.state(story.route, story.destination_name, story.destination)
        recovered = state.connected(self._now())
        if recovered is not None:
            down, failures = recovered
            self._emit(story, "info", "destination-recovered", {"seconds": down, "failures": failures})
        if self.log.debug_on:
            self._emit(story, "debug", "destination-connected", {"seconds": seconds})

    def destination_failed(self, route: str, destination: str, name: str, reason: str, story: Story | None) -> None:
        # A name that has no address is told as its own address.
        address = "" if name and destination.rpartition(":")[0] == name else destination
        failures = self.destinations.state(route, name, address).failed(reason, self._now())
        fields: dict[str, object] = session_fields(story) if story is not None else {"route": route}
        fields["destination"] = _destination(name, destination)
        fields["reason"] = reason
        fields["failures"] = failures if failures > 1 else None
        if not failures:
            self.log.emit("debug", "destination-failed", fields)
        elif self._rates.tell(route, "destination-failed", "warning"):
            self.log.emit("warning", "destination-failed", fields)

    def ehlo_replied(self, story: Story, result: RepairResult, seconds: float, phase: str) -> None:
        session = self._of(story)
        counts = session.counts
        counts.ehlo.observe(seconds)
        if b"STARTTLS" in result.keywords:
            session.offered = True
        if not result.refused:
            session.greeted = True
        elif session.greeted and result.before[:1] and result.before[0][:1] == b"5":
            told = {"findings": ("ehlo-repeat-refused",), "before": list(result.before), "after": list(result.after)}
            self._found_late(story, "info", {**told, "repaired": (), "phase": "again"})
        last = self.destinations.state(story.route, story.destination_name, story.destination).ehlo(phase)
        news = last.take(result, self._now())
        for one in last.findings:
            counts.found(one)
        if news and session.may_tell(phase):
            fields: dict[str, object] = {
                "findings": [finding for finding, _repaired in last.findings],
                "repaired": [finding for finding, repaired in last.findings if repaired],
                "phase": phase,
                "before": list(result.before),
                "after": list(result.after),
            }
            self._rated(story, "info", "ehlo-findings", fields)

    def starttls_answered(self, story: Story, result: str) -> None:
        self._of(story).answered(result)
        if self.log.debug_on:
            self._emit(story, "debug", "starttls", {"result": result})

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
        if not_after > 0:
            if side == "client":
                self.certificate_seen(story.route, "client", "", not_after)
            else:
                state = self.destinations.state(story.route, story.destination_name, story.destination)
                state.certificate(not_after)
                subject = _destination(story.destination_name, story.destination)
                self.certificate_seen(story.route, "server", subject, not_after)
        if self.log.debug_on:
            fields = {
                "side": side,
                "version": version,
                "sni": sni,
                "cipher": cipher,
                "group": group,
                "verified": verified,
            }
            self._emit(story, "debug", "tls", {**fields, "not_after": utc(not_after) if not_after > 0 else None})

    def injected(self, story: Story, event: str, detail: str) -> None:
        self._rated(story, "warning", event, {"detail": detail})

    def noticed(self, story: Story | None, event: str, level: str, fields: dict[str, object]) -> None:
        if event == "ehlo-findings" and story is not None:
            self._found_late(story, level, fields)
            return
        told = session_fields(story) if story is not None else {}
        told.update(fields)
        self.log.emit(level, event, told, max_text=_MAX_NOTICE)

    def refused(self, story: Story, kind: str) -> None:
        self.metrics.route(story.route).refused(kind, self._now())
        self._tell_end(story, 0.0)

    def refused_in_session(self, story: Story, kind: str) -> None:
        self.metrics.route(story.route).refused_by(kind)

    def bytes_flowed(self, story: Story, from_client: int, from_server: int) -> None:
        session = self._open.get(story)
        if session is not None:
            session.flowed(from_client, from_server)

    def session_ended(self, story: Story, seconds: float) -> None:
        session = self._open.pop(story, None) or _Open(self.metrics.route(story.route))
        outcome = story.outcome
        if outcome == "tls-failed":
            session.answered("failed")
        counts = session.counts
        counts.flowed(story.bytes_from_client - session.from_client, story.bytes_from_server - session.from_server)
        now = self._now()
        served = story.ehlo not in ("none", "refused")
        if outcome == "completed":
            served = served or story.tls != "none" or story.ehlo_name != ""  # TLS from the first byte, or HELO alone
        elif outcome not in WELL:
            served = False
        counts.ended(outcome, story.tls, session.result, now, served=served)
        self.hour.count(now, story.ehlo == "repaired")
        self._tell_end(story, seconds)

    def slow_turn(self, owner: str, seconds: float) -> None:
        if self._rates.tell("", "slow-turn", "warning"):
            self.log.emit("warning", "slow-turn", {"owner": owner, "seconds": seconds})

    # What the service calls.

    def tick(self) -> None:
        """To be called about once a second: tells what was held back in a minute that is over."""
        if self._rates.due(now := self._now()):
            self._tell_untold(now)

    def flush(self) -> None:
        """At the end: tell what was not told yet."""
        self._tell_untold(self._now())

    def certificate_seen(self, route: str, side: str, subject: str, not_after: float) -> None:
        """A certificate is in use: ours (`client`, told at start and reload) or a server's; Unix time.

        One that expires within fourteen days is logged once a day.
        """
        now = self._now()
        self.metrics.certificate(route, side, subject, not_after, now)
        left = not_after - now
        key = (route, side, subject)
        if left > EXPIRES_SOON or now - self._warned.get(key, -_A_DAY) < _A_DAY:
            return
        if len(self._warned) >= _MAX_WARNED:
            self._warned.clear()
        self._warned[key] = now
        fields = {"route": route, "side": side, "subject": subject, "not_after": utc(not_after)}
        days = int(left // _A_DAY)
        event = "certificate-expires" if left > 0 else "certificate-expired"
        self.log.emit("warning", event, {**fields, "days": days})

    def snapshot(self) -> Snapshot:
        """All that this process knows, as plain data that JSON can carry."""
        now = self._now()
        return {
            "metrics": self.metrics.snapshot(self.log.lines_lost),
            "destinations": self.destinations.snapshot(now),
            "hour": self.hour.snapshot(now),
        }

    # How it is said.

    def _of(self, story: Story) -> _Open:
        return self._open.get(story) or _Open(self.metrics.route(story.route))

    def _emit(self, story: Story, level: str, event: str, fields: dict[str, object]) -> None:
        self.log.emit(level, event, {**session_fields(story), **fields})

    def _rated(self, story: Story, level: str, event: str, fields: dict[str, object]) -> None:
        told = self._rates.tell(story.route, event, level, story.client)
        self._emit(story, level if told else "debug", event, fields)

    def _tell_end(self, story: Story, seconds: float) -> None:
        level = level_of_end(story)
        if level != "info" and not self._rates.tell(story.route, story.outcome, level, story.client):
            level = "debug"
        if level != "debug" or self.log.debug_on:
            self.log.emit(level, "session-end", end_fields(story, seconds))

    def _found_late(self, story: Story, level: str, told: dict[str, object]) -> None:
        """What was found outside of EHLO replies: like the findings of a reply, in the same form.

        EHLO lines that came after their reply was over, which the destination's state has; a client's bad name; a
        STARTTLS that was offered and not taken; a second EHLO that was refused."""
        phase = str(told.get("phase"))
        if phase == "starttls" and not self._of(story).offered:
            return  # the client said it for all that; nobody may expect more
        repaired = bool(told.get("repaired"))
        findings = told.get("findings")
        ids = [str(finding_id) for finding_id in findings] if isinstance(findings, (list, tuple)) else []
        found = [(finding_id, repaired) for finding_id in ids]
        for one in found:
            self.metrics.route(story.route).found(one)
        state = self.destinations.state(story.route, story.destination_name, story.destination)
        # A name that goes on as it came is told of once a destination: the same device says it with every mail.
        if (state.late(found) or (phase == "client" and repaired)) and self._of(story).may_tell(phase):
            self._rated(story, level, "ehlo-findings", {**told, "repaired": ids if repaired else []})

    def _tell_untold(self, now: float) -> None:
        for one in self._rates.untold(now):
            fields = {"route": one.route or None, "client": one.client or None, "count": one.number}
            self.log.emit(one.level, one.kind, fields)
