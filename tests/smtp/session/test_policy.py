"""What sessions of one destination learn from each other."""

from __future__ import annotations

from proxy.smtp.session.policy import (
    GOING_ON_KNOWN_FOR,
    OFFERS_KNOWN_FOR,
    BridgePolicy,
    DestinationMemory,
    SessionPolicy,
)


def test_nothing_is_known_at_first() -> None:
    memory = DestinationMemory()
    assert memory.offers(0.0) is None
    assert not memory.goes_on(0.0)
    assert not memory.goes_on_slowly(0.0)


def test_what_was_seen_is_remembered_for_an_hour_after_the_last_time() -> None:
    memory = DestinationMemory()
    memory.saw_going_on(1000.0, after_silence=True)
    memory.saw_going_on(2000.0)
    assert memory.goes_on(2000.0 + GOING_ON_KNOWN_FOR)
    assert not memory.goes_on(2000.1 + GOING_ON_KNOWN_FOR)
    assert memory.goes_on_slowly(1000.0 + GOING_ON_KNOWN_FOR)
    assert not memory.goes_on_slowly(1000.1 + GOING_ON_KNOWN_FOR)


def test_an_answer_about_xclient_is_trusted_for_a_while() -> None:
    memory = DestinationMemory()
    for offered in (True, False):
        memory.learn_offers(offered, 1000.0)
        assert memory.offers(1000.0) is offered
        assert memory.offers(1000.0 + OFFERS_KNOWN_FOR) is offered
        assert memory.offers(1000.1 + OFFERS_KNOWN_FOR) is None
        assert memory.offers(1000.0, inside_tls=True) is None, "what is offered in clear says nothing of inside TLS"


def test_the_defaults_are_those_of_the_settings() -> None:
    policy = SessionPolicy()
    assert (policy.unterminated_after, policy.banner_timeout, policy.command_timeout) == (15.0, 300.0, 300.0)
    assert policy.half_closed_timeout == 600.0
    assert policy.bridge is None
    assert (policy.repair.mode, policy.repair.strict) == ("repair", False)
    assert BridgePolicy() == BridgePolicy("starttls", "starttls", True)
