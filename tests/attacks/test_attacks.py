"""Nobody holds the others: a mail on another route takes less than a second throughout every attack there is.

With --long all of them, with one worker and with two, for ten seconds each.  In each run those that held everybody, or
nearly, for a second: one after the other with one worker and with two, by turns.  `python -m tests.attacks.run` plays
what one asks for.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks import servers
from tests.attacks.names import missing
from tests.attacks.stage import SERVED_WITHIN, Stages, judged, kind
from tests.attacks.table import ATTACKS
from tests.bridge.parties import Keys

pytestmark = [
    pytest.mark.alone,
    # An attacker that is thrown out leaves its socket to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

SHORT, LONG = 0.8, 10.0  # seconds of each attack


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    servers.prepare()
    stages = Stages(Keys(tmp_path_factory.mktemp("keys")))
    yield stages
    stages.close()


def check(stages: Stages, name: str, workers: int, seconds: float) -> None:
    if ATTACKS[name].names is not None and missing():
        pytest.skip(missing())
    seen = judged(stages.of(ATTACKS[name], workers), ATTACKS[name], seconds)
    print(f"{name}, {workers}: {seen}")
    assert seen.mails
    assert seen.slowest < SERVED_WITHIN, f"a mail took {seen.slowest:.2f} s: {seen}"


def each(played: list[tuple[str, int]]) -> pytest.MarkDecorator:
    """By kind and number of workers, so that a stage serves many."""
    order = sorted(played, key=lambda one: (kind(ATTACKS[one[0]]), one[1]))
    return pytest.mark.parametrize(("name", "workers"), order)


@each([(name, 1 + at % 2) for at, name in enumerate(name for name in ATTACKS if ATTACKS[name].worst)])
def test_a_mail_passes(stages: Stages, name: str, workers: int) -> None:
    check(stages, name, workers, SHORT)


@pytest.mark.long
@each([(name, workers) for name in ATTACKS for workers in (1, 2)])
def test_a_mail_passes_for_as_long_as_the_attack_lasts(stages: Stages, name: str, workers: int) -> None:
    check(stages, name, workers, LONG)
