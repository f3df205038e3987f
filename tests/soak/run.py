"""The soak: `python -m tests.soak.run --minutes N` puts mixed sessions through one proxy and sees what it costs.

Nine in ten are mails as they should be, in clear, in pass-through TLS and over a bridge; one in ten is broken in some
way (`sessions`, `parties`).  They come in rounds of some seconds; at the end of each the proxy must be back to the
sessions that are held open all along, and that is when its memory and descriptors are looked at.  Now and then it
reads its configuration again.  Meanwhile a control session every half second measures how long a greeting takes.

After the warm-up the memory's slope must be under `MAX_SLOPE` an hour and the descriptors' must be zero.  The last
lines say what was found; the exit code is 0 when all of it is well.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.certificates import NAME, make, root
from tests.loopback import TOP, let_go
from tests.proxy_process import Config, Running, bridge_in, route, running_proxy
from tests.scripted import Peer, connect, greet
from tests.soak.sessions import GOOD, Session, Where, next_session, secured
from tests.soak.slopes import Slope, slope

MAX_SLOPE = 1 << 20  # bytes an hour
WARM_UP = 0.4  # of the time, and ...
MAX_WARM_UP = 600.0  # ... at most, in seconds
SHORTEST = 12.0  # minutes; in less the memory's slope is that of the warm-up, and is told but not judged
AT_ONCE = 24
HELD = 8  # sessions that stay open all along
SETTLES = 15.0  # seconds within which everything that was broken must be over
MAX_PIPES = 8  # descriptors of the four pipes that are kept in store
RELOAD_EVERY = 10  # rounds
HASTY = {"banner": 1, "command": 1, "handshake": 1, "idle": 2, "half_closed": 1, "abort": 0.5, "connect": 2}


class Parties:
    """The servers' process."""

    def __init__(self, folder: Path) -> None:
        for name, kind in (("server", "good"), ("other", "wrong-name")):
            make(kind).write(folder, name)
        command = [sys.executable, "-m", "tests.soak.parties", str(folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TOP)
        self.ports: dict[str, int] = self._told()

    def _told(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def count(self) -> dict[str, Any]:
        """How many mails were taken, and what went wrong there."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._told()

    def close(self) -> None:
        assert self.process.stdout is not None
        let_go(self.process)
        self.process.stdout.close()


def routes(parties: Parties, folder: Path) -> list[Config]:
    """A route for each way in which sessions are meant to go."""
    (folder / "ca.pem").write_bytes(root().pem)
    bridge = bridge_in(folder, NAME)
    mail, hostile = parties.ports["mail"], parties.ports["hostile"]
    quick = {"unterminated_after": 0.5}
    return [
        route(mail, name="mail"),
        route(mail, name="bridge", tls=bridge),
        route(parties.ports["other"], name="other", tls=bridge),
        route(mail, name="hasty", timeouts=HASTY),
        route(mail, name="hasty-bridge", timeouts=HASTY, tls=bridge),
        route(
            parties.ports["behind"],
            name="header",
            proxy_protocol=True,
            trusted_proxies=["127.0.0.1"],
            send_proxy_protocol=1,
        ),
        route(mail, name="recorded", record={"directory": str(folder / "records"), "bytes": 10000}),
        route(mail, name="refused", allow_clients=["127.0.0.1"]),
        route(hostile, name="hostile", timeouts=HASTY, repair=quick),
        route(hostile, name="hostile-bridge", timeouts=HASTY, repair=quick, tls=bridge),
    ]


@dataclass
class Tally:
    """What the sessions brought."""

    sessions: int = 0
    mails: int = 0
    broken: int = 0
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, mails: int, failure: str) -> None:
        with self.lock:
            self.sessions += 1
            self.mails += mails
            self.broken += name not in GOOD
            if failure:
                self.failures.append(f"{name}: {failure}")


@dataclass(frozen=True, slots=True)
class Sample:
    """At the end of a round, with nothing under way but the sessions that are held."""

    at: float
    memory: int
    descriptors: int  # but pipes, of which the proxy keeps a few for the next long message
    pipes: int


class Control:
    """A greeting every half second, whatever goes on beside it; how long each took."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.5):
            began = time.perf_counter()
            try:
                with connect(self.port) as client:
                    greet(client)
                    client.say(b"QUIT")
                self.seconds.append(time.perf_counter() - began)
            except Exception as error:
                self.failures.append(f"control session: {error!r}")

    def stop(self) -> None:
        self._over.set()
        self._thread.join(30)


class Soak:
    """One proxy and all that it meets."""

    def __init__(self, running: Running, parties: Parties, records: Path, config: Config) -> None:
        context = ssl.create_default_context(cadata=root().pem.decode())
        names = [one["name"] for one in config["route"]]
        self.config = config
        self.running = running
        self.parties = parties
        self.records = records
        self.where = Where(dict(zip(names, running.ports, strict=True)), context)
        self.tally = Tally()
        self.samples: list[Sample] = []
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.noise: list[str] = []
        self.held: list[Peer] = []
        self.began = time.monotonic()
        self._number = 0
        self._rounds = 0

    def hold(self) -> None:
        """Sessions that stay, in pass-through TLS and over the bridge by turns."""
        self.held = [secured(self.where, "bridge" if number % 2 else "mail") for number in range(HELD)]

    def one(self, name: str, session: Session) -> None:
        """A session, and what it brought."""
        try:
            self.tally.add(name, session(self.where), "")
        except Exception as error:
            self.tally.add(name, 0, f"{type(error).__name__}: {error}")

    def round(self, seconds: float, pool: ThreadPoolExecutor) -> Sample:
        """Sessions for so long, then the quiet at which memory and descriptors are seen."""
        until = time.monotonic() + seconds
        room = threading.Semaphore(AT_ONCE)

        def run(number: int) -> None:
            try:
                self.one(*next_session(number))
            finally:
                room.release()

        running = []
        while time.monotonic() < until:
            room.acquire()
            self._number += 1
            running.append(pool.submit(run, self._number))
        for one in running:
            one.result()
        for held in self.held:
            assert held.say(b"NOOP")[:3] == b"250"
        self._rounds += 1
        if not self._rounds % RELOAD_EVERY:
            self.running.reload(self.config)
        for path in self.records.glob("*"):
            path.unlink()
        return self.settle()

    def settle(self) -> Sample:
        """Wait until only the held sessions are left, and every descriptor of the others."""
        until = time.monotonic() + SETTLES
        base = self.samples[0].descriptors if self.samples else 0
        while self.running.sessions_open() > len(self.held) and time.monotonic() < until:
            time.sleep(0.05)
        self.running.get("/metrics")
        while (found := self.descriptors())[0] > base and self.samples and time.monotonic() < until:
            time.sleep(0.05)
        sample = Sample(time.monotonic() - self.began, self.running.memory, *found)
        self.samples.append(sample)
        self.forget()
        return sample

    def descriptors(self) -> tuple[int, int]:
        """What it has open, and pipes; the fewest of a few looks, since the admin's own connections come and go."""
        return min(self._look() for _ in range(5))

    def _look(self) -> tuple[int, int]:
        time.sleep(0.02)
        folder = Path(f"/proc/{self.running.pid}/fd")
        links = []
        for one in folder.iterdir():
            with suppress(OSError):
                links.append(str(one.readlink()))
        pipes = sum(link.startswith("pipe:") for link in links)
        return len(links) - pipes, pipes

    def forget(self) -> None:
        """Count the outcomes that the log told of, and keep none of its lines."""
        with self.running._told:
            for event in self.running.events:
                if event["event"] == "session-end":
                    self.outcomes[event["outcome"]] += 1
                    if event["outcome"] == "error" and event["by"] == "proxy":  # a server's fault is its own
                        self.noise.append(json.dumps(event))
                elif event["event"] in ("internal-error", "reload-failed"):
                    self.noise.append(json.dumps(event))
            self.noise += self.running.noise
            self.running.noise.clear()
            self.running.lines.clear()
            self.running.events[:] = [one for one in self.running.events if one["event"] in ("ready", "admin-ready")]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the soak found."""

    minutes: float
    sessions: int
    broken: int
    mails: int
    outcomes: dict[str, int]
    samples: tuple[Sample, ...]  # behind the warm-up
    memory: Slope  # bytes an hour
    descriptors: Slope  # an hour
    slowest: float
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        first, last = self.samples[0], self.samples[-1]
        outcomes = ", ".join(f"{name} {number}" for name, number in sorted(self.outcomes.items()))
        return (
            f"soak: {self.minutes:.1f} min, {self.sessions} sessions, {self.broken} of them broken, {self.mails} mails,"
            f" {len(self.samples)} samples behind the warm-up\n"
            f"soak: outcomes: {outcomes}\n"
            f"soak: memory {first.memory / 1048576:.2f} -> {last.memory / 1048576:.2f} MiB,"
            f" slope {self.memory.value / 1048576:+.3f} MiB an hour (error {self.memory.error / 1048576:.3f} at 95 %);"
            f" descriptors {first.descriptors} -> {last.descriptors}, slope {self.descriptors.value:+.2f} an hour"
            f" (error {self.descriptors.error:.2f}); slowest control session {self.slowest:.3f} s\n"
            f"soak: {'well' if not self.wrong else 'NOT WELL: ' + '; '.join(self.wrong)}"
        )


def judge(soak: Soak, control: Control, taken: dict[str, Any], minutes: float) -> Verdict:
    """Everything that may not be."""
    warm = min(MAX_WARM_UP, minutes * 60 * WARM_UP)
    samples = [one for one in soak.samples if one.at >= warm] or soak.samples[-1:]
    times = [one.at for one in samples]
    memory = slope(times, [float(one.memory) for one in samples]).per_hour()
    descriptors = slope(times, [float(one.descriptors) for one in samples]).per_hour()
    wrong = [*soak.noise[:10], *soak.tally.failures[:10], *control.failures[:3], *taken["failures"][:3]]
    if soak.tally.mails != taken["mails"]:
        wrong.append(f"{soak.tally.mails} mails were confirmed, {taken['mails']} arrived")
    if samples[-1].descriptors > samples[0].descriptors or descriptors.value > descriptors.error:
        wrong.append("descriptors grow")
    if samples[-1].pipes > soak.samples[0].pipes + MAX_PIPES:
        wrong.append(f"{samples[-1].pipes} descriptors of pipes are left")
    if minutes >= SHORTEST and memory.value > MAX_SLOPE and memory.value > memory.error:
        wrong.append("memory grows")
    return Verdict(
        minutes,
        soak.tally.sessions,
        soak.tally.broken,
        soak.tally.mails,
        dict(soak.outcomes),
        tuple(samples),
        memory,
        descriptors,
        max(control.seconds, default=0.0),
        tuple(wrong),
    )


@contextmanager
def started() -> Iterator[Soak]:
    """The servers, the proxy, and the sessions that are held."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ehlo-soak-")))
        (folder / "records").mkdir()
        parties = Parties(folder)
        stack.callback(parties.close)
        config = {
            "service": {"drain_timeout": 1},
            "admin": {"listen": "127.0.0.1:0"},
            "log": {"level": "debug"},  # every end one by one; at "info" only twenty a minute of a route and kind are
            "route": routes(parties, folder),
        }
        running = stack.enter_context(running_proxy(config, quiet=False))
        soak = Soak(running, parties, folder / "records", config)
        soak.hold()
        try:
            yield soak
        finally:
            for held in soak.held:
                with suppress(OSError):
                    held.close()


def run(minutes: float, round_seconds: float = 12.0, tell: bool = True) -> Verdict:
    """For so long; a line a minute of how it is going."""
    with started() as soak, ThreadPoolExecutor(AT_ONCE) as pool:
        control = Control(soak.where.ports["mail"])
        told = 0.0
        soak.settle()
        try:
            while time.monotonic() - soak.began < minutes * 60:
                sample = soak.round(round_seconds, pool)
                if tell and sample.at - told >= 60:
                    told = sample.at
                    print(
                        f"{sample.at / 60:6.1f} min  {soak.tally.sessions:7d} sessions "
                        f"{sample.memory / 1048576:8.2f} MiB {sample.descriptors:4d} descriptors"
                        f" {len(soak.tally.failures) + len(soak.noise)} failures",
                        flush=True,
                    )
                    print(*soak.tally.failures[:3], *soak.noise[:3], sep="\n", end="", flush=True)
        finally:
            control.stop()
        return judge(soak, control, soak.parties.count(), (time.monotonic() - soak.began) / 60)


def main() -> int:
    parser = argparse.ArgumentParser(description="mixed sessions for hours, and what they cost")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    arguments = parser.parse_args()
    seed = arguments.seed or random.randrange(1, 1 << 32)
    print(f"soak: {arguments.minutes:g} minutes, seed {seed}", flush=True)
    random.seed(seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    verdict = run(arguments.minutes)
    print(verdict, flush=True)
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
