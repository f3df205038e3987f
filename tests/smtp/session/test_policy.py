"""What sessions of one destination learn from each other."""

from __future__ import annotations

from proxy.smtp.session.policy import OFFERS_KNOWN_FOR, BridgePolicy, DestinationMemory, SessionPolicy


def test_nothing_is_known_at_first() -> None:
    memory = DestinationMemory()
    assert memory.offers(0.0) is None
    assert not memory.ends_early
    assert not memory.goes_on


def test_an_answer_about_xclient_is_trusted_for_a_while() -> None:
    memory = DestinationMemory()
    for offered in (True, False):
        memory.learn_offers(offered, 1000.0)
        assert memory.offers(1000.0) is offered
        assert memory.offers(1000.0 + OFFERS_KNOWN_FOR) is offered
        assert memory.offers(1000.1 + OFFERS_KNOWN_FOR) is None


def test_the_defaults_are_those_of_the_settings() -> None:
    policy = SessionPolicy()
    assert (policy.unterminated_after, policy.banner_timeout, policy.command_timeout) == (15.0, 300.0, 300.0)
    assert policy.half_closed_timeout == 600.0
    assert policy.bridge is None
    assert (policy.repair.mode, policy.repair.strict) == ("repair", False)
    assert BridgePolicy() == BridgePolicy("starttls", "starttls", True)
