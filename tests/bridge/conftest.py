"""What the tests of bridge mode share: keys as files, and the certificate that the proxy shows its clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bridge.parties import Keys, Stage, staged
from tests.certificates import NAME, Issued, root


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def ours() -> Issued:
    """What the proxy shows to its clients."""
    return root().issue(NAME)


@pytest.fixture(scope="session")
def stage(keys: Keys, ours: Issued) -> Iterator[Stage]:
    with staged(keys, ours) as stage:
        yield stage
