"""Opcodes of one session, by function: where the pure build's work is, exact to the last one on a machine of any mood.

The proxy runs with a tracer that counts each opcode, once with few sessions and once with more; what the many cost
more, divided, is one session, of the same kind as `instructions` counts.  An opcode is no time (what a call does in C
is not in it), but whatever grows here grows there, too, and here one sees where.

    python -m tests.bench.opcodes                   the functions of this tree that take most
    python -m tests.bench.opcodes --before COMMIT   by module, beside the tree of that commit
    python -m tests.bench.opcodes --rows N          so many rows (default 60)
"""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

FEW, MANY = 50, 250
PATIENCE = 120.0  # seconds for a start

Counts = dict[str, tuple[float, float]]
"""Opcodes and calls by `module:function`."""


def count(told: str, arguments: list[str]) -> None:
    """Run `python -m MODULE …` here, counted, and write what was counted to the file `told` at its end."""
    opcodes: dict[CodeType, int] = {}
    calls: dict[CodeType, int] = {}

    def one(frame: FrameType, event: str, _argument: object) -> Any:
        if event == "opcode":
            opcodes[frame.f_code] = opcodes.get(frame.f_code, 0) + 1
        return one

    def begins(frame: FrameType, _event: str, _argument: object) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        calls[frame.f_code] = calls.get(frame.f_code, 0) + 1
        return one

    _python, _m, module, *sys.argv[1:] = arguments
    sys.path[0] = "."
    sys.settrace(begins)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.settrace(None)
        found: Counts = {}
        for code, number in opcodes.items():
            name = f"{code.co_filename.rpartition('/proxy/')[2]}:{code.co_qualname}"
            before = found.get(name, (0, 0))
            found[name] = (before[0] + number, before[1] + calls.get(code, 0))
        Path(told).write_text(json.dumps(found))


def of_a_session(tree: Path) -> Counts:
    """Of one session of the pure build in `tree`."""
    from tests.bench.measure import certificate, load_program

    with tempfile.TemporaryDirectory(prefix="ehlo-bench-") as name:
        folder = Path(name)
        certificate(folder)
        program = load_program(folder)
        few, many = (_counted(tree, folder, program, sessions) for sessions in (FEW, MANY))
    found: Counts = {}
    for where, (opcodes, calls) in many.items():
        less = few.get(where, (0.0, 0.0))
        found[where] = ((opcodes - less[0]) / (MANY - FEW), (calls - less[1]) / (MANY - FEW))
    return found


def _counted(tree: Path, folder: Path, program: Path, sessions: int) -> Counts:
    from tests.bench import contenders
    from tests.bench.contenders import Build, Contender, running

    told = folder / f"{sessions}.json"
    build = Build(tree=tree).run_by(sys.executable, str(Path(__file__).resolve()), "--count", str(told))
    with running(folder, lambda: contenders.sink(program, folder)) as [sink]:

        def start() -> Contender:
            return contenders.ehlo_proxy(folder, sink.port, build=build)

        with running(folder, start, patience=PATIENCE) as [one]:
            arguments = [str(program), "load", str(one.port), "splice", str(sessions), "1", "1000"]
            subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=True)
            one.stop(patience=60.0)
    counted: Counts = json.loads(told.read_text())
    return counted


def by_module(counts: Counts) -> Counts:
    """The same, each module's functions together."""
    found: Counts = {}
    for name, (opcodes, calls) in counts.items():
        module = name.partition(":")[0]
        before = found.get(module, (0.0, 0.0))
        found[module] = (before[0] + opcodes, before[1] + calls)
    return found


def shown(counts: Counts, rows: int) -> str:
    """A table: opcodes, calls, where; the most first."""
    total = sum(opcodes for opcodes, _calls in counts.values())
    calls = sum(calls for _opcodes, calls in counts.values())
    most = sorted(counts.items(), key=lambda one: -one[1][0])[:rows]
    return "\n".join([f"{total:9.1f} {calls:7.2f} all", *(f"{n:9.1f} {c:7.2f} {name}" for name, (n, c) in most)])


def main() -> int:
    if sys.argv[1:2] == ["--count"]:
        count(sys.argv[2], sys.argv[3:])
        return 0
    from tests.bench import builds
    from tests.loopback import TOP

    parser = argparse.ArgumentParser(prog="python -m tests.bench.opcodes")
    parser.add_argument("--before", metavar="COMMIT")
    parser.add_argument("--rows", type=int, default=60)
    asked = parser.parse_args()
    here = of_a_session(TOP)
    if asked.before:
        with tempfile.TemporaryDirectory(prefix="ehlo-bench-") as name:
            before = of_a_session(builds.tree_of(asked.before, Path(name)))
        print(f"opcodes and calls of a session, {asked.before}:\n{shown(by_module(before), asked.rows)}\n")
        here = by_module(here)
    print(f"opcodes and calls of a session:\n{shown(here, asked.rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
