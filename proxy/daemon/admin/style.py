"""The status page's style sheet, and the hash by which its Content-Security-Policy allows it."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root {
  --ground: #f6f7f9; --card: #ffffff; --text: #1b2230; --quiet: #5a6577; --line: #d9dee6;
  --good: #116b3a; --good-ground: #dcf3e4; --bad: #a81717; --bad-ground: #fde3e1;
  --warn: #7a4b00; --warn-ground: #fdeccb; --quiet-ground: #e8ebf0;
  --sessions: #9db4d6; --repaired: #b45309;
  --gone: #fde3e1; --new: #dcf3e4; --code: #f0f2f6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12161d; --card: #1b212b; --text: #e6eaf1; --quiet: #9aa6b8; --line: #303948;
    --good: #7fdba4; --good-ground: #14392a; --bad: #ff9d94; --bad-ground: #4a1d1d;
    --warn: #f5c469; --warn-ground: #43320f; --quiet-ground: #2a3240;
    --sessions: #4d678f; --repaired: #f59e42;
    --gone: #46211f; --new: #153b2a; --code: #141921;
  }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 1.25rem; max-width: 76rem; background: var(--ground); color: var(--text);
  font: 0.9375rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
h1, h2, h3, p, dl, dd, ul, figure, pre { margin: 0; }
h1 { font-size: 1.375rem; letter-spacing: -0.01em; }
h2 { font-size: 1.0625rem; }
h3 { font-size: 0.9375rem; overflow-wrap: anywhere; }
a { color: inherit; }
code, pre {
  font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 0.8125rem;
}
h3 code { color: var(--quiet); font-weight: 400; }
.about { color: var(--quiet); font-size: 0.8125rem; }
.about code { overflow-wrap: anywhere; }
.about strong { color: var(--text); }
header { display: flex; flex-wrap: wrap; align-items: center; gap: 0.25rem 0.75rem; margin-bottom: 1rem; }
header .about { flex: 1 1 24rem; text-align: right; }
main { display: grid; gap: 1rem; }
main > * { min-width: 0; }
section, .figures > div {
  background: var(--card); border: 1px solid var(--line); border-radius: 0.5rem; padding: 0.875rem 1rem;
}
.pill {
  display: inline-block; padding: 0 0.625rem; border-radius: 1rem; font-size: 0.8125rem; font-weight: 600;
  background: var(--quiet-ground); color: var(--quiet);
}
.pill.good { background: var(--good-ground); color: var(--good); }
.pill.bad { background: var(--bad-ground); color: var(--bad); }
.pill.warn { background: var(--warn-ground); color: var(--warn); }
dd.bad, span.bad:not(.pill) { color: var(--bad); font-weight: 600; }
dd.warn, span.warn:not(.pill) { color: var(--warn); font-weight: 600; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 0.75rem; }
.figures dt { color: var(--quiet); font-size: 0.8125rem; }
.figures dd { font-size: 1.5rem; font-weight: 600; line-height: 1.25; font-variant-numeric: tabular-nums; }
.figures small { display: block; font-size: 0.8125rem; font-weight: 400; color: var(--quiet); }
.legend { font-size: 0.8125rem; color: var(--quiet); }
.key { display: inline-block; width: 0.75rem; height: 0.75rem; border-radius: 2px; margin: 0 0.375rem -1px 0; }
.repaired.key { background: var(--repaired); margin-left: 0.75rem; }
.sessions.key { background: var(--sessions); }
.chart { display: flex; gap: 0.5rem; margin-top: 0.5rem; }
.scale {
  display: flex; flex-direction: column; justify-content: space-between; min-width: 2.5rem; text-align: right;
  color: var(--quiet); font-size: 0.75rem; line-height: 1; font-variant-numeric: tabular-nums;
}
.chart svg { display: block; flex: 1; min-width: 0; height: 8rem; overflow: visible; }
.chart path { stroke: var(--line); fill: none; vector-effect: non-scaling-stroke; }
rect.sessions { fill: var(--sessions); }
rect.repaired { fill: var(--repaired); }
g:hover rect { filter: brightness(1.15); }
.axis {
  display: flex; justify-content: space-between; margin: 0.25rem 0 0.25rem 3rem; color: var(--quiet);
  font-size: 0.75rem;
}
article {
  border-top: 1px solid var(--line); margin-top: 0.875rem; padding-top: 0.875rem; display: grid; gap: 0.375rem;
}
article > * { min-width: 0; }
.who { display: flex; flex-wrap: wrap; gap: 0.125rem 0.75rem; align-items: center; }
.facts { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; margin-top: 0.5rem; font-size: 0.875rem; }
.facts > div { display: flex; gap: 0.375rem; min-width: 0; }
.facts dt { color: var(--quiet); }
.facts dd { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.why { font-size: 0.875rem; overflow-wrap: anywhere; }
.why.bad { color: var(--bad); }
.why.warn { color: var(--warn); }
.findings { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 0.375rem; }
.findings li {
  background: var(--warn-ground); color: var(--warn); border-radius: 0.25rem; padding: 0 0.5rem; font-weight: 600;
  font-size: 0.8125rem;
}
.replies { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 0.75rem; }
.replies > * { min-width: 0; }
figcaption, summary { color: var(--quiet); font-size: 0.8125rem; }
summary { cursor: pointer; }
pre {
  background: var(--code); border: 1px solid var(--line); border-radius: 0.375rem; padding: 0.5rem 0;
  margin-top: 0.25rem; overflow-x: auto; line-height: 1.45; max-height: 28rem;
}
pre > * {
  display: inline-block; min-width: 100%; padding: 0 0.75rem 0 1.75rem; text-decoration: none; position: relative;
}
pre > del { background: var(--gone); }
pre > ins { background: var(--new); }
pre > del::before, pre > ins::before { position: absolute; left: 0.75rem; font-weight: 700; }
pre > del::before { content: "\\2212"; color: var(--bad); }
pre > ins::before { content: "+"; color: var(--good); }
.certificates { list-style: none; padding: 0; }
.certificates li { display: flex; flex-wrap: wrap; gap: 0 0.75rem; padding: 0.25rem 0; align-items: baseline; }
.certificates li strong { overflow-wrap: anywhere; }
footer { margin-top: 1rem; color: var(--quiet); font-size: 0.8125rem; }
@media (max-width: 40rem) {
  body { padding: 0.75rem; }
  header .about { text-align: left; }
  .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0.5rem; }
  .figures > div:last-child:nth-child(odd) { grid-column: 1 / -1; }
  .figures dd { font-size: 1.25rem; }
  section, .figures > div { padding: 0.75rem; }
}
"""

STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode("utf-8")).digest()).decode("ascii")
