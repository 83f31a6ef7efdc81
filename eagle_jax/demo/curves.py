"""Loss curves as inline SVG: lines of one panel share its axes, nothing needs a script."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Sequence

WIDTH, HEIGHT = 360, 220
"""Units of a panel's own coordinates; it is stretched to the width the page gives it."""

LEFT, RIGHT, TOP, BOTTOM = 38, 10, 10, 30
"""Units around the plot, for the labels of its axes."""

SMOOTH = 0.05
"""Share of all points that a smoothed point averages over, before and behind it together."""


@dataclasses.dataclass(frozen=True)
class Curve:
  """A line: its name and (step, loss) pairs in the order of steps."""

  label: str
  points: Sequence[tuple[int, float]]


def panel(curves: Sequence[Curve]) -> str:
  """Returns an SVG figure of curves over steps: raw values faint, smoothed ones bold.

  Colours are the classes c0, c1, … of the page. Values that are not finite are left out.
  """
  drawn = [Curve(c.label, [p for p in c.points if math.isfinite(p[1])]) for c in curves]
  drawn = [curve for curve in drawn if curve.points]
  if not drawn:
    return "<p>No losses were recorded.</p>"
  right = max(step for curve in drawn for step, _ in curve.points)
  # Smoothed values decide the scale: one wild batch must not flatten the rest.
  smoothed = [smooth(curve.points) for curve in drawn]
  top = max(loss for points in smoothed for _, loss in points) * 1.08 or 1.0
  names = ", ".join(curve.label for curve in drawn)
  body = [_grid(right, top)]
  for index, (curve, points) in enumerate(zip(drawn, smoothed, strict=True)):
    body.append(_line(curve.points, right, top, kind=f"raw c{index}"))
    body.append(_line(points, right, top, kind=f"line c{index}"))
  return (
    f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
    f'aria-label="Loss over steps: {html.escape(names)}">{"".join(body)}</svg>{legend(drawn)}'
  )


def legend(curves: Sequence[Curve]) -> str:
  """Returns the names of curves with their colours and last smoothed values, as HTML."""
  entries = (
    f'<li><i class="c{index}"></i>{html.escape(curve.label)} '
    f"<b>{smooth(curve.points)[-1][1]:.2f}</b></li>"
    for index, curve in enumerate(curves)
  )
  return f'<ul class="legend">{"".join(entries)}</ul>'


def smooth(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
  """Returns the points with each loss averaged over its neighbours."""
  reach = max(1, round(len(points) * SMOOTH / 2))
  out = []
  for index, (step, _) in enumerate(points):
    near = points[max(0, index - reach) : index + reach + 1]
    out.append((step, sum(loss for _, loss in near) / len(near)))
  return out


def ticks(top: float, count: int = 4) -> list[float]:
  """Returns round values from 0 to at most `top`, about `count` of them after the 0."""
  rough = top / count
  power = 10.0 ** math.floor(math.log10(rough))
  step = power * min((1, 2, 2.5, 5, 10), key=lambda factor: abs(factor * power - rough))
  return [step * n for n in range(int(top / step + 1e-9) + 1)]


def _grid(right: int, top: float) -> str:
  """Returns the axes: grid lines at round losses, round steps below."""
  lines = []
  for value in ticks(top):
    y = _y(value, top)
    lines.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
    lines.append(f'<text x="{LEFT - 6}" y="{y + 4}" class="end">{value:g}</text>')
  for value in ticks(right):
    lines.append(f'<text x="{_x(value, right)}" y="{HEIGHT - 10}" class="mid">{value:g}</text>')
  return "".join(lines)


def _line(points: Sequence[tuple[int, float]], right: int, top: float, *, kind: str) -> str:
  """Returns one polyline; what is above the panel is cut at its top."""
  places = " ".join(f"{_x(step, right)},{_y(min(loss, top), top)}" for step, loss in points)
  return f'<polyline class="{kind}" points="{places}"/>'


def _x(step: float, right: int) -> float:
  """Returns the coordinate of a step in [0, right]."""
  return round(LEFT + (WIDTH - LEFT - RIGHT) * step / max(1, right), 1)


def _y(loss: float, top: float) -> float:
  """Returns the coordinate of a loss in [0, top]."""
  return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * loss / top, 1)
