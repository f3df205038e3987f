"""The status page's plot: sessions and repairs of the last hour, a bar a minute, as inline SVG.

Only the bars are SVG; the words beside them are HTML, so that they keep their size when a phone squeezes the bars.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape

_HEIGHT = 100.0
_STEP = 10
_WIDTH = 8


def plot(minutes: Sequence[Sequence[int]]) -> str:
    """HTML of the plot of rows `[Unix time of the minute, sessions, repaired]`, oldest first."""
    most = max((row[1] for row in minutes), default=0)
    top = round_up(most)
    sessions = sum(row[1] for row in minutes)
    repaired = sum(row[2] for row in minutes)
    told = f"In the last hour {sessions:,} sessions, {repaired:,} of them repaired; at most {most:,} in a minute."
    if not sessions:
        told = "No session has ended in the last hour."
    bars: list[str] = []
    for place, (minute, count, mended) in enumerate(minutes):
        if not count:
            continue
        clock = time.strftime("%H:%M UTC", time.gmtime(minute))
        title = f"{clock}: {count:,} session{'' if count == 1 else 's'}, {mended:,} repaired"
        left = place * _STEP + (_STEP - _WIDTH) / 2
        bars.append(f"<g><title>{escape(title)}</title>{_bar('sessions', left, count, top)}")
        bars.append(_bar("repaired", left, mended, top) if mended else "")
        bars.append("</g>")
    span = len(minutes) * _STEP or _STEP
    lines = "".join(f'<path d="M0 {y} H{span}"/>' for y in ("0.5", "50", "99.5"))
    return (
        '<section class="plot">\n<h2>The last hour</h2>\n'
        '<p class="legend"><span class="key sessions"></span>sessions a minute '
        '<span class="key repaired"></span>of them repaired</p>\n'
        f'<div class="chart"><div class="scale"><span>{top:,}</span><span>{_half(top)}</span><span>0</span></div>\n'
        f'<svg role="img" aria-label="{escape(told)}" viewBox="0 0 {span} {_HEIGHT:g}" preserveAspectRatio="none">'
        f"{lines}{''.join(bars)}</svg></div>\n"
        '<p class="axis"><span>60 min ago</span><span>30 min ago</span><span>now</span></p>\n'
        f'<p class="about">{escape(told)}</p>\n</section>\n'
    )


def _bar(kind: str, left: float, count: int, top: int) -> str:
    height = max(1.0, _HEIGHT * count / top)  # one session among thousands is still seen
    return f'<rect class="{kind}" x="{left:g}" y="{_HEIGHT - height:.2f}" width="{_WIDTH}" height="{height:.2f}"/>'


def _half(top: int) -> str:
    return f"{top / 2:,.0f}" if top % 2 == 0 else f"{top / 2:,.1f}"


def round_up(most: int) -> int:
    """The top of the scale: 1, 2, 4, 6 or 8 with noughts, at least 4, so that a quiet hour looks quiet."""
    if most <= 4:
        return 4
    power = 1
    while True:
        for step in (1, 2, 4, 6, 8):
            if step * power >= most:
                return step * power
        power *= 10
