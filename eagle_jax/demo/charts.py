"""Which bar is tallest: tables that vega_datasets ships, drawn by matplotlib.

A chart shows three or four values of one column of one table. Whole tables are kept
for the test part, so no number of a tested chart is seen in training.

Source: vega_datasets, local_data (tables inside the package; nothing is fetched).
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from eagle_jax.demo.extras import require
from eagle_jax.demo.items import SIDE, Item

TASK = "charts"
QUESTION = "Which bar is tallest?"

COLOURS = {"red": "#d62728", "blue": "#1f4fd8", "green": "#2ca02c", "yellow": "#f2c500"}
"""Name of a bar's colour → the colour drawn; each at most once in a chart."""

TABLES = {
  "train": (
    "barley",
    "cars",
    "crimea",
    "driving",
    "iris",
    "seattle-temps",
    "seattle-weather",
    "stocks",
    "us-employment",
  ),
  "test": ("anscombe", "burtin", "iowa-electricity", "ohlc", "sf-temps", "wheat"),
}
"""Tables of each part. Other tables of the package hold no quantity worth a bar."""

SKIP = ("year", "latitude", "longitude")
"""Columns that are numbers but not quantities."""

HEADROOM = (1.05, 1.5)
"""Tops of the axis as multiples of the tallest bar: height in pixels alone tells nothing."""

LEAD = 0.15
"""The tallest bar leads the second by at least this fraction of its height: no near ties."""


def items(part: str, count: int, seed: int) -> Iterator[Item]:
  """Yields `count` charts of a part, its tables in turn."""
  rng = np.random.default_rng([seed, 20 + (part == "test")])
  draw = canvas()
  tables = TABLES[part]
  for number in range(count):
    table = tables[number % len(tables)]
    values = _values(columns(table), rng)
    names = [str(name) for name in rng.permutation(list(COLOURS))[: len(values)]]
    yield Item(
      task=TASK,
      sources=(f"table {table}",),
      question=QUESTION,
      answer=names[int(np.argmax(values))],
      pixels=draw(values, names, rng.uniform(*HEADROOM)),
    )


@functools.cache
def columns(table: str) -> tuple[np.ndarray, ...]:
  """Returns the quantities of a table: float64 [rows] each, finite and above zero."""
  loader = getattr(require("vega_datasets").local_data, table.replace("-", "_"))
  with warnings.catch_warnings():
    # The package passes pandas a keyword that pandas 3 will drop.
    warnings.simplefilter("ignore")
    frame = loader()
  kept = []
  for name in frame.columns:
    column = frame[name]
    if column.dtype.kind in "if" and name not in SKIP:
      values = column.to_numpy(np.float64)
      values = values[np.isfinite(values) & (values > 0)]
      if len(values) >= len(COLOURS):
        kept.append(values)
  return tuple(kept)


def _values(quantities: tuple[np.ndarray, ...], rng: np.random.Generator) -> np.ndarray:
  """Draws three or four rows of one column, evenly spaced, without a near tie at the top."""
  while True:
    column = quantities[int(rng.integers(len(quantities)))]
    count = int(rng.integers(3, len(COLOURS) + 1))
    stride = int(rng.integers(1, (len(column) - 1) // (count - 1) + 1))
    start = int(rng.integers(len(column) - stride * (count - 1)))
    values = column[start : start + stride * (count - 1) + 1 : stride]
    second, first = np.sort(values)[-2:]
    if first - second >= LEAD * first:
      return rng.permutation(values)


def canvas() -> Callable[[np.ndarray, list[str], float], np.ndarray]:
  """Returns a function: heights, colour names, axis top → uint8 [SIDE, SIDE, 3].

  One figure and its bars are used again for every chart; making them anew costs ten
  times as long.
  """
  require("matplotlib").use("Agg")
  figure = require("matplotlib.figure").Figure(figsize=(SIDE / 100, SIDE / 100), dpi=100)
  agg = require("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
  axes = figure.add_axes((0.05, 0.05, 0.92, 0.92))
  axes.set(xticks=[], yticks=[])
  axes.spines[["top", "right"]].set_visible(False)
  bars = axes.bar(range(len(COLOURS)), [1.0] * len(COLOURS))

  def draw(heights: np.ndarray, names: list[str], top: float) -> np.ndarray:
    """Sets the bars under an axis that ends at `top` times the tallest, and draws."""
    _place(bars, heights, names)
    axes.set(xlim=(0, len(heights)), ylim=(0, heights.max() * top))
    agg.draw()
    return np.array(agg.buffer_rgba())[..., :3]

  return draw


def _place(bars: Any, heights: np.ndarray, names: list[str]) -> None:
  """Gives each matplotlib bar its place, height and colour; hides the bars left over."""
  for index, bar in enumerate(bars):
    bar.set_visible(index < len(heights))
    if index < len(heights):
      bar.set(x=index + 0.12, width=0.76, height=heights[index], color=COLOURS[names[index]])
