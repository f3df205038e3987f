"""When who is late."""

from __future__ import annotations

from proxy.smtp.session.parts.owed import Owed
from proxy.smtp.session.parts.times import Times
from proxy.smtp.session.policy import SessionPolicy
from proxy.smtp.session.terms import BANNER_OR_NEXT, Reply

POLICY = SessionPolicy(banner_timeout=300.0, command_timeout=100.0, half_closed_timeout=50.0)


def test_a_reply_is_due_from_its_command_and_the_banner_has_a_time_of_its_own() -> None:
    times = Times(POLICY, 0.0)
    assert times.late_at(Owed(Reply.NOOP, 7.0), False, False) == 107.0
    assert times.late_at(Owed(Reply.EHLO, 7.0), True, True) == 107.0
    assert times.late_at(Owed(Reply.BANNER, 7.0), False, False) == 307.0
    assert times.late_at(Owed(Reply.BANNER, 7.0), True, False) == 7.0 + BANNER_OR_NEXT
    assert times.late_at(Owed(Reply.UNREAD, 7.0), False, False) is None


def test_with_another_destination_left_a_short_time_stays_short() -> None:
    times = Times(SessionPolicy(banner_timeout=5.0), 0.0)
    assert times.late_at(Owed(Reply.BANNER, 1.0), True, False) == 6.0


def test_the_client_has_its_time_from_the_last_reply() -> None:
    times = Times(POLICY, 1.0)
    assert times.late_at(None, False, False) == 101.0
    times.client_may_speak(5.0)
    assert times.late_at(None, False, False) == 105.0


def test_when_the_client_has_ended_it_is_the_servers_turn_to() -> None:
    times = Times(POLICY, 1.0)
    times.server_may_end(20.0)
    assert times.late_at(None, False, True) == 70.0
