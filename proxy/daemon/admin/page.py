"""The status page: what an operator leaves open, made on the server, whole without JavaScript.

`render` turns `/status.json`'s document, the plot's sixty minutes, the certificates and the causes into HTML.  It
refreshes by itself, follows the browser's light or dark scheme and is usable on a phone.  Nothing comes from outside:
the style sheet is inline and allowed by its hash, the plot is inline SVG.

What a person looks for comes first: routes that serve nobody, and how each does (`proxy.daemon.admin.health`; green is
only what serves somebody), what was refused or failed and why, destinations that are down, then those with findings.
Replies are shown line by line with what the repair took (−) and gave (+); those without findings are folded.  Only so
many are shown at length, the others in one line each.

All text is escaped here, whoever wrote it; the style sheet itself is `proxy.daemon.admin.style`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from difflib import SequenceMatcher
from html import escape
from typing import Any

from proxy.daemon.admin.health import NO_CAUSES, Health, health_of
from proxy.daemon.admin.plot import plot
from proxy.daemon.admin.status import CertificateShown, RouteCauses
from proxy.daemon.admin.style import STYLE, STYLE_HASH
from proxy.daemon.log.values import utc

REFRESH = 10  # seconds
MAX_AT_LENGTH = 24  # destinations with their replies
MAX_CERTIFICATES = 50
_DAY = 24 * 3600.0
_ROUTE_ORDER = {"bad": 0, "warn": 1, "good": 2, "quiet": 2}  # and as configured
_PRE = '<pre tabindex="0">'  # a long line can be scrolled to with the keyboard

POLICY = (
    f"default-src 'none'; style-src '{STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
).encode("ascii")


def render(
    status: dict[str, Any],
    minutes: Sequence[Sequence[int]],
    certificates: Sequence[CertificateShown],
    causes: Mapping[str, RouteCauses],
    now: float,
) -> str:
    """The page as it is at `now` (Unix time)."""
    draining = status["draining"]
    states = {
        route["name"]: health_of(route, causes.get(route["name"], NO_CAUSES), draining=draining, now=now)
        for route in status["routes"]
    }
    bad = sum(1 for state in states.values() if state.kind == "bad")
    down = [one for route in status["routes"] for one in route["destinations"] if one["up"] is False]
    title = "draining" if draining else f"{_sessions_open(status)} open"
    if bad or down:
        title = f"{bad} route{'' if bad == 1 else 's'} not serving" if bad else f"{len(down)} down"
    budget = _Budget(MAX_AT_LENGTH)
    return "".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="refresh" content="{REFRESH}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="robots" content="noindex">\n<meta name="color-scheme" content="light dark">\n',
            f"<title>{escape(title)} · ehlo-proxy</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
            *_header(status, states.values(), now),
            "<main>\n",
            *_figures(status, minutes, certificates, now),
            plot(minutes),
            *(
                part
                for route in sorted(status["routes"], key=lambda route: _ROUTE_ORDER[states[route["name"]].kind])
                for part in _route(route, states[route["name"]], causes.get(route["name"], NO_CAUSES), budget, now)
            ),
            *_certificates(certificates, now),
            "</main>\n<footer><p>Also here: ",
            '<a href="/status.json">status.json</a>, <a href="/metrics">metrics</a>, ',
            '<a href="/readyz">readyz</a>. What a finding means: <code>ehlo-proxy explain ID</code></p></footer>\n',
            "</body>\n</html>\n",
        ]
    )


class _Budget:
    """How many replies are still shown at length."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


def _sessions_open(status: dict[str, Any]) -> int:
    return sum(route["sessions_open"] for route in status["routes"])


def _header(status: dict[str, Any], states: Collection[Health], now: float) -> Iterator[str]:
    state = _overall(status, states)
    workers = status["workers"]
    yield f'<header>\n<h1>ehlo-proxy</h1>\n<p class="pill {state[0]}">{state[1]}</p>\n<p class="about">version '
    yield f"{escape(status['version'])} · {workers} worker{'' if workers == 1 else 's'} · up for "
    yield f"{_ago(status['started'], now)} · as of {_time(utc(now))}, refreshed every {REFRESH} s</p>\n</header>\n"


def _overall(status: dict[str, Any], states: Collection[Health]) -> tuple[str, str]:
    if status["draining"]:
        return "warn", "draining"
    kinds = [state.kind for state in states]
    bad = kinds.count("bad")
    if bad:
        return "bad", "serves nobody" if bad == len(kinds) else f"{bad} of {len(kinds)} routes serve nobody"
    if "warn" in kinds:
        return "warn", "look below"
    return ("good", "serving") if "good" in kinds else ("quiet", "no session yet")


def _figures(
    status: dict[str, Any], minutes: Sequence[Sequence[int]], certificates: Sequence[CertificateShown], now: float
) -> Iterator[str]:
    sessions = sum(row[1] for row in minutes)
    repaired = sum(row[2] for row in minutes)
    destinations = [one for route in status["routes"] for one in route["destinations"]]
    tried = [one for one in destinations if one["up"] is not None]
    up = sum(1 for one in tried if one["up"])
    yield '<dl class="figures">\n'
    limit = sum(route["sessions_limit"] for route in status["routes"])
    yield _figure("Sessions open", f"{_sessions_open(status):,}", f"of {limit:,}" if limit else "")
    yield _figure("Sessions, last hour", f"{sessions:,}")
    share = f"{100 * repaired / sessions:.0f} % of sessions" if sessions else ""
    yield _figure("Repaired, last hour", f"{repaired:,}", share)
    if tried:
        yield _figure("Destinations up", f"{up} of {len(tried)}", kind="" if up == len(tried) else "bad")
    else:
        yield _figure("Destinations up", "–", "none tried yet")
    if certificates:
        kind, left = _left(certificates[0].not_after, now)
        yield _figure("Next certificate to expire", left, kind=kind)
    yield "</dl>\n"


def _figure(name: str, value: str, note: str = "", kind: str = "") -> str:
    more = f" <small>{escape(note)}</small>" if note else ""
    return f"<div><dt>{escape(name)}</dt><dd{_class(kind)}>{escape(value)}{more}</dd></div>\n"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _route(route: dict[str, Any], state: Health, causes: RouteCauses, budget: _Budget, now: float) -> Iterator[str]:
    listen = " ".join(f"<code>{escape(one)}</code>" for one in route["listen"]) or "nothing any more"
    yield f'<section class="route">\n<div class="who"><h2>{escape(route["name"])}</h2>\n'
    yield f'<p><span class="pill {state.kind}">{escape(state.word)}</span></p></div>\n'
    if state.why:
        yield f'<p class="why {state.kind}">{escape(state.why)}</p>\n'
    tls = {"passthrough": "TLS passes through", "bridge": "bridge: TLS ends here"}.get(route["mode"], route["mode"])
    repair = {
        "repair": "EHLO replies are repaired",
        "observe": "EHLO replies are only looked at (observe)",
        "off": "EHLO replies are left alone (off)",
    }.get(causes.repair, causes.repair)
    yield f'<p class="about">listens on {listen} · {escape(tls)} · {escape(repair)}</p>\n'
    yield '<dl class="facts">\n'
    limit = route["sessions_limit"]
    yield _fact("open", f"{route['sessions_open']:,}" + (f" of {limit:,}" if limit else ""))
    ended = route["sessions_total"]
    yield _fact("ended since the start", f"{ended:,}")
    sessions = ended - route["refused_total"]
    yield _fact("with TLS", f"{100 * route['tls_total'] / sessions:.0f} %" if sessions else "–")
    for name, total, why in (
        ("refused", route["refused_total"], {_words(rule): count for rule, count in causes.refused.items()}),
        ("failed", route["failed_total"], causes.failed),
    ):
        told = ", ".join(f"{count:,} {escape(cause)}" for cause, count in sorted(why.items(), key=lambda one: -one[1]))
        more = told if len(why) == 1 else f"{total:,}: {told}" if told else f"{total:,}"
        yield _fact(name, more, "warn" if total else "")
    yield "</dl>\n"
    for destination in sorted(route["destinations"], key=_urgency):
        yield from _destination(destination, budget, now, green=state.serves)
    yield "</section>\n"


def _words(rule: str) -> str:
    return rule.replace("_", " ")


def _fact(name: str, value: str, kind: str = "") -> str:
    return f"<div><dt>{escape(name)}</dt><dd{_class(kind)}>{value}</dd></div>\n"


def _urgency(destination: dict[str, Any]) -> tuple[int, int, str, str]:
    up = {False: 0, True: 1, None: 2}[destination["up"]]
    return (up, 0 if destination["findings"] else 1, destination["name"], destination["address"])


def _destination(destination: dict[str, Any], budget: _Budget, now: float, *, green: bool) -> Iterator[str]:
    kind, word = {True: ("good" if green else "quiet", "up"), False: ("bad", "down"), None: ("quiet", "not tried yet")}[
        destination["up"]
    ]
    since = f' <span class="about">for {_ago(destination["since"], now)}</span>' if destination["since"] else ""
    name, address = destination["name"], destination["address"]
    yield f'<article class="{kind}">\n<div class="who"><h3>{escape(name)}'
    if address and address != name:
        yield f" <code>{escape(address)}</code>"
    yield f'</h3>\n<p><span class="pill {kind}">{word}</span>{since}</p></div>\n'
    if destination["reason"]:
        yield f'<p class="why bad">{escape(destination["reason"])}</p>\n'
    if destination["certificate_not_after"]:
        expires = destination["certificate_not_after"]
        certificate_kind, left = _left(_seconds(expires), now)
        yield f'<p class="about">certificate: <span{_class(certificate_kind)}>{escape(left)}</span>, '
        yield f"until {_time(expires)}</p>\n"
    findings = destination["findings"]
    before, after = destination["before"], destination["after"]
    if findings:
        yield '<ul class="findings">' + "".join(f"<li>{escape(one)}</li>" for one in findings) + "</ul>\n"
    elif before:
        yield '<p class="about">no findings</p>\n'
    if before and budget.take():
        yield from _replies(before, after, folded=not findings)
    yield "</article>\n"


def _replies(before: Sequence[str], after: Sequence[str], folded: bool) -> Iterator[str]:
    if list(before) == list(after):
        text = "".join(f"<span>{escape(line)}</span>\n" for line in before)
        if folded:
            yield f"<details><summary>EHLO reply</summary>{_PRE}{text}</pre></details>\n"
        else:
            yield f'<div class="replies"><figure><figcaption>EHLO reply, unchanged</figcaption>{_PRE}{text}</pre>'
            yield "</figure></div>\n"
        return
    gone, new = _changes(before, after)
    yield '<div class="replies">\n'
    yield f"<figure><figcaption>EHLO reply, as the server sent it</figcaption>{_PRE}{gone}</pre></figure>\n"
    yield f"<figure><figcaption>as the client is shown it</figcaption>{_PRE}{new}</pre></figure>\n</div>\n"


def _changes(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    gone: list[str] = []
    new: list[str] = []
    # autojunk would call lines of long replies junk; replies are short.
    for what, start, end, new_start, new_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        old_lines, new_lines = before[start:end], after[new_start:new_end]
        if what == "equal":
            gone += [f"<span>{escape(line)}</span>\n" for line in old_lines]
            new += [f"<span>{escape(line)}</span>\n" for line in new_lines]
        else:
            gone += [f"<del>{escape(line)}</del>\n" for line in old_lines]
            new += [f"<ins>{escape(line)}</ins>\n" for line in new_lines]
    return "".join(gone), "".join(new)


def _certificates(certificates: Sequence[CertificateShown], now: float) -> Iterator[str]:
    if not certificates:
        return
    yield '<section>\n<h2>Certificates</h2>\n<ul class="certificates">\n'
    for certificate in certificates[:MAX_CERTIFICATES]:
        kind, left = _left(certificate.not_after, now)
        whose = "ours, shown to clients" if certificate.side == "client" else "the server's"
        name = certificate.subject or certificate.route
        yield f"<li><strong>{escape(name)}</strong> <span{_class(kind)}>{escape(left)}</span> "
        yield f'<span class="about">{whose}, route {escape(certificate.route)}, until '
        yield f"{_time(utc(certificate.not_after))}</span></li>\n"
    if len(certificates) > MAX_CERTIFICATES:
        yield f'<li class="about">and {len(certificates) - MAX_CERTIFICATES} that expire later</li>\n'
    yield "</ul>\n</section>\n"


def _left(not_after: float, now: float) -> tuple[str, str]:
    """How long a certificate is good, and how bad that is."""
    left = not_after - now
    days = int(left // _DAY)
    if left <= 0:
        return "bad", "expired"
    return "warn" if left <= 14 * _DAY else "", f"{days} day{'' if days == 1 else 's'} left"


def _seconds(rfc3339: str) -> float:
    return datetime.fromisoformat(rfc3339).timestamp()


def _time(rfc3339: str) -> str:
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(_seconds(rfc3339)))
    return f'<time datetime="{escape(rfc3339)}">{shown}</time>'


def _ago(rfc3339: str, now: float) -> str:
    return f'<time datetime="{escape(rfc3339)}" title="since {escape(rfc3339)}">{span(now - _seconds(rfc3339))}</time>'


def span(seconds: float) -> str:
    """A length of time in its two largest units: `3 d 4 h`, `12 min`, `5 s`."""
    left = max(0, int(seconds))
    parts: Iterable[tuple[int, str]] = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    shown: list[str] = []
    for size, unit in parts:
        count, left = divmod(left, size)
        if count and not (unit == "s" and shown):
            shown.append(f"{count} {unit}")
        elif shown:
            break
    return " ".join(shown[:2]) or "0 s"
