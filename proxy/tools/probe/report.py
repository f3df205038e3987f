"""What `probe` saw and concluded, for a person to read and to paste into a ticket: 80 columns, printable ASCII only.

The conversation comes first, line by line with the time of each step; then what is wrong; then the verdict, for vendor
and administrator alike, and the TOML that cures it, flush left so that it can be pasted.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TextIO

from proxy import __version__
from proxy.smtp.lines import split_lines
from proxy.smtp.reply.findings import FINDINGS, Finding
from proxy.tools.dialogue import Style, line_text, printable, style_for
from proxy.tools.probe.converse import Seen
from proxy.tools.probe.names import Dane
from proxy.tools.probe.seen import Judged, TlsSeen
from proxy.tools.probe.verdict import Conclusion, Result

WIDTH = 78
MAX_LINES_SHOWN = 60  # of a reply; the longest real ones have 25
MAX_LINE_SHOWN = 300


def has_body(result: Result) -> bool:
    """There is more to show than that there was no answer."""
    return any(seen.banner or seen.tried or seen.before_tls for seen, _ in result.addresses)


def show(results: Sequence[Result], now: datetime, out: TextIO) -> None:
    """Print the report; of a target with several addresses the one that counts, and a line for each of the others."""
    style = style_for(out)
    for result in results:
        if has_body(result):
            for line in report(result, style, now):
                print(line.rstrip(), file=out)
    if len(results) > 1:
        print(style("bold", "All targets"), file=out)
        for result in results:
            told = result.worst[1].verdict or "no answer"
            route = f", route {result.target.route}" if result.target.route else ""
            shown = _coloured(style, result.worst[1], f"{told:<11}")
            print(f"  {shown} {printable(result.target.label + route)}", file=out)


def report(result: Result, style: Style, now: datetime) -> Iterator[str]:
    """The report on one target, line by line."""
    seen, conclusion = result.worst
    target = result.target
    where = f"{target.host}, port {target.port}"
    if seen.address not in ("", target.host):
        where += f", address {seen.address}"
    if target.route:
        where += f" (route {target.route})"
    yield style("bold", printable(f"Probe of {where}"))
    connected = f", connected in {seen.steps['connect']:.3f} s" if "connect" in seen.steps else ""
    yield f"by ehlo-proxy {__version__}, {now:%Y-%m-%d %H:%M} UTC{connected}"
    yield from _conversation(seen, style)
    if seen.dialogue:
        yield from _section(style, "The dialogue")
        for number, finding in enumerate(seen.dialogue):
            yield from [""] if number else []
            yield from _finding(style, finding, "reported, not changed; the verdict says what cures it")
    if result.dane is not None:
        yield from _dane(result.dane, style)
    if len(result.addresses) > 1:
        yield from _section(style, "All its addresses")
        for each, concluded in result.addresses:
            yield f"  {concluded.verdict or 'no answer':<12}{printable(each.address)}"
            if not concluded.verdict:
                yield from _filled(printable(concluded.cause), "    ")
    yield from _verdict(seen, conclusion, style)
    yield ""


def _verdict(seen: Seen, conclusion: Conclusion, style: Style) -> Iterator[str]:
    yield ""
    told = conclusion.verdict or "no answer"
    yield style("bold", "Verdict: ") + _coloured(style, conclusion, told)
    yield from _filled(printable(conclusion.cause), "  ")
    if conclusion.verdict and seen.problem:
        yield from _filled(printable(f"The probe ended early: {seen.problem}."), "  ")
    if conclusion.cure:
        yield from _filled(conclusion.cure, "  ")
    if conclusion.toml:
        yield ""
        if conclusion.verdict == "none":
            yield from _filled("Only for senders that miss keywords in small letters, pass-through helps:", "  ")
        yield "  To paste into /etc/ehlo-proxy/ehlo-proxy.toml:"
        yield ""
        yield from map(printable, conclusion.toml.split("\n"))


def _coloured(style: Style, conclusion: Conclusion, text: str) -> str:
    kind = {0: "good", 3: "bad"}.get(conclusion.exit_code, "bad" if conclusion.verdict == "server" else "changed")
    return style(kind, text)


def _conversation(seen: Seen, style: Style) -> Iterator[str]:
    implicit = seen.target.implicit_tls
    if implicit:
        yield from _handshake(seen, style, "TLS from the first byte")
    if seen.banner:
        yield from _section(style, "The server's banner", seen.steps.get("banner"))
        for line in split_lines(seen.banner):
            yield from _said("S", line)
        for finding in seen.banner_findings:
            yield ""
            yield from _finding(style, finding, "repaired")
    if seen.before_tls is not None:
        yield from _section(style, "Its EHLO reply in clear", seen.steps.get("ehlo"))
        yield from _said("C", b"EHLO " + seen.ehlo_name.encode("latin-1", "replace"))
        yield from _reply(style, seen.before_tls)
    if seen.helo_reply:
        yield from _section(style, "HELO instead")
        for line in split_lines(seen.helo_reply):
            yield from _said("S", line)
    if seen.starttls_reply or seen.starttls_ended:
        yield from _section(style, "STARTTLS", seen.steps.get("starttls"))
        yield from _said("C", b"STARTTLS")
        for line in split_lines(seen.starttls_reply + seen.behind_starttls):
            yield from _said("S", line)
    if not implicit:
        yield from _handshake(seen, style, "The TLS handshake")
    if seen.after_tls is not None:
        yield from _section(style, "Its EHLO reply inside TLS", seen.steps.get("ehlo_tls"))
        yield from _said("C", b"EHLO " + seen.ehlo_name.encode("latin-1", "replace"))
        yield from _reply(style, seen.after_tls, inside_tls=True)


def _section(style: Style, title: str, seconds: float | None = None) -> Iterator[str]:
    yield ""
    yield style("bold", title) + ("" if seconds is None else f"  ({seconds:.3f} s)")


def _said(who: str, line: bytes, mark: str = "") -> Iterator[str]:
    text = line_text(line.decode("latin-1"))
    if len(text) > MAX_LINE_SHOWN:
        text = f"{text[:MAX_LINE_SHOWN]} ... ({len(line)} octets)"
    pieces = [text[at : at + WIDTH - 5] for at in range(0, len(text), WIDTH - 5)] or [""]
    arrow = f"   <-- {mark}" if mark else ""
    for number, piece in enumerate(pieces):
        shown = f"  {who}: {piece}" if not number else f"     {piece}"
        if number + 1 < len(pieces) or len(shown) + len(arrow) <= WIDTH:
            yield shown + (arrow if number + 1 == len(pieces) else "")
        else:
            yield shown
            yield f"     {arrow.strip()}"


def _reply(style: Style, reply: Judged, inside_tls: bool = False) -> Iterator[str]:
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
        yield style("good", "  Nothing is wrong with it." if not reply.result.refused else "")
        return
    for finding in findings:
        yield ""
        if finding.id == "xclient-offered":
            done = "reported; a session that shows it is ended, unless the client is trusted or `xclient = true`"
        elif finding.repaired:
            done = "repaired, in bridge mode" if inside_tls else "repaired"
        else:
            done = "left as it is, unless `strict = true`" if finding in strict_only else "reported, not changed"
        yield from _finding(style, finding, done)
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


def _finding(style: Style, finding: Finding, done: str) -> Iterator[str]:
    where = f"line {finding.line}, " if finding.line else ""
    clause = finding.clause or FINDINGS[finding.id].clause
    yield style("bad" if finding.repaired else "changed", f"  {finding.id}") + f", {where}{clause}"
    yield from _filled(printable(finding.message), "    ")
    yield from _filled(f"Who breaks on it: {FINDINGS[finding.id].breaks}", "    ")
    yield from _filled(f"By the proxy: {done}", "    ")


def _handshake(seen: Seen, style: Style, title: str) -> Iterator[str]:
    if not seen.tried:
        return
    yield from _section(style, title, seen.steps.get("handshake"))
    for tried in seen.tried:
        if len(seen.tried) > 1 or tried.result:
            answer = tried.result or "answered"
            words = printable(f"ClientHello {tried.words}, {tried.octets} octets: {answer}")
            yield from (style("bad" if tried.result else "good", line) for line in _filled(words, "  "))
    if seen.tls is not None:
        yield from _tls(seen.tls, seen.target.asked.name or seen.target.host, style)


def _tls(tls: TlsSeen, name: str, style: Style) -> Iterator[str]:
    yield f"  {tls.version}, {tls.cipher}"
    if tls.certificate is not None:
        names = ", ".join(tls.certificate.names) or "no name"
        yield from _filled(printable(f"Certificate: {tls.certificate.subject}, for {names}"), "  ")
        yield f"  valid until {tls.certificate.not_after}"
        yield f"  key sha256:{tls.certificate.sha256_spki}"
    host, reason = printable(name), printable(tls.reason)
    if tls.verified:
        yield from (style("good", line) for line in _filled(f"It would be verified for {host}.", "  "))
    elif tls.verified is None:
        yield from _filled(f"Whom it is for can't be said: {reason}.", "  ")
    else:
        told = f"It would NOT be verified for {host}: {reason}. Most senders don't ask, and encrypt all the same."
        yield from (style("changed", line) for line in _filled(told, "  "))


def _dane(dane: Dane, style: Style) -> Iterator[str]:
    yield from _section(style, f"DANE: TLSA records of {printable(dane.name)}")
    if dane.problem:
        yield from _filled(printable(f"Unknown. {dane.problem}."), "  ")
    elif not dane.records:
        yield "  There are none."
    for record in dane.records:
        fit = {True: "fits the certificate seen", False: "does NOT fit the certificate seen", None: "not compared"}
        yield from _filled(f"{record}", "  ")
        yield style("good" if record.fits else "changed", f"    {fit[record.fits]}")
    if dane.records:
        by = "validated, says the resolver on this host" if dane.validated else "not validated"
        yield f"  The answer is {by}."


def _filled(text: str, indent: str) -> Iterable[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=True
    )
