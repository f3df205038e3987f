"""The lab for the tests with real mail programs: one for all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import lab as labs
from tests.clients.lab import Lab

FINDINGS = ("none", "greeting-not-first", "keyword-case")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    # Not pytest's folder: Postfix and the proxy may run as other users, and its folders are for ours alone.
    with tempfile.TemporaryDirectory(prefix="ehlo-lab-") as folder, labs.running(Path(folder), FINDINGS) as running:
        yield running
