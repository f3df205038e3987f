"""`replay` shows what was recorded, says plainly what is no transcript, and lets no peer draw on the screen."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.net.carrier.record import FORMAT, Recorders
from proxy.net.observer import Story
from proxy.smtp.reply.findings import CATALOGUE
from proxy.tools import replay
from proxy.tools.dialogue import (
    Dialogue,
    Spoken,
    Style,
    columns,
    line_text,
    printable,
    style_for,
    width_for,
    wrapped,
)

BEFORE = (b"250-STARTTLS", b"250 mail.domain1.com")
AFTER = (b"250-mail.domain1.com", b"250 STARTTLS")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A transcript as the proxy writes it."""
    story = Story("7", "domain1", "192.0.2.7", 40000, 100.0)
    recorder = Recorders(str(tmp_path), 0, 0, lambda text: pytest.fail(text)).begin(story, 100.0)
    assert recorder is not None
    recorder.server_bytes(b"220 mail.domain1.com\r\n", 100.25)
    recorder.client_bytes(b"EHLO esa.com\r\n", 100.5)
    recorder.server_bytes(b"\r\n".join(BEFORE) + b"\r\n", 100.75)
    recorder.repaired(BEFORE, AFTER, ("greeting-not-first",), 100.75)
    recorder.client_bytes(b"STARTTLS\n", 101.0)
    recorder.server_bytes(b"220 go \x1b[31m\r\n", 101.0)
    recorder.tls_started(101.0)
    story.outcome, story.by, story.destination = "completed", "client", "192.0.2.10:25"
    recorder.end(102.0)
    (path,) = tmp_path.glob("*.jsonl")
    return path


def shown(path: Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return replay.run(str(path), out, err), out.getvalue(), err.getvalue()


def test_client_and_server_stand_beside_each_other_with_what_was_repaired(recorded: Path) -> None:
    code, out, err = shown(recorded)
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0].startswith("Session 7, route domain1, client 192.0.2.7, began 20")
    assert lines[2:] == [
        "seconds client server",
        "0.250 <-- 220 mail.domain1.com",
        "0.500 EHLO esa.com -->",
        "0.750 250-mail.domain1.com <~~ 250-STARTTLS",
        "250 STARTTLS <~~ 250 mail.domain1.com",
        f"* repaired: greeting-not-first: {CATALOGUE['greeting-not-first'].claim}",
        "1.000 STARTTLS\\x0a -->",
        "<-- 220 go \\x1b[31m",
        "* from here on TLS, end to end: relayed unread, and not kept",
        "2.000 * end of the session: completed, by client; the server was 192.0.2.10:25",
    ]
    assert max(map(len, out.splitlines())) <= 100


def test_a_transcript_that_breaks_off_is_shown_as_far_as_it_goes(recorded: Path) -> None:
    whole = recorded.read_bytes()
    recorded.write_bytes(whole[:-10])
    code, out, _ = shown(recorded)
    assert code == 0
    assert "220 mail.domain1.com" in out
    assert out.endswith("* the transcript breaks off here\n")


HEAD = {"transcript": FORMAT, "time": 0, "side": "proxy", "line": "", "note": "session", "session": 1}
LINE = {"time": 1, "side": "client", "line": "x", "note": ""}


def written(*entries: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it has no line"),
        (b"{}", "its first line has no end"),
        (b"\xff\xfe\n", "line 1 is no JSON"),
        (b"220 mail.domain1.com\r\n", "line 1 is no JSON"),
        (b"[" * 100000 + b"\n", "line 1 is no JSON"),
        (b"[]\n", "line 1 is no JSON object"),
        (b'{"event": "ready"}\n', "as `run --record` writes it"),
        (written(HEAD | {"transcript": 99}), "as `run --record` writes it"),
        (written(HEAD) + b"x\n", "line 2 is no JSON"),
        (written(HEAD, LINE | {"time": "1"}), "line 2: `time`"),
        (written(HEAD, LINE | {"time": True}), "line 2: `time`"),
        (written(HEAD, LINE | {"time": 1e300}), "line 2: `time`"),
        (written(HEAD) + b'{"time": NaN, "side": "client"}\n', "line 2: `time`"),
        (written(HEAD, LINE, LINE | {"side": "me"}), "line 3: `side`"),
        (written(HEAD, LINE | {"line": 1}), "line 2: `line` and `note`"),
        (written(HEAD, LINE | {"note": None}), "line 2: `line` and `note`"),
    ],
)
def test_what_is_no_transcript_is_told_with_exit_code_2(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    code, out, err = shown(path)
    assert (code, out) == (2, "")
    assert "not a transcript" in err
    assert reason in err


def test_a_file_that_is_not_there_is_told_with_exit_code_2(tmp_path: Path) -> None:
    code, out, err = shown(tmp_path / "none")
    assert (code, out) == (2, "")
    assert "No such file" in err


def test_hostile_fields_are_shown_or_left_out_but_never_raise(tmp_path: Path) -> None:
    path = tmp_path / "file"
    evil = "\x1b[2J\u202e\n"
    path.write_bytes(
        written(
            HEAD | {"session": [evil], "route": {"a": evil}, "client": evil},
            LINE | {"line": evil, "note": evil},
            LINE | {"side": "proxy", "before": [evil, 1], "after": {"a": 1}, "findings": [evil]},
            LINE | {"side": "proxy", "note": "end", "outcome": evil, "by": evil, "destination": [evil]},
        )
    )
    code, out, _ = shown(path)
    assert code == 0
    assert out.isascii()
    assert out.replace("\n", "").isprintable()


# ------------------------------------------------------------------ dialogue


def test_a_repair_whose_lines_were_not_recorded_is_shown_all_the_same() -> None:
    repair = Spoken(1.0, "proxy", before=("250-STARTTLS",), after=("250-a", "250 STARTTLS"), findings=("x-y",))
    rendered = Dialogue().render([Spoken(0.5, "client", "EHLO a"), repair])
    assert [" ".join(line.split()) for line in rendered[1:]] == [
        "0.500 EHLO a -->",
        "1.000 250-a <~~ 250-STARTTLS",
        "250 STARTTLS <~~",
        "* repaired: x-y",
    ]


def test_long_lines_are_wrapped_inside_their_column() -> None:
    rendered = Dialogue(80).render([Spoken(0.0, "server", "250-" + "word " * 40), Spoken(0.0, "client", "y" * 300)])
    assert max(map(len, rendered)) <= 80
    assert sum(line.count("word") for line in rendered) == 40
    assert sum(line.count("y") for line in rendered) == 300


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("250 x\r\n", "250 x"),
        ("250 x\n", "250 x\\x0a"),
        ("250 x  \r\n", "250 x\\x20\\x20"),
        ("\xfc\t\0\x7f", "\\xfc\\x09\\x00\\x7f"),
        ("\u2028", "\\u2028"),
        ("", ""),
    ],
)
def test_what_can_not_be_seen_is_escaped(line: str, text: str) -> None:
    assert line_text(line) == text


def test_columns_are_filled_up() -> None:
    assert list(columns(["a", "b"], ["c"], 3)) == [("a  ", "c"), ("b  ", "")]
    assert wrapped("a b c", 3) == ["a b", "  c"]
    assert printable("abc") == "abc"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(**values: str) -> None:
        for name in ("NO_COLOR", "TERM", "COLUMNS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


def test_colour_is_for_a_terminal_only_and_never_with_no_color(environment: Callable[..., None]) -> None:
    environment(TERM="xterm")
    assert style_for(Terminal()).colour
    assert not style_for(io.StringIO()).colour
    environment(TERM="xterm", NO_COLOR="")
    assert not style_for(Terminal()).colour
    environment(TERM="dumb")
    assert not style_for(Terminal()).colour


def test_the_width_is_the_terminals_within_reason(environment: Callable[..., None]) -> None:
    for columns_, width in (("80", 80), ("20", 60), ("500", 140)):
        environment(COLUMNS=columns_)
        assert width_for(Terminal()) == width
    assert width_for(io.StringIO()) == 100


def test_nothing_is_told_by_colour_alone() -> None:
    spoken = [Spoken(0.0, "proxy", before=("a",), after=("b",), findings=("c",)), Spoken(0.0, "client", "d")]
    coloured = "\n".join(Dialogue(style=Style(True)).render(spoken))
    plain = "\n".join(Dialogue().render(spoken))
    import re

    bare = re.sub(r"\x1b\[\d*m", "", coloured)
    assert coloured != bare
    assert [line.rstrip() for line in bare.splitlines()] == plain.splitlines()
