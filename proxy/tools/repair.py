"""`ehlo-proxy repair`: an EHLO reply on stdin, the repaired one on stdout, findings on stderr.

For trying a reply out of a log or a ticket, and for scripts.  The octets are taken as they come: the end of the input
is the silence that ends a reply without a final line.  Nothing is known of the server but the banner, if it is given;
without one a greeting that has to be made says `unknown.invalid`.  XCLIENT is reported as for a stranger.

Exit codes: 0 unchanged, also a 4xx or 5xx reply, printed as it is; 1 repaired; 2 no line has a code.
"""

from __future__ import annotations

import json
from typing import Any, TextIO

from proxy.smtp.lines import split_lines
from proxy.smtp.reply.ehlo_lines import EhloLine
from proxy.smtp.reply.findings import Finding
from proxy.smtp.reply.repair import EhloContext, RepairPolicy, RepairResult, repair_reply
from proxy.tools.dialogue import printable


def run(stdin_bytes: bytes, banner: bytes, as_json: bool, out: TextIO, err: TextIO) -> int:
    """The command's body.  `out` gets octets where it has a `buffer`, as sys.stdout has, else one character each."""
    if not any(EhloLine(line).code for line in split_lines(stdin_bytes)):
        print("ehlo-proxy repair: no line of the input begins with a reply code", file=err)
        return 2
    context = EhloContext(banner=banner, client_trusted=False)
    result = repair_reply(stdin_bytes, RepairPolicy(), context, unterminated=True)
    if as_json:
        print(json.dumps(as_document(result)), file=out)
    else:
        for finding in result.findings:
            print(as_line(finding), file=err)
        if result.refused:
            print("not a reply that tells what the server can do: it passes as it is", file=err)
        _write(result.reply, out)
    return 1 if result.changed else 0


def as_document(result: RepairResult) -> dict[str, Any]:
    """The result as the JSON document of `repair` and, twice, of `probe`: octets as Latin-1."""
    return {
        "changed": result.changed,
        "reply": result.reply.decode("latin-1"),
        "findings": [finding._asdict() for finding in result.findings],
    }


def as_line(finding: Finding) -> str:
    """A finding for a person, in one line of printable ASCII."""
    where = f"line {finding.line}" if finding.line else "reply"
    done = "repaired" if finding.repaired else "left"
    return f"{where}: {finding.id}, {done}: {printable(finding.message)} ({finding.clause})"


def _write(reply: bytes, out: TextIO) -> None:
    out.flush()
    buffer = getattr(out, "buffer", None)
    if buffer is None:
        out.write(reply.decode("latin-1"))
    else:
        buffer.write(reply)
        buffer.flush()
