"""The command line: what may be typed, what it answers, and what it costs to start."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from proxy import __version__, cli
from proxy.cli_arguments import parse

COMMANDS = ("run", "check", "probe", "repair", "explain", "simulate", "replay", "demo", "files")
CISCO = b"250-STARTTLS\r\n250-mail.domain1.com\r\n250 HELP\r\n"


def done(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "proxy", *arguments], input=data, capture_output=True, timeout=30, check=False
    )


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said to arguments that can't be used."""
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_tells_its_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: ehlo-proxy {command}" in text
    assert "Exits with 0" in text
    assert max(map(len, text.splitlines())) <= 100


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    assert all(re.search(rf"^    {command} ", text, re.MULTILINE) for command in COMMANDS)
    assert tuple(cli.COMMANDS) == COMMANDS


@pytest.mark.parametrize("arguments", [["--version"], ["probe", "--version"], ["run", "--version"]])
def test_the_version_is_told_everywhere(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"ehlo-proxy {__version__} (Python 3.")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "give a command, one of run, check, probe"),
        ("nonsense", "there is no command 'nonsense'"),
        ("run --config x --listen 127.0.0.1:1", "--listen and --config contradict each other"),
        ("run --config x --record d", "--record and --config contradict each other"),
        ("run --listen 127.0.0.1:1", "--listen needs --destination"),
        ("run --destination x", "--destination needs --listen"),
        ("run --allow 10.0.0.0/8", "--allow needs --listen"),
        ("probe", "give either HOST[:PORT], mx:DOMAIN or --config FILE"),
        ("probe x --config y", "give either HOST[:PORT], mx:DOMAIN or --config FILE"),
        ("probe x --route y", "--route needs --config"),
        ("probe x --no-tls --implicit-tls", "contradict each other"),
        ("probe x --repeat 0", "a number from 1 to 100"),
        ("probe x --format xml", "invalid choice"),
        ("probe original", "the host name or address of a server"),
        ("probe ::1", "did you mean [::1]:25?"),
        ("probe x:99999", "a port from 1 to 65535"),
        ("probe x --timeout 0", "more than 0"),
        ("probe x --timeout nan", "more than 0"),
        ("probe x --timeout soon", "more than 0"),
        ("probe x --ehlo a\r\nMAIL", "a name without blanks"),
        ("simulate --listen 25", "expected a port too"),
        ("simulate --listen localhost:25", "did you mean 127.0.0.1:25?"),
        ("simulate --listen systemd:x", "an address and a port"),
        ("simulate --finding x --reply y", "not allowed with argument"),
        ("replay", "required: FILE"),
        ("--verison", "there is no option --verison in front of a command; did you mean --version?"),
        ("--config x run", "there is no option --config in front of a command"),
        ("replay a b", "ehlo-proxy replay: error: not understood: b"),
        ("check -x", "ehlo-proxy check: error: not understood: -x"),
    ],
)
def test_arguments_that_can_not_be_used_are_told(line: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert told in refused(capsys, *line.split(" ") if line else ())


def test_defaults_are_the_documented_ones() -> None:
    assert parse(["check"]).file == ["/etc/ehlo-proxy/ehlo-proxy.toml"]
    server = parse(["probe", "[2001:db8::1]"]).server
    assert (server.host, server.port) == ("2001:db8::1", 25)
    assert str(parse(["simulate"]).listen) == "127.0.0.1:2525"
    assert parse(["probe", "x", "--timeout", "2.5s"]).timeout == 2.5
    assert parse(["probe", "x", "--timeout", "2m"]).timeout == 120.0


@pytest.mark.parametrize(
    "arguments", [["--help"], ["repair"], ["explain"], ["check", "/nowhere"], ["replay", "/nowhere"]]
)
def test_what_only_reads_text_imports_neither_twisted_nor_openssl(arguments: list[str]) -> None:
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "proxy", *arguments],
        input=CISCO, capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    imported = {line.rpartition(b"|")[2].strip().partition(b".")[0] for line in told.stderr.splitlines()}
    assert imported & {b"twisted", b"OpenSSL", b"zope", b"cryptography"} == set()


def test_help_is_quick() -> None:
    times = []
    for _ in range(3):
        begun = time.monotonic()
        done("--help")
        times.append(time.monotonic() - begun)
    assert min(times) < 0.5


def test_the_wall_clock_moves_no_timer() -> None:
    program = (
        "import time; from proxy.cli import _reactor; time.time = lambda: 0.0; mine = _reactor()\n"
        "from twisted.internet import reactor; assert reactor is mine\n"
        "assert abs(reactor.seconds() - time.monotonic()) < 5.0\n"
        "assert abs(reactor.callLater(60, print).getTime() - time.monotonic() - 60.0) < 5.0"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_only_this_module_imports_the_reactor() -> None:
    top = Path(cli.__file__).parent
    importing = re.compile(
        r"^\s*(from twisted.internet import .*\breactor\b|import twisted.internet.reactor|from .* installReactor)",
        re.MULTILINE,
    )
    assert [str(path.relative_to(top)) for path in top.rglob("*.py") if importing.search(path.read_text())] == [
        "cli.py"
    ]


def test_a_repaired_reply_goes_to_stdout_with_exit_code_1() -> None:
    repaired = done("repair", data=CISCO)
    assert repaired.returncode == 1
    assert repaired.stdout == b"250-mail.domain1.com\r\n250-STARTTLS\r\n250 HELP\r\n"
    assert b"greeting-not-first" in repaired.stderr
    told = done("repair", "--json", "--banner", "220 mx.example", data=b"250-STARTTLS\r\n250 HELP\r\n")
    document = json.loads(told.stdout)
    assert document["reply"] == "250-mx.example\r\n250-STARTTLS\r\n250 HELP\r\n"
    assert done("repair", data=b"hello\r\n").returncode == 2


def test_explain_knows_its_ids() -> None:
    assert b"greeting-not-first" in done("explain").stdout
    assert done("explain", "greeting-not-first").returncode == 0
    assert done("explain", "greeting-not-frist").returncode == 2


def test_nobody_reading_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "explain"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(30) == -signal.SIGPIPE


def test_check_and_run_refuse_the_same_file_with_every_error(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[service]\nworkres = 1\n[[route]]\nlisten = ["127.0.0.1:99999"]\n')
    checked, run = done("check", str(path)), done("run", "--config", str(path))
    assert (checked.returncode, run.returncode) == (2, 2)
    for text in (b"workres", b"99999", b"route[0].destination"):
        assert text in checked.stderr
        assert text in run.stderr
    assert done("run", "--config", str(tmp_path / "none.toml")).returncode == 2
    told = done("run", "--listen", "127.0.0.1:x", "--destination", "127.0.0.1:25")
    assert told.returncode == 2
    assert b"--listen" in told.stderr


def test_a_port_that_is_taken_is_told_with_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = done("run", "--listen", f"127.0.0.1:{port}", "--destination", "127.0.0.1:1")
    assert told.returncode == 1
    assert str(port).encode() in told.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_without_a_file_says_where_it_listens_and_ends_well(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "run", "--listen", "127.0.0.1:0", "--destination", "127.0.0.1:1"],
        stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        ready = re.search(r"\bready .*\b127\.0\.0\.1:(\d+)", process.stderr.readline())
        assert ready is not None
        with socket.create_connection(("127.0.0.1", int(ready[1])), 5) as sock:
            assert sock.recv(1000).startswith(b"421 4.4.1 ")
        process.send_signal(number)
        process.communicate(timeout=20)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate(timeout=20)


@pytest.mark.parametrize(
    ("arguments", "near", "usage"),
    [
        (["chekc"], "did you mean check?", "usage: ehlo-proxy [-h]"),
        (["run", "--confg", "x"], "did you mean --config?", "usage: ehlo-proxy run"),
        (["probe", "--tiemout", "3", "x"], "did you mean --timeout?", "usage: ehlo-proxy probe"),
        (["simulate", "--findnig=x"], "did you mean --finding?", "usage: ehlo-proxy simulate"),
        (["check", "--colour"], "there is no option --colour", "usage: ehlo-proxy check"),
    ],
)
def test_a_misspelt_word_is_told_with_the_right_one_and_that_commands_usage(
    arguments: list[str], near: str, usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert near in said
    assert said.startswith(usage)


FULL = ["explain", "--help", "--version", "repair", "check"]


@pytest.mark.parametrize("command", FULL)
def test_a_full_disk_is_one_line_and_exit_1(command: str) -> None:
    arguments = [command, *(["config/cisco-esa.toml"] if command == "check" else [])]
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "proxy", *arguments], input=b"250 mail.example\r\n", stdout=full,
            stderr=subprocess.PIPE, check=False, timeout=30,
        )  # fmt: skip
    assert (ended.returncode, ended.stderr.count(b"\n")) == (1, 1), ended.stderr
    assert b"No space left on device" in ended.stderr


def test_a_closed_pipe_ends_quietly_by_sigpipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "proxy", "explain"], stdout=writing, stderr=subprocess.PIPE, check=False, timeout=30
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, b"")


def test_run_without_a_file_says_what_to_do() -> None:
    if os.path.exists("/etc/ehlo-proxy/ehlo-proxy.toml"):
        pytest.skip("this host has a configuration")
    ended = done("run")
    assert ended.returncode == 2
    assert b"--config FILE" in ended.stderr
    assert b"--listen ADDR:PORT --destination HOST" in ended.stderr


@pytest.mark.root
def test_a_low_port_without_the_right_says_which() -> None:
    code = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "from proxy.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "run", "--listen", "127.0.0.1:24", "--destination", "127.0.0.1:1"]
    top = os.getcwd()
    ended = subprocess.run(command, capture_output=True, check=False, timeout=30, cwd=top)
    if b"PermissionError" in ended.stderr or b"ModuleNotFoundError" in ended.stderr:
        pytest.skip("the source can't be read by another user here")
    if ended.returncode == 0:
        pytest.skip("low ports need no right here (ip_unprivileged_port_start)")
    assert ended.returncode == 1
    assert b"CAP_NET_BIND_SERVICE" in ended.stderr


def test_the_version_names_what_it_stands_on() -> None:
    assert re.fullmatch(
        rb"ehlo-proxy \S+ \(Python 3\.\S+, Twisted \S+, pyOpenSSL \S+, OpenSSL \S+\)\nbuild: (pure|compiled)\n",
        done("--version").stdout,
    )
