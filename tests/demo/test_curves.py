import re
import xml.etree.ElementTree as ElementTree

import pytest

from eagle_jax.demo import curves


def test_a_panel_is_well_formed_and_its_lines_stay_inside():
  falling = curves.Curve("a < b", [(n, 3.0 - n / 100) for n in range(100)])
  wild = curves.Curve("wild", [(n, 900.0 if n == 50 else 1.0) for n in range(100)])
  figure = curves.panel([falling, wild])
  root = ElementTree.fromstring(f"<div>{figure}</div>")
  lines = root.findall(".//polyline")
  assert [line.get("class") for line in lines] == ["raw c0", "line c0", "raw c1", "line c1"]
  for line in lines:
    for place in line.get("points").split():
      x, y = map(float, place.split(","))
      assert curves.LEFT <= x <= curves.WIDTH - curves.RIGHT
      assert curves.TOP <= y <= curves.HEIGHT - curves.BOTTOM
  assert "a &lt; b" in figure


def test_losses_that_are_no_numbers_are_left_out():
  figure = curves.panel([curves.Curve("x", [(0, float("nan")), (1, 2.0), (2, 1.0)])])
  assert "nan" not in figure.lower()
  assert curves.panel([curves.Curve("x", [(0, float("inf"))])]).startswith("<p>")
  assert curves.panel([]).startswith("<p>")


def test_smoothing_averages_neighbours():
  assert curves.smooth([(0, 0.0), (5, 3.0), (9, 6.0)]) == [(0, 1.5), (5, 3.0), (9, 4.5)]


@pytest.mark.parametrize("top", [0.04, 0.9, 3.3, 12, 400, 1999])
def test_ticks_are_few_round_and_inside(top):
  values = curves.ticks(top)
  assert values[0] == 0
  assert values[-1] <= top * (1 + 1e-6)
  assert 3 <= len(values) <= 8
  assert all(re.fullmatch(r"[0-9.]{1,5}", f"{value:g}") for value in values)
