"""The original's picture preparation, to the last bit."""

import numpy as np
import pytest
from PIL import Image

from eagle_jax.data import image
from eagle_jax.nn import pixels
from tests.parity import goldens, recipe

CASES = [
  pytest.param(golden, tuple(picture), aspect, id=f"{golden}-{picture[0]}-{aspect}")
  for golden in goldens.discover("preprocess")
  for picture in golden.meta["images"]
  for aspect in ("pad", "square")
]
STORED = {"pad": "pad", "square": "none"}  # what the golden calls the two


@pytest.mark.skipif(not CASES, reason="no golden of preprocessing in the folders searched")
@pytest.mark.parametrize(("golden", "picture", "aspect"), CASES)
def test_pixels_are_bit_equal(golden, picture, aspect):
  name, height, width = picture
  side = golden.meta["processor"]["crop_size"]["height"]
  source = Image.fromarray(recipe.image(name, height, width, golden.salt))
  made = np.asarray(pixels.normalise(image.preprocess(source, side, aspect)))
  made = made.transpose(2, 0, 1)  # [3, H, W], as the original lays them out
  stem = f"{name}_{STORED[aspect]}"
  assert tuple(golden[f"{stem}@shape"]) == made.shape
  part = tuple(slice(None, None, int(step)) for step in golden[f"{stem}@strides"])
  np.testing.assert_array_equal(made[part], golden[f"{stem}@sub"])
  np.testing.assert_array_equal(made[:, 500:532, 500:532], golden[f"{stem}_corner"])
  np.testing.assert_allclose(recipe.stats(made), golden[f"{stem}@stat"], rtol=1e-12, atol=1e-12)
  goldens.assert_close(golden, stem, made)
