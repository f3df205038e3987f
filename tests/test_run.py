"""`tests/run` harms no host: what apt would remove something for is unpacked beside, never installed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
APT = """#!/bin/sh
echo "$@" >>"$SAID"
case "$*" in
    *-s*) echo "$WOULD" ;;
    download*) touch postfix_1.deb ;;
esac
"""


def install(tmp_path: Path, would: str) -> tuple[list[str], str]:
    """What apt-get and dpkg were told, and what the script says at its end."""
    text = (TOP / "tests/run").read_text()
    function = re.search(r"^install_one\(\) \{.*?^\}", text, re.DOTALL | re.MULTILINE)
    assert function is not None
    (tmp_path / "bin").mkdir()
    for name, script in (("apt-get", APT), ("dpkg", '#!/bin/sh\necho dpkg "$@" >>"$SAID"\n')):
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "scratch").mkdir()
    script = (
        f"set -uo pipefail; notes=(); unsure() {{ echo unsure $*; }}; top={tmp_path}; scratch={tmp_path}/scratch\n"
        f'cd {tmp_path}; {function[0]}\ninstall_one postfix; printf "%s\\n" "${{notes[@]-}}"'
    )
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False,
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "SAID": str(tmp_path / "said"), "WOULD": would},
    )  # fmt: skip
    assert done.stderr == ""
    return (tmp_path / "said").read_text().splitlines(), done.stdout


def test_what_removes_nothing_is_installed(tmp_path: Path) -> None:
    said, told = install(tmp_path, "Inst postfix (3.7)")
    assert [line for line in said if " -s " not in f" {line} "] == [
        "install -y -qq --no-install-recommends --no-remove postfix"
    ]
    assert told.strip() == ""


@pytest.mark.parametrize("removed", ["Remv exim4-daemon-light [4.96]\nInst postfix (3.7)"])
def test_what_would_remove_a_mail_server_is_unpacked_beside_it_and_said(tmp_path: Path, removed: str) -> None:
    said, told = install(tmp_path, removed)
    assert not [line for line in said if line.startswith("install") and " -s " not in line]
    assert said[-1].startswith("dpkg -x")
    assert "exim4-daemon-light" in told
