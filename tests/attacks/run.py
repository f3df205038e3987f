"""`python -m tests.attacks.run [--seconds 3] [--workers 1 2] [PART OF A NAME ...]`: every attack, and its worst figure.

Prints a table of how long the slowest honest mail on another route took while each attack lasted, with one worker and
with two, and how many turns of over 0.1 s the log told.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import groupby
from pathlib import Path

from tests.attacks import servers
from tests.attacks.names import missing
from tests.attacks.stage import SERVED_WITHIN, Seen, judged, kind, staged
from tests.attacks.table import ATTACKS
from tests.bridge.parties import Keys
from tests.certificates import NAME, root


def shown(seen: Seen | str) -> str:
    if isinstance(seen, str):
        return seen
    slow = f", {seen.slow_turns} turns up to {seen.longest_turn:.2f} s" if seen.slow_turns else ""
    return f"{seen.slowest:.3f} s{slow}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each attack lasts")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("name", nargs="*", help="only attacks with one of these in their name")
    options = parser.parse_args()
    chosen = {
        name: attack
        for name, attack in ATTACKS.items()
        if not options.name or any(part.lower() in name.lower() for part in options.name)
    }
    servers.prepare()
    found: dict[str, dict[int, Seen | str]] = {name: {} for name in chosen}
    ours = root().issue(NAME, with_rsa=True)
    with tempfile.TemporaryDirectory(prefix="ehlo-attacks-") as folder:
        keys = Keys(Path(folder))
        for workers in options.workers:
            ordered = sorted(chosen, key=lambda name: kind(chosen[name]))
            for (asks, _), names in groupby(ordered, key=lambda name: kind(chosen[name])):
                together = list(names)
                if asks and missing():
                    for name in together:
                        found[name][workers] = missing()
                    continue
                with staged(workers, chosen[together[0]], keys, ours) as stage:
                    for name in together:
                        try:
                            found[name][workers] = judged(stage, chosen[name], options.seconds)
                        except AssertionError as error:
                            found[name][workers] = str(error) or repr(error)
                        print(f"{workers} {name}: {shown(found[name][workers])}", file=sys.stderr, flush=True)
    print("| attack | " + " | ".join(f"{n} worker{'s' * (n > 1)}" for n in options.workers) + " |")
    print("|---" * (1 + len(options.workers)) + "|")
    for name, seen in found.items():
        print(f"| {name} | " + " | ".join(shown(seen[workers]) for workers in options.workers) + " |")
    bad = [
        name
        for name, seen in found.items()
        for one in seen.values()
        if isinstance(one, str) or one.slowest >= SERVED_WITHIN
    ]
    worst = max((one.slowest for seen in found.values() for one in seen.values() if isinstance(one, Seen)), default=0)
    print(
        f"{len(found)} attacks of {options.seconds:g} s; the slowest mail took {worst:.3f} s; {len(bad)} over the limit"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
