"""`ehlo-proxy explain`: the catalogue of findings, or one of them at length.

All that is said here stands in `proxy.smtp.reply.findings` and `proxy.smtp.faults`.  The reply that comes out is not
written down anywhere: it is the example, repaired.

Exit codes: 0; 2 for an id that does not exist.
"""

from __future__ import annotations

import difflib
import sys
import textwrap
from typing import TextIO

from proxy.smtp.faults import DIALOGUE, LAB, FindingKind
from proxy.smtp.lines import split_lines
from proxy.smtp.reply.ehlo import split_before_banner
from proxy.smtp.reply.findings import BANNER, CATALOGUE, FINDINGS
from proxy.smtp.reply.repair import EhloContext, RepairPolicy, repair_reply
from proxy.tools.dialogue import printable

_WIDTH = 78
_MAX_LINES = 12  # of an example
_MAX_LINE = 66  # characters of a line of it
_ALL = FINDINGS | LAB


def explain_all(out: TextIO | None = None) -> int:
    """Print the catalogue; 0."""
    print(all_text(), file=out or sys.stdout)
    return 0


def explain_one(id_: str, out: TextIO | None = None, err: TextIO | None = None) -> int:
    """Print one finding at length; 0, or 2 for an unknown id, with the nearest that exists."""
    if id_ not in _ALL:
        near = difflib.get_close_matches(id_, _ALL, 1)
        hint = f"; did you mean {near[0]}?" if near else "; without an id all findings are listed"
        print(f"ehlo-proxy explain: no finding is called {printable(id_)!r}{hint}", file=err or sys.stderr)
        return 2
    print(one_text(id_), file=out or sys.stdout)
    return 0


def all_text() -> str:
    """One line a finding: id, what is done, claim; then what goes wrong beside the reply, then the lab's servers."""
    wide = max(map(len, _ALL))

    def listed(kinds: dict[str, FindingKind], done: str = "") -> list[str]:
        return [f"{kind.id:<{wide}}  {done or kind.done:<6}  {kind.claim}" for kind in kinds.values()]

    legend = (
        "repair: repaired in mode `repair`. strict: repaired with `strict = true` too. report: never changed. "
        "`ehlo-proxy explain ID` tells the exceptions, who breaks on it, and when a repair would be wrong."
    )
    return "\n".join(
        [
            *listed(CATALOGUE),
            "",
            "Beside the EHLO reply, told by `probe`, in the log and in the metrics:",
            "",
            *listed(DIALOGUE),
            "",
            "Servers of `ehlo-proxy simulate --fault ID` besides:",
            "",
            *listed(LAB, "lab"),
            "",
            textwrap.fill(legend, _WIDTH),
        ]
    )


def one_text(id_: str) -> str:
    """The finding at length.  KeyError for an id that is not in the catalogue."""
    kind = _ALL[id_]
    parts = [
        textwrap.fill(f"{kind.id}: {kind.claim}", _WIDTH, break_long_words=False, break_on_hyphens=False),
        _paragraph("Clause", kind.clause),
        f"Example, {_place(kind)}:\n{_shown(kind.example)}",
    ]
    if kind.id in CATALOGUE:
        sent = repaired_example(kind)
        if sent != kind.example:
            parts.append(f"What the proxy sends:\n{_shown(sent)}")
        return "\n\n".join(
            [
                *parts,
                _paragraph("Who breaks", kind.breaks),
                _paragraph("What is done", f"{kind.done}. {kind.how}"),
                _paragraph("When a repair would be wrong", kind.wrong_when),
                f"A server that has it: ehlo-proxy simulate --finding {kind.id}",
            ]
        )
    return "\n\n".join(
        [
            *parts,
            _paragraph("Source", kind.source),
            _paragraph("Who meets it", kind.breaks),
            _paragraph("What cures it", kind.how),
            _paragraph("When that would be wrong", kind.wrong_when),
            f"A server that has it: ehlo-proxy simulate --fault {kind.id}",
        ]
    )


def repaired_example(kind: FindingKind) -> bytes:
    """The example as the proxy would send it, with the settings as shipped."""
    if kind.where == "banner":
        return split_before_banner(kind.example).banner
    context = EhloContext(banner=BANNER, inside_tls=kind.where == "tls")
    return repair_reply(kind.example, RepairPolicy(), context).reply


def _place(kind: FindingKind) -> str:
    if kind.where == "banner":
        return "at the start of the connection"
    if kind.where == "dialogue":
        return "the dialogue"
    inside = " inside TLS" if kind.where == "tls" else ""
    return f"the reply to EHLO{inside} of mail.example.com"


def _shown(octets: bytes) -> str:
    """Lines of a server; a line end that is not CRLF is written out, long lines and replies are cut."""
    lines = []
    for line in split_lines(octets):
        text = line[:-2] if line.endswith(b"\r\n") else line
        written = printable(text.decode("latin-1"))
        lines.append("    " + (written if len(written) <= _MAX_LINE else written[:_MAX_LINE] + " ..."))
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES - 2 : -1] = [f"    ... ({len(lines)} lines)"]
    return "\n".join(lines)


def _paragraph(title: str, text: str) -> str:
    return textwrap.fill(f"{title}: {text}", _WIDTH, break_long_words=False, break_on_hyphens=False)
