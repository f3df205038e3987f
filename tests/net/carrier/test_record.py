"""Transcripts of sessions: what is kept, what never is, and that a failure to write stays here."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from proxy.net.carrier.record import MAX_LINE, MAX_RECORD, Recorder, Recorders
from proxy.net.observer import Story


def made(directory: Path, keep: int = 0, sessions: int = 0) -> tuple[Recorders, list[str]]:
    complaints: list[str] = []
    return Recorders(str(directory), keep, sessions, complaints.append), complaints


def begun(directory: Path, keep: int = 0) -> Recorder:
    recorder = made(directory, keep)[0].begin(Story("7", "domain1", "192.0.2.7", 40000, 100.0), 100.0)
    assert recorder is not None
    return recorder


def entries(directory: Path) -> list[dict[str, Any]]:
    (path,) = directory.glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines(directory: Path, side: str) -> str:
    return "".join(entry["line"] for entry in entries(directory) if entry["side"] == side)


def test_both_sides_are_written_line_by_line_with_the_seconds_since_the_start(tmp_path: Path) -> None:
    recorder = begun(tmp_path)
    recorder.server_bytes(b"220 mail.domain1.com\r\n", 100.25)
    recorder.client_bytes(b"EHLO es", 100.5)
    recorder.client_bytes(b"a.com\r\nNOOP\n", 100.75)
    recorder.end(101.0)
    first, *rest = entries(tmp_path)
    assert (first["transcript"], first["session"], first["route"], first["client"]) == (1, "7", "domain1", "192.0.2.7")
    assert [(entry["time"], entry["side"], entry["line"]) for entry in rest[:-1]] == [
        (0.25, "server", "220 mail.domain1.com\r\n"),
        (0.75, "client", "EHLO esa.com\r\n"),
        (0.75, "client", "NOOP\n"),
    ]
    assert all({"time", "side", "line", "note"} <= entry.keys() for entry in rest)


def test_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    begun(tmp_path).end()
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_repair_is_told_with_the_reply_before_and_after(tmp_path: Path) -> None:
    recorder = begun(tmp_path)
    recorder.server_bytes(b"250-STARTTLS\r\n250 m\xfcx.example\r\n", 100.5)
    recorder.repaired((b"250-STARTTLS", b"250 m\xfcx.example"), (b"250-m\xfcx.example", b"250 STARTTLS"), ("a-b",))
    recorder.end()
    (told,) = [entry for entry in entries(tmp_path) if entry["note"] == "repaired"]
    assert told["findings"] == ["a-b"]
    assert told["before"] == ["250-STARTTLS", "250 m\xfcx.example"]
    assert told["after"] == ["250-m\xfcx.example", "250 STARTTLS"]
    assert told["time"] == 0.5


def test_nothing_behind_mail_is_kept_unless_asked_for(tmp_path: Path) -> None:
    recorder = begun(tmp_path)
    recorder.client_bytes(b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<secret@b>\r\nDATA\r\n", 101.0)
    recorder.client_bytes(b"Subject: secret\r\n.\r\n", 101.0)
    recorder.server_bytes(b"250 OK\r\n", 101.0)  # to EHLO: still owed
    recorder.let_go("from_server", 101.0, b"MAIL")
    recorder.server_bytes(b"250 secret\r\n", 101.0)
    assert not recorder.wants("from_client")
    assert not recorder.wants("from_server")
    recorder.end()
    assert lines(tmp_path, "client") == "EHLO a\r\nMAIL FROM:<a@b>\r\n"
    assert lines(tmp_path, "server") == "250 OK\r\n"


def test_behind_mail_as_many_bytes_are_kept_as_asked_for_on_both_sides_together(tmp_path: Path) -> None:
    recorder = begun(tmp_path, keep=30)
    recorder.client_bytes(b"MAIL FROM:<a@b>\r\n", 101.0)
    recorder.let_go("from_client", 101.0, b"MAIL")
    recorder.let_go("from_server", 101.0, b"MAIL")
    recorder.server_bytes(b"250 OK\r\n", 101.0)
    recorder.client_bytes(b"RCPT TO:<c@d>\r\nDATA\r\nmore and more\r\n", 101.0)
    recorder.server_bytes(b"250 OK\r\n", 101.0)
    recorder.end()
    kept = lines(tmp_path, "client").removeprefix("MAIL FROM:<a@b>\r\n") + lines(tmp_path, "server")
    assert len(kept) == 30
    assert kept == "RCPT TO:<c@d>\r\nDATA\r\nm250 OK\r\n"


@pytest.mark.parametrize("line", [b"AUTH PLAIN c2VjcmV0\r\n", b"auth login\r\n", b"  AUTH PLAIN c2VjcmV0\r\n"])
@pytest.mark.parametrize("before", [b"EHLO a\r\n", b"EHLO a\r\nMAIL FROM:<a@b>\r\nRSET\r\n"])
def test_a_line_that_starts_with_auth_ends_the_record_for_good(tmp_path: Path, line: bytes, before: bytes) -> None:
    recorder = begun(tmp_path, keep=1000)
    recorder.client_bytes(before + line[:3], 101.0)
    recorder.client_bytes(line[3:] + b"NOOP\r\n", 101.0)
    recorder.server_bytes(b"334 secret\r\n", 101.0)
    recorder.client_bytes(b"NOOP\r\n", 101.0)
    recorder.end()
    assert lines(tmp_path, "client") == before.decode()
    assert lines(tmp_path, "server") == ""
    assert "AUTH" in entries(tmp_path)[-1]["note"]
    assert "c2VjcmV0" not in next(tmp_path.iterdir()).read_text()


CHUNKED = b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 5 LAST\r\nhelloAUTH PLAIN c2VjcmV0\r\nc2VjcmV0\r\n"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_behind_bdat_nothing_is_kept_however_the_bytes_are_cut(tmp_path: Path, size: int) -> None:
    recorder = begun(tmp_path, keep=1000)
    for at in range(0, len(CHUNKED), size):
        recorder.client_bytes(CHUNKED[at : at + size], 101.0)
        recorder.server_bytes(b"250 c2Vj\r\n" if at > 60 else b"", 101.0)
    recorder.end()
    assert lines(tmp_path, "client") == "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
    assert "c2Vj" not in next(tmp_path.iterdir()).read_text()


def test_bdat_as_the_first_that_is_not_read_keeps_nothing(tmp_path: Path) -> None:
    recorder = begun(tmp_path, keep=1000)
    recorder.client_bytes(b"EHLO a\r\n" + CHUNKED[CHUNKED.index(b"BDAT") :], 101.0)
    recorder.let_go("server", 101.0, b"")
    recorder.server_bytes(b"250 secret\r\n", 101.0)
    recorder.end()
    assert lines(tmp_path, "client") == "EHLO a\r\n"
    assert lines(tmp_path, "server") == ""


@pytest.mark.parametrize("long", [0, MAX_LINE - 2, MAX_LINE - 1, MAX_LINE, 3 * MAX_LINE])
@pytest.mark.parametrize("side", ["client", "server"])
def test_auth_and_a_blank_anywhere_end_the_keeping_across_every_cut(tmp_path: Path, long: int, side: str) -> None:
    recorder = begun(tmp_path, keep=10**6)
    recorder.client_bytes(b"MAIL FROM:<a@b>\r\n", 101.0)
    recorder.let_go("client", 101.0, b"")
    recorder.let_go("server", 101.0, b"")
    feed = recorder.client_bytes if side == "client" else recorder.server_bytes
    data = b"x" * long + b"auTH\tc2VjcmV0" + b"y" * MAX_LINE + b"\r\nc2VjcmV0\r\n"
    for at in range(0, len(data), 1000):
        feed(data[at : at + 1000], 101.0)
    recorder.end()
    assert "c2Vj" not in next(tmp_path.iterdir()).read_text()


def test_an_auth_line_without_an_end_is_not_written_either(tmp_path: Path) -> None:
    for number, keep in enumerate((0, 1000)):
        directory = tmp_path / str(number)
        directory.mkdir()
        recorder = begun(directory, keep)
        recorder.client_bytes(b"MAIL FROM:<a@b>\r\n" * number + b"AUTH PLAIN c2VjcmV0", 101.0)
        recorder.end()
        assert "c2Vj" not in next(directory.iterdir()).read_text()


@pytest.mark.parametrize(
    "line", [b"XFOO secret\r\n", b"NOOP\rsecret\r\n", b"NOOP\0secret\r\n", b"NOOP secret" + b"x" * 4096 + b"\r\n"]
)
def test_an_unknown_command_and_what_follows_it_are_not_kept(tmp_path: Path, line: bytes) -> None:
    recorder = begun(tmp_path, keep=1000)
    recorder.client_bytes(b"EHLO a\r\n" + line + b"secret\r\n", 101.0)
    recorder.client_bytes(b"secret\r\n", 101.0)
    recorder.let_go("from_server", 101.0, b"XFOO")
    recorder.server_bytes(b"250 secret\r\n", 101.0)
    recorder.end()
    assert lines(tmp_path, "client") == "EHLO a\r\n"
    assert "secret" not in next(tmp_path.iterdir()).read_text()


def test_tls_records_are_not_kept(tmp_path: Path) -> None:
    recorder = begun(tmp_path, keep=1000)
    recorder.client_bytes(b"STARTTLS\r\n", 101.0)
    recorder.server_bytes(b"220 go\r\n", 101.0)
    recorder.client_bytes(b"\x16\x03\x01\n\x00", 101.0)
    recorder.let_go("client", 101.0, b"")
    recorder.tls_started(101.0)
    recorder.server_bytes(b"\x16\x03\x03\n\x00", 101.0)
    recorder.end()
    assert lines(tmp_path, "client") == "STARTTLS\r\n"
    assert lines(tmp_path, "server") == "220 go\r\n"
    assert [entry["note"].partition(":")[0] for entry in entries(tmp_path) if entry["side"] == "proxy"] == [
        "session",
        "from here on TLS, end to end",
        "end",
    ]


def test_inside_tls_the_dialogue_is_kept_but_no_mail(tmp_path: Path) -> None:
    recorder = begun(tmp_path, keep=1000)
    recorder.client_bytes(b"STARTTLS\r\n", 101.0)
    recorder.inside_tls(102.0)
    recorder.client_bytes(b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<secret@b>\r\n", 103.0)
    recorder.end()
    assert lines(tmp_path, "client") == "STARTTLS\r\nEHLO a\r\nMAIL FROM:<a@b>\r\n"


def test_a_transcript_has_a_limit_and_says_that_it_was_cut(tmp_path: Path) -> None:
    recorder = begun(tmp_path)
    for _ in range(400):
        recorder.server_bytes(b"250-" + b"\0" * 4000 + b"\r\n", 101.0)
    recorder.end()
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size <= MAX_RECORD
    assert entries(tmp_path)[-1]["note"].startswith("cut")


def test_no_more_transcripts_than_asked_for(tmp_path: Path) -> None:
    recorders, complaints = made(tmp_path, sessions=2)
    story = Story("1", "r", "192.0.2.1", 1, 0.0)
    begun = [recorders.begin(story, 0.0) for _ in range(4)]
    for recorder in begun:
        if recorder is not None:
            recorder.end()
    assert [recorder is not None for recorder in begun] == [True, True, False, False]
    assert len(list(tmp_path.iterdir())) == 2
    assert complaints == []


def test_no_directory_means_no_transcript() -> None:
    recorders = Recorders("", 0, 0, lambda text: pytest.fail(text))
    assert recorders.begin(Story("1", "r", "192.0.2.1", 1, 0.0), 0.0) is None


def test_a_directory_that_is_not_there_is_told_once_and_ends_nothing(tmp_path: Path) -> None:
    recorders, complaints = made(tmp_path / "none")
    story = Story("1", "r", "192.0.2.1", 1, 0.0)
    assert recorders.begin(story, 0.0) is None
    assert recorders.begin(story, 0.0) is None
    assert len(complaints) == 1
    assert "none" in complaints[0]


def test_a_full_disk_ends_the_transcript_and_not_the_session() -> None:
    complaints: list[str] = []
    recorder = Recorder(
        os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb"), 0, Story("1", "r", "c", 1, 0.0), 0.0, complaints.append
    )
    recorder.server_bytes(b"220 x\r\n", 1.0)
    recorder.client_bytes(b"EHLO a\r\n", 1.0)
    recorder.repaired((), (), ())
    recorder.end()
    assert len(complaints) == 1
