"""Which digit is this: real handwriting that scikit-learn ships.

1,797 scans of digits, 8×8 cells of 0..16 ink each, by 43 people.
Source: scikit-learn, datasets.load_digits; E. Alpaydin, C. Kaynak, UCI repository (1998).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from eagle_jax.demo.extras import require
from eagle_jax.demo.items import SIDE, Item

TASK = "digits"
QUESTION = "Which digit is this?"
TEST = 297
"""Scans kept for the test part; the other 1,500 are trained on."""

SMALLEST = 48
"""Pixels per side of the smallest rendering of a scan inside the picture."""


def items(part: str, count: int, seed: int) -> Iterator[Item]:
  """Yields `count` digits of a part, each scan in turn at a place and size of its own.

  Which scan is in which part does not depend on the seed.
  """
  digits = require("sklearn.datasets").load_digits()
  order = np.random.default_rng(0).permutation(len(digits.images))
  scans = order[:TEST] if part == "test" else order[TEST:]
  rng = np.random.default_rng([seed, part == "test"])
  for number in range(count):
    scan = int(scans[number % len(scans)])
    yield Item(
      task=TASK,
      sources=(f"digit {scan}",),
      question=QUESTION,
      answer=str(int(digits.target[scan])),
      pixels=draw(digits.images[scan], rng),
    )


def draw(scan: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Returns uint8 [SIDE, SIDE, 3]: the scan [8, 8], 0..16, enlarged in white on black."""
  side = int(rng.integers(SMALLEST, SIDE + 1))
  left, top = (int(v) for v in rng.integers(0, SIDE - side + 1, 2))
  ink = Image.fromarray((scan * (255 / 16)).astype(np.uint8))
  canvas = Image.new("L", (SIDE, SIDE))
  canvas.paste(ink.resize((side, side), Image.Resampling.BICUBIC), (left, top))
  return np.asarray(canvas.convert("RGB"))
