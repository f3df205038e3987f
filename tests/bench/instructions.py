"""User instructions of one session, counted by cachegrind: the figure that the machine's noise does not touch.

The proxy runs under valgrind twice, once with few sessions and once with many more, each with nothing else to do; what
the many cost more, divided, is one session: banner, broken EHLO reply, STARTTLS, 1 kB, close.  What is set up once
drops out.  The kernel's part is not in it, and an instruction is no time: it says what a change of the source adds.

    python -m tests.bench.instructions          both builds, against `budget.json`; exit 1 where one costs 3 % more
    python -m tests.bench.instructions --write  the same, and the figures become the budget

The budget is for one interpreter, since each build of Python has its own figures; for another there is none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench import builds, contenders
from tests.bench.contenders import Build, Contender, running

FEW, MANY = 100, 700
BUDGET = Path(__file__).with_name("budget.json")
MORE = 1.03  # times the budget, from which on it is said
PATIENCE = 300.0  # seconds for a start: under valgrind all takes some fifty times as long


def instructions(program: Path, folder: Path, build: Build, *, few: int = FEW, many: int = MANY) -> float:
    """Of one session; `program` is the compiled load."""
    return (_count(program, folder, build, many) - _count(program, folder, build, few)) / (many - few)


def _count(program: Path, folder: Path, build: Build, sessions: int) -> int:
    told = folder / f"{build.name}-{sessions}.cachegrind"
    under = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--branch-sim=no", f"--cachegrind-out-file={told}")
    with running(folder, lambda: contenders.sink(program, folder)) as [sink]:

        def start() -> Contender:
            return contenders.ehlo_proxy(folder, sink.port, build=build.run_by(*under))

        with running(folder, start, patience=PATIENCE) as [one]:
            arguments = [str(program), "load", str(one.port), "splice", str(sessions), "1", "1000"]
            subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=True)
    [summary] = [line for line in told.read_text().splitlines() if line.startswith("summary:")]
    return int(summary.split()[1])


def of_each(program: Path, folder: Path, measured: list[Build]) -> dict[str, float]:
    """Of several builds by name, as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as several:
        return dict(
            zip(
                (one.name for one in measured),
                several.map(lambda one: instructions(program, folder, one), measured),
                strict=True,
            )
        )


def compared(found: dict[str, float], budget: dict[str, float]) -> list[str]:
    """What is to be said: one line for each build that costs more than its budget."""
    return [
        f"{name}: {number:.0f} instructions a session, {number / budget[name] - 1:+.1%} against a budget of "
        f"{budget[name]:.0f} (python -m tests.bench.instructions --write makes it the new one)"
        for name, number in found.items()
        if name in budget and number > MORE * budget[name]
    ]


def main() -> int:
    from tests.bench.measure import certificate, load_program

    python = builds.pythons()[0]
    known = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    with tempfile.TemporaryDirectory(prefix="ehlo-bench-") as name:
        folder = Path(name)
        certificate(folder)
        measured = [one for one in builds.builds(folder, compiled=True, before="") if "," not in one.name]
        found = of_each(load_program(folder), folder, measured)
    print(f"Python {python}: " + ", ".join(f"{name} {number:.0f}" for name, number in found.items()))
    if "--write" in sys.argv:
        BUDGET.write_text(json.dumps({python.version: {name: round(number) for name, number in found.items()}}) + "\n")
        return 0
    if python.version not in known:
        print(f"no budget for Python {python.version}: {BUDGET} is for {', '.join(known)}")
    said = compared(found, known.get(python.version, {}))
    print("\n".join(said) or "within the budget")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
