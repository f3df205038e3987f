"""`tests/bench/run`: the same work through each contender in turn, repeated, and one table of ratios.

A round runs every measure over every contender, one right after the other, so that what the machine does meanwhile
falls on all of them; the ratio is taken within the round, and the table shows its median and its range over the rounds.
Sessions that went wrong are failures of the benchmark: it says so and exits 1.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from tests.bench import builds, contenders, instructions, stages
from tests.bench.contenders import Build, Contender, running
from tests.bench.table import Row, table
from tests.clients import postfix

HERE = Path(__file__).parent
SETTLE_SECONDS = 0.25  # after a run, for the last closes to go through


@dataclass(frozen=True, slots=True)
class Size:
    """How much work one measure is."""

    rounds: int
    sessions: int
    tls_sessions: int
    paced_seconds: float
    gigabytes: float
    held: int
    others: bool = False  # HAProxy with splice and nginx, too


QUICK = Size(rounds=4, sessions=2000, tls_sessions=400, paced_seconds=1.0, gigabytes=1.0, held=2000)
WHOLE = Size(rounds=5, sessions=4000, tls_sessions=800, paced_seconds=2.0, gigabytes=2.0, held=8000)


class Bench:
    """The compiled load, where things lie, and the measures: each gives one number for one contender."""

    def __init__(self, program: Path, size: Size, measured: Sequence[Build] = (Build("pure"),)) -> None:
        """`measured`: the builds of the proxy; the goals are for the one that `subject` is."""
        self.program = program
        self.size = size
        self.builds = list(measured)
        self.subject = next((one for one in measured if one.name == "compiled"), self.builds[-1])
        self.usual = [one for one in measured if "," not in one.name]  # run by the one interpreter
        self.failures: list[str] = []
        self.in_kernel = 0.0  # seconds of the last `cpu`, to 10 ms

    def load(self, to: Contender, mode: str, sessions: int, concurrency: int, size: int) -> dict[str, float]:
        arguments = [str(self.program), "load", str(to.port), mode, str(sessions), str(concurrency), str(size)]
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=400, check=False)
        if done.returncode:
            raise RuntimeError(f"{to.name}, {mode}: {done.stderr.decode()}")
        result: dict[str, float] = json.loads(done.stdout)
        if result["failed"]:
            self.failures.append(f"{to.name}, {mode}: {result['failed']:.0f} of {sessions} sessions failed")
        return result

    def cpu(self, to: Contender, mode: str, sessions: int, concurrency: int, size: int) -> float:
        """CPU seconds of the contender for the whole of it."""
        before, kernel = to.cpu(), to.kernel()
        self.load(to, mode, sessions, concurrency, size)
        time.sleep(SETTLE_SECONDS)
        self.in_kernel = to.kernel() - kernel
        return to.cpu() - before

    def session_cpu(self, to: Contender) -> float:
        """µs of CPU a session: banner, broken EHLO reply, STARTTLS, 1 kB, close; 16 at a time."""
        return self.cpu(to, "splice", self.size.sessions, 16, 1000) / self.size.sessions * 1e6

    def tls_cpu(self, to: Contender) -> float:
        """µs of CPU a session with real TLS and a message of 10 kB; 8 at a time."""
        return self.cpu(to, "tls", self.size.tls_sessions, 8, 10000) / self.size.tls_sessions * 1e6

    def gigabyte_cpu(self, to: Contender) -> float:
        """ms of CPU a GB, in two streams at a time of a quarter each."""
        part = int(self.size.gigabytes * 1e9 / 4)
        return self.cpu(to, "splice", 4, 2, part) / self.size.gigabytes * 1e3

    def paced(self, to: Contender) -> float:
        """Median ms of a whole session (STARTTLS, 1 kB, close), 200 new ones a second."""
        return self.load(to, "paced", int(200 * self.size.paced_seconds), 200, 1000)["p50"]

    def paced_tls(self, to: Contender) -> float:
        """Median ms of a whole session with real TLS and a message of 10 kB, 60 new ones a second."""
        return self.load(to, "pacedtls", int(60 * self.size.paced_seconds), 60, 10000)["p50"]

    @contextlib.contextmanager
    def holding(self, to: Contender, sessions: int) -> Iterator[None]:
        """That many sessions are open, each after the 220 to STARTTLS."""
        arguments = [str(self.program), "load", str(to.port), "hold", str(sessions), "50", "0"]
        process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            result = json.loads(process.stdout.readline() or '{"failed": -1}')
            if result["failed"]:
                self.failures.append(f"{to.name}, hold: {result['failed']} of {sessions} sessions failed")
            yield
        finally:
            process.communicate(timeout=60)

    def held(self, to: Contender) -> tuple[float, float, float, float]:
        """With all of them held: KiB each; the slowest new session in ms; µs of CPU of a new one, before and then.

        The first work warms it up: what is set up once is not a session's.
        """
        alone = self.session_cpu(to)
        before = to.memory()
        with self.holding(to, self.size.held):
            time.sleep(2 * SETTLE_SECONDS)
            memory = (to.memory() - before) / self.size.held / 1024
            slowest = self.load(to, "paced", 200, 100, 1000)["max"]
            among = self.session_cpu(to)
        time.sleep(2 * SETTLE_SECONDS)
        return memory, slowest, alone, among

    def split(self, to: Contender, sessions: int = 400) -> list[float]:
        """Share of the sessions that each process of the contender has accepted, largest first."""

        def files() -> dict[int, int]:
            return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in to.pids()}

        before = files()
        with self.holding(to, sessions):
            time.sleep(SETTLE_SECONDS)
            after = files()
        grown = [after[pid] - before[pid] for pid in before if after[pid] - before[pid] > 10]
        return sorted((one / sum(grown) for one in grown), reverse=True)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def pass_through(bench: Bench, folder: Path) -> list[Row]:
    """The rows of pass-through: a session, a GB, latencies."""
    rows = {
        bench.session_cpu: Row("CPU a session, 1 kB", "µs", "haproxy", 1.6),
        bench.gigabyte_cpu: Row("CPU a GB relayed", "ms", "haproxy", 0.35),
        bench.tls_cpu: Row("CPU a session, real TLS, 10 kB message", "µs", "haproxy", 1.6),
        bench.paced: Row("latency of a paced session, median", "ms", "haproxy", 1.7),
        bench.paced_tls: Row("latency of a real TLS session, median", "ms", "haproxy", 1.2),
    }
    kernel = {
        bench.session_cpu: (Row("... of it in the kernel", "µs", "haproxy", 0), bench.size.sessions),
        bench.tls_cpu: (Row("... of it in the kernel, real TLS", "µs", "haproxy", 0), bench.size.tls_sessions),
    }
    with running(folder, lambda: contenders.sink(bench.program, folder)) as [direct]:
        starts: list[Callable[[], Contender]] = [
            lambda: contenders.haproxy(folder, direct.port),
            *(lambda one=one: contenders.ehlo_proxy(folder, direct.port, build=one) for one in bench.builds),
        ]
        if bench.size.others:
            starts.append(lambda: contenders.haproxy(folder, direct.port, splice=True))
            if shutil.which("nginx"):
                starts.append(lambda: contenders.nginx(folder, direct.port))
        with running(folder, *starts) as proxies:
            for one in proxies:  # warm: code paths, caches, pipes
                bench.load(one, "splice", 300, 16, 1000)
            for turn in range(bench.size.rounds):
                for measure, row in rows.items():
                    for one in proxies:
                        row.add(one.name, measure(one))
                        if measure in kernel:
                            part, sessions = kernel[measure]
                            part.add(one.name, bench.in_kernel / sessions * 1e6)
                    if measure in (bench.paced, bench.paced_tls):
                        row.add("direct", measure(direct))
                ratios = ", ".join(f"{row.what} {row.ratios(bench.subject.name)[-1]:.2f}" for row in rows.values())
                say(f"round {turn + 1} of {bench.size.rounds}: {ratios}")
    return [*rows.values(), *(row for row, _ in kernel.values())]


def held_sessions(bench: Bench, folder: Path) -> list[Row]:
    """Memory a held session and the service of new ones meanwhile; each contender is fresh, HAProxy and we in turn."""
    held = bench.size.held
    memory = Row(f"memory a held session, {held} held", "KiB", "haproxy", 3.8, absolute=True)
    slowest = Row("slowest new session meanwhile", "ms", "haproxy", 10, absolute=True)
    linear = Row(f"CPU a session, among {held} held against none", "µs", "none held", 1.25)
    limits = "max_sessions = 9500"
    with running(folder, lambda: contenders.sink(bench.program, folder)) as [direct]:
        starts: list[Callable[[], Contender]] = [
            lambda: contenders.haproxy(folder, direct.port),
            *(
                lambda one=one: contenders.ehlo_proxy(folder, direct.port, route=limits, build=one)
                for one in bench.usual
            ),
        ]
        for _ in range(max(1, bench.size.rounds // 2)):
            for start in starts:
                with running(folder, start) as [one]:
                    size, wait, alone, among = bench.held(one)
                    memory.add(one.name, size)
                    slowest.add(one.name, wait)
                    if one.name == bench.subject.name:
                        linear.add("none held", alone)
                        linear.add(one.name, among)
    return [memory, slowest, linear]


def two_workers(bench: Bench, folder: Path) -> list[Row]:
    """What the second worker costs a session, beside HAProxy's second thread, and how evenly the two accept."""
    ours = bench.subject
    cpu = Row("CPU a session, two workers against one", "µs", "one worker", 0)
    theirs = Row("... of HAProxy, two threads against one", "µs", "one thread", 0)
    split = Row("accepts of the busier of two workers", "share", "", 0.6, absolute=True)
    with (
        running(folder, lambda: contenders.sink(bench.program, folder)) as [direct],
        running(
            folder,
            lambda: contenders.ehlo_proxy(folder, direct.port, "one worker", build=ours),
            lambda: contenders.ehlo_proxy(folder, direct.port, ours.name, service="workers = 2", build=ours),
            lambda: contenders.haproxy(folder, direct.port, name="one thread"),
            lambda: contenders.haproxy(folder, direct.port, name="two threads", threads=2),
        ) as all_four,
    ):
        for one in all_four:
            bench.load(one, "splice", 600, 16, 1000)
        for _ in range(bench.size.rounds):
            for one in all_four:
                (theirs if one.name.endswith(("thread", "threads")) else cpu).add(one.name, bench.session_cpu(one))
            split.add(ours.name, bench.split(all_four[1])[0])
    cpu.goal = round(median(theirs.ratios("two threads")) + 0.1, 2)  # within 0.1 of HAProxy's own
    return [cpu, theirs, split]


def bridge(bench: Bench, folder: Path) -> list[Row]:
    """TLS ended twice: against two stunnels, and the latency."""
    cpu = Row("bridge: CPU a message of 10 kB", "µs", "two-stunnels", 0.6)
    latency = Row("bridge: latency, median", "ms", "two-stunnels", 0)
    with running(folder, lambda: contenders.sink(bench.program, folder)) as [broken]:
        starts = [lambda one=one: contenders.ehlo_proxy_bridge(folder, broken.port, one) for one in bench.usual[-2:]]
        if shutil.which("stunnel4") or shutil.which("stunnel"):
            starts.insert(0, lambda: contenders.two_stunnels(folder, broken.port))
        with running(folder, *starts) as all_of_them:
            for one in all_of_them:
                bench.load(one, "tls", 100, 4, 10000)
            for _ in range(bench.size.rounds):
                for one in all_of_them:
                    cpu.add(one.name, bench.tls_cpu(one))
                    latency.add(one.name, bench.paced_tls(one))
    return [cpu, latency]


def bridged_postfix(bench: Bench, folder: Path) -> list[Row]:
    """A whole session of real TLS and 1 kB, through a bridge and without one, to the same real Postfix."""
    latency = Row("bridge: latency of a session with a real Postfix, median", "ms", "direct", 1.5)
    sessions = int(50 * bench.size.paced_seconds)
    if postfix.missing():
        return []
    starts = [lambda one=one: contenders.ehlo_proxy_bridge(folder, direct.port, one) for one in bench.usual[-2:]]
    with contenders.real_postfix(folder) as direct, running(folder, *starts) as bridges:
        for turn in range(bench.size.rounds + 1):
            for one in (direct, *bridges):
                median_of_a_turn = bench.load(one, "pacedtls", sessions, 25, 1000)["p50"]  # 25 new ones a second
                if turn:  # the first warms up
                    latency.add(one.name, median_of_a_turn)
    return [latency]


def linear(bench: Bench, folder: Path) -> list[Row]:
    """Ten times the bytes, or ten times the lines of an EHLO reply, must not cost more than ten times as much."""
    ours = bench.subject
    size = Row("CPU a byte: messages of 10 MB against 1 MB", "ns", "1 MB", 1.2)
    with (
        running(folder, lambda: contenders.sink(bench.program, folder)) as [direct],
        running(folder, lambda: contenders.ehlo_proxy(folder, direct.port, build=ours)) as [one],
    ):
        for _ in range(min(3, bench.size.rounds)):
            size.add("1 MB", bench.cpu(one, "mail", 200, 4, 1_000_000) / 200e6 * 1e9)
            size.add(ours.name, bench.cpu(one, "mail", 20, 4, 10_000_000) / 200e6 * 1e9)
    lines = Row("CPU an EHLO line: 80 lines against 8, no reply alike", "µs", "8 lines", 1.2)
    with (
        running(folder, lambda: contenders.sink(bench.program, folder, "--lines", "5")) as [short],
        running(folder, lambda: contenders.sink(bench.program, folder, "--lines", "77")) as [long],
        running(
            folder,
            lambda: contenders.ehlo_proxy(folder, short.port, "8 lines", build=ours),
            lambda: contenders.ehlo_proxy(folder, long.port, ours.name, build=ours),
        ) as both,
    ):
        for _ in range(min(3, bench.size.rounds)):
            for one, number in zip(both, (8, 80), strict=True):
                lines.add(one.name, bench.cpu(one, "splice", 1000, 16, 1000) / 1000 / number * 1e6)
    return [size, lines]


def counted(bench: Bench, folder: Path) -> list[Row]:
    """User instructions a session, once, since they are the same each time; as many builds at a time as processors."""
    row = Row("user instructions a session, thousands", "", "", 230, absolute=True)
    if not shutil.which("valgrind"):
        return []
    for name, number in instructions.of_each(bench.program, folder, bench.builds).items():
        row.add(name, number / 1000)
    return [row]


def load_program(folder: Path) -> Path:
    """The load and the sink, compiled."""
    program = folder / "smtpbench"
    source = HERE / "smtpbench.c"
    subprocess.run(["gcc", "-O2", "-o", str(program), str(source), "-lssl", "-lcrypto"], check=True)
    return program


def certificate(folder: Path) -> None:
    """A certificate that may also stand in a trust store, for mail.domain1.com."""
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout key.pem -out cert.pem"
    )
    command += " -subj /CN=mail.domain1.com -addext subjectAltName=DNS:mail.domain1.com"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


def machine() -> str:
    about = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in about if line.startswith("model name")), platform.machine())
    versions = [f"Python {one}" for one in builds.pythons()]
    for command in ("haproxy -v", "stunnel4 -version", "nginx -v", "openssl version"):
        with contextlib.suppress(OSError):
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
            versions.append(f"{command.split()[0]} {found[0] if found else '?'}")
    return f"{os.cpu_count()} cores, {model}, Linux {platform.release()}; {', '.join(versions)}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the rows a developer watches, pure build, less work each")
    parser.add_argument("--rounds", type=int, help="how often each measure is repeated")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="these parts alone")
    parser.add_argument("--before", metavar="COMMIT", default="", help="measure the tree of this commit as well")
    parser.add_argument("--others", action="store_true", help="HAProxy with splice and nginx as well")
    parser.add_argument("--write", metavar="FILE", help="put the table into FILE as well (RESULTS.md)")
    chosen = parser.parse_args()
    size = replace(QUICK if chosen.quick else WHOLE, others=chosen.others)
    if chosen.rounds:
        size = replace(size, rounds=chosen.rounds)
    contenders.allow_many_files()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="ehlo-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        certificate(folder)
        measured = builds.builds(folder, compiled=not chosen.quick, before=chosen.before)
        bench = Bench(load_program(folder), size, measured)
        for part in chosen.only or (["pass-through", "held"] if chosen.quick else PARTS):
            say(f"{part} ...")
            try:
                rows += PARTS[part](bench, folder)
            except (RuntimeError, OSError, subprocess.SubprocessError) as broken:
                bench.failures.append(f"{part}: {broken}")
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    before = f"`before` is {chosen.before}; " if chosen.before else ""
    shown = table(rows, [one.name for one in measured], bench.subject.name)
    text = f"{when}; {before}{machine()}; {size.rounds} rounds.\n\n{shown}\n"
    if not chosen.only:
        text += f"\n{stages.table()}\n"
    text += "".join(f"\nFAILED: {one}" for one in bench.failures) + ("\n" if bench.failures else "")
    print(text)
    if chosen.write:
        Path(chosen.write).write_text(RESULTS.format(table=text))
    return 1 if bench.failures else 0


PARTS: dict[str, Callable[[Bench, Path], list[Row]]] = {
    "pass-through": pass_through,
    "held": held_sessions,
    "workers": two_workers,
    "bridge": bridge,
    "bridged-postfix": bridged_postfix,
    "linear": linear,
    "instructions": counted,
}

RESULTS = """# What the proxy costs

Written by `tests/bench/run --write tests/bench/RESULTS.md`; not typed. Shipped settings, log level info, metrics on;
one worker, and one thread of HAProxy. CPU is the time on a processor of the process and its children. A ratio is taken
within a round and shown as the median of the rounds; the goals are for the compiled build, whose range is shown, too.
`pure` and `compiled` are run by the first Python that is named. `direct` is the load without any proxy.

Where the rest goes: two rows tell the kernel's part beside HAProxy's, one the user instructions of a session, counted
by cachegrind with sessions one at a time. The Python of a session in the pure build costs what the last table shows; it
runs with warm caches when many sessions come at a time, and with cold ones when a few do, or when the peers' TLS
handshakes run on the same processors in between. That is what the latencies and the real TLS session pay.

{table}"""

if __name__ == "__main__":
    sys.exit(main())
