"""The original's picture preparation, to the last bit."""

import itertools
import os

import jax
import numpy as np
import pytest
from PIL import Image

from eagle_jax.data import canvas, image
from eagle_jax.nn import pil_resize, pixels
from tests.parity import goldens, recipe

LARGE = 400_000
"""Pixels from which the device's way is tried only under EAGLE_FULL=1."""
STORED = {"pad": "pad", "square": "none"}  # what the golden calls the two


def on_the_device(picture, side, aspect):
  return jax.jit(pil_resize.resize)(canvas.stack([canvas.draw(picture, side, aspect)]))[0]


WAYS = {"host": image.preprocess, "device": on_the_device}


def _cases():
  """Every picture and way to square it, marked where that takes a host too long."""
  for golden in goldens.discover("preprocess"):
    for (name, height, width), aspect, way in itertools.product(
      golden.meta["images"], ("pad", "square"), WAYS
    ):
      full = way == "device" and height * width > LARGE
      skipped = full and os.environ.get("EAGLE_FULL") != "1"
      yield pytest.param(
        golden,
        (name, height, width),
        aspect,
        WAYS[way],
        id=f"{'full_' if full else ''}{way}-{golden}-{name}-{aspect}",
        marks=pytest.mark.skipif(skipped, reason="a large picture: set EAGLE_FULL=1"),
      )


CASES = list(_cases())


@pytest.mark.skipif(not CASES, reason="no golden of preprocessing in the folders searched")
@pytest.mark.parametrize(("golden", "picture", "aspect", "squared"), CASES)
def test_pixels_are_bit_equal(golden, picture, aspect, squared):
  name, height, width = picture
  side = golden.meta["processor"]["crop_size"]["height"]
  source = Image.fromarray(recipe.image(name, height, width, golden.salt))
  made = np.asarray(pixels.normalise(squared(source, side, aspect)))
  made = made.transpose(2, 0, 1)  # [3, H, W], as the original lays them out
  stem = f"{name}_{STORED[aspect]}"
  assert tuple(golden[f"{stem}@shape"]) == made.shape
  part = tuple(slice(None, None, int(step)) for step in golden[f"{stem}@strides"])
  np.testing.assert_array_equal(made[part], golden[f"{stem}@sub"])
  np.testing.assert_array_equal(made[:, 500:532, 500:532], golden[f"{stem}_corner"])
  np.testing.assert_allclose(recipe.stats(made), golden[f"{stem}@stat"], rtol=1e-12, atol=1e-12)
  goldens.assert_close(golden, stem, made)
