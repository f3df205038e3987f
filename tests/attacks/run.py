"""Every attack, and its worst figure: `python -m tests.attacks.run [--seconds 3] [--workers 1 2] [-- WORDS ...]`.

Prints a table of how long the slowest honest mail on another route took while each attack lasted, with one worker and
with two, and how many turns of over 0.1 s the log told.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from tests.attacks import servers
from tests.attacks.field import Attack
from tests.attacks.names import missing
from tests.attacks.stage import SERVED_WITHIN, Seen, Stages, judged, kind
from tests.attacks.table import ATTACKS
from tests.bridge.parties import Keys


def shown(seen: Seen | str) -> str:
    if isinstance(seen, str):
        return seen
    slow = f", {seen.slow_turns} turns up to {seen.longest_turn:.2f} s" if seen.slow_turns else ""
    return f"{seen.slowest:.3f} s{slow}"


def over(stages: Stages) -> None:
    """What a proxy says that was held for long is no news here."""
    with contextlib.suppress(AssertionError):
        stages.close()


def played(stages: Stages, attack: Attack, workers: int, seconds: float, again: int) -> Seen | str:
    if attack.names is not None and missing():
        return missing()
    try:
        return judged(stages.of(attack, workers), attack, seconds, again)
    except AssertionError as error:
        over(stages)  # the next one gets another
        return (str(error) or repr(error)).partition("\n")[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each attack lasts")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tree", type=Path, help="the source of another proxy, as that of an old commit")
    parser.add_argument("--once", action="store_true", help="play nothing again that took too long")
    parser.add_argument("--worst", action="store_true", help="only those that are in each run of the tests")
    parser.add_argument("name", nargs="*", help="only attacks with one of these in their name")
    options = parser.parse_args()
    chosen = {
        name: attack
        for name, attack in ATTACKS.items()
        if (attack.worst or not options.worst)
        and (not options.name or any(part.lower() in name.lower() for part in options.name))
    }
    servers.prepare()
    found: dict[str, dict[int, Seen | str]] = {name: {} for name in chosen}
    with tempfile.TemporaryDirectory(prefix="ehlo-attacks-") as folder:
        stages = Stages(Keys(Path(folder)), options.tree)
        for workers in options.workers:
            for name in sorted(chosen, key=lambda name: kind(chosen[name])):
                found[name][workers] = played(stages, chosen[name], workers, options.seconds, 0 if options.once else 2)
                print(f"{workers} {name}: {shown(found[name][workers])}", file=sys.stderr, flush=True)
        over(stages)
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
