"""The log's lines: their form, their limits, and that no peer can forge one."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.daemon.log import logs, values
from proxy.daemon.log.forms import NUMBER, OURS, PEERS, SECONDS, WORD, WORDS, Form
from proxy.daemon.log.logs import EventLog
from proxy.daemon.log.writer import LineWriter

HEAD = re.compile(r"2023-11-14T22:13:20\.250Z (debug|info|warning|error) ")


class Lines(list[bytes]):
    """Collects what a log writes."""

    @property
    def texts(self) -> list[str]:
        """The lines without time and level."""
        return [HEAD.sub("", line.decode("ascii").removesuffix("\n"), count=1) for line in self]

    @property
    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self]


def text_log(level: str = "debug", **options: object) -> tuple[EventLog, Lines]:
    lines = Lines()
    return EventLog(lines.append, level=level, clock=lambda: 1700000000.25, **options), lines  # type: ignore[arg-type]  # options of the test


def json_log(level: str = "debug", **options: object) -> tuple[EventLog, Lines]:
    return text_log(level, format="json", **options)


def test_text_is_the_event_and_its_fields() -> None:
    log, lines = text_log()
    log.emit("info", "ready", {"listen": ["127.0.0.1:25", "[::1]:25"], "workers": 2, "version": "1.0.0", "x": None})
    assert lines.texts == ["ready listen=127.0.0.1:25,[::1]:25 workers=2 version=1.0.0"]


def test_text_begins_with_time_and_level_but_for_the_journal() -> None:
    log, lines = text_log()
    log.emit("warning", "slow-turn", {"seconds": 0.25})
    assert lines == [b"2023-11-14T22:13:20.250Z warning slow-turn seconds=0.250\n"]
    log, lines = text_log(journal=True)
    log.emit("warning", "slow-turn", {"seconds": 0.25})
    assert lines == [b"<4>slow-turn seconds=0.250\n"]


def test_json_has_the_same_keys_and_time_level_event() -> None:
    log, lines = json_log()
    log.emit("warning", "tls", {"sni": "mx.example", "verified": True, "seconds": 1.5, "ids": ["a", "b"], "n": 3})
    assert lines.events == [
        {
            "time": "2023-11-14T22:13:20.250Z",
            "level": "warning",
            "event": "tls",
            "sni": "mx.example",
            "verified": True,
            "seconds": 1.5,
            "ids": ["a", "b"],
            "n": 3,
        }
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("a=b", '"a=b"'),
        (b"back\\slash", '"back\\\\slash"'),
        (b"cr\rlf\nnul\0", '"cr\\x0dlf\\x0anul\\x00"'),
        (b"\x1b[31m", '"\\x1b[31m"'),
        (b"caf\xe9", '"caf\\xe9"'),
        ("café", '"caf\\xc3\\xa9"'),
        ([], '""'),
        (["a", "b"], "a,b"),
        (["a,b"], '"a,b"'),
        ([b"250-STARTTLS", b"250 HELP"], '"250-STARTTLS\\n250 HELP"'),
        (True, "true"),
        (0.0123456, "0.012"),
        (7, "7"),
    ],
)
def test_values_are_quoted_as_needed(value: object, shown: str) -> None:
    log, lines = text_log()
    log.emit("info", "x", {"key": value})
    assert lines.texts == [f"x key={shown}"]


def test_levels_below_the_chosen_one_are_not_written() -> None:
    log, lines = text_log("warning")
    for level in logs.LEVELS:
        log.emit(level, level, {})
    assert lines.texts == ["warning", "error"]


def test_format_and_level_can_change_while_it_runs() -> None:
    log, lines = text_log()
    log.configure("json", "error")
    log.emit("warning", "less", {})
    log.emit("error", "more", {})
    assert [event["event"] for event in lines.events] == ["more"]


def test_a_level_or_format_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="loud"):
        EventLog(print, level="loud")
    with pytest.raises(ValueError, match="xml"):
        EventLog(print, format="xml")


def test_peer_text_is_cut_at_200_bytes_and_the_event_says_so() -> None:
    log, lines = json_log()
    log.emit("info", "x", {"sni": b"s" * 201, "whole": b"w" * 200, "before": [b"a", b"b" * 300]})
    (event,) = lines.events
    assert event["sni"] == "s" * 200
    assert event["whole"] == "w" * 200
    assert event["before"] == ["a", "b" * 200]
    assert event["cut"] == ["sni", "before"]


def test_the_cut_is_of_bytes_as_sent_not_as_escaped() -> None:
    log, lines = json_log()
    log.emit("info", "x", {"sni": b"\0" * 200})
    assert lines.events[0]["sni"] == "\\x00" * 200
    assert "cut" not in lines.events[0]


@pytest.mark.parametrize("format", ["text", "json"])
def test_no_event_is_over_8_kib(format: str) -> None:
    log, lines = text_log(format=format)
    long_reply = [b"\xff" * 200] * 100
    log.emit("info", "ehlo-findings", {"session": "a-1", "before": long_reply, "after": long_reply, "tail": "t"})
    assert len(lines[0]) <= 8192
    assert lines[0].endswith(b"\n")
    text = lines.texts[0]
    assert "session" in text
    assert "tail" in text
    if format == "json":
        event = lines.events[0]
        assert event["cut"] == ["before", "after"]
        assert isinstance(event["before"], list)
        assert len(event["before"]) >= 3
    else:
        assert text.endswith(" cut=before,after")


@pytest.mark.parametrize("format", ["text", "json"])
def test_not_even_an_event_with_a_thousand_fields_is_over_8_kib(format: str) -> None:
    log, lines = text_log(format=format)
    log.emit("info", "x", {f"key{number}": "v" * 20 for number in range(1000)})
    assert len(lines[0]) <= 8192
    if format == "json":
        assert lines.events[0]["key0"]


def test_a_half_of_a_cut_text_never_ends_inside_an_escape() -> None:
    for text in ("\\x00" * 9, "ab\\\\" * 9, "\\\\\\x41" * 9):
        for length in range(len(text)):
            half = values._half(text[: length * 2])
            assert re.fullmatch(r"(?:\\\\|\\x[0-9a-f]{2}|[^\\])*", half)


def test_a_smaller_bound_is_kept_too() -> None:
    log, lines = json_log(max_line=4096)
    log.emit("info", "x", {"before": [b"a" * 199] * 100})
    assert 2000 < len(lines[0]) <= 4096


peer_values = st.one_of(st.binary(max_size=300), st.text(max_size=300), st.lists(st.binary(max_size=250), max_size=20))


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["sni", "before", "reason", "client"]), peer_values), st.booleans())
def test_whatever_a_peer_sends_an_event_is_one_line_of_printable_ascii(fields: dict[str, object], json_: bool) -> None:
    log, lines = text_log(format="json" if json_ else "text")
    log.emit("info", "event", fields)
    (line,) = lines
    assert re.fullmatch(rb"[ -~]{1,8191}\n", line)
    if json_:
        event = json.loads(line)
        assert set(fields) <= set(event)
        assert event["event"] == "event"
    else:
        words = HEAD.sub("", line[:-1].decode("ascii"), count=1)
        # Outside of quotes there is nothing but our own keys.
        bare = re.sub(r'"(?:[^"\\]|\\.)*"', "Q", words)
        assert re.fullmatch(r"event(?: (?:sni|before|reason|client|cut)=[A-Za-z0-9_.:/@+\[\],-]+)*", bare)


FORM = Form({"id": WORD, "n": NUMBER, "why": OURS, "sni": PEERS, "ids": WORDS, "seconds": SECONDS})
octets = st.text(st.characters(max_codepoint=255), max_size=300)


@settings(max_examples=100)
@given(st.text(max_size=300), octets, st.sampled_from(["text", "json"]), st.sampled_from([300, 8192]))
@example("plain", "", "text", 8192)
@example("caf\xe9", "caf\xe9", "json", 8192)
@example("r" * 201, "s" * 200, "json", 8192)
def test_a_form_writes_the_line_that_its_fields_would(why: str, sni: str, format: str, max_line: int) -> None:
    (formed, lines), (log, wanted) = (text_log(format=format, max_line=max_line) for _ in range(2))
    ids = ("a", "b")
    formed.emit("info", "told", (FORM, ("t-1", 7, why, sni, ids, 0.25)))
    fields = {"id": "t-1", "n": 7, "why": why, "sni": sni.encode("latin-1"), "ids": ids, "seconds": 0.25}
    log.emit("info", "told", fields)
    assert lines == wanted
    formed.configure(format, "warning")
    formed.emit("info", "told", (FORM, ("t-1", 7, why, sni, ids, 0.25)))
    assert len(lines) == 1


def test_a_shell_like_splitter_reads_text_lines_back() -> None:
    log, lines = text_log()
    log.emit("info", "x", {"sni": b'a" forged=1 b', "next": "v"})
    assert shlex.split(lines.texts[0]) == ["x", 'sni=a" forged=1 b', "next=v"]


def test_for_the_journal_each_line_bears_its_level() -> None:
    log, lines = text_log(journal=True)
    for level in logs.LEVELS:
        log.emit(level, "x", {})
    assert lines == [b"<7>x\n", b"<6>x\n", b"<4>x\n", b"<3>x\n"]


@pytest.mark.parametrize(
    ("format", "told"),
    [
        ("text", b"2023-11-14T22:13:20.250Z warning log-lost lines=7\n"),
        (
            "json",
            b'{"time":"2023-11-14T22:13:20.250Z","level":"warning","event":"log-lost","lines":7}\n',
        ),
    ],
)
def test_lost_lines_are_told_in_the_logs_own_format(format: str, told: bytes) -> None:
    with open("/dev/null", "wb") as null:
        writer = LineWriter(null.fileno())
        EventLog(writer, format=format, clock=lambda: 1700000000.25)
        assert writer._lost_line(7) == told
        writer.close()


def test_only_the_journals_own_stream_gets_level_prefixes() -> None:
    assert not logs.stderr_is_journal(2, {})
    assert not logs.stderr_is_journal(2, {"JOURNAL_STREAM": "1:2"})
    assert not logs.stderr_is_journal(9999, {"JOURNAL_STREAM": "1:2"})


def test_service_events_have_the_names_and_fields_that_are_promised() -> None:
    log, lines = text_log("info")
    logs.ready(log, ["127.0.0.1:2525"], ["default"], 1, "1.0.0")
    logs.reload(log, ["127.0.0.1:2525"], ["a", "b"])
    logs.reload_failed(log, ["x.toml: route[0].listn: unknown, nearest listen"])
    logs.drain(log, 3, 900.0)
    logs.stopped(log, 12.0)
    assert lines.texts == [
        "ready listen=127.0.0.1:2525 routes=default workers=1 version=1.0.0",
        "reload listen=127.0.0.1:2525 routes=a,b",
        'reload-failed errors="x.toml: route[0].listn: unknown, nearest listen"',
        "drain sessions=3 timeout=900.000",
        "stopped seconds=12.000 sessions_cut=0",
    ]


def test_a_failed_reload_tells_every_error_in_as_many_events_as_it_takes() -> None:
    log, lines = json_log()
    errors = [f"ehlo-proxy.toml: error number {number} " + "x" * 300 for number in range(100)]
    logs.reload_failed(log, errors)
    assert len(lines) > 1
    assert all(len(line) <= 8192 for line in lines)
    told: list[str] = []
    for event in lines.events:
        assert isinstance(event["errors"], list)
        told += event["errors"]
    assert told == errors
    assert lines.events[0]["part"] == f"1/{len(lines)}"
    assert not any("cut" in event for event in lines.events)


def test_the_status_is_told_in_a_line_for_each_thing() -> None:
    log, lines = text_log()
    destination = {
        "name": "mx.example",
        "address": "192.0.2.1:25",
        "up": False,
        "since": "2023-11-14T22:13:20Z",
        "reason": "connection refused",
        "findings": ["greeting-not-first"],
        "before": ["250-STARTTLS"],
        "after": ["250-x"],
        "certificate_not_after": None,
    }
    route = {
        "name": "r", "mode": "passthrough", "listen": ["a:1"], "sessions_open": 1, "sessions_limit": 1000,
        "sessions_total": 5, "refused_total": 2, "failed_total": 1, "tls_total": 3, "destinations": [destination],
    }  # fmt: skip
    told = {"version": "1", "started": "2023-11-14T22:13:20Z", "workers": 1, "draining": False, "routes": [route]}
    logs.status(log, told)
    assert lines.texts == [
        "status version=1 started=2023-11-14T22:13:20Z workers=1 draining=false",
        "status-route route=r mode=passthrough listen=a:1 sessions_open=1 sessions_limit=1000 sessions_total=5 "
        "refused_total=2 failed_total=1 tls_total=3",
        "status-destination route=r name=mx.example address=192.0.2.1:25 up=false since=2023-11-14T22:13:20Z "
        'reason="connection refused" '
        "findings=greeting-not-first",
    ]
