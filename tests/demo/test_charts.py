import numpy as np
import pytest

from eagle_jax.demo import charts, items

for package in ("vega_datasets", "matplotlib"):
  pytest.importorskip(package)


def _rows(pixels, colour):
  """Returns how many rows of the picture show a colour of charts.COLOURS."""
  wanted = np.frombuffer(bytes.fromhex(charts.COLOURS[colour][1:]), np.uint8)
  near = np.abs(pixels.astype(float) - wanted).max(-1) < 12
  return int(near.any(1).sum())


@pytest.mark.parametrize("part", items.PARTS)
def test_the_answer_is_the_colour_that_reaches_highest(part):
  for item in charts.items(part, 24, 0):
    heights = {colour: _rows(item.pixels, colour) for colour in charts.COLOURS}
    assert max(heights, key=heights.__getitem__) == item.answer
    assert sum(height > 0 for height in heights.values()) <= len(charts.COLOURS)


def test_parts_share_no_table_and_every_table_has_quantities():
  assert not set(charts.TABLES["train"]) & set(charts.TABLES["test"])
  for tables in charts.TABLES.values():
    for table in tables:
      assert charts.columns(table)
      assert all((column > 0).all() for column in charts.columns(table))


def test_there_are_no_near_ties():
  rng = np.random.default_rng(0)
  for _ in range(50):
    values = np.sort(charts._values(charts.columns("iris"), rng))
    assert values[-1] - values[-2] >= charts.LEAD * values[-1]


def test_one_canvas_draws_the_same_chart_again():
  draw = charts.canvas()
  heights = np.array([1.0, 3.0, 2.0])
  first = draw(heights, ["red", "blue", "green"], 1.2)
  draw(np.array([5.0, 1.0, 1.0, 1.0]), ["yellow", "green", "blue", "red"], 1.4)
  assert first.shape == (items.SIDE, items.SIDE, 3)
  np.testing.assert_array_equal(first, draw(heights, ["red", "blue", "green"], 1.2))
  assert _rows(first, "yellow") == 0
