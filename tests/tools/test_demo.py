"""`demo` tells the whole story, judges it by what was seen, and leaves nothing running behind."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.net.tls.self_signed import make_self_signed
from proxy.tools import demo
from proxy.tools.children import Child, ChildFailed
from proxy.tools.demo import LETTER, SERVER_NAME, Outcome
from proxy.tools.dialogue import Style
from proxy.tools.strict_client import Attempt, StrictClient

WELL = Outcome(
    before=Attempt(gave_up=True, reason="no STARTTLS among what the server offers"),
    after=Attempt(sent=True, tls="TLSv1.3"),
    delivered=(LETTER,),
    certificate_is_the_servers=True,
)


def test_the_demonstration_goes_well_in_seconds_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "proxy").mkdir()  # a directory of that name where somebody stands is not this program
    (tmp_path / "proxy" / "__init__.py").write_text("raise SystemExit(9)")
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(demo.__file__).parents[2])}
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "proxy", "demo"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert time.monotonic() - begun < 10
    assert max(map(len, out.splitlines())) <= 80
    assert out.isascii()
    assert "S: 250-STARTTLS  <- taken for the name | S: 250-mail.domain1.com    <- the name" in out
    assert "=> NOT sent: no STARTTLS" in out
    assert "=> sent, encrypted with TLSv1.3" in out
    assert "* repaired: greeting-not-first" in out
    assert "outcome=completed" in out
    assert out.count("  ok  ") == 4
    assert [path.name for path in tmp_path.iterdir()] == ["proxy"]
    assert _children_with(str(tmp_path)) == []


def _children_with(text: str) -> list[str]:
    """Command lines of running processes that have `text` in them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if text in line and "pytest" not in line:
            found.append(line)
    return found


def test_all_that_had_to_be_seen_was_seen() -> None:
    assert WELL.well
    assert len(WELL.claims) == 4


@pytest.mark.parametrize(
    ("outcome", "claim"),
    [
        (replace(WELL, before=Attempt(sent=True, tls="TLSv1.3")), 0),
        (replace(WELL, before=Attempt(reason="the server closed the connection")), 0),
        (replace(WELL, after=Attempt(reason="the server says: 421 x")), 1),
        (replace(WELL, certificate_is_the_servers=False), 2),
        (replace(WELL, delivered=()), 3),
        (replace(WELL, delivered=(LETTER, LETTER)), 3),
        (replace(WELL, delivered=(LETTER.replace(b"\r\n.", b"\r\n.."),)), 3),
    ],
)
def test_what_was_not_seen_fails_the_demonstration_and_is_marked(outcome: Outcome, claim: int) -> None:
    assert not outcome.well
    assert [true for true, _ in outcome.claims].index(False) == claim
    assert any(line.startswith("  NOT ") for line in demo._scene(outcome, [], "", Style()))


def test_a_child_that_does_not_come_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(directory: Path) -> tuple[Outcome, str]:
        raise ChildFailed("`run` ended; it says: no")

    monkeypatch.setattr(demo, "play", fails)
    err = io.StringIO()
    assert demo.run(io.StringIO(), err) == 1
    assert "`run` ended; it says: no" in err.getvalue()


def test_an_outcome_that_is_not_well_gives_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "play", lambda directory: (replace(WELL, delivered=()), ""))
    assert demo.run(io.StringIO(), io.StringIO()) == 1


# ------------------------------------------------------------------ children


def test_a_child_is_heard_and_ended() -> None:
    with Child("simulate", "--listen", "127.0.0.1:0", "--no-tls") as child:
        port = int(child.wait_for(r"^listening 127\.0\.0\.1:(\d+)$", 20)[1])
        socket.create_connection(("127.0.0.1", port), 5).close()
    assert child.end() == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 5)


def test_a_child_that_ends_or_says_nothing_is_told_with_what_it_says() -> None:
    with Child("simulate", "--nonsense") as child, pytest.raises(ChildFailed, match="there is no option --nonsense"):
        child.wait_for("^listening", 20)
    assert child.end() == 2
    with Child("simulate", "--listen", "127.0.0.1:0", "--no-tls") as child:
        child.wait_for("^listening", 20)
        with pytest.raises(ChildFailed, match="did not come up within"):
            child.wait_for("^never", 0.1)


# -------------------------------------------------------------------- client


@pytest.fixture(scope="module")
def certificate() -> tuple[str, bytes]:
    pem, key = make_self_signed([SERVER_NAME])
    return pem.decode(), key


@pytest.fixture
def scripted() -> Iterator[Script]:
    script = Script()
    yield script
    script.thread.join(10)


class Script:
    """A server that says one thing after each line that it hears."""

    def start(self, *replies: bytes) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(10)
        self.heard = b""

        def run() -> None:
            with listener:
                sock, _ = listener.accept()
            with sock:
                sock.settimeout(10)
                for number, reply in enumerate(replies):
                    if number:
                        self.heard += sock.recv(4096)
                    sock.sendall(reply)
                while data := sock.recv(4096):
                    self.heard += data

        self.thread = threading.Thread(target=run)
        self.thread.start()
        return int(listener.getsockname()[1])


def attempt(port: int, pem: str) -> Attempt:
    return StrictClient("127.0.0.1", port, SERVER_NAME, pem).send("a@b", "c@d", LETTER)


def test_the_client_does_not_see_starttls_on_the_first_line(scripted: Script, certificate: tuple[str, bytes]) -> None:
    tried = attempt(scripted.start(b"220 x\r\n", b"250-STARTTLS\r\n250 x\r\n", b"221 x\r\n"), certificate[0])
    assert (tried.sent, tried.gave_up) == (False, True)
    assert scripted.heard == b"EHLO sender.example\r\nQUIT\r\n"


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ((b"421 4.4.1 no server\r\n",), "the server says: 421 4.4.1 no server"),
        ((b"220 x\r\n", b"502 what\r\n"), "the server says: 502 what"),
        ((b"220 x\r\n", b"250-x\r\n250 STARTTLS\r\n", b"454 no\r\n"), "the server says: 454 no"),
        ((b"220 x\r\n", b"250-x\r\n250 STARTTLS\r\n", b"220 go\r\n250 injected\r\n"), "bytes in clear behind"),
        ((b"2" * 9000,), "a line without an end"),
    ],
)
def test_the_client_sends_nothing_in_clear(
    scripted: Script, certificate: tuple[str, bytes], replies: tuple[bytes, ...], reason: str
) -> None:
    tried = attempt(scripted.start(*replies), certificate[0])
    assert not tried.sent
    assert reason in tried.reason
    assert b"MAIL" not in scripted.heard


def test_the_client_refuses_another_certificate(certificate: tuple[str, bytes], tmp_path: Path) -> None:
    with Child("simulate", "--listen", "127.0.0.1:0", "--finding", "none", "--save", str(tmp_path)) as child:
        port = int(child.wait_for(r"^listening 127\.0\.0\.1:(\d+)$", 20)[1])
        tried = attempt(port, certificate[0])
    assert not tried.sent
    assert "certificate" in tried.reason.lower()
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_does_not_reach_itself_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    out, err = io.StringIO(), io.StringIO()
    assert demo.run(out, err) == 3
    assert out.getvalue() == ""
    assert err.getvalue().startswith(
        "ehlo-proxy demo: this host can't connect to itself on 127.0.0.1 (Network is unrea"
    )
    assert err.getvalue().count("\n") == 1
