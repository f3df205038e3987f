"""The tables of real senders, as Markdown: `tests/run --matrix [--faults] [--write FILE]`.

Without `--faults` the findings of the EHLO reply (`tests.clients.matrix`), for docs/findings.md.  With it, for
docs/faults.md: the faults of handshake and certificate with what cures them, and those of the dialogue
(`tests.clients.dialogue`).  `--write` puts each between its own marker lines.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from proxy.tools.simulate.replies import BROKEN
from tests.clients import dialogue, matrix
from tests.clients import postfix as postfixes
from tests.clients.lab import CURES
from tests.clients.matrix import Table
from tests.clients.senders import ALL, Sender
from tests.loopback import public_folder


def measured(senders: Sequence[Sender], with_postfix: bool, faults: bool) -> dict[str, Table]:
    """The tables by their marker lines."""
    with public_folder() as folder:
        first, second = folder / "replies", folder / "dialogue"
        first.mkdir()
        second.mkdir()
        if not faults:
            return {matrix.BEGIN: matrix.measure(first, ["none", *BROKEN], senders, with_postfix)}
        offered, required = dialogue.measure(second, senders, with_postfix)
        cured = matrix.measure(first, list(CURES), senders, with_postfix)
        return {matrix.FAULTS_BEGIN: cured, dialogue.OFFERED: offered, dialogue.REQUIRED: required}


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/run --matrix", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into FILE, between their markers")
    parser.add_argument("--faults", action="store_true", help="the faults beside the reply, with what cures them")
    chosen = parser.parse_args()
    for sender in ALL:
        if why := sender.missing():
            print(f"left out: {sender.name}: {why}", file=sys.stderr)
    if why := postfixes.missing():
        print(f"left out: {matrix.POSTFIX}: {why}", file=sys.stderr)
    senders = [sender for sender in ALL if not sender.missing()]
    for number, (begin, table) in enumerate(measured(senders, not postfixes.missing(), chosen.faults).items()):
        text = matrix.markdown(table) if number else f"{matrix.versions()}\n\n{matrix.markdown(table)}"
        print(f"{text}\n")
        if chosen.write:
            matrix.write(chosen.write, text, begin)
    return 0


if __name__ == "__main__":
    sys.exit(main())
