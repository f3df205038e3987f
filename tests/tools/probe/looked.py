"""A server on loopback, probed: what was seen, what was concluded, and the report; for the tests of this room."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from proxy.tools.probe import command, formats, report
from proxy.tools.probe.converse import Seen
from proxy.tools.probe.seen import Asked, Target
from proxy.tools.probe.verdict import Conclusion, Result

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Looked(NamedTuple):
    """One server, looked at."""

    result: Result
    out: str

    @property
    def seen(self) -> Seen:
        return self.result.worst[0]

    @property
    def conclusion(self) -> Conclusion:
        return self.result.worst[1]

    @property
    def ids(self) -> set[str]:
        return {finding.id for finding in self.seen.findings}

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(formats.as_json([self.result], NOW))
        return document


def look(port: int, timeout: float = 1.5, host: str = "127.0.0.1", **asked: Any) -> Looked:
    """Probe one port of this host."""
    what = Asked(**{"ehlo": "probe.example", "timeout": timeout, **asked})
    result = command.probe(Target(f"{host}:{port}", host, port, what))
    out = io.StringIO()
    report.show([result], NOW, out)
    return Looked(result, out.getvalue())
