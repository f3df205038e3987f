"""What becomes of what the edge tells: log events, counters, and the state of the destinations.

`Reports` is the daemon's `proxy.net.observer.Observer`, one a process.  It decides what is said and how loudly:

* at level info a session is one or two lines, `ehlo-findings` when there are any and `session-end`; an injection and
  a destination that has stopped answering are warnings, everything else is debug;
* the lines of an EHLO reply, before and after its repair, come the first time for a destination and when they
  change; else the ids of the findings alone.  The text behind the greeting's domain does not count as a change, since
  servers put the client's name there;
* a destination that is down is told when it goes down and once a minute, with the number of failures since;
* refusals are told one by one up to twenty a minute from one address, then counted (`proxy.daemon.log.refusals`).

`session_ended` is on the path of every mail: when all its values are plain words, as they nearly always are, the line
is put together in one f-string; the general way in `EventLog.emit` gives the same line and is tested against it.

No method raises or blocks, whatever a peer has sent.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from proxy.daemon.admin.destinations import Destinations, unique
from proxy.daemon.admin.metrics import Metrics, Snapshot
from proxy.daemon.admin.status import LastHour
from proxy.daemon.log.logs import EventLog, utc
from proxy.daemon.log.refusals import Refusals

if TYPE_CHECKING:
    from proxy.net.observer import Story
    from proxy.smtp.reply.findings import Finding
    from proxy.smtp.reply.repair import RepairResult

EXPIRES_SOON = 14 * 24 * 3600.0
_A_DAY = 24 * 3600.0
_MAX_WARNED = 1024
_MAX_NOTICE = 600  # bytes of one text of ours in `noticed`; a peer's text is given as bytes and cut at 200

_all_plain = re.compile(r"[A-Za-z0-9_.:/@+\[\] -]+").fullmatch


class Told(NamedTuple):
    """What is told of the findings of one reply: each id once, with whether it was repaired anywhere."""

    found: tuple[tuple[str, bool], ...]
    ids: tuple[str, ...]
    repaired: tuple[str, ...]
    text: str  # of the line for a reply that is known already


@lru_cache(maxsize=32)
def told_of(findings: tuple[Finding, ...]) -> Told:
    """The findings of one reply, in its order, as they are told; a destination has mostly one reply, so it is kept.

    Few are: a finding quotes the peer, who may send other replies each time.
    """
    found: dict[str, bool] = {}
    for finding in findings:
        found[finding.id] = found.get(finding.id, False) or finding.repaired
    ids = tuple(found)
    repaired = tuple([finding_id for finding_id, is_repaired in found.items() if is_repaired])
    text = f"findings={','.join(ids)} repaired={','.join(repaired) or _NOTHING}"
    return Told(tuple(found.items()), ids, repaired, text)


class Reports:
    """An Observer that logs to `log` and counts in `metrics`; `now` is the time of day in Unix seconds."""

    def __init__(
        self,
        log: EventLog,
        metrics: Metrics | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.log = log
        self.metrics = metrics or Metrics()
        self.hour = LastHour()
        self.destinations = Destinations()
        self.sessions_open = 0
        self._now = now
        started = now()
        self._refusals = Refusals(started)
        self._warned: dict[tuple[str, str, str], float] = {}

    # What the edge calls.

    def session_started(self, story: Story) -> None:
        self.sessions_open += 1
        self.metrics.route(story.route).open += 1
        if self.log.debug_on:
            self._emit(story, "debug", "session-start", {"port": story.client_port})

    def destination_connected(self, story: Story, seconds: float) -> None:
        self.metrics.route(story.route).connect.observe(seconds)
        now = self._now()
        self.destinations.state(story.route, story.destination_name, story.destination).connected(now)
        if self.log.debug_on:
            self._emit(story, "debug", "destination-connected", {"seconds": seconds})

    def destination_failed(self, route: str, destination: str, name: str, reason: str, story: Story | None) -> None:
        # A name that has no address is told as its own address.
        address = "" if name and destination.rpartition(":")[0] == name else destination
        failures = self.destinations.state(route, name, address).failed(self._now())
        level = "warning" if failures else "debug"
        fields: dict[str, object] = self.session_fields(story) if story is not None else {"route": route}
        fields["destination"] = _destination(name, destination)
        fields["reason"] = reason
        fields["failures"] = failures if failures > 1 else None
        self.log.emit(level, "destination-failed", fields)

    def ehlo_replied(self, story: Story, result: RepairResult, seconds: float, phase: str) -> None:
        counts = self.metrics.route(story.route)
        counts.ehlo.observe(seconds)
        state = self.destinations.state(story.route, story.destination_name, story.destination)
        changed = state.ehlo(result, self._now(), phase)
        if not result.findings:
            return
        told = told_of(result.findings)
        for found in told.found:
            counts.found(found)
        if self.log.info_on:
            if not changed and self._tell_known(story, told, phase):
                return
            fields: dict[str, object] = {"findings": told.ids, "repaired": told.repaired, "phase": phase}
            if changed:
                fields["before"] = list(result.before)
                fields["after"] = list(result.after)
            self._emit(story, "info", "ehlo-findings", fields)

    def starttls_answered(self, story: Story, result: str) -> None:
        self.metrics.route(story.route).starttls_answered(result)
        if self.log.debug_on:
            self._emit(story, "debug", "starttls", {"result": result})

    def tls_started(
        self, story: Story, side: str, version: str, sni: str, cipher: str, verified: str, not_after: float
    ) -> None:
        if not_after > 0:
            if side == "client":
                self.certificate_seen(story.route, "client", "", not_after)
            else:
                state = self.destinations.state(story.route, story.destination_name, story.destination)
                state.certificate_not_after = not_after
                subject = _destination(story.destination_name, story.destination)
                self.certificate_seen(story.route, "server", subject, not_after)
        if self.log.debug_on:
            fields = {"side": side, "version": version, "sni": sni, "cipher": cipher, "verified": verified}
            self._emit(story, "debug", "tls", {**fields, "not_after": _utc_or_none(not_after)})

    def injected(self, story: Story, event: str, detail: str) -> None:
        self._emit(story, "warning", event, {"detail": detail})

    def noticed(self, story: Story | None, event: str, level: str, fields: dict[str, object]) -> None:
        told = self.session_fields(story) if story is not None else {}
        told.update(fields)
        if event == "ehlo-findings" and story is not None:
            self._count_late(story, told)
        self.log.emit(level, event, told, max_text=_MAX_NOTICE)

    def refused(self, story: Story, kind: str) -> None:
        now = self._now()
        if self._refusals.due(now):
            self._tell_refused(now)
        self.metrics.route(story.route).ended("refused", story.bytes_from_client, story.bytes_from_server)
        if self._refusals.tell(story.client) and self.log.info_on:
            story.outcome = story.outcome or "refused"
            story.by = story.by or "proxy"
            self._tell_end(story, 0.0)

    def session_ended(self, story: Story, seconds: float) -> None:
        counts = self.metrics.route(story.route)
        counts.open -= 1
        self.sessions_open -= 1
        counts.ended(story.outcome, story.bytes_from_client, story.bytes_from_server)
        self.hour.count(self._now(), story.ehlo == "repaired")
        if self.log.info_on:
            self._tell_end(story, seconds)

    def slow_turn(self, owner: str, seconds: float) -> None:
        self.log.emit("warning", "slow-turn", {"owner": owner, "seconds": seconds})

    # What the service calls.

    def tick(self) -> None:
        """To be called about once a second: tells the refusals of a minute that is over."""
        now = self._now()
        if self._refusals.due(now):
            self._tell_refused(now)

    def flush(self) -> None:
        """At the end: tell the refusals that were not told yet."""
        self._tell_refused(self._now())

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

    def session_id(self, story: Story) -> str:
        """The session's name in the log, for what else is named after it."""
        return story.id

    def session_fields(self, story: Story) -> dict[str, object]:
        """What every event of a session carries."""
        fields: dict[str, object] = {
            "session": story.id,
            "route": story.route,
            "client": story.client,
        }
        if story.destination or story.destination_name:
            fields["destination"] = _destination(story.destination_name, story.destination)
        return fields

    def snapshot(self) -> Snapshot:
        """All of this process that `proxy.daemon.admin.status` adds up over the workers; JSON-able."""
        now = self._now()
        return {
            "metrics": self.metrics.snapshot(),
            "destinations": self.destinations.snapshot(now),
            "hour": self.hour.snapshot(now),
        }

    # How it is said.

    def _emit(self, story: Story, level: str, event: str, fields: dict[str, object]) -> None:
        self.log.emit(level, event, {**self.session_fields(story), **fields})

    def _count_late(self, story: Story, told: dict[str, object]) -> None:
        """EHLO lines that came after their reply was over: findings like those of a reply, in the same form."""
        repaired = bool(told.get("repaired"))
        findings = told.get("findings")
        ids = [str(finding_id) for finding_id in findings] if isinstance(findings, (list, tuple)) else []
        for finding_id in ids:
            self.metrics.route(story.route).found((finding_id, repaired))
        told["repaired"] = ids if repaired else []

    def _tell_refused(self, now: float) -> None:
        for client, count in self._refusals.untold(now):
            self.log.emit("info", "refused", {"client": client, "count": count})

    def _tell_known(self, story: Story, told: Told, phase: str) -> bool:
        """`ehlo-findings` of a reply that was told before, in a hurry.  False when that cannot be done plainly."""
        where = _destination(story.destination_name, story.destination)
        words = f"{story.route} {story.client} {where}"
        if self.log.json or not where or not _all_plain(words) or words.count(" ") != 2:
            return False
        self.log.send(
            "info",
            f"ehlo-findings session={story.id} route={story.route} client={story.client} "
            f"destination={where} {told.text} phase={phase}",
        )
        return True

    def _tell_end(self, story: Story, seconds: float) -> None:
        destination = story.destination
        name = story.destination_name
        if name or destination:
            destination = _destination(name, destination)
        words = (
            f"{story.route} {story.client} {destination} {story.outcome} {story.by} {story.ehlo} "
            f"{story.tls} {story.tls_version} {story.sni}"
        )
        # Eight blanks are ours; more would be a value's own, and a value with a blank in it wants quoting.
        if (
            not _all_plain(words)
            or words.count(" ") != 8
            or story.reason
            or len(story.sni) > 200
            or not story.route
            or not story.client
        ):
            self.log.emit("info", "session-end", self._end_fields(story, seconds))
            return
        session = story.id
        repaired = unique(story.repaired) if len(story.repaired) > 1 else story.repaired
        if self.log.json:
            where = f',"destination":"{destination}"' if destination else ""
            ids = '","'.join(repaired)
            self.log.send(
                "info",
                f'{self.log.json_head("info", "session-end")},"session":"{session}","route":"{story.route}",'
                f'"client":"{story.client}"{where},"outcome":"{story.outcome}","by":"{story.by}",'
                f'"ehlo":"{story.ehlo}","repaired":{f"""["{ids}"]""" if ids else "[]"},"tls":"{story.tls}",'
                f'"tls_version":"{story.tls_version}","sni":"{story.sni}","seconds":{seconds:.3f},'
                f'"bytes_from_client":{story.bytes_from_client},"bytes_from_server":{story.bytes_from_server}}}',
            )
        else:
            where = f" destination={destination}" if destination else ""
            self.log.send(
                "info",
                f"session-end session={session} route={story.route} client={story.client}{where} "
                f"outcome={story.outcome or _NOTHING} by={story.by or _NOTHING} ehlo={story.ehlo or _NOTHING} "
                f"repaired={','.join(repaired) or _NOTHING} tls={story.tls or _NOTHING} "
                f"tls_version={story.tls_version or _NOTHING} sni={story.sni or _NOTHING} "
                f"seconds={seconds:.3f} bytes_from_client={story.bytes_from_client} "
                f"bytes_from_server={story.bytes_from_server}",
            )

    def _end_fields(self, story: Story, seconds: float) -> dict[str, object]:
        return {
            **self.session_fields(story),
            "outcome": story.outcome,
            "by": story.by,
            "ehlo": story.ehlo,
            "repaired": list(unique(story.repaired)),
            "tls": story.tls,
            "tls_version": story.tls_version,
            "sni": story.sni,
            "seconds": seconds,
            "bytes_from_client": story.bytes_from_client,
            "bytes_from_server": story.bytes_from_server,
            "reason": story.reason or None,
        }


_NOTHING = '""'


def _destination(name: str, address: str) -> str:
    """Name and address as Postfix writes them: `mx.example[192.0.2.10]:25`, `[2001:db8::1]:25`, or the one known."""
    if not name or not address or name == address:
        return address or name
    host, _, port = address.rpartition(":")
    if host == name:
        return address
    host = host if host.startswith("[") else f"[{host}]"
    return f"{name.removesuffix(':' + port)}{host}:{port}"


def _utc_or_none(seconds: float) -> str | None:
    return utc(seconds) if seconds > 0 else None
