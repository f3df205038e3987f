"""What all tests share: the options --long and --systemd, the mark `alone`, and the word on what was not run.

A test marked `long` or `systemd` is left out unless its option is given; one marked `alone` needs the machine to itself
(it measures time, or takes many descriptors) and is run by `tests/run` after the others, one at a time. What was left
out or skipped is said at the end: a missing program must not look like a passed test. No test waits for ever: after its
time (`timeout` in pyproject.toml, more for those two kinds) it fails where it stands.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

OPTIONS = {"long": "--long", "systemd": "--systemd"}
LONG_TIME = 7200.0
"""Seconds for a test that takes minutes: an hour of soak, with room."""
_left_out: Counter[str] = Counter()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also the tests that take minutes")
    parser.addoption("--systemd", action="store_true", help="also the tests that boot a real system in a container")


def pytest_configure(config: pytest.Config) -> None:
    # An example may take its time on a busy machine: what bounds the cost of something measures it itself.
    settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("unhurried")
    config.addinivalue_line("markers", "alone: needs the machine to itself; run one at a time, after the others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    _left_out.clear()
    for item in items:
        why = next(
            (
                mark
                for mark, option in OPTIONS.items()
                if item.get_closest_marker(mark) and not config.getoption(option)
            ),
            "",
        )
        if any(item.get_closest_marker(mark) for mark in OPTIONS):
            item.add_marker(pytest.mark.timeout(LONG_TIME))
        if why:
            left_out.append(item)
            _left_out[why] += 1
        elif item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
            kept.append(item)
        else:
            kept.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line a kind of test that was left out, and one for all that was skipped."""
    left_out = Counter(_left_out)
    for worker_counts in getattr(config, "_ehlo_left_out", {}).values():
        left_out |= Counter(worker_counts)
    for why, number in sorted(left_out.items()):
        terminalreporter.write_line(f"not run: {number} {why} tests (tests/run {OPTIONS[why]})", yellow=True)
    if skipped := len(terminalreporter.stats.get("skipped", ())):
        terminalreporter.write_line(f"skipped: {skipped} tests, for the reasons above", yellow=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under xdist the workers collect; each tells the controller what it left out (all the same)."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["ehlo_left_out"] = dict(_left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object, error: object) -> None:
    config = getattr(node, "config", None)
    output = getattr(node, "workeroutput", {})
    if config is not None:
        if not hasattr(config, "_ehlo_left_out"):
            config._ehlo_left_out = {}
        config._ehlo_left_out[id(node)] = output.get("ehlo_left_out", {})
