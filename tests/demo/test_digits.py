import numpy as np
import pytest

from eagle_jax.demo import digits, items

pytest.importorskip("sklearn")


def test_parts_share_no_scan_and_cover_all():
  train = {s for item in digits.items("train", 1500, 0) for s in item.sources}
  test = {s for item in digits.items("test", digits.TEST, 0) for s in item.sources}
  assert len(train) == 1500
  assert len(test) == digits.TEST
  assert not train & test


def test_the_split_does_not_depend_on_the_seed_but_the_drawing_does():
  first, second = (list(digits.items("test", 5, seed)) for seed in (0, 1))
  assert [i.sources for i in first] == [i.sources for i in second]
  assert any((a.pixels != b.pixels).any() for a, b in zip(first, second, strict=True))


def test_answers_are_the_labels():
  from sklearn.datasets import load_digits

  labels = load_digits().target
  for item in digits.items("train", 20, 3):
    (source,) = item.sources
    assert item.answer == str(labels[int(source.split()[1])])


def test_a_drawing_is_an_enlarged_scan():
  scan = np.zeros((8, 8))
  scan[:, 3:5] = 16
  drawn = digits.draw(scan, np.random.default_rng(0))
  assert drawn.shape == (items.SIDE, items.SIDE, 3)
  assert drawn.dtype == np.uint8
  # Two of eight columns inked: about a quarter of the part that the scan covers.
  smallest = (digits.SMALLEST / items.SIDE) ** 2
  assert 0.2 * smallest < drawn.mean() / 255 < 0.3
