"""`files DIR`: everything that belongs to the program, current by construction, and nothing overwritten."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proxy import __version__
from proxy.settings import TABLES, declared
from proxy.smtp.reply.findings import FINDINGS
from proxy.tools.files import command, completions, pages, roff

TOP = Path(__file__).parents[3]


def lay_out(folder: Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return command.run(str(folder), out, err), out.getvalue(), err.getvalue()


def test_everything_is_laid_out_and_told(tmp_path: Path) -> None:
    code, out, err = lay_out(tmp_path / "new")
    assert (code, err) == (0, "")
    written = sorted(str(path) for path in (tmp_path / "new").rglob("*") if path.is_file())
    assert sorted(out.splitlines()) == written
    for name in ("systemd/ehlo-proxy.service", "config/ehlo-proxy.toml", "man/man1/ehlo-proxy.1"):
        assert str(tmp_path / "new" / name) in written
    assert not any("packaging" in name or "sbom" in name for name in written)


def test_nothing_is_overwritten_and_then_nothing_is_written_at_all(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    mine = tmp_path / "config" / "ehlo-proxy.toml"
    mine.write_text("my own")
    code, out, err = lay_out(tmp_path)
    assert (code, out) == (1, "")
    assert str(mine) in err
    assert mine.read_text() == "my own"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    assert lay_out(tmp_path)[0] == 0
    assert lay_out(tmp_path)[0] == 0


def test_what_can_not_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = lay_out(tmp_path / "file" / "below")
    assert code == 1
    assert "file/below" in err


def test_every_key_and_its_meaning_are_in_the_page_of_settings() -> None:
    page = pages.settings_page()
    for kind in TABLES.values():
        for path, key in declared(kind):
            assert roff.escaped(f"{path.rpartition('.')[2]} = ") in page
            assert roff.escaped(" ".join(key.meaning.split())) in page


def test_every_finding_is_in_the_page_of_findings() -> None:
    page = pages.findings_page()
    for one in FINDINGS:
        assert f"\\fB{roff.escaped(one)}\\fR" in page


def test_every_command_is_in_the_page_of_commands() -> None:
    page = pages.commands_page()
    for name, _ in pages.subcommands():
        assert f"ehlo\\-proxy {name}" in page


def test_the_date_of_the_pages_is_that_of_the_newest_version_in_the_changelog() -> None:
    dated = re.findall(r"^## \S+ \((\d{4}-\d{2}-\d{2})\)", (TOP / "CHANGELOG.md").read_text(), re.M)
    assert dated[0] <= pages.DATE
    assert __version__ in pages.commands_page()


@pytest.mark.parametrize("name", ["ehlo-proxy.1", "ehlo-proxy.toml.5", "ehlo-proxy-findings.7"])
def test_the_pages_are_read_without_a_complaint(name: str, tmp_path: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    file = tmp_path / name
    file.write_text(pages.pages()[name])
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Kutf8", "-Tutf8", str(file)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") > 50


@pytest.mark.parametrize("line", [".dot", "'quote", "back\\slash", "--option", "it's `so`", "\\fB"])
def test_any_text_comes_out_as_it_went_in(line: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    page = "\n".join([".TH X 1", *roff.literal([line])])
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-cbou"], input=page, capture_output=True, text=True, check=True
    )
    assert line in done.stdout


def complete(*words: str) -> list[str]:
    """What bash offers for the last word."""
    script = completions.bash() + (
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ehlo_proxy; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script, "bash", "ehlo-proxy", *words], capture_output=True, text=True, check=True, cwd=TOP
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_findings_and_files() -> None:
    assert complete("pr") == ["probe"]
    assert "--timeout" in complete("probe", "--")
    assert complete("explain", "greeting-not-f") == ["greeting-not-first"]
    assert complete("simulate", "--finding", "greeting-not-f") == ["greeting-not-first"]
    assert complete("check", "READ") == ["README.md"]
    assert complete("run", "--config", "READ") == ["README.md"]


@pytest.mark.parametrize(("shell", "made"), [("zsh", completions.zsh), ("fish", completions.fish)])
def test_the_other_shells_can_read_theirs(shell: str, made: object) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert callable(made)
    done = subprocess.run([shell, "-n"], input=made(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
