"""How the page looks: in light and in dark, on wide and on narrow screens, and on paper."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #586174; --page: #f3f5f8; --card: #ffffff; --line: #dde2ea;
  --c0: #1f6fb4; --c1: #d1570b; --c2: #1a7f37; --c3: #8250df; --c4: #bf3989; --c5: #6b7280; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8f0; --soft: #9aa4b6; --page: #12161d; --card: #1b212b;
  --line: #323b49; --c0: #6cb6ff; --c1: #f69d50; --c2: #57c26b; --c3: #b083f0; --c4: #e275ad; --c5: #98a2b3; --warn: #3a3115; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, "DejaVu Sans", Arial, sans-serif; }
main { max-width: 1360px; margin: 0 auto; padding: 20px; }
h1 { font-size: 26px; margin: 4px 0; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 28px 0 10px; }
h3 { font-size: 15px; margin: 0 0 6px; overflow-wrap: anywhere; }
p { margin: 6px 0; overflow-wrap: anywhere; }
.soft, .name { color: var(--soft); }
.grid2 { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; }
.card, figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px; margin: 0;
  min-width: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 14px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; min-width: 0; }
.tile { overflow-wrap: anywhere; } .tile b { display: block; font-size: 21px; }
svg { display: block; width: 100%; max-width: 900px; height: auto; }
svg text { font: 12px system-ui, "DejaVu Sans", Arial, sans-serif; fill: var(--ink); }
svg text.name { fill: var(--soft); }
svg .grid { stroke: var(--line); } svg .mark { stroke: var(--soft); }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; } .curve.dashed { stroke-dasharray: 6 4; }
.edge { fill: none; stroke: var(--soft); stroke-width: 1.5; } .edge.dashed { stroke-dasharray: 4 3; }
.band { opacity: .2; }
.s0 { stroke: var(--c0); } .s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); } .s3 { stroke: var(--c3); }
.s4 { stroke: var(--c4); } .s5 { stroke: var(--c5); }
.f0 { fill: var(--c0); } .f1 { fill: var(--c1); } .f2 { fill: var(--c2); } .f3 { fill: var(--c3); } .f4 { fill: var(--c4); }
.f5 { fill: var(--c5); }
.b0 { background: var(--c0); } .b1 { background: var(--c1); } .b2 { background: var(--c2); } .b3 { background: var(--c3); }
.b4 { background: var(--c4); } .b5 { background: var(--c5); }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; list-style: none; margin: 0 0 6px; padding: 0; font-size: 13px; }
.legend li { overflow-wrap: anywhere; min-width: 0; }
.key { display: inline-block; width: 16px; height: 4px; border-radius: 2px; margin-right: 6px; vertical-align: middle; }
.key.dashed { width: 7px; height: 7px; border-radius: 50%; }
.card img { display: block; width: 100%; max-width: 900px; }
code { white-space: nowrap; }
.narrow { display: none; }
dl { display: grid; grid-template-columns: minmax(0, 11em) minmax(0, 1fr); gap: 2px 14px; margin: 0; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: 14px; table-layout: fixed; }
th, td { text-align: left; padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere;
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; } td.number, th.number { text-align: right; }
th:first-child { width: 46%; }
.row { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 6fr) 9.5em; gap: 0 12px; align-items: center;
  font-size: 13px; padding: 2.5px 0; }
.row .label { overflow-wrap: anywhere; } .row .figure { text-align: right; white-space: nowrap; }
.bar { display: flex; height: 13px; background: var(--line); border-radius: 3px; overflow: hidden; min-width: 0; }
.bar i { display: block; height: 100%; }
.warnings li { background: var(--warn); border-radius: 6px; padding: 6px 10px; margin: 6px 0; overflow-wrap: anywhere; }
.warnings { padding: 0; margin: 0; list-style: none; }
pre { margin: 8px 0 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.4 ui-monospace, "DejaVu Sans Mono", monospace; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--soft); }
@media (max-width: 1000px) { .grid2 { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 560px) {
  main { padding: 12px; } h1 { font-size: 22px; } .wide { display: none; } .narrow { display: block; }
  .card, figure { padding: 11px; } .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; }
  .row { grid-template-columns: minmax(0, 1fr) auto; } .row .label { grid-area: 1 / 1; } .row .figure { grid-area: 1 / 2; }
  .row .bar { grid-area: 2 / 1 / 3 / 3; margin-top: 2px; } dl { grid-template-columns: minmax(0, 1fr); }
  dd { margin-bottom: 6px; }
  .tile b { font-size: 18px; }
}
@media print { body { background: #fff; } .card, figure, .tile { break-inside: avoid; } }
"""
