"""The status over all workers: one truth of several tables."""

from __future__ import annotations

import json
import time

import pytest

from proxy.daemon.admin.destinations import Destinations, merge_destinations
from proxy.daemon.admin.figures.counters import Snapshot
from proxy.daemon.admin.status import (
    LastHour,
    RouteShown,
    StatusBoard,
    merge_hours,
    merge_retired,
    retired_reports,
)
from proxy.daemon.log.logs import EventLog
from proxy.daemon.reports import Reports
from tests.daemon.daemons import BROKEN, MENDED, Daemon, ended, reply_of

START = 1700000000.0


def board_of(*daemons: Daemon) -> StatusBoard:
    def snapshots() -> list[Snapshot]:
        return [json.loads(json.dumps(daemon.reports.snapshot())) for daemon in daemons]

    board = StatusBoard("1.0.0", START, snapshots, lambda: daemons[0].time)
    board.routes = (RouteShown("domain1", ("0.0.0.0:25", "[::]:25"), ("192.0.2.10:25",), max_sessions=1000),)
    board.workers = len(daemons)
    return board


def test_before_the_first_session_the_configured_destinations_are_shown_untried() -> None:
    assert board_of(Daemon()).status() == {
        "version": "1.0.0",
        "started": "2023-11-14T22:13:20Z",
        "workers": 1,
        "draining": False,
        "routes": [
            {
                "name": "domain1",
                "listen": ["0.0.0.0:25", "[::]:25"],
                "mode": "passthrough",
                "sessions_open": 0,
                "sessions_limit": 1000,
                "sessions_total": 0,
                "refused_total": 0,
                "failed_total": 0,
                "tls_total": 0,
                "destinations": [
                    {
                        "name": "192.0.2.10:25",
                        "address": "",
                        "up": None,
                        "since": None,
                        "reason": None,
                        "findings": [],
                        "before": [],
                        "after": [],
                        "certificate_not_after": None,
                    }
                ],
            }
        ],
    }


def test_sessions_are_summed_and_what_was_seen_last_of_a_destination_holds() -> None:
    one, other = Daemon(), Daemon()
    for daemon, reply in ((one, reply_of(BROKEN, MENDED, ("greeting-not-first", True))), (other, reply_of(MENDED))):
        daemon.time += 5 if daemon is other else 0
        story = daemon.story(name="mx.domain1.com")
        daemon.reports.session_started(daemon.story())
        daemon.reports.session_started(story)
        daemon.reports.destination_connected(story, 0.01)
        daemon.reports.ehlo_replied(story, reply, 0.01, "clear")
        daemon.reports.session_ended(ended(story), 1.0)
    other.reports.tls_started(story, "server", "TLSv1.3", "", "", "true", START + 86400 * 30)
    for board in (board_of(one, other), board_of(other, one)):
        (route,) = board.status()["routes"]
        assert (route["sessions_open"], route["sessions_total"]) == (2, 2)
        assert route["destinations"] == [
            {
                "name": "mx.domain1.com",
                "address": "192.0.2.10:25",
                "up": True,
                "since": "2023-11-14T22:13:20Z",
                "reason": None,
                "findings": [],
                "before": list(MENDED),
                "after": list(MENDED),
                "certificate_not_after": "2023-12-14T22:13:20Z",
            }
        ]
        (certificate,) = board.certificates
        assert (certificate.side, certificate.subject) == ("server", "mx.domain1.com[192.0.2.10]:25")
        assert b'sessions_total{outcome="completed",route="domain1",tls="none"} 2.0' in board.metrics_text()


def test_a_finding_only_inside_tls_is_shown_with_the_reply_inside_tls() -> None:
    daemon = Daemon()
    daemon.reports.ehlo_replied(daemon.story(), reply_of(MENDED), 0.0, "clear")
    inside = reply_of(("250-x", "250 STARTTLS"), ("250 x",), ("starttls-inside-tls", True))
    daemon.reports.ehlo_replied(daemon.story(), inside, 0.0, "tls")
    (destination,) = board_of(daemon).status()["routes"][0]["destinations"]
    assert destination["findings"] == ["starttls-inside-tls"]
    assert destination["before"] == ["250-x", "250 STARTTLS"]


def test_peer_text_in_the_status_is_escaped_and_cut() -> None:
    daemon = Daemon()
    daemon.reports.ehlo_replied(daemon.story(), reply_of(("250-\x1b\xe9" + "x" * 300,)), 0.0, "clear")
    (destination,) = board_of(daemon).status()["routes"][0]["destinations"]
    assert destination["before"][0].startswith("250-\\x1b\\xe9xxx")
    assert len(destination["before"][0]) == 200 + 6


def test_up_since_is_the_last_change_that_any_worker_saw() -> None:
    one, other, third = Destinations(), Destinations(), Destinations()
    one.state("r", "", "a:25").connected(100.0)
    other.state("r", "", "a:25").failed("refused", 110.0)
    other.state("r", "", "a:25").connected(120.0)
    third.state("r", "", "a:25").connected(130.0)
    (row,) = merge_destinations(table.snapshot(130.0) for table in (one, other, third))
    assert (row["up"], row["since"]) == (True, "1970-01-01T00:02:00Z")
    (row,) = merge_destinations(table.snapshot(130.0) for table in (one, third))
    assert (row["up"], row["since"]) == (True, "1970-01-01T00:01:40Z")
    other.state("r", "", "a:25").failed("refused", 140.0)
    (row,) = merge_destinations(table.snapshot(140.0) for table in (one, other, third))
    assert (row["up"], row["since"]) == (False, "1970-01-01T00:02:20Z")


def test_the_table_of_destinations_is_bounded_and_drops_those_not_seen_for_the_longest() -> None:
    table = Destinations(max_destinations=16)
    for number in range(100):
        table.state("r", "", f"192.0.2.{number}:25").connected(float(number))
    rows = table.snapshot(100.0)
    assert len(rows) <= 16
    assert rows[-1]["address"] == "192.0.2.99:25"
    assert min(row["seen_at"] for row in rows) >= 84


def test_an_address_that_a_name_no_longer_leads_to_is_dropped_after_a_day() -> None:
    table = Destinations()
    table.state("r", "mx", "192.0.2.1:25").connected(0.0)
    table.state("r", "quiet", "192.0.2.3:25").connected(0.0)
    table.state("r", "mx", "192.0.2.2:25").connected(10.0)
    assert len(table.snapshot(80000.0)) == 3
    assert {row["address"] for row in table.snapshot(90000.0)} == {"192.0.2.2:25", "192.0.2.3:25"}


def test_a_name_that_resolves_again_is_not_shown_as_down_any_more() -> None:
    table = Destinations()
    table.state("r", "mx", "").failed("no such name", 1.0)
    assert [row["up"] for row in table.snapshot(2.0)] == [False]
    table.state("r", "mx", "192.0.2.1:25").connected(2.0)
    assert [row["up"] for row in table.snapshot(2.0)] == [True]


def test_the_last_hour_is_sixty_minutes_with_the_running_one_last() -> None:
    hour = LastHour()
    for minute in range(200):
        for _ in range(minute):
            hour.count(START + minute * 60, repaired=False)
        hour.count(START + minute * 60, repaired=True)
    now = START + 199 * 60
    rows = merge_hours([hour.snapshot(now), hour.snapshot(now)], now)
    assert len(rows) == 60
    assert rows[-1] == [now // 60 * 60, 400, 2]
    assert rows[0] == [(now - 59 * 60) // 60 * 60, 282, 2]
    later = now + 30 * 60
    rows = merge_hours([hour.snapshot(later)], later)
    assert [sessions for _, sessions, _ in rows[30:]] == [0] * 30
    assert rows[29][1] == 200


def test_what_a_dead_worker_leaves_counts_on() -> None:
    alive, dead = Daemon(), Daemon()
    for daemon in (alive, dead):
        story = daemon.story()
        daemon.reports.session_started(daemon.story())
        daemon.reports.session_started(story)
        daemon.reports.destination_connected(story, 0.0)
        daemon.reports.session_ended(ended(story), 1.0)
    left = merge_retired([retired_reports(dead.reports.snapshot()), retired_reports(dead.reports.snapshot())], START)
    board = StatusBoard("1", START, lambda: [alive.reports.snapshot(), left], lambda: START)
    board.routes = (RouteShown("domain1", ()),)
    (route,) = board.status()["routes"]
    assert (route["sessions_open"], route["sessions_total"]) == (1, 3)
    assert len(route["destinations"]) == 1
    assert board.plot[-1][1] == 3


def test_a_board_of_no_snapshots_is_empty_and_well() -> None:
    board = StatusBoard("1", START, list, lambda: START)
    assert board.status()["routes"] == []
    assert len(board.plot) == 60
    assert board.certificates == []
    assert b"build_info" in board.metrics_text()


def test_a_single_process_needs_no_json_between() -> None:
    reports = Reports(EventLog(lambda line: None), now=lambda: START)
    board = StatusBoard("1", START, lambda: [reports.snapshot()], lambda: START)
    assert json.dumps(board.status())


@pytest.mark.alone
def test_256_destinations_of_unprintable_replies_cost_little() -> None:
    daemon = Daemon()
    for number in range(256):
        lines = tuple(f"250-{number} " + "\x80\xff\x01" * 80 for _ in range(40))
        story = daemon.story(destination=f"192.0.2.{number}:25")
        daemon.reports.ehlo_replied(story, reply_of(lines, lines[1:], ("non-ascii", False)), 0.0, "clear")
    board = board_of(daemon)
    first = time.perf_counter()
    json.dumps(board.status())
    later = time.perf_counter()
    text = json.dumps(board.status())
    took = time.perf_counter() - later
    assert len(text) < 4_000_000
    assert later - first < 0.5, "the first time, when nothing is escaped yet"
    assert took < 0.15, "it took more than a second before replies were escaped once"
