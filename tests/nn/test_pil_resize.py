"""The device's resize against Pillow's, byte by byte."""

import jax
import numpy as np
import pytest
from PIL import Image

from eagle_jax.data import canvas, image
from eagle_jax.nn import pil_resize


def noise(height, width, seed=0):
  """Bytes of any value beside each other: what the filter over- and undershoots most."""
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# Larger, smaller, odd, equal, thin, tall, tiny.
SIZES = [(48, 64), (320, 240), (33, 77), (96, 96), (7, 301), (500, 40), (1, 9)]


@pytest.mark.parametrize("aspect", ["pad", "square"])
@pytest.mark.parametrize("side", [96, 97])
def test_every_byte_is_pillows(side, aspect):
  pictures = [Image.fromarray(noise(*size, seed)) for seed, size in enumerate(SIZES)]
  want = np.stack([image.preprocess(picture, side, aspect) for picture in pictures])
  drawn = [canvas.draw(picture, side, aspect) for picture in pictures]
  got = jax.jit(pil_resize.resize)(canvas.stack(drawn))
  assert got.dtype == np.uint8
  np.testing.assert_array_equal(got, want)


def test_a_picture_enlarged_past_its_canvas_is_pillows():
  picture = Image.fromarray(noise(48, 64))
  got = jax.jit(pil_resize.resize)(canvas.stack([canvas.draw(picture, 1024, "pad")]))
  np.testing.assert_array_equal(got[0], image.preprocess(picture, 1024, "pad"))


def test_the_matrix_holds_each_weight_at_its_pixel():
  axis = canvas.draw(Image.fromarray(noise(5, 20)), 8, "pad").rows
  made = np.asarray(pil_resize.matrix(axis, 16))
  assert made.shape == (8, 16)
  assert not made[:, 5:].any()  # beside the picture
  np.testing.assert_array_equal(made.sum(1), axis.taps.sum(1))
  middle = int(np.argmax(made.max(1)))
  first = axis.first[middle]
  np.testing.assert_array_equal(
    made[middle, max(first, 0) : 5], axis.taps[middle][max(-first, 0) :][: 5 - max(first, 0)]
  )


@pytest.mark.parametrize("weight", [0, 1, -1, 127, 128, -128, -129, 1 << 22, -(1 << 22), 4_999_999])
def test_digits_are_small_and_add_up(weight):
  digits = [int(d[0, 0]) for d in pil_resize._digits(np.full((1, 1), weight, np.int32))]
  assert all(-128 <= digit <= 127 for digit in digits)
  assert sum(digit * 256**n for n, digit in enumerate(digits)) == weight
