"""The admin site with a made-up service behind it, for the browser test and for looking at it:

    python -m tests.daemon.show_admin [busy|quiet|draining]

prints `listening 127.0.0.1:PORT` and serves until it is ended or its stdin closes.
"""

from __future__ import annotations

import random
import sys

from proxy.daemon.admin.site import build_site
from proxy.daemon.admin.status import RouteShown, StatusBoard
from tests.daemon.daemons import BROKEN, Daemon, ended, reply_of

DAY = 24 * 3600.0
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&"


def board(kind: str) -> tuple[StatusBoard, Daemon]:
    """A status with everything that the page can show, or, `quiet`, with nothing but its routes."""
    daemon = Daemon()
    now = daemon.time
    if kind != "quiet":
        _fill(daemon)
    shown = StatusBoard("1.0.0", now - 3.2 * DAY, lambda: [daemon.reports.snapshot()], lambda: daemon.time)
    shown.routes = (
        RouteShown("domain1", ("0.0.0.0:25", "[::]:25"), ("192.0.2.10:25",), max_sessions=1000),
        RouteShown("lab", ("127.0.0.1:2525",), ("mx:lab.example", "smtp.lab.example:25"), "bridge", "observe", 20),
        RouteShown("intern", ("10.0.0.7:25",), ("10.0.0.9:25",), max_sessions=100),
    )
    shown.workers = 1 if kind == "quiet" else 4
    shown.draining = kind == "draining"
    return shown, daemon


def _fill(daemon: Daemon) -> None:
    chance = random.Random(20)  # a picture, the same each time
    reports, end = daemon.reports, daemon.time
    broken = reply_of(
        (*BROKEN[:2], "250-8BITMIME", "250-PIPELINING", "250-HELP", "250 DELIVERBY 300"),
        (BROKEN[1], BROKEN[0], "250-8BITMIME", "250-PIPELINING", "250-HELP", "250 DELIVERBY 300"),
        ("greeting-not-first", True),
        ("keyword-invalid", False),
    )
    good = reply_of(
        ("250-mx2.domain1.com Hello", *(f"250-{word}" for word in ("SIZE 52428800", "STARTTLS")), "250 HELP")
    )
    hostile = reply_of(
        (f"250-{HOSTILE}", "250-STARTTLS", "250 X-" + "LONG" * 45),
        (f"250-mx.lab.example {HOSTILE}", "250-STARTTLS", "250 X-" + "LONG" * 45),
        ("greeting-missing", True),
        ("non-ascii", False),
    )
    for minute in range(60):
        daemon.time = end - (59 - minute) * 60
        for _ in range(chance.randrange(8, 60) if minute > 12 else chance.randrange(3)):
            where = chance.choice(["192.0.2.10:25", "192.0.2.10:25", "192.0.2.11:25"])
            story = daemon.story(
                destination=where, name="mx.domain1.com" if where.endswith("10:25") else "mx2.domain1.com"
            )
            reports.session_started(story)
            reports.destination_connected(story, 0.01)
            mended = where == "192.0.2.10:25" and chance.random() < 0.7
            reports.ehlo_replied(story, broken if where == "192.0.2.10:25" else good, 0.01, "clear")
            story.ehlo = "repaired" if mended else "good"
            story.tls = "passthrough" if chance.random() < 0.9 else "none"
            failure = chance.choice(["timeout", "tls-failed", "server-reset"]) if chance.random() < 0.01 else ""
            if chance.random() > 0.005:
                reports.session_ended(ended(story, failure or "completed"), 1.0)
    lab = daemon.story(destination="[2001:db8::25]:25", name="smtp.lab.example")
    lab.route = "lab"
    reports.session_started(lab)
    reports.destination_connected(lab, 0.2)
    reports.ehlo_replied(lab, hostile, 0.2, "clear")
    reports.tls_started(lab, "server", "TLSv1.3", "", "", "true", end + 9.5 * DAY)
    reports.session_ended(ended(lab), 3.0)
    for number in range(37):
        stranger = daemon.story(f"198.51.100.{number}", destination="")
        stranger.route = "intern"
        reports.refused(ended(stranger, "refused", "proxy"), "not_allowed" if number % 5 else "proxy_header")
    daemon.time = end - 5000
    reports.destination_failed("lab", "198.51.100.7:25", "mx1.lab.example", "connection refused", None)
    daemon.time = end
    reports.certificate_seen("domain1", "client", "/etc/ehlo-proxy/domain1.pem", end + 61.5 * DAY)
    daemon.lines.clear()


def main() -> None:
    from twisted.internet import reactor, stdio
    from twisted.internet.protocol import Protocol

    shown, daemon = board(sys.argv[1] if len(sys.argv) > 1 else "busy")
    port = reactor.listenTCP(0, build_site(shown, now=lambda: daemon.time, reactor=reactor), interface="127.0.0.1")
    print(f"listening 127.0.0.1:{port.getHost().port}", flush=True)

    class UntilClosed(Protocol):
        def connectionLost(self, reason: object = None) -> None:
            if reactor.running:
                reactor.stop()

    stdio.StandardIO(UntilClosed())
    reactor.run()


if __name__ == "__main__":
    main()
