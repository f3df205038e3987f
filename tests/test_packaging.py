"""What is shipped: the same bytes on every build, nothing but what the lock names, and a bill of what is in it.

Building and installing take seconds each, so each is done once a run. Nothing here reaches for the network but the
installs from the lock, through pip as it is set up; without it they are skipped, and the summary says so.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import proxy
from tests.sbom import bill, read_lock

TOP = Path(__file__).parent.parent
README = (TOP / "README.md").read_text()
LOCK = TOP / "requirements.lock"
SHIPPED = [
    "proxy",
    "tests",
    "systemd",
    "config",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "SECURITY.md",
]
EXPORT = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SHIPPED, "*.lock"]


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """The command's result; what it said stands in the failure when it went wrong."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git would ship, so that both builds see the same files."""
    if not (TOP / ".git").exists():
        pytest.skip("no git work tree: what would be shipped is not known")
    copy = tmp_path_factory.mktemp("tree")
    for name in subprocess.run(EXPORT, cwd=TOP, capture_output=True, check=True).stdout.decode().split("\0"):
        if name and (TOP / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TOP / name, copy / name)
    return copy


def build(tree: Path, copy: Path, umask: int) -> dict[str, bytes]:
    """Wheel and sdist, built in a copy of the tree at `copy` made under `umask`: files by name."""
    environment = {key: value for key, value in os.environ.items() if key != "SOURCE_DATE_EPOCH"}
    old = os.umask(umask)
    try:
        shutil.copytree(tree, copy, copy_function=shutil.copyfile)
        (copy / "tests/run").chmod(0o777 & ~umask)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", copy / "out", copy, env=environment)
    finally:
        os.umask(old)
    return {path.name: path.read_bytes() for path in (copy / "out").iterdir()}


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return build(tree, tmp_path_factory.mktemp("one") / "tree", 0o022)


@pytest.fixture(scope="module")
def wheel(built: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    name = next(name for name in built if name.endswith(".whl"))
    path = tmp_path_factory.mktemp("wheel") / name
    path.write_bytes(built[name])
    return path


def test_two_builds_give_the_same_bytes(tree: Path, built: dict[str, bytes], tmp_path: Path) -> None:
    again = build(tree, tmp_path / "another" / "place", 0o077)
    assert sorted(built) == sorted(again)
    assert [name for name in built if built[name] != again[name]] == []


def test_the_wheel_holds_the_package_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "proxy/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"proxy", f"ehlo_proxy-{proxy.__version__}.dist-info"}


def test_the_wheel_holds_the_bill_of_materials_of_the_lock(wheel: Path) -> None:
    inside = f"ehlo_proxy-{proxy.__version__}.dist-info/sboms/sbom.cdx.json"
    found = json.loads(zipfile.ZipFile(wheel).read(inside))
    assert found == bill(LOCK.read_text()), "run tests/lock"
    assert {part["name"] for part in found["components"]} >= {"twisted", "pyopenssl", "service-identity"}


def test_the_sdist_holds_what_a_packager_needs(built: dict[str, bytes]) -> None:
    name = next(name for name in built if name.endswith(".tar.gz"))
    with tarfile.open(fileobj=io.BytesIO(built[name])) as sdist:
        inside = {member.split("/", 1)[1] for member in sdist.getnames() if "/" in member}
    assert {"pyproject.toml", "requirements.lock", "tests/run", "LICENSE", "config/sbom.cdx.json"} <= inside


def test_every_pin_has_hashes_and_is_asked_for() -> None:
    pins = read_lock(LOCK.read_text())
    assert [pin.name for pin in pins if not pin.hashes or not pin.via] == []
    test_pins = {pin.name: pin.version for pin in read_lock((TOP / "requirements-test.lock").read_text())}
    assert [pin.name for pin in pins if test_pins.get(pin.name) != pin.version] == [], (
        "the two locks disagree: run tests/lock"
    )


def test_what_is_asked_for_with_an_extra_is_pinned_with_it() -> None:
    """pip tries the newest `coverage[toml]` first where only `coverage` is pinned, and stops at its missing hash."""
    locks = LOCK.read_text() + (TOP / "requirements-test.lock").read_text()
    asked = {
        (dependency.name.lower(), extra)
        for pin in read_lock((TOP / "requirements-test.lock").read_text())
        for dependency in map(Requirement, installed_requirements(pin.name))
        for extra in dependency.extras
        if dependency.marker is None or dependency.marker.evaluate({"extra": ""})
    }
    assert ("coverage", "toml") in asked
    assert [f"{name}[{extra}]" for name, extra in sorted(asked) if f"\n{name}[{extra}]==" not in locks] == []


def closure(*names: str) -> set[str]:
    """These distributions and all that they require, of those that are installed."""
    asked, seen = list(names), set[str]()
    while asked:
        if (name := asked.pop().lower().replace("_", "-").replace(".", "-")) not in seen:
            seen.add(name)
            wanted = [one for one in map(Requirement, installed_requirements(name)) if not one.extras]
            asked += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return seen


def test_what_builds_the_package_where_there_is_no_environment_is_all_that_is_needed() -> None:
    """build-deb makes an environment of these pins of the lock, with their hashes and nothing else."""
    text = (TOP / "config/packaging/build-deb").read_text()
    pure, compiled = (set(names.split("|")) - {""} for names in re.findall(r"^ +needs\+?='(\S+)'", text, re.MULTILINE))
    assert pure == closure("hatchling")
    locked = {pin.name for pin in read_lock(LOCK.read_text())}  # which it adds by itself
    assert closure("hatchling", "mypy", "mypy-zope", "setuptools") - pure - locked <= compiled


def installed_requirements(name: str) -> list[str]:
    """What a distribution here requires; nothing of one that this platform does without."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def environment(folder: Path) -> Path:
    """A new environment with nothing in it; its interpreter."""
    run(sys.executable, "-m", "venv", folder)
    return folder / "bin" / "python"


def pip_install(python: Path, *arguments: str | Path) -> None:
    """Skips when the registry cannot be reached; fails when it can and the install does not work."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if "NewConnectionError" in done.stderr or "Temporary failure in name resolution" in done.stderr:
        pytest.skip("no package registry to be reached")
    assert done.returncode == 0, done.stderr


def test_the_lock_installs_by_hash_without_building_anything(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv")
    pip_install(python, "--require-hashes", "--only-binary", ":all:", "-r", LOCK)
    pip_install(python, "--no-deps", "--no-index", wheel)
    run(python, "-m", "pip", "check")
    program = python.parent / "ehlo-proxy"
    assert proxy.__version__ in run(program, "--version", cwd=tmp_path).stdout
    broken = "250-STARTTLS\r\n250-mail.domain1.com\r\n250 8BITMIME\r\n"
    done = subprocess.run([str(program), "repair"], input=broken.encode(), capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.split(b"\r\n")[0]) == (1, b"250-mail.domain1.com")


@pytest.mark.long
def test_a_package_index_takes_wheel_and_sdist_and_shows_the_readme(built: dict[str, bytes], tmp_path: Path) -> None:
    python = environment(tmp_path / "venv")
    pip_install(python, "--only-binary", ":all:", "twine==7.0.0", "readme-renderer[md]==46.0")
    for name, content in built.items():
        (tmp_path / name).write_bytes(content)
    run(python, "-m", "twine", "check", "--strict", *(tmp_path / name for name in built))
    # twine looks at no Markdown; this is what the index makes of it.
    shown = run(python, "-m", "readme_renderer", "-f", "md", TOP / "README.md").stdout
    assert shown.count("<table>") == README.count("|---|---|\n")
    assert re.findall(r"<h2.*?>(?:<a.*?</a>)?(.*?)(?:<a.*?</a>)?</h2>", shown) == re.findall(r"^## (.*)$", README, re.M)


@pytest.mark.long
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_lock_has_binary_wheels_for_arm64(version: str, tmp_path: Path) -> None:
    """All of it, by hash, for the C library of Debian 12 and 13 and Ubuntu 24.04."""
    fits = [f"--platform=manylinux_2_{libc}_aarch64" for libc in (36, 34, 31, 28, 27, 24, 17)]
    fits += ["--platform=manylinux2014_aarch64", f"--abi=cp{version.replace('.', '')}", "--abi=abi3", "--abi=none"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--only-binary=:all:"]
    command += ["--implementation=cp", f"--python-version={version}", *fits, "-r", str(LOCK), "-d", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if "NewConnectionError" in done.stderr or "Temporary failure in name resolution" in done.stderr:
        pytest.skip("no package registry to be reached")
    assert done.returncode == 0, done.stderr
    compiled = sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith("-none-any.whl"))
    assert [name.split("-")[0] for name in compiled] == ["cffi", "cryptography", "zope_interface"]
    assert all("aarch64" in name for name in compiled)


@pytest.mark.parametrize("theirs", ["from os import path\n__all__ = ['entry_point', 'main']\n", None])
def test_a_package_that_took_its_import_name_is_told_at_the_start(theirs: str | None, tmp_path: Path) -> None:
    """proxy.py in the same environment writes over proxy/__init__.py; uninstalled again it leaves none."""
    copy = tmp_path / "proxy"
    shutil.copytree(TOP / "proxy", copy, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    if theirs is None:
        (copy / "__init__.py").unlink()
    else:
        (copy / "__init__.py").write_text(theirs)
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import sys; from proxy.cli import main; sys.exit(main(['--version']))"],
        capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "proxy.py" in done.stderr
    assert str(copy) in done.stderr
    assert "environment of its own" in done.stderr
    assert "Traceback" not in done.stderr


def lowest_pins() -> list[str]:
    """The oldest versions that pyproject.toml admits, as requirements."""
    wanted = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["dependencies"]
    return [one.split(";")[0].replace(">=", "==").strip() for one in wanted]


@pytest.mark.long
@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_the_oldest_and_the_newest_dependencies_pass_the_core_the_edge_and_the_tools(
    which: str, wheel: Path, tmp_path: Path
) -> None:
    python = environment(tmp_path / "venv")
    tests = ["pytest", "pytest-xdist", "pytest-cov", "hypothesis", "aiosmtplib", "aiosmtpd"]
    pinned = {pin.name: pin.version for pin in read_lock((TOP / "requirements-test.lock").read_text())}
    tools = [f"{name}=={pinned[name]}" for name in tests]
    if which == "oldest":
        pip_install(python, "--only-binary", ":all:", *lowest_pins(), *tools)
    else:
        pip_install(
            python, "--only-binary", ":all:", "--upgrade", *[one.split("==")[0] for one in lowest_pins()], *tools
        )
    run(python, "-m", "pip", "freeze")
    folders = ("tests/smtp", "tests/net", "tests/tools")
    said = run(python, "-m", "pytest", "-q", "-n", "2", "-m", "not alone", *folders, cwd=TOP).stdout
    assert re.search(r"^\d{4} passed", said, re.MULTILINE), said[-500:]
    assert "failed" not in said.splitlines()[-1]
