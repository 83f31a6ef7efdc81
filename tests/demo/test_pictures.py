import itertools

import numpy as np
import pytest

from eagle_jax.demo import items, pictures

for package in ("skimage", "sklearn", "matplotlib"):
  pytest.importorskip(package)


@pytest.fixture(scope="module")
def sheets():
  return {part: list(pictures.items(part, 60, 0)) for part in items.PARTS}


def test_every_listed_picture_loads_and_none_is_in_both_parts():
  train, test = pictures.load("train"), pictures.load("test")
  assert len(train) == len(pictures.FILES["train"])
  assert len(test) == len(pictures.FILES["test"])
  assert not set(train) & set(test)


def test_sheets_name_three_pictures_of_their_own_part(sheets):
  for part, made in sheets.items():
    known = {f"picture {name}" for name in pictures.load(part)}
    for item in made:
      assert len(set(item.sources)) == 3
      assert set(item.sources) <= known


def test_every_answer_is_equally_frequent(sheets):
  for made in sheets.values():
    counts = [sum(item.answer == answer for item in made) for answer in pictures.ANSWERS]
    assert counts == [20, 20, 20]


def test_mean_colours_alone_find_most_crops(sheets):
  # What makes the task learnable for a tiny model; chance is a third.
  for made in sheets.values():
    right = [pictures.nearest_colour(item.pixels) == item.answer for item in made]
    assert np.mean(right) >= 0.9


def test_nearest_colour_knows_each_cell():
  colours = [np.full((9, 9, 3), value, np.uint8) for value in (10, 120, 240)]
  for cell, answer in enumerate(pictures.ANSWERS):
    sheet = pictures.sheet(colours[cell], colours)
    assert pictures.nearest_colour(sheet) == answer


def test_a_sheet_has_the_crop_top_left_and_cells_in_order():
  colours = [np.full((9, 9, 3), value, np.uint8) for value in (10, 60, 120, 240)]
  sheet = pictures.sheet(colours[0], colours[1:])
  half, quarter = pictures.CELL, pictures.CELL // 2
  places = itertools.product((quarter, half + quarter), (quarter, half + quarter))
  assert [int(sheet[y, x, 0]) for y, x in places] == [10, 60, 120, 240]


def test_test_cells_are_untouched_pictures():
  item = next(pictures.items("test", 1, 0))
  name = item.sources[0].removeprefix("picture ")
  inner = pictures.CELL - 2 * pictures.MARGIN
  start = pictures.CELL + pictures.MARGIN
  shown = item.pixels[pictures.MARGIN : pictures.MARGIN + inner, start : start + inner]
  np.testing.assert_array_equal(shown, items.fit(pictures.load("test")[name], inner))


def test_vary_changes_the_look():
  rng = np.random.default_rng(0)
  picture = pictures.load("train")["astronaut"]
  means = [pictures.vary(picture, rng).mean((0, 1)) for _ in range(4)]
  assert all(np.abs(a - b).max() > 5 for a, b in itertools.combinations(means, 2))
