import numpy as np

from eagle_jax.demo import items


def test_fit_keeps_colours_and_makes_grey_three_channels():
  grey = np.full((10, 30), 77, np.uint8)
  out = items.fit(grey, 8)
  assert out.shape == (8, 8, 3)
  assert out.dtype == np.uint8
  assert (out == 77).all()


def test_fit_averages_when_it_shrinks():
  stripes = np.tile(np.array([[0, 200]], np.uint8), (8, 4))
  assert (items.fit(stripes, 4) == 100).all()
