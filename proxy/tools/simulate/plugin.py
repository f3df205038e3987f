"""A pytest plugin: the fixture `simulated_server`, which starts broken servers and ends them behind the test.

`pytest_plugins = ["proxy.tools.simulate.plugin"]` in a conftest brings it.  pytest is the test-suite's own: this
program does not need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from proxy.tools.simulate.running import RunningServer
from proxy.tools.simulate.running import simulated_server as _running


@pytest.fixture
def simulated_server() -> Iterator[Callable[..., RunningServer]]:
    """Starts a server, with the arguments of `proxy.tools.simulate.simulated_server`; as many as a test asks for."""
    with ExitStack() as stack:

        def start(*arguments: Any, **options: Any) -> RunningServer:
            return stack.enter_context(_running(*arguments, **options))

        yield start
