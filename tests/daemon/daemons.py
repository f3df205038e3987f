"""A daemon's reports without a daemon: a clock that the test moves, lines that it reads, judged EHLO replies."""

from __future__ import annotations

import itertools
import json

from proxy.daemon.admin.figures.counters import Metrics
from proxy.daemon.log.logs import EventLog
from proxy.daemon.reports import Reports
from proxy.net.observer import Story
from proxy.smtp.reply import repair
from proxy.smtp.reply.repair import RepairResult

BROKEN = ("250-STARTTLS", "250-mail.domain1.com", "250 HELP")
MENDED = ("250-mail.domain1.com", "250-STARTTLS", "250 HELP")


def reply_of(
    before: tuple[str, ...], after: tuple[str, ...] = (), *findings: tuple[str, bool], size: int = 0
) -> RepairResult:
    """A judged reply; each call makes its own, as different sessions do."""
    after = after or before
    kind = getattr(repair, "Finding", None)
    if kind is None:
        from proxy.smtp.reply.findings import Finding as kind  # type: ignore[no-redef]  # where it lives otherwise
    return RepairResult(
        reply="".join(line + "\r\n" for line in after).encode("latin-1") + b" " * size,
        changed=before != after,
        findings=tuple(
            kind(id=finding, line=1, repaired=repaired, message="", clause="") for finding, repaired in findings
        ),
        before=tuple(line.encode("latin-1") for line in before),
        after=tuple(line.encode("latin-1") for line in after),
        refused=False,
        keywords=frozenset(),
        offers_xclient=False,
    )


class Daemon:
    """A Reports with a clock that the test moves, and its lines."""

    def __init__(self, level: str = "info", format: str = "json") -> None:
        self.time = 1700000000.0
        self.lines: list[bytes] = []
        self.metrics = Metrics()
        log = EventLog(self.lines.append, level=level, format=format, clock=lambda: self.time)
        self.reports = Reports(log, self.metrics, now=lambda: self.time)
        self._numbers = itertools.count(1)

    def story(self, client: str = "192.0.2.3", destination: str = "192.0.2.10:25", name: str = "") -> Story:
        story = Story(f"t-{next(self._numbers):x}", "domain1", client, 40000, 0.0)
        story.destination = destination
        story.destination_name = name
        return story

    def events(self) -> list[dict[str, object]]:
        events = [json.loads(line) for line in self.lines]
        self.lines.clear()
        for event in events:
            del event["time"]
        return events

    def texts(self) -> list[str]:
        lines = [line.decode("ascii") for line in self.lines]
        self.lines.clear()
        return lines


def ended(story: Story, outcome: str = "completed", by: str = "client") -> Story:
    story.outcome = outcome
    story.by = by
    return story
