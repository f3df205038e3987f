"""Nobody holds the others: a mail on another route takes less than a second throughout every attack there is.

With one worker and with two; those that once held everybody in each run, the others with two workers only (with one,
`tests.end_to_end.test_hostile` has most of them); with --long all of them, for ten seconds each.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.attacks import servers
from tests.attacks.names import missing
from tests.attacks.stage import SERVED_WITHIN, Stage, judged, kind, staged
from tests.attacks.table import ATTACKS
from tests.bridge.parties import Keys
from tests.certificates import NAME, root

pytestmark = pytest.mark.alone

SHORT, LONG = 1.2, 10.0  # seconds of each attack
ORDERED = sorted(ATTACKS, key=lambda name: kind(ATTACKS[name]))


class Stages:
    """The stage that is open; another is opened where an attack needs one."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._ours = root().issue(NAME)
        self._stack = ExitStack()
        self._open: tuple[object, Stage] | None = None

    def of(self, name: str, workers: int) -> Stage:
        attack = ATTACKS[name]
        wanted = kind(attack), workers
        if self._open is None or self._open[0] != wanted:
            self.close()
            stage = self._stack.enter_context(staged(workers, attack, self._keys, self._ours))
            self._open = wanted, stage
        return self._open[1]

    def close(self) -> None:
        self._open = None
        self._stack.close()


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    servers.prepare()
    stages = Stages(Keys(tmp_path_factory.mktemp("keys")))
    yield stages
    stages.close()


def check(stages: Stages, name: str, workers: int, seconds: float) -> None:
    if ATTACKS[name].names is not None and missing():
        pytest.skip(missing())
    seen = judged(stages.of(name, workers), ATTACKS[name], seconds)
    print(f"{name}, {workers}: {seen}")
    assert seen.mails >= 3
    assert seen.slowest < SERVED_WITHIN, f"a mail took {seen.slowest:.2f} s: {seen}"


@pytest.mark.parametrize("name", [name for name in ORDERED if ATTACKS[name].worst])
def test_a_mail_passes_with_one_worker(stages: Stages, name: str) -> None:
    check(stages, name, 1, SHORT)


@pytest.mark.parametrize("name", ORDERED)
def test_a_mail_passes_with_two_workers(stages: Stages, name: str) -> None:
    check(stages, name, 2, SHORT)


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", ORDERED)
def test_a_mail_passes_for_as_long_as_the_attack_lasts(stages: Stages, name: str, workers: int) -> None:
    check(stages, name, workers, LONG)
