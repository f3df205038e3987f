"""What `probe` saw, for a person to read and to paste into a ticket, or as one JSON document.

The text has only printable ASCII of what the server said.  In JSON replies and messages are the bytes as Latin-1.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

from proxy.smtp.lines import split_lines
from proxy.smtp.reply.findings import FINDINGS, Finding
from proxy.tools.dialogue import Style, line_text, printable, style_for
from proxy.tools.probe.command import Judged, Probed, TlsSeen

WIDTH = 92
MAX_LINES_SHOWN = 60  # of a reply; the longest real ones have 25
MAX_LINE_SHOWN = 300


def as_json(seen: Probed) -> str:
    """The document of `probe --json`: stable keys, null for what was not seen."""
    before = _reply_json(seen.before_tls)
    if before is not None:
        before["findings"] = [_finding_json(each) for each in seen.banner_findings] + before["findings"]
    document = {
        "host": seen.options.host,
        "port": seen.options.port,
        "address": seen.address or None,
        "banner": seen.banner.decode("latin-1") or None,
        "before_tls": before,
        "starttls": seen.starttls_reply.decode("latin-1") or None,
        "tls": _tls_json(seen.tls),
        "after_tls": _reply_json(seen.after_tls),
        "problem": seen.problem or None,
    }
    return json.dumps(document, indent=2)


def _reply_json(reply: Judged | None) -> dict[str, Any] | None:
    if reply is None:
        return None
    return {
        "changed": reply.result.changed,
        "changed_if_strict": reply.strict.changed,
        "received": reply.raw.decode("latin-1"),
        "reply": reply.result.reply.decode("latin-1"),
        "findings": [_finding_json(finding) for finding in reply.result.findings],
    }


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.id,
        "line": finding.line,
        "repaired": finding.repaired,
        "message": finding.message,
        "clause": finding.clause,
    }


def _tls_json(tls: TlsSeen | None) -> dict[str, Any] | None:
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


# ---------------------------------------------------------------- for people


def show(seen: Probed, out: TextIO) -> None:
    """Print the report."""
    style = style_for(out)
    for line in report(seen, style, datetime.now(UTC)):
        print(line.rstrip(), file=out)


def report(seen: Probed, style: Style, now: datetime) -> Iterable[str]:
    """The report, line by line."""
    options = seen.options
    where = f"{options.host}, port {options.port}"
    if seen.address not in ("", options.host):
        where += f", address {seen.address}"
    yield style("bold", printable(f"Probe of {where}, {now:%Y-%m-%d %H:%M} UTC"))
    if seen.banner:
        yield from _section(style, "The server's banner")
        for finding in seen.banner_findings:
            yield from _finding(style, finding, repairs=True)
        for line in split_lines(seen.banner):
            yield from _said("S", line)
    if seen.before_tls is not None:
        yield from _section(style, "Its EHLO reply in clear")
        yield from _said("C", b"EHLO " + seen.ehlo_name.encode("latin-1", "replace"))
        yield from _reply(style, seen.before_tls)
    yield from _tls(seen, style)
    if seen.after_tls is not None:
        yield from _section(style, "Its EHLO reply inside TLS")
        yield from _said("C", b"EHLO " + seen.ehlo_name.encode("latin-1", "replace"))
        yield from _reply(style, seen.after_tls)
    yield from _section(style, "Conclusion")
    for text in conclusions(seen):
        yield from _filled(text, "  ")


def conclusions(seen: Probed) -> Iterable[str]:
    """What it means, in sentences."""
    before, after = seen.before_tls, seen.after_tls
    if seen.problem:
        yield f"The probe ended early: {seen.problem}."
    if before is None:
        return
    if before.result.refused:
        yield "The server refuses EHLO; there is nothing to repair. A proxy passes the refusal on."
    elif seen.banner_findings and not before.result.changed:
        yield "EHLO lines come before the banner; the proxy removes them."
    elif before.result.changed:
        yield "The reply in clear is broken; the proxy repairs it in its default mode, pass-through."
    elif before.strict.changed:
        yield "The reply in clear is untidy; the proxy repairs that only with `strict = true`."
    else:
        yield "The reply in clear needs no repair."
    if not before.result.refused and not before.offers_starttls and not seen.starttls_reply:
        yield "The server offers no STARTTLS here."
    if after is None:
        return
    if after.result.changed:
        yield (
            "The reply inside TLS is broken as well. Pass-through can't read it there, so it will not be enough: "
            'this server needs bridge mode, `mode = "bridge"` in [route.tls].'
        )
    elif after.strict.changed:
        yield "The reply inside TLS is untidy; only bridge mode with `strict = true` repairs that."
    else:
        yield "The reply inside TLS needs no repair: pass-through is enough."


def _section(style: Style, title: str) -> Iterable[str]:
    yield ""
    yield style("bold", title)


def _said(who: str, line: bytes, mark: str = "") -> Iterable[str]:
    text = line_text(line.decode("latin-1"))
    if len(text) > MAX_LINE_SHOWN:
        text = f"{text[:MAX_LINE_SHOWN]} ... ({len(line)} octets)"
    yield f"  {who}: {text}" + (f"   <-- {mark}" if mark else "")


def _reply(style: Style, reply: Judged) -> Iterable[str]:
    findings, strict_only = reply.result.findings, _strict_only(reply)
    marks: dict[int, list[str]] = {}
    for finding in findings:
        if finding.id not in marks.setdefault(finding.line, []):
            marks[finding.line].append(finding.id)
    lines = split_lines(reply.raw)
    for number, line in enumerate(lines[:MAX_LINES_SHOWN], 1):
        yield from _said("S", line, ", ".join(marks.get(number, ())))
    if len(lines) > MAX_LINES_SHOWN:
        yield f"  ... and {len(lines) - MAX_LINES_SHOWN} more lines"
    if not findings:
        yield style("good", "  Nothing is wrong with it.")
        return
    for finding in findings:
        yield ""
        yield from _finding(style, finding, finding.repaired, finding in strict_only)
    if reply.result.changed:
        yield ""
        yield "  A correct reply, as the proxy sends it in place of that:"
        for line in split_lines(reply.result.reply):
            yield from _said("S", line)


def _strict_only(reply: Judged) -> list[Finding]:
    """Findings that only `strict` repairs."""
    repaired = {(finding.id, finding.line) for finding in reply.strict.findings if finding.repaired}
    return [
        finding for finding in reply.result.findings if not finding.repaired and (finding.id, finding.line) in repaired
    ]


def _finding(style: Style, finding: Finding, repairs: bool, strict_only: bool = False) -> Iterable[str]:
    kind = FINDINGS[finding.id]
    where = f"line {finding.line}" if finding.line else "the whole reply"
    clause = finding.clause or kind.clause
    yield style("bad" if repairs else "changed", f"  {finding.id}") + f", {where}, {clause}"
    yield from _filled(printable(finding.message), "    ")
    yield from _filled(f"Who breaks on it: {kind.breaks}", "    ")
    if repairs:
        done = "repaired"
    elif strict_only:
        done = "left as it is, unless `strict = true`"
    else:
        done = "reported, not changed"
    yield f"    By the proxy: {done}"


def _tls(seen: Probed, style: Style) -> Iterable[str]:
    if not seen.starttls_reply:
        return
    yield from _section(style, "STARTTLS")
    yield from _said("C", b"STARTTLS")
    for line in split_lines(seen.starttls_reply):
        yield from _said("S", line)
    tls = seen.tls
    if tls is None:
        return
    yield f"  {tls.version}, {tls.cipher}"
    if tls.certificate is not None:
        names = ", ".join(tls.certificate.names) or "no name"
        yield from _filled(printable(f"Certificate: {tls.certificate.subject}, for {names}"), "  ")
        yield f"  valid until {tls.certificate.not_after}, key sha256:{tls.certificate.sha256_spki}"
    host = printable(seen.options.host)
    if tls.verified:
        yield style("good", f"  It would be verified for {host}.")
    else:
        yield from (
            style("changed", line)
            for line in _filled(f"It would NOT be verified for {host}: {printable(tls.reason)}.", "  ")
        )


def _filled(text: str, indent: str) -> Iterable[str]:
    yield from textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )  # fmt: skip
