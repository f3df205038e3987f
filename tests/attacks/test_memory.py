"""What one hostile session can make the proxy hold, whatever its peers do: the bounds that SECURITY.md tells.

The worst of them in each run, with thirty sessions; all with --long, with two hundred.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks import servers
from tests.attacks.memory import HOARDS, SESSIONS, a_session

FEW = 30
WORST = [
    "pass-through: both flood and nobody reads",
    "bridge: both flood and nobody reads",
    "bridge: a certificate of 21,000 names",
]

pytestmark = pytest.mark.alone


@pytest.mark.parametrize(
    ("name", "sessions"),
    [pytest.param(name, FEW, id=f"{name}, {FEW}") for name in WORST]
    + [pytest.param(name, SESSIONS, id=name, marks=pytest.mark.long) for name in HOARDS],
)
def test_a_session_costs_less_than_its_bound(name: str, sessions: int, tmp_path: Path) -> None:
    servers.prepare()
    size = a_session(HOARDS[name], tmp_path, sessions)
    print(f"{size / 1024:.0f} KiB a session")
    assert size < HOARDS[name].bound
