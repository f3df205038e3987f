"""The compiled build: off unless asked for, from the same source, with the compiler that the lock names.

That it does the same is what `tests/run --compiled` sees: the tests themselves, on it.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOP = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    found = importlib.util.spec_from_file_location("compile_hook", TOP / "config/packaging/compile.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def asked_for(hook: ModuleType) -> list[str]:
    """What hatchling would install to build a wheel."""
    wanted: list[str] = hook.CompiledBuild(str(TOP), {}, None, None, "", "wheel").dependencies()
    return wanted


def test_each_place_that_is_compiled_is_there_and_has_its_reason(hook: ModuleType) -> None:
    for place, reason in hook.COMPILED.items():
        assert hook.sources(TOP, [place]), place
        assert reason, place


def test_the_core_is_compiled_whole_but_for_files_that_hold_only_words(hook: ModuleType) -> None:
    sources = set(hook.sources(TOP))
    for path in (TOP / "proxy/smtp").rglob("*.py"):
        if path.name == "__init__.py":
            assert all(isinstance(one, ast.Expr) for one in ast.parse(path.read_text()).body), path
        else:
            assert str(path.relative_to(TOP)) in sources


@pytest.mark.parametrize("value", [None, "", "0"])
def test_nothing_is_compiled_unless_it_is_asked_for(
    hook: ModuleType, value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EHLO_PROXY_COMPILED", raising=False)
    if value is not None:
        monkeypatch.setenv("EHLO_PROXY_COMPILED", value)
    assert asked_for(hook) == []


def test_the_compiler_is_that_of_the_lock(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EHLO_PROXY_COMPILED", "1")
    lock = (TOP / "requirements-test.lock").read_text()
    wanted = asked_for(hook)
    assert sorted(one.split("==")[0] for one in wanted) == sorted(hook.NEEDS)
    assert all(f"\n{one} \\" in f"\n{lock}" for one in wanted)


def test_what_bounds_a_slice_does_nothing_else(hook: ModuleType) -> None:
    """mypyc 2.4 works out the bounds of some slices twice: `view[: sock.recv_into(buffer)]` lost what came first."""
    harmless = {"len", "max", "min", "find", "rfind", "index", "start", "end"}
    for source in hook.sources(TOP):
        for one in ast.walk(ast.parse((TOP / source).read_text())):
            if not isinstance(one, ast.Slice):
                continue
            for call in (each for each in ast.walk(one) if isinstance(each, ast.Call)):
                name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                assert name in harmless, f"{source}:{call.lineno}: {ast.unparse(one)}"
