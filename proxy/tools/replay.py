"""`replay FILE`: a transcript of `proxy.net.carrier.record`, client and server side by side.

Exit: 0; 2 when the file can't be read or is no transcript.  A transcript that breaks off in its last line, because the
process did, is shown as far as it goes.
"""

from __future__ import annotations

import json
from typing import Any, TextIO

from proxy.tools.dialogue import Dialogue, Spoken, printable, style_for, width_for

MAX_TRANSCRIPT = 64 * 1024 * 1024  # bytes; `proxy.net.carrier.record` writes at most 1 MiB
FORMAT = 1


class NotATranscript(Exception):
    """The text says where and why, for a person."""


def run(path: str, out: TextIO, err: TextIO) -> int:
    """Show the transcript at `path` on `out`."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_TRANSCRIPT + 1)
        head, spoken = read_transcript(data)
    except OSError as error:
        print(f"ehlo-proxy replay: {path}: {error.strerror or error}", file=err)
        return 2
    except NotATranscript as problem:
        print(f"ehlo-proxy replay: {path}: not a transcript: {problem}", file=err)
        return 2
    style = style_for(out)
    print(style("bold", _title(head)), end="\n\n", file=out)
    for line in Dialogue(width_for(out), style, claim).render(spoken):
        print(line, file=out)
    return 0


def read_transcript(data: bytes) -> tuple[dict[str, Any], list[Spoken]]:
    """The first object of a transcript, and all that was said.  Raises `NotATranscript`."""
    if len(data) > MAX_TRANSCRIPT:
        raise NotATranscript(f"it is over {MAX_TRANSCRIPT} bytes")
    lines = data.split(b"\n")
    rest = lines.pop()
    if not lines:
        raise NotATranscript("it has no line" if not rest else "its first line has no end")
    head = _entry(lines[0], 1)
    if head.get("transcript") != FORMAT:
        raise NotATranscript(f'its first line does not have "transcript": {FORMAT}, as `run --record` writes it')
    spoken = [_spoken(_entry(line, number), number) for number, line in enumerate(lines[1:], 2)]
    if rest:
        spoken.append(Spoken(spoken[-1].at if spoken else 0.0, "proxy", note="the transcript breaks off here"))
    return head, spoken


def _entry(line: bytes, number: int) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise NotATranscript(f"line {number} is no JSON ({error})") from None
    if not isinstance(entry, dict):
        raise NotATranscript(f"line {number} is no JSON object")
    return entry


def _spoken(entry: dict[str, Any], number: int) -> Spoken:
    at, side = entry.get("time"), entry.get("side")
    line, note = entry.get("line", ""), entry.get("note", "")
    if isinstance(at, bool) or not isinstance(at, int | float) or not abs(at) < 1e9:
        raise NotATranscript(f"line {number}: `time` is not a number of seconds")
    if side not in ("client", "server", "proxy"):
        raise NotATranscript(f"line {number}: `side` is not client, server or proxy")
    if not isinstance(line, str) or not isinstance(note, str):
        raise NotATranscript(f"line {number}: `line` and `note` are not texts")
    if note == "end" and "outcome" in entry:
        note = _ending(entry)
    return Spoken(
        float(at), side, line, note, _texts(entry, "before"), _texts(entry, "after"), _texts(entry, "findings")
    )  # fmt: skip


def _texts(entry: dict[str, Any], key: str) -> tuple[str, ...]:
    value = entry.get(key, ())
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list) else ()


def _ending(entry: dict[str, Any]) -> str:
    """How the session ended, in words."""
    outcome, by = str(entry.get("outcome") or "?"), entry.get("by")
    destination = entry.get("destination")
    return (
        f"end of the session: {outcome}"
        + (f", by {by}" if by else "")
        + (f"; the server was {destination}" if destination else "")
    )


def _title(head: dict[str, Any]) -> str:
    parts = [f"Session {head.get('session')}"]
    for key, word in (("route", "route"), ("client", "client"), ("started", "began")):
        if head.get(key):
            parts.append(f"{word} {head[key]}")
    return printable(", ".join(parts))


def claim(finding: str) -> str:
    """The catalogue's words for a finding; empty for an id that it does not have (a transcript of another version)."""
    from proxy.smtp.reply.findings import FINDINGS

    kind = FINDINGS.get(finding)
    return kind.claim if kind is not None else ""
