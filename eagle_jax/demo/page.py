"""The look of the report: one HTML file, light and dark, from a phone's width up."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_STYLE = """
:root{color-scheme:light dark;--page:#f6f5f1;--card:#fff;--ink:#1d2327;--soft:#5d666d;
  --rule:#dedbd2;--good:#1b7f4d;--bad:#b3382c;--c0:#1f6fb2;--c1:#d9730d;--c2:#1b8a5a;--c3:#a4459b;
  --c4:#8a6d1d;--c5:#5a6570}
@media(prefers-color-scheme:dark){:root{--page:#14171a;--card:#1d2226;--ink:#e8e6e1;
  --soft:#9aa4ab;--rule:#343b41;--good:#5fca92;--bad:#f08a7c;--c0:#62aef0;--c1:#f5a455;
  --c2:#5fca92;--c3:#dc8fd4;--c4:#d9bd62;--c5:#a9b4bd}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,sans-serif}
main{max-width:64rem;margin:0 auto;padding:2.5rem 1rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:2.6rem 0 .3rem}
h3{font-size:.95rem;margin:0 0 .5rem}
p{margin:.3rem 0 1rem;max-width:46rem}
.soft,figcaption,th{color:var(--soft)}
.card{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:1rem}
.cards{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,18rem),1fr))}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .6rem;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th{font-weight:500;font-size:.85rem}
th[colspan]{padding-top:1.2rem;white-space:normal}
tr:last-child td{border-bottom:0}
th:first-child,td:first-child,.text{text-align:left}
.verdict{border-left:4px solid var(--good)}
.verdict.bad{border-color:var(--bad)}
.verdict p{margin:0}
.verdict ul{margin:.4rem 0 0;padding-left:1.2rem}
.good{color:var(--good)}
.bad{color:var(--bad)}
.bars{display:grid;grid-template-columns:5.5rem 1fr 3.2rem;gap:.25rem .6rem;align-items:center;
  font-size:.85rem}
.bars span{color:var(--soft)}
.bars b{text-align:right;font-weight:600;font-variant-numeric:tabular-nums}
.bars div{height:.8rem;border-radius:3px;
  background:color-mix(in srgb,var(--rule) 55%,transparent)}
.bars i{display:block;height:100%;border-radius:3px;min-width:2px}
svg{display:block;width:100%;height:auto;overflow:visible}
svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
.end{text-anchor:end}
.mid{text-anchor:middle}
.grid{stroke:var(--rule);stroke-width:1}
polyline{fill:none;stroke-linejoin:round}
.line{stroke-width:2}
.raw{stroke-width:1;opacity:.22}
.c0{stroke:var(--c0)}
.c1{stroke:var(--c1)}
.c2{stroke:var(--c2)}
.c3{stroke:var(--c3)}
.c4{stroke:var(--c4)}
.c5{stroke:var(--c5)}
i.c0{background:var(--c0)}
i.c1{background:var(--c1)}
i.c2{background:var(--c2)}
i.c3{background:var(--c3)}
i.c4{background:var(--c4)}
i.c5{background:var(--c5)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.5rem 0 0;padding:0;
  font-size:.85rem}
.legend i{display:inline-block;width:.8rem;height:.8rem;border-radius:3px;margin-right:.35rem;
  vertical-align:-1px}
.samples{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr))}
figure{margin:0;padding:.75rem}
figure img{width:100%;aspect-ratio:1;image-rendering:pixelated;border-radius:6px;display:block}
figcaption{font-size:.85rem;margin-top:.5rem;line-height:1.4}
figcaption b{color:var(--ink)}
figcaption .good{color:var(--good)}
figcaption .bad{color:var(--bad)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.3rem 1.2rem;margin:0}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
"""


def page(title: str, body: Iterable[str]) -> str:
  """Returns a whole HTML document; it asks for no other file."""
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
    f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
  )


def section(heading: str, lead: str, body: str) -> str:
  """Returns a headed section; heading and lead are text, the body is HTML."""
  told = f'<p class="soft">{html.escape(lead)}</p>' if lead else ""
  return f"<section><h2>{html.escape(heading)}</h2>{told}{body}</section>"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Returns a table in a card; cells are HTML, the header is text, a lone cell spans its row."""
  head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
  body = "".join(f"<tr>{_cells(row, len(header))}</tr>" for row in rows)
  return (
    f'<div class="card wide"><table><thead><tr>{head}</tr></thead>'
    f"<tbody>{body}</tbody></table></div>"
  )


def _cells(row: Sequence[str], columns: int) -> str:
  """Returns the cells of one row of a table."""
  if len(row) == 1:
    return f'<th class="text" colspan="{columns}">{row[0]}</th>'
  return "".join(f"<td>{cell}</td>" for cell in row)


def bars(values: Iterable[tuple[str, float, int]]) -> str:
  """Returns horizontal bars of (name, share in [0, 1], colour number)."""
  drawn = (
    f"<span>{html.escape(name)}</span>"
    f'<div><i class="c{colour}" style="width:{share:.1%}"></i></div><b>{share:.1%}</b>'
    for name, share, colour in values
  )
  return f'<div class="bars">{"".join(drawn)}</div>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
  """Returns names and values as a list in a card."""
  listed = "".join(f"<dt>{html.escape(n)}</dt><dd>{html.escape(v)}</dd>" for n, v in pairs)
  return f'<dl class="card">{listed}</dl>'
