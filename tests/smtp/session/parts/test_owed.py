"""The queue of replies that are owed: what comes next, and whether another command may be sent behind it."""

from __future__ import annotations

import pytest

from proxy.smtp.session.parts.owed import OwedReplies
from proxy.smtp.session.terms import MAX_OWED, Reply


def kinds(owed: OwedReplies) -> list[int]:
    seen = []
    while owed.first is not None:
        seen.append(owed.first.kind)
        owed.first_is_over()
    return seen


def test_the_oldest_comes_first() -> None:
    owed = OwedReplies()
    for kind in (Reply.BANNER, Reply.NOOP, Reply.EHLO):
        owed.add(kind, 1.0)
    assert len(owed) == 3
    assert kinds(owed) == [Reply.BANNER, Reply.NOOP, Reply.EHLO]
    assert len(owed) == 0


@pytest.mark.parametrize("kind", [Reply.EHLO, Reply.STARTTLS])
def test_nothing_may_follow_what_changes_what_comes_behind_it(kind: int) -> None:
    owed = OwedReplies()
    owed.add(Reply.NOOP, 1.0)
    assert owed.may_follow
    owed.add(kind, 1.0)
    assert not owed.may_follow
    owed.first_is_over()
    assert not owed.may_follow, "it is still owed"
    owed.first_is_over()
    assert owed.may_follow


def test_nor_a_command_of_the_proxys_own() -> None:
    owed = OwedReplies()
    owed.add(Reply.HELO, 1.0, private=True)
    assert not owed.may_follow
    owed.clear()
    assert owed.may_follow
    assert owed.first is None


def test_nor_an_ehlo_reply_that_passes_unrepaired() -> None:
    owed = OwedReplies()
    owed.add(Reply.EHLO, 1.0)
    owed.first_passes_unrepaired()
    assert not owed.may_follow
    assert kinds(owed) == [Reply.UNREPAIRED]


def test_so_many_and_no_more() -> None:
    owed = OwedReplies()
    for _ in range(MAX_OWED - 1):
        owed.add(Reply.NOOP, 1.0)
        assert owed.may_follow
    owed.add(Reply.NOOP, 1.0)
    assert not owed.may_follow
    owed.first_is_over()
    assert owed.may_follow


def test_no_server_answers_before_its_banner() -> None:
    owed = OwedReplies()
    owed.add(Reply.NOOP, 1.0)
    owed.add(Reply.NOOP, 2.0)
    owed.begin_at(7.0)
    assert owed.first is not None
    assert owed.first.at == 7.0
