"""The benchmark itself: it compiles without a warning, its load checks what it gets, its table says what was seen."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import builds, contenders, instructions, measure, stages
from tests.bench.contenders import Contender, running
from tests.bench.measure import Bench
from tests.bench.table import Row, header
from tests.clients import postfix
from tests.loopback import free_port, public_folder

SOURCE = Path(measure.__file__).with_name("smtpbench.c")
SMALL = measure.Size(rounds=1, sessions=60, tls_sessions=20, paced_seconds=0.2, gigabytes=0.01, held=40)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    if not shutil.which("gcc") or not Path("/usr/include/openssl/ssl.h").exists():
        pytest.skip("gcc or OpenSSL's headers are not installed")
    folder = tmp_path_factory.mktemp("bench")
    program = folder / "smtpbench"
    warnings = ["-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *warnings, "-o", str(program), str(SOURCE), "-lssl", "-lcrypto"], check=True)
    measure.certificate(folder)
    return Bench(program, SMALL)


@pytest.fixture(scope="module")
def proxied(bench: Bench) -> Iterator[Contender]:
    folder = bench.program.parent
    with (
        running(folder, lambda: contenders.sink(bench.program, folder)) as [sink],
        running(folder, lambda: contenders.ehlo_proxy(folder, sink.port)) as [proxy],
    ):
        yield proxy


@pytest.mark.parametrize("mode", ["splice", "mail", "tls", "paced", "pacedtls"])
def test_every_session_of_the_load_goes_well_through_the_proxy_and_sees_the_greeting_first(
    bench: Bench, proxied: Contender, mode: str
) -> None:
    result = bench.load(proxied, mode, 30, 100, 3000)
    assert (result["well"], result["failed"], result["greeting_first"]) == (30, 0, 30)
    assert bench.failures == []


def test_the_load_sees_that_the_bare_sink_is_broken(bench: Bench) -> None:
    folder = bench.program.parent
    with running(folder, lambda: contenders.sink(bench.program, folder)) as [sink]:
        assert bench.load(sink, "splice", 5, 5, 10)["greeting_first"] == 0


def test_the_load_counts_a_session_that_goes_wrong(bench: Bench) -> None:
    port = free_port()
    wrong = Bench(bench.program, SMALL)
    wrong.load(Contender("nobody", port, []), "splice", 3, 3, 10)
    assert wrong.failures == ["nobody, splice: 3 of 3 sessions failed"]


def test_what_is_measured_of_a_process_is_above_nothing(bench: Bench, proxied: Contender) -> None:
    memory, slowest, alone, among = bench.held(proxied)
    assert 0 < slowest < 5000
    assert alone > 0
    assert among > 0
    assert memory < 1000
    assert bench.split(proxied, 20) == [1.0]


@pytest.mark.root
def test_a_bridge_is_measured_beside_the_real_postfix_that_it_leads_to(bench: Bench) -> None:
    if why := postfix.missing():
        pytest.skip(why)
    with public_folder() as folder:
        measure.certificate(folder)
        [row] = measure.bridged_postfix(bench, folder)
    assert bench.failures == []
    assert list(row.values) == ["direct", "pure"]
    assert all(0 < one < 5000 for [one] in row.values.values())


def test_a_ratio_is_taken_within_the_round_and_shown_with_its_range() -> None:
    row = Row("work", "µs", "haproxy", 2.5)
    for theirs, ours in ((100, 200), (50, 150), (100, 400)):
        row.add("haproxy", theirs)
        row.add("ehlo-proxy", ours)
    assert row.ratios("ehlo-proxy") == [2, 3, 4]
    assert row.markdown(["ehlo-proxy"], "ehlo-proxy") == (
        "| work | µs | haproxy 100 | 200 (3.00 ×) | 3.00 (2.00 to 4.00) | 2.5 | **no** |  |"
    )


def test_a_goal_for_the_value_itself_is_not_compared_with_another() -> None:
    row = Row("memory", "KiB", "haproxy", 6, absolute=True)
    row.add("haproxy", 3.25)
    row.add("ehlo-proxy", 5.5)
    assert row.markdown(["ehlo-proxy"], "ehlo-proxy") == (
        "| memory | KiB | haproxy 3.25 | 5.50 | 5.50 (5.50 to 5.50) | 6 | yes |  |"
    )


def test_builds_stand_side_by_side_and_the_goal_is_for_one_of_them() -> None:
    row = Row("work", "µs", "haproxy", 2)
    for name, value in (("haproxy", 100.0), ("pure", 250.0), ("compiled", 150.0), ("nginx", 90.0)):
        row.add(name, value)
    assert row.markdown(["pure", "compiled"], "compiled") == (
        "| work | µs | haproxy 100 | 250 (2.50 ×) | 150 (1.50 ×) | 1.50 (1.50 to 1.50) | 2 | yes | nginx 90 (0.90 ×) |"
    )
    assert header(["pure", "compiled"], "compiled").count("|---") == 9


def test_the_pure_build_is_measured_on_the_first_python_and_the_interpreters_are_named() -> None:
    first, *_ = builds.pythons()
    [pure] = builds.builds(Path("/nonexistent"), compiled=False, before="")
    assert (pure.name, pure.python) == ("pure", first.path)
    assert first.version in measure.machine()


def test_three_percent_more_instructions_are_said_aloud() -> None:
    budget = {"pure": 1000.0, "compiled": 500.0}
    assert instructions.compared({"pure": 1029.0, "compiled": 400.0, "other": 9e9}, budget) == []
    [said] = instructions.compared({"pure": 1050.0, "compiled": 500.0}, budget)
    assert said.startswith("pure: 1050 instructions a session, +5.0% against a budget of 1000")


@pytest.mark.long
@pytest.mark.alone
def test_no_build_costs_more_instructions_than_its_budget(bench: Bench) -> None:
    if not shutil.which("valgrind"):
        pytest.skip("valgrind is not installed")
    budget = json.loads(instructions.BUDGET.read_text()).get(builds.pythons()[0].version)
    if budget is None:
        pytest.skip(f"no budget for Python {builds.pythons()[0].version}")
    folder = bench.program.parent
    measured = [one for one in builds.builds(folder, compiled=True, before="") if one.name in budget]
    assert instructions.compared(instructions.of_each(bench.program, folder, measured), budget) == []


def test_every_stage_of_a_session_is_timed_warm_and_cold() -> None:
    warm, cold = stages.measured(False, 30), stages.measured(True, 30)
    assert list(warm) == list(cold)
    assert len(warm) == 10
    assert sum(cold.values()) > sum(warm.values()) > 5
