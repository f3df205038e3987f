"""The Kubernetes manifest and the compose file, by their schemas, which come in packages; and the settings within.

The checkers are installed into an environment of their own: one of them has the schemas of every Kubernetes, 200 MB.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.loopback import TOP
from tests.test_packaging import environment, pip_install

PACKAGING = TOP / "config/packaging"
MANIFEST = PACKAGING / "kubernetes.yaml"
COMPOSE = PACKAGING / "compose.yaml"


def said(*command: str | Path) -> tuple[int, str]:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = environment(tmp_path_factory.mktemp("checkers") / "venv")
    pip_install(python, "--only-binary", ":all:", "kubernetes-validate==1.37.0", "check-jsonschema==0.39.0")
    return python.parent


@pytest.mark.long
@pytest.mark.parametrize("version", ["1.25.0", "1.37.0"])
def test_the_manifest_is_what_kubernetes_expects_and_a_misspelt_key_is_found(
    programs: Path, version: str, tmp_path: Path
) -> None:
    check = (programs / "kubernetes-validate", "--strict", "--kubernetes-version", version)
    code, told = said(*check, MANIFEST)
    assert code == 0, told
    assert re.findall(r"passed for resource (\w+)/ehlo-proxy", told) == ["configmap", "deployment", "service"]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(MANIFEST.read_text().replace("readOnlyRootFilesystem", "readOnlyRoot"))
    code, told = said(*check, wrong)
    assert code != 0
    assert "readOnlyRoot" in told


@pytest.mark.long
def test_the_compose_file_is_what_compose_expects_and_a_misspelt_key_is_found(programs: Path, tmp_path: Path) -> None:
    check = (programs / "check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    code, told = said(*check, COMPOSE)
    assert code == 0, told
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(COMPOSE.read_text().replace("stop_grace_period", "stop_period"))
    code, told = said(*check, wrong)
    assert code != 0
    assert "stop_period" in told


def test_the_settings_in_the_manifest_are_good(tmp_path: Path) -> None:
    """The ConfigMap's file, as it is mounted, and its ports as the container and the probes name them."""
    found = re.search(r"^  ehlo-proxy.toml: \|\n((?:    .*\n|\n)+)", MANIFEST.read_text(), re.MULTILINE)
    assert found is not None
    file = tmp_path / "ehlo-proxy.toml"
    file.write_text(textwrap.dedent(found[1]))
    code, told = said(sys.executable, "-m", "proxy", "check", file)
    assert (code, told) == (0, f"{file}: ok, 1 route\n")
    ports = re.findall(r"containerPort: (\d+)", MANIFEST.read_text())
    assert ports == ["2525", "9926"]
    assert all(f':{port}"' in file.read_text() for port in ports)
