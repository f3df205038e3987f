"""The status page: what it says, that nothing of a peer's gets out of its text, and how it looks in a browser."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from proxy.daemon.admin import page as status_page
from proxy.daemon.admin.health import NO_CAUSES, Health, health_of
from proxy.daemon.admin.page import render, span
from proxy.daemon.admin.plot import plot, round_up
from proxy.daemon.admin.status import CertificateShown, StatusBoard
from tests import chromium
from tests.daemon.daemons import Daemon, reply_of
from tests.daemon.show_admin import HOSTILE, board

NOW = 1700000000.0


def page_of(kind: str) -> str:
    shown, _daemon = board(kind)
    return render(shown.status(), shown.plot, shown.certificates, shown.causes, NOW)


class Reader(HTMLParser):
    """Checks that tags nest, and gathers tags, attributes and text."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "hr", "rect", "path"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


@pytest.mark.parametrize("kind", ["busy", "quiet", "draining"])
def test_the_page_is_well_formed_and_needs_nothing_from_anywhere(kind: str) -> None:
    page = Reader(page_of(kind))
    assert not page.tags & {"script", "img", "link", "iframe", "form", "object", "embed", "input", "base"}
    for _tag, name, value in page.attributes:
        assert not name.startswith("on")
        assert name != "style", "the policy would block it"
        if name in ("href", "src"):
            assert value in ("/status.json", "/metrics", "/readyz")


def test_the_page_refreshes_by_itself() -> None:
    assert re.search(r'<meta http-equiv="refresh" content="\d+">', page_of("quiet"))


def test_a_person_finds_what_there_is_to_know() -> None:
    text = Reader(page_of("busy")).text
    for said in (
        "1 of 3 routes serve nobody", "4 workers", "3 d 4 h", "Sessions open", "3 of 4", "domain1", "0.0.0.0:25",
        "[::]:25", "mx.domain1.com", "192.0.2.10:25", "greeting-not-first", "250-STARTTLS", "down", "for 1 h 23 min",
        "9 days left", "61 days left", "no findings", "of them repaired", "of 1,120", "of 1,000", "with TLS",
        "bridge: TLS ends here", "only looked at (observe)", "TLS passes through", "connection refused",
        "29 not allowed", "8 proxy header", "every client was refused, failed, or was turned away since the start",
        "but not all destinations",
    ):  # fmt: skip
        assert said in text, said
    assert "draining" in Reader(page_of("draining")).text
    assert "not tried yet" in Reader(page_of("quiet")).text


def test_the_repair_is_shown_line_by_line() -> None:
    page = page_of("busy")
    assert "<del>250-mail.domain1.com</del>" in page
    assert "<ins>250-mail.domain1.com</ins>" in page
    assert "<span>250-STARTTLS</span>" in page


def test_text_of_a_peer_stays_text() -> None:
    page = page_of("busy")
    assert HOSTILE not in page
    assert "<script" not in page
    assert "onerror" in Reader(page).text


@pytest.mark.parametrize(
    "where", ["name", "address", "finding", "line", "route", "listen", "certificate", "version", "reason"]
)
def test_every_text_is_escaped_wherever_it_stands(where: str) -> None:
    evil = "<b>\"'&"

    def at(place: str, usual: str) -> str:
        return evil if place == where else usual

    destination = {
        "name": at("name", "mx"),
        "address": at("address", "192.0.2.1:25"),
        "up": False,
        "since": "2023-11-14T22:13:20Z",
        "reason": at("reason", "refused"),
        "findings": [at("finding", "greeting-empty")],
        "before": [at("line", "250-")],
        "after": ["250-x"],
        "certificate_not_after": None,
    }
    route = {
        "name": at("route", "r"),
        "listen": [at("listen", "a:1")],
        "mode": "passthrough",
        "sessions_open": 0,
        "sessions_limit": 10,
        "sessions_total": 0,
        "refused_total": 0,
        "failed_total": 0,
        "tls_total": 0,
        "destinations": [destination],
    }
    status = {
        "version": at("version", "1"),
        "started": "2023-11-14T22:13:20Z",
        "workers": 1,
        "draining": False,
        "routes": [route],
    }
    page = render(status, [], [CertificateShown("r", "server", at("certificate", "mx"), NOW)], {}, NOW)
    assert "<b>" not in page
    assert evil in Reader(page).text


def test_what_is_down_comes_first_and_only_so_many_replies_are_shown_at_length() -> None:
    daemon = Daemon()
    for number in range(100):
        story = daemon.story(destination=f"192.0.2.{number}:25")
        daemon.reports.destination_connected(story, 0.0)
        reply = reply_of(("250-STARTTLS", "250 mx"), ("250-mx", "250 STARTTLS"), ("greeting-not-first", True))
        daemon.reports.ehlo_replied(story, reply, 0.0, "clear")
    daemon.reports.destination_failed("domain1", "198.51.100.1:25", "", "refused", None)
    shown = StatusBoard("1", NOW, lambda: [daemon.reports.snapshot()], lambda: NOW)
    shown.routes = board("quiet")[0].routes
    page = render(shown.status(), shown.plot, [], shown.causes, NOW)
    assert page.count("as the server sent it") == status_page.MAX_AT_LENGTH
    text = Reader(page).text
    assert text.index("198.51.100.1:25") < text.index("192.0.2.0:25")
    assert "192.0.2.99:25" in text
    assert "1 down" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0.4, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (3661, "1 h 1 min"),
     (86400, "1 d"), (90061, "1 d 1 h"), (86460, "1 d"), (86400 * 400, "400 d")],
)  # fmt: skip
def test_lengths_of_time_are_short(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("most", "top"), [(0, 4), (4, 4), (5, 6), (9, 10), (59, 60), (61, 80), (101, 200), (810, 1000)]
)
def test_the_scale_ends_at_a_round_number(most: int, top: int) -> None:
    assert round_up(most) == top


def test_the_plot_has_a_bar_for_each_minute_with_sessions_that_fits_its_frame() -> None:
    minutes = [[60 * number, number * 3, number] for number in range(60)]
    drawn = plot(minutes)
    bars = re.findall(r'class="(\w+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', drawn)
    assert [kind for kind, *_ in bars].count("sessions") == 59
    for _kind, left, above, width, height in bars:
        assert float(left) + float(width) <= 600
        assert float(above) + float(height) == pytest.approx(100, abs=0.02)
    assert "00:59 UTC: 177 sessions, 59 repaired" in drawn


def test_an_hour_without_sessions_says_so() -> None:
    assert "No session has ended" in plot([[60 * number, 0, 0] for number in range(60)])


ROUTE = {"listen": ["a:1"], "sessions_open": 0, "sessions_limit": 10, "destinations": [{"up": True}]}
LONG_AGO = NOW - 2 * 3600


@pytest.mark.parametrize(
    ("route", "causes", "draining", "kind", "word"),
    [
        ({}, {"served_at": NOW - 5}, False, "good", "serving"),
        ({}, {"served_at": NOW - 5, "failed_at": NOW, "failed_in_row": 4}, False, "good", "serving"),
        ({}, {"served_at": LONG_AGO}, False, "good", "serving"),
        ({}, {}, False, "quiet", "no session yet"),
        ({}, {"served_at": NOW}, True, "warn", "draining"),
        ({"listen": []}, {"served_at": NOW}, False, "bad", "serves nobody"),
        ({"destinations": [{"up": False}, {"up": None}]}, {"served_at": NOW}, False, "bad", "serves nobody"),
        ({"destinations": [{"up": False}, {"up": True}]}, {"served_at": NOW}, False, "warn", "serving"),
        ({"sessions_open": 10}, {"served_at": NOW}, False, "bad", "full"),
        ({"sessions_open": 9}, {"served_at": NOW}, False, "warn", "nearly full"),
        ({}, {"failed_at": NOW}, False, "bad", "serves nobody"),
        ({}, {"served_at": LONG_AGO, "failed_at": NOW}, False, "bad", "serves nobody"),
        ({}, {"served_at": NOW - 5, "failed_at": NOW, "failed_in_row": 5}, False, "warn", "failing"),
        ({}, {"unserved_at": NOW}, False, "quiet", "no mail"),
        ({}, {"served_at": LONG_AGO, "unserved_at": NOW}, False, "quiet", "no mail"),
        ({}, {"served_at": NOW - 5, "unserved_at": NOW}, False, "good", "serving"),
    ],
)
def test_nothing_is_green_that_serves_nobody(
    route: dict[str, object], causes: dict[str, float], draining: bool, kind: str, word: str
) -> None:
    how = health_of({**ROUTE, **route}, replace(NO_CAUSES, **causes), draining=draining, now=NOW)  # type: ignore[arg-type]  # a table's
    assert (how.kind, how.word) == (kind, word)


@pytest.mark.parametrize(
    ("kind", "word", "serves"),
    [
        ("good", "serving", True),
        ("warn", "serving", True),
        ("warn", "draining", False),
        ("bad", "full", False),
        ("quiet", "no mail", False),
    ],
)
def test_a_destination_is_green_only_where_its_route_serves(kind: str, word: str, serves: bool) -> None:
    assert Health(kind, word).serves is serves


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Browser]:
    path = chromium.find()
    if path is None:
        pytest.skip("no chromium here: the status page was not looked at (apt-get install chromium)")
    with chromium.Browser(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    served = subprocess.Popen(
        [sys.executable, "-m", "tests.daemon.show_admin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert served.stdin is not None
    assert served.stdout is not None
    word, where = served.stdout.readline().split()
    assert word == "listening"
    yield where
    served.stdin.close()
    served.wait(10)
    served.stdout.close()


CONTRAST = """
(() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255).map(
    v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!c.endsWith(', 0)')) return c; } return 'rgb(255, 255, 255)'; };
  const weak = [];
  for (const e of document.body.querySelectorAll('*')) {
    if (e.closest('svg') || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) weak.push(`${e.tagName}.${e.className} ${ratio.toFixed(2)} ${e.textContent.slice(0, 30)}`);
  }
  return weak;
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_the_page_fits_reads_well_and_asks_for_nothing(
    browser: chromium.Browser, address: str, width: int, scheme: str
) -> None:
    browser.show(f"http://{address}/", width, scheme)
    assert browser.evaluate("document.title") == "1 route not serving · ehlo-proxy"
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    outside = f"!e.closest('pre') && e.getBoundingClientRect().right > {width}"
    wide = f"[...document.querySelectorAll('main *')].filter(e => {outside})"
    assert browser.evaluate(f"{wide}.map(e => e.outerHTML.slice(0, 80))") == []
    assert browser.evaluate(CONTRAST) == [], "contrast under 4.5:1 (WCAG AA)"
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 29)"
    assert dark == (scheme == "dark"), "and the style sheet was allowed by its hash"
    assert browser.evaluate("document.querySelectorAll('rect').length") > 60
    assert browser.evaluate("document.querySelector('svg').getBoundingClientRect().height") > 100
    smallest = (
        "Math.min(...[...document.body.querySelectorAll('*')].map(e => parseFloat(getComputedStyle(e).fontSize)))"
    )
    assert browser.evaluate(smallest) >= 12
    asked = {
        told["params"]["request"]["url"] for told in browser.events if told["method"] == "Network.requestWillBeSent"
    }
    assert asked <= {f"http://{address}/", f"http://{address}/favicon.ico"}
    complaints = [told for told in browser.events if told["method"] == "Log.entryAdded"]
    assert not [told for told in complaints if "favicon" not in str(told)]


def test_in_a_browser_that_runs_scripts_none_of_a_peers_runs(browser: chromium.Browser, address: str) -> None:
    browser.show(f"http://{address}/", 1280, "light", script=True)
    assert browser.evaluate("document.title") == "1 route not serving · ehlo-proxy"
    assert browser.evaluate("document.scripts.length + document.images.length") == 0
    injected = "(() => { const s = document.createElement('script'); s.text = 'window.ran = true';"
    assert browser.evaluate(f"{injected} document.body.append(s); return window.ran === undefined; }})()") is True


def test_in_a_browser_the_page_comes_again_by_itself(browser: chromium.Browser, address: str) -> None:
    browser.show(f"http://{address}/", 390, "light")
    first = browser.evaluate("performance.timeOrigin")
    browser.events.clear()
    browser.wait_for("Page.loadEventFired")
    assert 8_000 < browser.evaluate("performance.timeOrigin") - first < 15_000  # ms between the two pages
