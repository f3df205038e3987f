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


@pytest.mark.parametrize("name", sorted(pages.pages()))
def test_mandoc_finds_nothing_to_warn_of_and_80_columns_are_enough(name: str, tmp_path: Path) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    file = tmp_path / name
    file.write_text(pages.pages()[name])
    told = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", file], capture_output=True, text=True, check=False)
    assert told.stdout + told.stderr == ""
    shown = subprocess.run(
        ["mandoc", "-T", "utf8", "-O", "width=80", file], capture_output=True, text=True, check=True
    ).stdout
    lines = [re.sub(".\b", "", line) for line in shown.splitlines()]
    assert [line for line in lines[1:-1] if len(line) > 80] == []


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


FISH = "source {file}; complete -C '{line}'"
ZSH = """
zmodload zsh/zpty; zpty shell zsh -f -i
zpty -w shell "PS1=; fpath=({folder} \\$fpath); autoload -U compinit; compinit -u -D; stty -echo; echo RE''ADY"
until [[ $said = *READY* ]]; do zpty -r shell more && said+=$more; done
zpty -n -w shell "{line}"$'\\t\\t'; sleep 1.5
while zpty -r -t shell more; do print -rn -- "$more"; done
"""


def offered(shell: str, line: str, tmp_path: Path) -> str:
    """What the real shell says when the line is completed."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    for name, text in completions.completions().items():
        (tmp_path / name).write_text(text)
    (tmp_path / "one.toml").write_text("")
    script = (FISH if shell == "fish" else ZSH).format(file=tmp_path / "ehlo-proxy.fish", folder=tmp_path, line=line)
    done = subprocess.run(
        [shell, "-c", script], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TERM": "xterm"},
    )  # fmt: skip
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", done.stdout)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ehlo-proxy ", ["simulate", "replay"]),
        ("ehlo-proxy run --", ["--listen", "--record"]),  # a command that takes no argument
        ("ehlo-proxy simulate --fault hel", ["hello-too-large", "hello-unanswered"]),
        ("ehlo-proxy explain greeting-not-", ["greeting-not-first", "greeting-not-domain"]),
        ("ehlo-proxy check on", ["one.toml"]),
        ("ehlo-proxy probe --format ", ["json", "nagios"]),
    ],
)
def test_zsh_and_fish_complete_what_bash_does(shell: str, line: str, wanted: list[str], tmp_path: Path) -> None:
    said = offered(shell, line, tmp_path)
    assert [word for word in wanted if word not in said] == [], said


def test_no_file_is_offered_where_an_address_is_wanted(tmp_path: Path) -> None:
    assert "one.toml" not in offered("fish", "ehlo-proxy run --listen ", tmp_path)
    assert "one.toml" not in offered("zsh", "ehlo-proxy run --listen ", tmp_path)
    assert complete("run", "--listen", "READ") == []
