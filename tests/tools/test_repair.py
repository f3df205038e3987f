"""`ehlo-proxy repair`: octets in, octets out, findings beside them, and the exit code."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from proxy.tools.dialogue import printable
from proxy.tools.repair import run

BANNER = b"220 mail.domain1.com ESMTP Service ready"
GOOD = b"250-mail.domain1.com\r\n250-STARTTLS\r\n250 8BITMIME\r\n"
BROKEN = b"250-STARTTLS\r\n250-mail.domain1.com\r\n250 8BITMIME\r\n"
CORPUS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "corpus" / "corpus.json").read_bytes())


def answer(raw: bytes, banner: bytes = BANNER, as_json: bool = False) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return run(raw, banner, as_json, out, err), out.getvalue(), err.getvalue()


def test_a_good_reply_is_printed_as_it_is() -> None:
    assert answer(GOOD) == (0, GOOD.decode(), "")


def test_a_broken_reply_is_repaired_and_each_finding_is_one_line() -> None:
    code, out, err = answer(BROKEN)
    assert (code, out) == (1, GOOD.decode())
    assert err == (
        'line 2: greeting-not-first, repaired: the greeting stands behind keywords: "250-mail.domain1.com"'
        " (RFC 5321 4.1.1.1)\n"
    )


@pytest.mark.parametrize("raw", [b"502 5.5.1 no\r\n", b"421 busy\n", b"220 mail.domain1.com\r\n"])
def test_a_reply_that_tells_nothing_is_printed_as_it_is(raw: bytes) -> None:
    code, out, err = answer(raw)
    assert (code, out) == (0, raw.decode())
    assert "passes as it is" in err


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"STARTTLS\r\nhello\r\n", b"2500 messages\n", b"\0\xff"])
@pytest.mark.parametrize("as_json", [False, True])
def test_input_without_any_code_is_no_reply(raw: bytes, as_json: bool) -> None:
    code, out, err = answer(raw, as_json=as_json)
    assert (code, out) == (2, "")
    assert "no line of the input begins with a reply code" in err


def test_the_end_of_the_input_ends_a_reply_without_a_final_line() -> None:
    code, out, _ = answer(b"250-mail.domain1.com\n250-STARTTLS")
    assert (code, out) == (1, "250-mail.domain1.com\r\n250 STARTTLS\r\n")


def test_without_a_banner_a_made_greeting_names_nobody() -> None:
    assert answer(b"250 STARTTLS\r\n", b"")[1] == "250-unknown.invalid\r\n250 STARTTLS\r\n"


def test_findings_that_are_only_reported_leave_the_exit_code_alone() -> None:
    code, out, err = answer(b"250-mail.domain1.com\r\n250 XCLIENT NAME\r\n")
    assert (code, out) == (0, "250-mail.domain1.com\r\n250 XCLIENT NAME\r\n")
    assert err.startswith("line 2: xclient-offered, left: ")


def test_json_is_one_document_with_stable_keys_and_octets_as_latin_1() -> None:
    raw = b"250-STARTTLS\r\n250-mail.domain1.com Gr\xfc\xdf\r\n250 \x1b8BITMIME\r\n"
    code, out, err = answer(raw, as_json=True)
    document = json.loads(out)
    assert (code, err) == (1, "")
    assert set(document) == {"changed", "reply", "findings"}
    assert document["changed"] is True
    assert document["reply"] == "250-mail.domain1.com Gr\xfc\xdf\r\n250-STARTTLS\r\n250 \x1b8BITMIME\r\n"
    assert all(set(finding) == {"id", "line", "repaired", "message", "clause"} for finding in document["findings"])
    assert [finding["id"] for finding in document["findings"]] == [
        "greeting-not-first",
        "non-ascii",
        "control-character",
    ]


def test_no_peer_can_move_the_cursor_or_forge_a_line() -> None:
    code, _, err = answer(b"250-mail.domain1.com\r\n250 X\x1b[2J\r\xff\r\n")
    assert code == 1
    assert re.fullmatch(r"(?:line \d[ -~]*\n)+", err)
    assert "\\x1b[2J\\x0d\\xff" in err
    assert printable("a\tb") == "a\\x09b"


def test_a_finding_of_the_whole_reply_has_no_line() -> None:
    _, _, err = answer(b"250 STARTTLS\r\n")
    assert err.startswith("reply: greeting-missing, repaired: ")


@pytest.mark.parametrize("entry", [pytest.param(entry, id=entry["id"]) for entry in CORPUS])
def test_every_reply_of_the_corpus_comes_out_as_expected(entry: dict[str, Any]) -> None:
    banner = (entry.get("banner") or "").encode("latin-1")
    code, out, _ = answer(entry["reply"].encode("latin-1"), banner)
    good = [entry["reply"] if text is None else text for text in (entry["expected"], *entry.get("also_ok", ()))]
    assert out in good or re.fullmatch(entry.get("accept_regex", "(?!)"), out)
    assert code == (out != entry["reply"])


def test_stdout_gets_octets_behind_what_was_written_as_text() -> None:
    octets = io.BytesIO()
    out = io.TextIOWrapper(octets, "utf-8")
    out.write("before ")
    assert run(b"250 mail.domain1.com \xff\r\n", BANNER, False, out, io.StringIO()) == 0
    assert octets.getvalue() == b"before 250 mail.domain1.com \xff\r\n"


def test_as_a_command_it_takes_and_gives_raw_octets() -> None:
    for raw, expected, code in ((GOOD, GOOD, 0), (BROKEN.replace(b"8BITMIME", b"X\xff\0"), None, 1), (b"hi", b"", 2)):
        done = subprocess.run(
            [sys.executable, "-m", "proxy", "repair", "--banner", BANNER.decode()],
            input=raw,
            capture_output=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert done.stdout == (expected if expected is not None else GOOD.replace(b"8BITMIME", b"X\xff"))
        assert done.stderr.isascii()
