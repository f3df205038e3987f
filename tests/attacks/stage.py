"""A proxy under attack, and the honest mails on another of its routes that tell what they notice of it.

Each attack gets a route by a reload; the mails' route stays.  What is measured is the longest that a whole mail took,
from connecting to the reply to QUIT, while the attack lasted (`tests.end_to_end.control`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.attacks.field import NICE, Attack, Field, attacker
from tests.attacks.names import hostile_names, interpreter_in, interpreter_that_asks
from tests.attacks.table import HASTY
from tests.bridge.parties import Keys, bridge
from tests.certificates import NAME, Issued, root
from tests.end_to_end.control import Control, control_process
from tests.end_to_end.flood import flooding
from tests.proxy_process import TOP, Config, Running, route, running_proxy
from tests.scripted import ScriptedServer

NAME_SERVER = "127.9.25.53"
SERVED_WITHIN = 1.0  # seconds: the promise
CALM = 15.0  # seconds that are waited for other programs to leave the processors alone


@dataclass(frozen=True, slots=True)
class Seen:
    """What the mails took, and what the log said of the event loop."""

    slowest: float
    mails: int
    done: int  # by the attackers; nothing shows nothing
    slow_turns: int
    longest_turn: float
    load: float


class Stage:
    """One proxy."""

    def __init__(self, running: Running, control: Control, workers: int, keys: Keys, ours: Issued) -> None:
        self.running = running
        self.control = control
        self.workers = workers
        self.keys = keys
        self.ours = ours
        self._names = 0

    def _config(self, *routes: Config) -> dict[str, Any]:
        return config(self.workers, route(self.control.port, name="control"), *routes)

    def play(self, attack: Attack, seconds: float) -> Seen:
        """That attack for so long."""
        ground = Field(self.keys, self.ours)
        ground.running = self.running
        with ExitStack() as stack:
            flood = stack.enter_context(flooding(*attack.flood, seconds=seconds, nice=NICE)) if attack.flood else None
            names = stack.enter_context(hostile_names(NAME_SERVER, attack.names)) if attack.names is not None else None
            if flood is not None:
                port = flood.port
            elif attack.serve is not None:
                host = "127.0.0.1" if attack.destinations == 1 else "0.0.0.0"
                serve = _unhurried(partial(attack.serve, ground))
                port = stack.enter_context(ScriptedServer(serve, host=host)).port
            else:
                port = 25
            self.running.reload(self._config(self._route(attack, port)))
            ground.port = self.running.port_of("attacked")
            before = len(self.control.took)
            slow = len(self.running.of("slow-turn"))
            ground.lasts(seconds)
            threads = [threading.Thread(target=attacker, args=(attack, ground)) for _ in range(attack.at_once)]
            for thread in threads:
                thread.start()
            if flood is not None:
                flood.begin(ground.port)
            time.sleep(seconds)
            slowest = self.control.slowest_since(before)
            for thread in threads:
                thread.join(20)
                assert not thread.is_alive(), "an attacker does not end"
            done = flood.replies() if flood is not None else names.asked if names is not None else ground.hits
        turns = [one["seconds"] for one in self.running.of("slow-turn")[slow:]]
        assert not self.running.of("worker-ended"), "a worker ended"
        assert not self.running.of("worker-hangs"), "a worker hangs"
        return Seen(
            slowest, len(self.control.took) - before, done, len(turns), max(turns, default=0.0), os.getloadavg()[0]
        )

    def _route(self, attack: Attack, port: int) -> Config:
        keys: dict[str, Any] = {"name": "attacked", "max_sessions": 5000, "timeouts": HASTY, **attack.keys}
        if attack.names is not None:
            self._names += 1  # a name that nobody waits for yet
            return route(f"mail{self._names}.attacked.example:25", **keys)
        if attack.destinations > 1:
            return route(*(f"127.0.1.{n}:{port}" for n in range(1, attack.destinations + 1)), **keys)
        if attack.bridge is None:
            return route(port, **keys)
        tls = {"verify_name": NAME, **attack.bridge}
        return bridge(port, keys=self.keys, issued=self.ours, tls=tls, **keys)


def _unhurried(serve: Any) -> Any:
    """The same script at the attackers' priority; what it does not get done is no failure of the test."""

    def script(peer: Any) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        with contextlib.suppress(OSError, AssertionError):
            serve(peer)

    return script


def config(workers: int, *routes: Config) -> dict[str, Any]:
    return {
        "service": {"workers": workers, "drain_timeout": 1},
        "admin": {"listen": "127.0.0.1:0"},
        "route": list(routes),
    }


@contextmanager
def staged(workers: int, attack: Attack, keys: Keys, ours: Issued, tree: Path | None = None) -> Iterator[Stage]:
    """A proxy that this attack, and those of its kind, can be played on; of the source in `tree`, or of this one."""
    with ExitStack() as stack:
        control = stack.enter_context(control_process())
        special: dict[str, Any] = {}
        if attack.names is not None:
            special["interpreter"] = interpreter_that_asks(NAME_SERVER, keys.folder, tree or TOP)
        elif tree is not None:
            special["interpreter"] = interpreter_in(tree, keys.folder)
        if attack.descriptors:
            special["descriptors"] = attack.descriptors
        started = config(workers, route(control.port, name="control"))
        running = stack.enter_context(running_proxy(started, **special))
        control.begin(running.port_of("control"))
        control.slowest_since(0)
        yield Stage(running, control, workers, keys, ours)
        control.end()


class Stages:
    """The stage that is open; another is opened where an attack needs one."""

    def __init__(self, keys: Keys, tree: Path | None = None) -> None:
        self._keys = keys
        self._ours = root().issue(NAME, with_rsa=True)
        self._tree = tree
        self._stack = ExitStack()
        self._open: tuple[object, Stage] | None = None

    def of(self, attack: Attack, workers: int) -> Stage:
        wanted = kind(attack), workers
        if self._open is None or self._open[0] != wanted:
            self.close()
            stage = self._stack.enter_context(staged(workers, attack, self._keys, self._ours, self._tree))
            self._open = wanted, stage
        return self._open[1]

    def close(self) -> None:
        self._open = None
        self._stack.close()


def kind(attack: Attack) -> tuple[bool, int]:
    """Attacks of one kind can share a stage."""
    return attack.names is not None, attack.descriptors


def calm() -> None:
    """Wait a while for other programs to leave the processors alone."""
    until = time.monotonic() + CALM
    while os.getloadavg()[0] > len(os.sched_getaffinity(0)) and time.monotonic() < until:
        time.sleep(1)


def judged(stage: Stage, attack: Attack, seconds: float, again: int = 2) -> Seen:
    """Play it; what is too slow, or so short that nothing was done, is played again once the machine is calm, and that
    one counts: a loop that is held is held each time."""
    seen = stage.play(attack, seconds)
    for _ in range(again):
        if seen.done and seen.slowest < SERVED_WITHIN:
            break
        calm()
        seen = stage.play(attack, seconds if seen.done else 3 * seconds)
    assert seen.done or not again, "the attackers did nothing"
    return seen
