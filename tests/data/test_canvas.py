"""Pillow's weights, and what is sent to a device in place of a square."""

import numpy as np
import pytest
from PIL import Image

from eagle_jax.data import canvas, image
from eagle_jax.data.records import BadRecordError


def noise(height, width, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def dense(axis, length):
  """The weights of an axis as float64 numbers in a matrix [side, length]."""
  matrix = np.zeros((len(axis.first), length))
  for row, first, taps in zip(matrix, axis.first, axis.taps, strict=True):
    for pixel, weight in enumerate(taps, first):
      if weight:
        row[pixel] += weight / 2.0**canvas.PRECISION
  return matrix


def resized(drawn):
  """Both passes in float64."""
  levels = drawn.pixels[..., :3].astype(np.float64)
  for axis in (drawn.columns, drawn.rows):
    levels = levels.swapaxes(0, 1)  # columns first
    colour = (axis.outside / 2.0**canvas.PRECISION)[:, None, None] * image.MEAN_COLOUR
    sums = np.tensordot(dense(axis, len(levels)), levels, 1) + colour
    levels = np.clip(np.floor(sums + 0.5), 0, 255)
  return levels


@pytest.mark.parametrize("aspect", ["pad", "square"])
@pytest.mark.parametrize("size", [(120, 160), (33, 77), (40, 40), (3, 50), (500, 40), (1, 1)])
def test_products_in_float64_have_pillows_bytes(size, aspect):
  picture = Image.fromarray(noise(*size))
  for side in (37, 64):
    want = image.preprocess(picture, side, aspect)
    np.testing.assert_array_equal(resized(canvas.draw(picture, side, aspect)), want)


def test_weights_add_up_to_one_and_stay_inside():
  for length, side in ((7, 50), (50, 7), (9, 9), (1, 4)):
    first, taps = canvas.weights(length, side)
    assert taps.shape == (side, canvas.num_taps(length, side))
    np.testing.assert_allclose(taps.sum(1) / 2.0**canvas.PRECISION, 1, atol=1e-5)
    used = first[:, None] + np.arange(taps.shape[1])
    assert used[taps != 0].min() >= 0
    assert used[taps != 0].max() < length


def test_canvases_have_few_shapes_and_pictures_stand_at_their_corner():
  pictures = [noise(100, 513, 0), noise(600, 20, 1)]
  drawn = [canvas.draw(Image.fromarray(p), 64, "pad") for p in pictures]
  made = canvas.stack(drawn)
  assert made.pixels.shape == (2, 640, 640, 4)
  for pixels, picture in zip(made.pixels, pictures, strict=True):
    h, w, _ = picture.shape
    np.testing.assert_array_equal(pixels[:h, :w, :3], picture)
  for axis, lengths in ((made.rows, (100, 600)), (made.columns, (513, 20))):
    for first, taps, length in zip(axis.first, axis.taps, lengths, strict=True):
      pixel = first[:, None] + np.arange(taps.shape[1])
      assert not taps[(pixel < 0) | (pixel >= length)].any()  # what lies beside has no weight
  # As many weights for every batch of the shape, whatever its pictures.
  assert made.rows.taps.shape == (2, 64, canvas.num_taps(640, 64))
  small = canvas.stack([canvas.draw(Image.fromarray(noise(513, 10)), 64, "pad")])
  assert small.pixels.shape == (1, 640, 512, 4)
  assert small.columns.taps.shape[1:] == made.rows.taps.shape[1:]


@pytest.mark.parametrize(("size", "side"), [((2049, 30), 32), ((1100, 6), 8)])
def test_what_no_canvas_takes_is_resized_on_the_host(size, side):
  picture = Image.fromarray(noise(*size))
  want = image.preprocess(picture, side, "pad")
  drawn = canvas.draw(picture, side, "pad")
  np.testing.assert_array_equal(drawn.pixels[..., :3], want)
  np.testing.assert_array_equal(resized(drawn), want)
  assert canvas.stack([drawn]).pixels.shape == (1, 512, 512, 4)


def test_a_picture_too_thin_to_cut_is_bad_here_too():
  with pytest.raises(BadRecordError, match="image too thin"):
    canvas.draw(Image.new("RGB", (2000, 1)), 1024, "square")
