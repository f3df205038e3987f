"""Who ended first, and what that makes of the outcome: from what each socket knows, and from what was said last."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from proxy.net.carrier.ending import Ends, who_said_last
from proxy.net.relay.relay import Flow
from proxy.settings.tables import Timeouts

CLOSE_NOTIFY = b"\x17\x03\x03\x00\x13" + bytes(19)
DATA = b"\x17\x03\x03\x00\x40" + bytes(64)


@dataclass
class Side:
    """A connection, as far as it is asked."""

    end_seen: bool = False
    flow: Flow = field(default_factory=Flow)


TIMEOUTS = Timeouts(idle=600.0, half_closed=60.0)


def side(said: bytes = b"", *, fin: bool = False) -> Side:
    one = Side(fin)
    one.flow.came(said)
    return one


@pytest.mark.parametrize(
    ("client", "server", "inside_tls", "who"),
    [
        (b"QUIT\r\n", b"250 ok\r\n221 2.0.0 bye\r\n", False, "server"),
        (b"QUIT\r\n", b"221 bye\n", False, "server"),
        (b"QUIT\r\n", b"221-bye\r\n221 now\r\n", False, "server"),
        (b"QUIT\r\n", b"221 by", False, ""),  # not all of it
        (b"QUIT\r\n", b"250 ok\r\n", False, ""),
        (b"221 bye\r\n", b"354 go on\r\n", False, ""),  # a line of a message
        (b"", b"", False, ""),
        (DATA + CLOSE_NOTIFY, DATA, True, "client"),
        (DATA, DATA + CLOSE_NOTIFY, True, "server"),
        (DATA + CLOSE_NOTIFY, DATA + CLOSE_NOTIFY, True, "client"),
        (DATA, DATA, True, ""),
        (DATA, b"221 bye\r\n", True, ""),
        (DATA + CLOSE_NOTIFY, b"250 ok\r\n", False, ""),
    ],
)
def test_who_has_said_its_last(client: bytes, server: bytes, inside_tls: bool, who: str) -> None:
    assert who_said_last(client, server, inside_tls) == who


@pytest.mark.parametrize("let_go", [True, False])
@pytest.mark.parametrize("gone", ["client", "server"])
def test_a_reset_behind_an_end_of_either_side_is_a_way_of_closing(gone: str, let_go: bool) -> None:
    for client, server, first in ((side(fin=True), side(), "client"), (side(), side(fin=True), "server")):
        ends = Ends(0.0, TIMEOUTS)
        ends.came(gone, client if gone == "client" else server, server if gone == "client" else client, True)
        told = ends.judged(f"{gone}-reset", gone, client, server, let_go=let_go, inside_tls=False)
        assert told == ("completed" if let_go else f"{first}-closed", first)


def test_a_reset_without_one_is_a_reset_and_what_was_said_counts_behind_the_letting_go_only() -> None:
    client, server = side(b"QUIT\r\n"), side(b"221 bye\r\n")
    ends = Ends(0.0, TIMEOUTS)
    ends.came("client", client, server, True)
    assert ends.judged("client-reset", "client", client, server, let_go=True, inside_tls=False)[0] == "completed"
    told = ends.judged("client-reset", "client", client, server, let_go=False, inside_tls=False)
    assert told == ("client-reset", "client")
    told = ends.judged("client-reset", "client", client, side(b"250 ok\r\n"), let_go=True, inside_tls=False)
    assert told == ("client-reset", "client")
    assert ends.judged("client-reset", "client", client, None, let_go=False, inside_tls=False)[0] == "client-reset"


def test_what_the_proxy_ends_by_itself_is_not_judged() -> None:
    client, server = side(DATA + CLOSE_NOTIFY), side()
    ends = Ends(0.0, TIMEOUTS)
    for outcome in ("timeout", "aborted", "refused", "error"):
        assert ends.judged(outcome, "proxy", client, server, let_go=True, inside_tls=True) == (outcome, "proxy")


def test_the_time_out_of_a_relay_counts_from_the_last_byte_and_is_shorter_behind_an_end() -> None:
    client, server = Side(), Side()
    ends = Ends(5.0, TIMEOUTS)
    assert ends.due(client, None) == 605.0
    server.flow.active_at = 20.0
    assert (ends.quiet_since(client, server), ends.due(client, server)) == (20.0, 620.0)
    ends.half_closed(30.0)
    assert ends.due(client, server) == 90.0
