"""Fuzzing without a framework: `python -m tests.fuzz.run --seconds N [--target NAME] [--keep] [--seed N]`.

Inputs are mutated from a corpus: `corpus/NAME/`, which holds what reached new lines of the code under test, and
`found/NAME/`, which holds what once failed (the tests run both).  An input that reaches a line for the first time is
kept for mutation, and with `--keep` written to the corpus.  One that fails is made shorter as long as it still fails,
written to `found/`, and the exit status is 1.  `--seed` makes a run repeatable.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.targets import TARGETS, Target

HERE = Path(__file__).parent
MAX_INPUT = 4096
TRACED_EVERY = 4  # tracing costs ten times the run; a quarter of the inputs is enough to grow on

Trace = Callable[[FrameType, str, Any], Any]


def inputs_of(name: str) -> list[bytes]:
    """The seeds, the corpus and what once failed."""
    files = [*sorted((HERE / "corpus" / name).glob("*")), *sorted((HERE / "found" / name).glob("*"))]
    return [*TARGETS[name].seeds, *(file.read_bytes() for file in files)]


class Reached:
    """Which lines of the code under test were reached so far."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.seen: set[tuple[CodeType, int]] = set()
        self._ours: dict[CodeType, bool] = {}
        self._new = 0

    def _is_ours(self, code: CodeType) -> bool:
        ours = self._ours.get(code)
        if ours is None:
            ours = self._ours[code] = self.module in code.co_filename
        return ours

    def _call(self, frame: FrameType, event: str, _: Any) -> Trace | None:
        return self._line if self._is_ours(frame.f_code) else None

    def _line(self, frame: FrameType, event: str, _: Any) -> Trace:
        place = (frame.f_code, frame.f_lineno)
        if place not in self.seen:
            self.seen.add(place)
            self._new += 1
        return self._line

    def by(self, run: Callable[[bytes], None], data: bytes) -> int:
        """Run it; how many lines it was the first to reach."""
        self._new = 0
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            run(data)
        finally:
            sys.settrace(before)
        return self._new


def mutated(random_: random.Random, corpus: list[bytes], words: tuple[bytes, ...]) -> bytes:
    """One of the corpus, changed in a few places."""
    data = bytearray(random_.choice(corpus))
    for _ in range(random_.choice((1, 1, 2, 3, 6))):
        at = random_.randrange(len(data) + 1)
        match random_.randrange(8):
            case 0 | 1 | 2:
                data[at:at] = random_.choice(words)
            case 3:
                data[at : at + random_.randrange(1, 9)] = b""
            case 4:
                data[at : at + 1] = bytes([random_.randrange(256)])
            case 5:
                other = random_.choice(corpus)
                start = random_.randrange(len(other) + 1)
                data[at:at] = other[start : start + random_.randrange(1, 80)]
            case 6:
                data[at:at] = data[at : at + random_.randrange(1, 40)] * random_.randrange(1, 4)
            case 7:
                data[at:] = random_.choice(corpus)[:MAX_INPUT]
    return bytes(data[:MAX_INPUT])


def fails(target: Target, data: bytes) -> bool:
    try:
        target.run(data)
    except Exception:
        return True
    return False


def shortened(target: Target, data: bytes, until: float) -> bytes:
    """The same failure in fewer bytes, as far as `until` allows."""
    size = len(data) // 2
    while size and time.monotonic() < until:
        at = 0
        while at < len(data) and time.monotonic() < until:
            less = data[:at] + data[at + size :]
            if fails(target, less):
                data = less
            else:
                at += size
        size //= 2
    return data


def keep(folder: Path, data: bytes) -> Path:
    """Write an input under the name of its own hash."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


def fuzz(name: str, seconds: float, seed: int, *, grow: bool = False) -> tuple[int, int, Path | None]:
    """How many inputs were run, how many reached something new, and where the one that failed is, if one did."""
    target = TARGETS[name]
    random_ = random.Random(seed)
    reached = Reached(target.module)
    corpus = inputs_of(name)
    for data in corpus:
        reached.by(target.run, data)
    runs = grown = 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        data = mutated(random_, corpus, target.words)
        runs += 1
        try:
            if runs % TRACED_EVERY:
                target.run(data)
            elif reached.by(target.run, data):
                corpus.append(data)
                grown += 1
                if grow:
                    keep(HERE / "corpus" / name, data)
        except Exception:
            traceback.print_exc()
            return runs, grown, keep(HERE / "found" / name, shortened(target, data, time.monotonic() + 10))
    return runs, grown, None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each target (default: 10)")
    parser.add_argument("--target", choices=sorted(TARGETS), action="append", help="default: all of them")
    parser.add_argument("--keep", action="store_true", help="write what reaches new lines to the corpus")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else time.time_ns() % 2**32
    status = 0
    for name in arguments.target or sorted(TARGETS):
        runs, grown, found = fuzz(name, arguments.seconds, seed, grow=arguments.keep)
        print(f"{name}: {runs} inputs, {grown} reached something new, seed {seed}", flush=True)
        if found is not None:
            print(f"{name}: FAILED, see {found.relative_to(HERE.parent.parent)}", flush=True)
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
