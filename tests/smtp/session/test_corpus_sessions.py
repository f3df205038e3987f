"""Every reply of the corpus through the session: in one piece, cut at every place, and byte by byte."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from proxy.smtp.reply.repair import EhloContext, RepairPolicy, RepairResult, repair_reply
from proxy.smtp.session.events import ToClient
from proxy.smtp.session.policy import SessionPolicy
from tests.playbook import EHLO, Client, Connected, Playbook, Server, Wait

CORPUS: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "corpus" / "corpus.json").read_bytes())
ENTRIES = pytest.mark.parametrize("entry", [pytest.param(entry, id=entry["id"]) for entry in CORPUS])
LONG_ENOUGH = Wait(15.0)  # for a reply that is never ended
MODES = ("repair", "observe", "off")


def octets(text: str | None) -> bytes:
    return (text or "").encode("latin-1")


def heard(entry: dict[str, Any], pieces: Iterable[bytes], mode: str = "repair", between: float = 0.0) -> bytes:
    """What the client hears in answer to its EHLO."""
    book = Playbook(SessionPolicy(repair=RepairPolicy(mode=mode)))
    player = book.player
    player.happens(Connected("mail.example.com", "192.0.2.1"))
    player.happens(Server(octets(entry.get("banner")) or b"220 mail.example.com ESMTP\r\n"))
    player.happens(Client(EHLO))
    actions = []
    for piece in pieces:
        if between:
            player.happens(Wait(between))
        actions += player.happens(Server(piece))
    actions += player.happens(LONG_ENOUGH)
    return b"".join(action.data for action in actions if isinstance(action, ToClient))


def judged(entry: dict[str, Any]) -> RepairResult:
    banner = octets(entry.get("banner")) or b"220 mail.example.com ESMTP\r\n"
    context = EhloContext(banner, b"mail.example.com", b"192.0.2.1", b"client.example")
    return repair_reply(octets(entry["reply"]), RepairPolicy(), context)


def depends_on_cuts(entry: dict[str, Any]) -> bool:
    """A reply with a final line that is not the last: what of it is there in one turn is one reply."""
    return any(finding.id == "final-line-early" for finding in judged(entry).findings)


@ENTRIES
def test_in_one_piece_it_is_one_of_the_good_answers(entry: dict[str, Any]) -> None:
    raw = octets(entry["reply"])
    reply = heard(entry, [raw])
    assert reply == judged(entry).reply
    good = [raw if text is None else octets(text) for text in (entry["expected"], *entry.get("also_ok", ()))]
    pattern = entry.get("accept_regex")
    assert reply in good or (pattern and re.fullmatch(octets(pattern), reply))


@ENTRIES
def test_cut_at_every_place_it_is_the_same(entry: dict[str, Any]) -> None:
    raw = octets(entry["reply"])
    if depends_on_cuts(entry):
        return
    whole = judged(entry).reply
    for cut in range(1, len(raw), 1 + len(raw) // 250):
        assert heard(entry, [raw[:cut], raw[cut:]]) == whole


@ENTRIES
@pytest.mark.parametrize("between", [0.0, 0.01])
def test_byte_by_byte_it_is_the_same(entry: dict[str, Any], between: float) -> None:
    raw = octets(entry["reply"])
    if not depends_on_cuts(entry):
        assert heard(entry, (bytes([octet]) for octet in raw), between=between) == judged(entry).reply


@ENTRIES
@pytest.mark.parametrize("mode", ["observe", "off"])
def test_where_nothing_is_changed_it_passes_as_it_came(entry: dict[str, Any], mode: str) -> None:
    raw = octets(entry["reply"])
    for pieces in ([raw], [raw[:7], raw[7:]], [bytes([octet]) for octet in raw]):
        assert heard(entry, pieces, mode) == raw
