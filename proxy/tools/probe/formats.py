"""What `probe` concluded, for programs: one JSON document, a Nagios plugin's line, Prometheus' text.

In JSON replies and messages are the bytes as Latin-1; the keys are always the same, null for what was not seen, and
with a single target its keys stand at the top as well.  The other two have only printable ASCII of what a server said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from proxy import __version__
from proxy.tools.dialogue import printable
from proxy.tools.probe.converse import Seen
from proxy.tools.probe.names import Dane
from proxy.tools.probe.seen import Judged, TlsSeen
from proxy.tools.probe.verdict import VERDICTS, Conclusion, Result
from proxy.tools.repair import as_document

SCHEMA = 1  # rises when a key changes its meaning or goes; new ones may come


def as_json(results: Sequence[Result], now: datetime) -> str:
    """The document of `--format json`."""
    targets = [_target(result) for result in results]
    document: dict[str, Any] = {
        "tool": "ehlo-proxy",
        "version": __version__,
        "time": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "schema": SCHEMA,
        "targets": targets,
    }
    if len(targets) == 1:
        document |= targets[0]
    return json.dumps(document, indent=2)


def _target(result: Result) -> dict[str, Any]:
    seen, conclusion = result.worst
    return {
        "target": result.target.label,
        "route": result.target.route or None,
        "host": result.target.host,
        "port": result.target.port,
        **_address(seen, conclusion),
        "dane": _dane(result.dane),
        "addresses": [{"address": each.address, "verdict": made.verdict or None, "cause": made.cause}
                      for each, made in result.addresses],
    }  # fmt: skip


def _address(seen: Seen, conclusion: Conclusion) -> dict[str, Any]:
    before = _reply(seen.before_tls)
    if before is not None:
        before["findings"] = [each._asdict() for each in seen.banner_findings] + before["findings"]
    return {
        "address": seen.address or None,
        "banner": seen.banner.decode("latin-1") or None,
        "before_tls": before,
        "starttls": seen.starttls_reply.decode("latin-1") or None,
        "tls": _tls(seen.tls),
        "after_tls": _reply(seen.after_tls),
        "hellos": [{"hello": each.hello, "octets": each.octets, "result": each.result or None} for each in seen.tried],
        "findings": [each._asdict() for each in seen.findings],
        "problem": seen.problem or None,
        "verdict": conclusion.verdict or None,
        "cause": conclusion.cause,
        "cure": conclusion.cure,
        "toml": conclusion.toml,
        "steps": {step: round(seconds, 6) for step, seconds in seen.steps.items()},
    }


def _reply(reply: Judged | None) -> dict[str, Any] | None:
    if reply is None:
        return None
    return as_document(reply.result) | {
        "changed_if_strict": reply.strict.changed,
        "received": reply.raw.decode("latin-1"),
    }


def _tls(tls: TlsSeen | None) -> dict[str, Any] | None:
    if tls is None:
        return None
    certificate = tls.certificate
    return {
        "version": tls.version,
        "cipher": tls.cipher,
        "certificate": certificate
        and {
            "subject": certificate.subject,
            "names": list(certificate.names),
            "not_after": certificate.not_after,
            "sha256_spki": certificate.sha256_spki,
        },
        "verified": tls.verified,
        "reason": tls.reason,
    }


def _dane(dane: Dane | None) -> dict[str, Any] | None:
    if dane is None:
        return None
    return {
        "name": dane.name,
        "validated": dane.validated,
        "records": [{"record": str(each), "usage": each.usage, "selector": each.selector, "matching": each.matching,
                     "data": each.data.hex(), "fits": each.fits} for each in dane.records],
        "problem": dane.problem or None,
    }  # fmt: skip


# ---------------------------------------------------------------------- Nagios

_STATES = ("OK", "WARNING", "CRITICAL")


def nagios_code(results: Sequence[Result]) -> int:
    """0 well; 1 findings that are only reported; 2 a sender fails, or no answer."""
    return max(_state(result) for result in results)


def _state(result: Result) -> int:
    if result.worst[1].exit_code:
        return 2
    return 1 if result.findings else 0


def as_nagios(results: Sequence[Result]) -> str:
    """One line, the worst target first."""
    told = []
    for result in sorted(results, key=_state, reverse=True):
        conclusion = result.worst[1]
        ids = ", ".join(each.id for each in result.findings)
        words = [conclusion.verdict or "no answer", conclusion.cause, f"Findings: {ids}." if ids else ""]
        told.append(f"{result.target.label}: {words[0]}. {' '.join(filter(None, words[1:]))}")
    seconds = sum(sum(seen.steps.values()) for result in results for seen, _ in result.addresses)
    line = printable(f"EHLO {_STATES[nagios_code(results)]} - {'; '.join(told)}").replace("|", "/")
    return f"{line} | time={seconds:.3f}s"


# ---------------------------------------------------------------------- Prometheus


def as_prometheus(results: Sequence[Result], now: datetime) -> str:
    """For the textfile collector of the node exporter.  A target without an answer has no verdict that is 1."""
    once = list({result.target.label: result for result in results}.values())
    verdicts = (
        (_labels(target=result.target.label, verdict=verdict), int(result.worst[1].verdict == verdict))
        for result in once
        for verdict in VERDICTS
    )
    findings = (
        (_labels(target=result.target.label, finding=finding.id), 1) for result in once for finding in result.findings
    )
    steps = (
        (_labels(target=result.target.label, step=step), round(seconds, 6))
        for result in once
        for step, seconds in result.worst[0].steps.items()
    )
    lines = [
        *_family("ehlo_probe_verdict", "What cures the server for a sender: 1 for the one that holds.", verdicts),
        *_family("ehlo_probe_finding", "What is wrong with the server, 1 each.", findings),
        *_family("ehlo_probe_step_seconds", "How long each step took.", steps),
        *_family("ehlo_probe_time_seconds", "When this was written, Unix time.", [("", round(now.timestamp(), 3))]),
    ]
    return "\n".join(lines) + "\n"


def _family(name: str, what: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {name} {what}"
    yield f"# TYPE {name} gauge"
    for labels, value in samples:
        yield f"{name}{labels} {value}"


def _labels(**labels: str) -> str:
    def escaped(text: str) -> str:
        return printable(text).replace("\\", "\\\\").replace('"', '\\"')

    return "{" + ",".join(f'{name}="{escaped(value)}"' for name, value in labels.items()) + "}"
