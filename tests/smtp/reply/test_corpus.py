"""Every reply of the corpus gives the reply that is expected: seen in the field, or made after what was seen.

`expected` null means byte for byte the same; `also_ok` lists other good answers, `accept_regex` matches any.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from proxy.smtp.lines import LineBuffer
from proxy.smtp.reply.ehlo import ReplyProgress
from proxy.smtp.reply.repair import EhloContext, RepairPolicy, repair_reply

CORPUS: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "corpus" / "corpus.json").read_bytes())
ENTRIES = pytest.mark.parametrize("entry", [pytest.param(entry, id=entry["id"]) for entry in CORPUS])


def octets(text: str | None) -> bytes:
    return (text or "").encode("latin-1")


def context(entry: dict[str, Any]) -> EhloContext:
    return EhloContext(
        banner=octets(entry.get("banner")),
        destination_name=b"mail.example.com",
        destination_address=b"192.0.2.1",
        client_name=b"client.example",
        client_trusted=False,
    )


@ENTRIES
def test_the_expected_reply_comes_out(entry: dict[str, Any]) -> None:
    raw = octets(entry["reply"])
    result = repair_reply(raw, RepairPolicy(), context(entry), unterminated=True)
    expected = raw if entry["expected"] is None else octets(entry["expected"])
    if entry["id"] == "greeting-2100":  # any cut will do there, and ours is to 400 octets
        assert re.fullmatch(octets(entry["accept_regex"]), result.reply)
        assert len(result.after[0]) + 2 == 400
    else:
        assert result.reply == expected
    assert result.changed is (expected != raw)
    assert result.changed is any(finding.repaired for finding in result.findings)


@ENTRIES
def test_without_a_name_of_the_destination_it_is_one_of_the_good_answers(entry: dict[str, Any]) -> None:
    raw = octets(entry["reply"])
    result = repair_reply(raw, RepairPolicy(), EhloContext(banner=octets(entry.get("banner"))))
    good = [raw if text is None else octets(text) for text in (entry["expected"], *entry.get("also_ok", ()))]
    pattern = entry.get("accept_regex")
    assert result.reply in good or (pattern and re.fullmatch(octets(pattern), result.reply))


@ENTRIES
def test_repairing_again_changes_nothing(entry: dict[str, Any]) -> None:
    for strict in (False, True):
        policy = RepairPolicy(strict=strict)
        once = repair_reply(octets(entry["reply"]), policy, context(entry))
        assert repair_reply(once.reply, policy, context(entry)).reply == once.reply


@ENTRIES
def test_a_compliant_reply_has_no_finding(entry: dict[str, Any]) -> None:
    if entry["category"] not in ("compliant", "error-reply"):
        return
    assert repair_reply(octets(entry["reply"]), RepairPolicy(), context(entry)).findings == ()


@ENTRIES
def test_cut_at_every_place_the_lines_are_the_same(entry: dict[str, Any]) -> None:
    raw = octets(entry["reply"])
    expected = repair_reply(raw, RepairPolicy(), context(entry)).reply
    for cut in range(0, len(raw), 1 + len(raw) // 200):
        buffer = LineBuffer(512)
        progress = ReplyProgress(octets(entry.get("banner")))
        for piece in (raw[:cut], raw[cut:]):
            buffer.feed(piece)
            while (line := buffer.next()) is not None:
                progress.add(line)
        whole = progress.whole() + buffer.take_pending()
        assert whole == raw
        assert repair_reply(whole, RepairPolicy(), context(entry)).reply == expected
