"""The frame of the report's pages: style and skeleton. Nothing in them is fetched."""

from __future__ import annotations

from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""A browser that obeys it loads nothing from anywhere and runs no script."""

STYLE = """
:root { color-scheme: light dark; --paper: #f5f6f8; --card: #ffffff; --ink: #1c2330;
  --soft: #596476; --line: #dde1e8; --accent: #0072b2; --good: #00795a; --bad: #b3461e; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #11151c; --card: #1a202a; --ink: #e7eaf0; --soft: #9aa5b8;
    --line: #323b4a; --accent: #6cb8ea; --good: #4cc3a0; --bad: #f0916a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 20px 16px 56px; }
h1 { font-size: 1.55rem; line-height: 1.2; margin: 8px 0 4px; }
h2 { font-size: 1.15rem; margin: 40px 0 12px; padding-top: 14px;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 20px 0 8px; }
h4, h5, h6 { font-size: .95rem; margin: 16px 0 6px; }
p { margin: 8px 0; max-width: 70ch; }
.soft, figcaption, small { color: var(--soft); }
.status { border-left: 5px solid var(--good); background: var(--card); padding: 10px 14px;
  border-radius: 6px; margin: 16px 0; }
.status.bad { border-color: var(--bad); }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); }
.tile, figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .86rem; }
.figures { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); }
#sky { grid-column: 1 / -1; } #sky svg { max-width: 760px; margin: 0 auto; }
.figures.three { grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); }
figure { margin: 0; padding: 12px; display: flex; flex-direction: column; }
figure h3 { margin: 0 0 6px; }
figure svg, figure img { width: 100%; height: auto; display: block; }
figcaption { font-size: .86rem; margin-top: auto; padding-top: 8px; }
svg text { font-family: inherit; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; margin: 10px 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: 7px 12px; border-top: 1px solid var(--line);
  vertical-align: top; min-width: 5em; white-space: pre-line; }
th:first-child, td:first-child { min-width: 9em; }
.facts td:first-child { min-width: 0; white-space: nowrap; color: var(--soft); }
.facts td { overflow-wrap: anywhere; }
tr:first-child > * { border-top: 0; }
th { font-weight: 600; }
.bars { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 10px 14px; }
.bar { display: grid; gap: 2px 12px; align-items: center; padding: 4px 0;
  grid-template: "name track count" auto "note note note" auto / 12em 1fr 6em; }
.bar code { grid-area: name; } .bar .count { grid-area: count; text-align: right;
  font-variant-numeric: tabular-nums; }
.bar .track { grid-area: track; background: var(--line); border-radius: 3px; height: 12px; }
.bar .track i { display: block; height: 12px; border-radius: 3px; background: var(--accent); }
.bar p { grid-area: note; color: var(--soft); font-size: .84rem; margin: 0; max-width: none; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono",
  monospace; font-size: .86em; }
code { overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px; overflow-x: auto; }
.stack { display: flex; height: 26px; border-radius: 6px; overflow: hidden; margin: 6px 0; }
.stack i { display: block; height: 100%; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px;
  font-size: .86rem; padding: 0; margin: 4px 0; }
.legend li { list-style: none; } .legend i { display: inline-block; width: .8em; height: .8em;
  border-radius: 2px; margin-right: .4em; }
.picture { max-width: 560px; margin: 0 auto; }
details > summary { cursor: pointer; padding: 8px 0; }
footer { margin-top: 40px; color: var(--soft); font-size: .86rem; }
@media (max-width: 480px) { .tile b { font-size: 1.25rem; }
  .bar { grid-template: "name count" auto "track track" auto "note note" auto / 1fr auto; } }
@media print { body { background: none; } figure, .tile, .wide { break-inside: avoid; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="generator" content="{generator}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def page(title: str, body: str, generator: str) -> str:
    """A whole HTML document; ``body`` is HTML already, the other two are text."""
    return _PAGE.format(
        policy=escape(POLICY), title=escape(title), generator=escape(generator), style=STYLE,
        body=body,
    )  # fmt: skip
