"""What is said of a session, how loudly, and what is counted."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from proxy.daemon.reports import Reports
from tests.daemon.daemons import BROKEN, MENDED, Daemon, ended, reply_of

if TYPE_CHECKING:
    from proxy.net.observer import Observer

    _is_one: type[Observer] = Reports


def test_at_level_info_a_good_session_is_one_line() -> None:
    daemon = Daemon()
    story = daemon.story(name="mx.domain1.com")
    reports = daemon.reports
    reports.session_started(story)
    reports.destination_connected(story, 0.01)
    reports.ehlo_replied(story, reply_of(MENDED), 0.02, "clear")
    reports.starttls_answered(story, "accepted")
    reports.tls_started(story, "passthrough", "TLSv1.3", "mx.domain1.com", "", "", 0)
    story.ehlo = "good"
    story.tls = "passthrough"
    story.tls_version = "TLSv1.3"
    story.sni = "mx.domain1.com"
    story.ehlo_name = "esa.com"
    story.source_port = 50123
    story.bytes_from_client = 1000
    story.bytes_from_server = 400
    reports.session_ended(ended(story), 1.25)
    assert daemon.events() == [
        {
            "level": "info",
            "event": "session-end",
            "session": "t-1",
            "route": "domain1",
            "client": "192.0.2.3",
            "client_port": 40000,
            "destination": "mx.domain1.com[192.0.2.10]:25",
            "source_port": 50123,
            "ehlo_name": "esa.com",
            "outcome": "completed",
            "by": "client",
            "reason": "",
            "ehlo": "good",
            "repaired": [],
            "tls": "passthrough",
            "tls_version": "TLSv1.3",
            "sni": "mx.domain1.com",
            "alert": "",
            "seconds": 1.25,
            "bytes_from_client": 1000,
            "bytes_from_server": 400,
        }
    ]


def test_a_repaired_session_is_two_lines_with_the_reply_before_and_after() -> None:
    daemon = Daemon(format="text")
    story = daemon.story()
    daemon.reports.session_started(story)
    daemon.reports.ehlo_replied(story, reply_of(BROKEN, MENDED, ("greeting-not-first", True)), 0.02, "clear")
    story.ehlo = "repaired"
    story.repaired = ("greeting-not-first",)
    daemon.reports.session_ended(ended(story), 2.0)
    head = "2023-11-14T22:13:20.000Z info"
    who = "session=t-1 route=domain1 client=192.0.2.3 client_port=40000 destination=192.0.2.10:25"
    assert daemon.texts() == [
        f"{head} ehlo-findings {who} findings=greeting-not-first repaired=greeting-not-first phase=clear "
        'before="250-STARTTLS\\n250-mail.domain1.com\\n250 HELP" '
        'after="250-mail.domain1.com\\n250-STARTTLS\\n250 HELP"\n',
        f'{head} session-end {who} ehlo_name="" outcome=completed by=client reason="" ehlo=repaired '
        'repaired=greeting-not-first tls=none tls_version="" sni="" alert="" seconds=2.000 bytes_from_client=0 '
        "bytes_from_server=0\n",
    ]


def test_at_level_debug_everything_is_told() -> None:
    daemon = Daemon("debug")
    story = daemon.story()
    reports = daemon.reports
    reports.session_started(story)
    reports.destination_connected(story, 0.01)
    reports.starttls_answered(story, "accepted")
    reports.tls_started(story, "server", "TLSv1.3", "mx", "AES", "true", 1800000000.0)
    reports.session_ended(ended(story), 1.0)
    events = daemon.events()
    names = ["session-start", "destination-connected", "starttls", "tls", "session-end"]
    assert [event["event"] for event in events] == names
    assert {event["session"] for event in events} == {"t-1"}
    assert events[1]["seconds"] == 0.01
    assert events[2]["result"] == "accepted"
    tls = {key: events[3][key] for key in ("version", "sni", "cipher", "verified")}
    assert tls == {"version": "TLSv1.3", "sni": "mx", "cipher": "AES", "verified": "true"}


@pytest.mark.parametrize("event", ["starttls-pipelined", "starttls-response-injection"])
@pytest.mark.parametrize("level", ["info", "warning"])
def test_an_injection_is_a_warning(event: str, level: str) -> None:
    daemon = Daemon(level)
    daemon.reports.injected(daemon.story(), event, "12 bytes behind STARTTLS")
    (told,) = daemon.events()
    assert (told["event"], told["level"], told["session"]) == (event, "warning", "t-1")


@pytest.mark.parametrize(
    ("outcome", "reason", "level"),
    [
        ("completed", "", "info"), ("client-closed", "", "info"), ("client-reset", "", "info"),
        ("server-closed", "", "info"), ("server-closed", "the server closed the connection", "warning"),
        ("server-reset", "", "warning"), ("refused", "", "warning"), ("unreachable", "", "warning"),
        ("timeout", "", "warning"), ("tls-failed", "", "warning"), ("injection", "", "warning"),
        ("aborted", "", "warning"), ("error", "", "warning"),
    ],
)  # fmt: skip
def test_a_failed_session_is_a_warning(outcome: str, reason: str, level: str) -> None:
    daemon = Daemon()
    story = ended(daemon.story(), outcome)
    story.reason = reason
    daemon.reports.session_ended(story, 1.0)
    (event,) = daemon.events()
    assert (event["level"], event["outcome"], event["reason"]) == (level, outcome, reason)


@pytest.mark.parametrize("level", ["info", "warning"])
def test_failures_are_told_up_to_twenty_a_minute_of_a_route_and_outcome_then_counted(level: str) -> None:
    daemon = Daemon(level)
    for _ in range(50):
        for outcome in ("timeout", "server-reset"):
            daemon.reports.session_ended(ended(daemon.story(), outcome), 1.0)
    assert [event["event"] for event in daemon.events()] == ["session-end"] * 40
    daemon.time += 60
    daemon.reports.tick()
    assert daemon.events() == [
        {"level": "warning", "event": kind, "route": "domain1", "client": "192.0.2.3", "count": 30}
        for kind in ("timeout", "server-reset")
    ]


def test_at_level_debug_what_is_held_back_is_told_as_such() -> None:
    daemon = Daemon("debug")
    for _ in range(50):
        daemon.reports.session_ended(ended(daemon.story(), "timeout"), 1.0)
    assert [event["level"] for event in daemon.events()] == ["warning"] * 20 + ["debug"] * 30


def test_sessions_that_are_well_are_all_told() -> None:
    daemon = Daemon()
    for _ in range(100):
        daemon.reports.session_ended(ended(daemon.story()), 1.0)
    assert len(daemon.events()) == 100


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ehlo_name", 'x" outcome=forged'),
        ("ehlo_name", "\xe9" * 255),
        ("sni", 'x" outcome=forged'),
        ("sni", "two words"),
        ("sni", "\x1b[31m\n"),
        ("sni", "\xff" * 300),
        ("sni", "s" * 300),
        ("reason", "server said 554 go\naway"),
        ("client", "fe80::1%eth0"),
        ("by", ""),
    ],
)
def test_unusual_values_are_quoted_cut_and_on_one_line(key: str, value: str) -> None:
    for format in ("text", "json"):
        daemon = Daemon(format=format)
        story = ended(daemon.story())
        setattr(story, key, value)
        daemon.reports.session_ended(story, 1.0)
        (line,) = daemon.lines
        assert re.fullmatch(rb"[ -~]+\n", line)
        assert len(line) < 1500
        if format == "json":
            event = json.loads(line)
            assert event["outcome"] == "completed"
            assert ("cut" in event) == (len(value) > 200)
        else:
            bare = re.sub(rb'"(?:[^"\\]|\\.)*"', b"Q", line)
            assert bare.count(b"outcome=") == 1
            assert b"forged" not in bare


def test_findings_are_told_the_first_time_for_a_destination_and_when_they_change() -> None:
    daemon = Daemon()
    first = ("greeting-not-first", True)
    for findings, told in (
        ([first], ["greeting-not-first"]),
        ([first], None),
        ([first, ("keyword-case", False)], ["greeting-not-first", "keyword-case"]),
        ([first], ["greeting-not-first"]),
        ([], []),
        ([], None),
    ):
        daemon.reports.ehlo_replied(daemon.story(), reply_of(BROKEN, MENDED, *findings), 0.0, "clear")
        events = daemon.events()
        assert [event["findings"] for event in events] == ([] if told is None else [told])
        assert all("before" in event and "after" in event for event in events)


def test_a_good_reply_is_not_told() -> None:
    daemon = Daemon()
    daemon.reports.ehlo_replied(daemon.story(), reply_of(MENDED), 0.0, "clear")
    assert not daemon.events()


def test_a_session_that_repeats_ehlo_tells_its_findings_once_a_phase() -> None:
    daemon = Daemon()
    story = daemon.story()
    daemon.reports.session_started(story)
    for number in range(1000):
        for phase in ("clear", "tls"):
            result = reply_of(
                BROKEN, MENDED, *[("greeting-not-first", True), ("keyword-case", False)][: 1 + number % 2]
            )
            daemon.reports.ehlo_replied(story, result, 0.0, phase)
        daemon.reports.noticed(story, "ehlo-findings", "info", {"findings": [f"late-{number}"], "phase": "late"})
    assert [event["phase"] for event in daemon.events()] == ["clear", "tls", "late"]


def test_sessions_of_a_server_that_changes_all_the_time_tell_twenty_a_minute() -> None:
    daemon = Daemon()
    for number in range(100):
        story = daemon.story()
        daemon.reports.session_started(story)
        result = reply_of(BROKEN, MENDED, *[("greeting-not-first", True), ("keyword-case", False)][: 1 + number % 2])
        daemon.reports.ehlo_replied(story, result, 0.0, "clear")
    assert len(daemon.events()) == 20
    daemon.time += 60
    daemon.reports.tick()
    assert [(event["event"], event["count"], event["level"]) for event in daemon.events()] == [
        ("ehlo-findings", 80, "info")
    ]


def test_each_destination_route_and_phase_has_its_own_first_time() -> None:
    daemon = Daemon()
    result = reply_of(BROKEN, MENDED, ("greeting-not-first", True))
    for story, phase in (
        (daemon.story(), "clear"),
        (daemon.story(), "tls"),
        (daemon.story(destination="192.0.2.11:25"), "clear"),
        (daemon.story(name="mx.example"), "clear"),
    ):
        daemon.reports.ehlo_replied(story, result, 0.0, phase)
        (event,) = daemon.events()
        assert event["phase"] == phase
        assert "before" in event


def test_the_clients_name_in_the_greeting_is_no_change() -> None:
    daemon = Daemon()
    for client in ("esa.com", "other.example"):
        greeting = f"mx.example Hello {client} [192.0.2.3]"
        result = reply_of(
            ("250-STARTTLS", f"250 {greeting}"), (f"250-{greeting}", "250 STARTTLS"), ("greeting-not-first", True)
        )
        daemon.reports.ehlo_replied(daemon.story(), result, 0.0, "clear")
    assert len(daemon.events()) == 1


def test_a_reply_too_big_to_be_cached_is_still_recognised() -> None:
    daemon = Daemon()
    for _ in range(2):
        result = reply_of(BROKEN, MENDED, ("reply-too-long", False), size=60000)
        daemon.reports.ehlo_replied(daemon.story(), result, 0.0, "clear")
    assert len(daemon.events()) == 1


def test_a_huge_reply_makes_an_event_of_at_most_8_kib_that_says_it_is_cut() -> None:
    daemon = Daemon()
    lines = tuple(f"250-X{number} " + "\xe9" * 500 for number in range(100))
    daemon.reports.ehlo_replied(daemon.story(), reply_of(lines, lines, ("non-ascii", False)), 0.0, "clear")
    assert len(daemon.lines[0]) <= 8192
    (event,) = daemon.events()
    assert event["cut"] == ["before", "after"]
    assert event["findings"] == ["non-ascii"]
    assert event["repaired"] == []


def test_findings_are_counted_once_a_reply() -> None:
    daemon = Daemon()
    result = reply_of(BROKEN, MENDED, ("keyword-case", False), ("keyword-case", True), ("keyword-invalid", False))
    for _ in range(3):
        daemon.reports.ehlo_replied(daemon.story(), result, 0.0, "clear")
    assert daemon.metrics.route("domain1").findings == {("keyword-case", True): 3, ("keyword-invalid", False): 3}
    assert daemon.events()[0]["findings"] == ["keyword-case", "keyword-invalid"]


@pytest.mark.parametrize("repaired", [True, False])
def test_late_ehlo_lines_are_told_and_counted_as_findings_of_a_reply_are(repaired: bool) -> None:
    daemon = Daemon()
    fields = {"findings": ["final-line-early"], "repaired": repaired, "before": [b"250 HELP"], "phase": "late"}
    daemon.reports.noticed(daemon.story(), "ehlo-findings", "info", fields)
    (event,) = daemon.events()
    assert event["repaired"] == (["final-line-early"] if repaired else [])
    assert event["before"] == ["250 HELP"]
    assert daemon.metrics.route("domain1").findings == {("final-line-early", repaired): 1}


@pytest.mark.parametrize(("repaired", "told"), [(True, 3), (False, 1)])
def test_a_clients_bad_name_is_counted_each_time_and_told_once_a_destination_unless_it_was_put_right(
    repaired: bool, told: int
) -> None:
    daemon = Daemon()
    name = b"EHLO localhost"
    fields = {"findings": ["client-name-invalid"], "repaired": repaired, "before": [name], "phase": "client"}
    for _ in range(3):
        daemon.reports.noticed(daemon.story(), "ehlo-findings", "info", fields)
    assert [event["findings"] for event in daemon.events()] == [["client-name-invalid"]] * told
    assert daemon.metrics.route("domain1").findings == {("client-name-invalid", repaired): 3}


def test_sessions_are_open_until_they_end() -> None:
    daemon = Daemon()
    stories = [daemon.story() for _ in range(3)]
    for story in stories:
        daemon.reports.session_started(story)
    assert daemon.metrics.route("domain1").open == daemon.reports.sessions_open == 3
    for story in stories:
        daemon.reports.session_ended(ended(story, "timeout", "proxy"), 1.0)
    assert daemon.metrics.route("domain1").open == daemon.reports.sessions_open == 0
    assert daemon.metrics.route("domain1").outcomes == {("timeout", "none"): 3}


def test_a_destination_that_goes_down_is_told_then_and_when_the_cause_changes_and_when_it_answers_again() -> None:
    daemon = Daemon()
    told = []
    for second in range(180):
        reason = "connection refused" if second < 100 else "no answer within 10 s"
        daemon.reports.destination_failed("domain1", "192.0.2.10:25", "", reason, daemon.story())
        daemon.time += 1.0
        told += daemon.events()
    assert [(event["level"], event["reason"], event.get("failures")) for event in told] == [
        ("warning", "connection refused", None),
        ("warning", "no answer within 10 s", 101),
    ]
    assert {event["destination"] for event in told} == {"192.0.2.10:25"}
    daemon.reports.destination_connected(daemon.story(), 0.0)
    (event,) = daemon.events()
    assert (event["event"], event["level"]) == ("destination-recovered", "info")
    assert (event["destination"], event["seconds"], event["failures"]) == ("192.0.2.10:25", 180.0, 180)
    daemon.reports.destination_connected(daemon.story(), 0.0)
    assert not daemon.events()
    daemon.reports.destination_failed("domain1", "192.0.2.10:25", "", "refused", None)
    (event,) = daemon.events()
    assert event["route"] == "domain1"
    assert "session" not in event


def test_a_name_that_has_no_address_is_down_until_it_has_one() -> None:
    daemon = Daemon()
    daemon.reports.destination_failed("domain1", "mx.example:25", "mx.example", "no such name", None)
    assert daemon.events()[0]["destination"] == "mx.example:25"
    (row,) = daemon.reports.snapshot()["destinations"]
    assert (row["name"], row["address"], row["up"]) == ("mx.example", "", False)
    daemon.time += 5
    daemon.reports.destination_connected(daemon.story(name="mx.example"), 0.0)
    assert [(event["event"], event["seconds"]) for event in daemon.events()] == [("destination-recovered", 5.0)]
    (row,) = daemon.reports.snapshot()["destinations"]
    assert (row["address"], row["up"]) == ("192.0.2.10:25", True)


def test_refusals_are_session_ends_up_to_twenty_a_minute_then_counted() -> None:
    daemon = Daemon()
    for number in range(100):
        story = daemon.story("203.0.113.9", destination="")
        story.ended("refused", "proxy", "not in allow_clients")
        daemon.time += 0.1
        daemon.reports.refused(story, "not_allowed")
        assert number < 20 or len(daemon.lines) == 20
    events = daemon.events()
    assert {(event["event"], event["outcome"], event["by"], event["level"]) for event in events} == {
        ("session-end", "refused", "proxy", "warning")
    }
    assert events[0]["reason"] == "not in allow_clients"
    assert [event["session"] for event in events[:2]] == ["t-1", "t-2"]
    daemon.reports.tick()
    assert not daemon.lines
    daemon.time += 60
    daemon.reports.tick()
    (line,) = daemon.events()
    assert line == {"level": "warning", "event": "refused", "route": "domain1", "client": "203.0.113.9", "count": 80}
    route = daemon.metrics.route("domain1")
    assert route.outcomes == {("refused", "none"): 100}
    assert route.refusals == {"not_allowed": 100}
    daemon.reports.refused(ended(daemon.story("203.0.113.9"), "refused", "proxy"), "not_allowed")
    assert daemon.events()[0]["event"] == "session-end", "a new minute"


def test_untold_refusals_are_told_at_the_end() -> None:
    daemon = Daemon()
    for _ in range(25):
        daemon.reports.refused(ended(daemon.story("203.0.113.9"), "refused", "proxy"), "draining")
    daemon.events()
    daemon.reports.flush()
    (line,) = daemon.events()
    assert (line["event"], line["count"]) == ("refused", 5)
    daemon.reports.flush()
    assert not daemon.lines


@pytest.mark.parametrize(
    ("offered", "answers", "outcome", "result"),
    [
        (False, [], "completed", "not_offered"), (True, [], "completed", "not_used"),
        (True, ["accepted"], "completed", "accepted"), (True, ["refused", "refused"], "completed", "refused"),
        (True, ["refused", "accepted"], "completed", "refused"), (True, ["accepted"], "tls-failed", "failed"),
        (True, ["accepted", "injection"], "injection", "injection"), (False, [], "unreachable", "not_offered"),
    ],
)  # fmt: skip
def test_starttls_is_counted_once_a_session(offered: bool, answers: list[str], outcome: str, result: str) -> None:
    daemon = Daemon()
    story = daemon.story()
    daemon.reports.session_started(story)
    keywords = frozenset([b"STARTTLS"] if offered else [])
    daemon.reports.ehlo_replied(story, replace(reply_of(MENDED), keywords=keywords), 0.0, "clear")
    daemon.reports.ehlo_replied(story, reply_of(MENDED), 0.0, "tls")
    for answer in answers:
        daemon.reports.starttls_answered(story, answer)
    daemon.reports.session_ended(ended(story, outcome), 1.0)
    assert daemon.metrics.route("domain1").starttls == {result: 1}


def test_bytes_are_counted_while_they_flow_and_not_twice() -> None:
    daemon = Daemon()
    story = daemon.story()
    route = daemon.metrics.route("domain1")
    daemon.reports.session_started(story)
    daemon.reports.bytes_flowed(story, 1000, 10)
    daemon.reports.bytes_flowed(story, 5000, 10)
    assert (route.from_client, route.from_server) == (5000, 10)
    story.bytes_from_client, story.bytes_from_server = 6000, 20
    daemon.reports.session_ended(ended(story), 1.0)
    assert (route.from_client, route.from_server) == (6000, 20)
    daemon.reports.bytes_flowed(story, 7000, 30)
    assert (route.from_client, route.from_server) == (6000, 20), "it is over"


def test_slow_turns_are_warnings() -> None:
    daemon = Daemon()
    for _ in range(30):
        daemon.reports.slow_turn("session of route domain1", 0.25)
    events = daemon.events()
    assert len(events) == 20
    assert events[0] == {
        "level": "warning", "event": "slow-turn", "owner": "session of route domain1", "seconds": 0.25,
    }  # fmt: skip


def test_a_certificate_that_expires_within_fourteen_days_is_told_once_a_day() -> None:
    daemon = Daemon()
    day = 24 * 3600
    not_after = daemon.time + 15 * day
    told = []
    for _ in range(17 * 4):
        daemon.reports.certificate_seen("domain1", "server", "mx.example", not_after)
        told += daemon.events()
        daemon.time += day / 4
    assert [event["event"] for event in told].count("certificate-expires") == 14
    assert told[0]["days"] == 14
    assert told[0]["level"] == "warning"
    assert told[-1]["event"] == "certificate-expired"


def test_a_notice_has_the_sessions_fields_and_its_own() -> None:
    daemon = Daemon("debug")
    daemon.reports.noticed(daemon.story(), "xclient-offered", "warning", {"remedy": "r" * 400, "banner": b"b" * 400})
    daemon.reports.noticed(None, "resolver", "debug", {"name": "mx"})
    first, second = daemon.events()
    assert first["session"] == "t-1"
    assert first["remedy"] == "r" * 400
    assert first["banner"] == "b" * 200
    assert first["cut"] == ["banner"]
    assert second == {"level": "debug", "event": "resolver", "name": "mx"}


def test_the_end_of_a_session_costs_less_than_fifteen_microseconds() -> None:
    daemon = Daemon(format="text")
    daemon.reports.log.write = lambda line: None
    story = ended(daemon.story(name="mx.domain1.com"))
    story.sni = "mx.domain1.com"
    story.repaired = ("greeting-not-first",)
    story.ehlo_name = "esa.com"
    story.source_port = 50123
    best = 1.0
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(200):
            daemon.reports.session_ended(story, 1.0)
        best = min(best, (time.perf_counter() - begun) / 200)
    assert best < 15e-6


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"outcome": "completed", "ehlo": "good"}, "served"),
        ({"outcome": "client-reset", "ehlo": "repaired"}, "served"),
        ({"outcome": "completed", "ehlo_name": "helo.example"}, "served"),  # HELO alone
        ({"outcome": "completed", "tls": "passthrough"}, "served"),  # TLS from the first byte
        ({"outcome": "completed"}, "unserved"),  # QUIT, perhaps behind a 554
        ({"outcome": "client-closed"}, "unserved"),  # a port scan
        ({"outcome": "server-closed"}, "failed"),  # turned away
        ({"outcome": "server-closed", "ehlo": "refused"}, "failed"),
        ({"outcome": "tls-failed", "ehlo": "good"}, "failed"),
    ],
)
def test_who_was_served_is_told_from_who_only_came(facts: dict[str, str], told: str) -> None:
    daemon = Daemon()
    story = daemon.story()
    daemon.reports.session_started(story)
    for name, value in facts.items():
        setattr(story, name, value)
    daemon.reports.session_ended(story, 1.0)
    counts = daemon.reports.metrics.route(story.route)
    times = {"served": counts.served_at, "failed": counts.failed_at, "unserved": counts.unserved_at}
    assert {name for name, at in times.items() if at} == {told}
