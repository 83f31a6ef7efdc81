"""Which picture is this crop from: photographs, scans and a few drawings that packages ship.

A sheet of four cells shows a crop in the first and three whole pictures in the others;
the answer names the cell of the picture that the crop was taken from. The pictures of
the test part are never seen in training, so they must be compared, not recognised.

Source: the files of scikit-image, scikit-learn and matplotlib named below; their
licences stand in those packages' own notes. Nothing is fetched.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import numpy as np
from PIL import Image

from eagle_jax.demo.extras import shipped
from eagle_jax.demo.items import SIDE, Item, fit

TASK = "crops"
QUESTION = "Which picture is this crop from?"
ANSWERS = ("right", "below", "corner")
"""Cells seen from the crop, which is the top left one."""

CELL = SIDE // 2
"""Pixels per side of a cell, its margin included."""

MARGIN = 1
"""Pixels of grey around each picture in its cell."""

CROP = (0.6, 0.9)
"""Sides of a crop as fractions of the picture's sides, least and largest."""

APART = 0.3
"""Least distance of the mean colours, RGB in [0, 1], of any two pictures of a sheet."""

_SKIMAGE = ("skimage", "data")
_SKLEARN = ("sklearn", "datasets", "images")
_MATPLOTLIB = ("matplotlib", "mpl-data", "sample_data")

FILES = {
  "train": (
    *((*_SKIMAGE, name + ".png") for name in ("astronaut", "brick", "camera", "cell")),
    *((*_SKIMAGE, name + ".png") for name in ("clock_motion", "coins", "color", "grass")),
    *((*_SKIMAGE, name + ".png") for name in ("gravel", "horse", "ihc", "microaneurysms")),
    *((*_SKIMAGE, name + ".png") for name in ("motorcycle_left", "text")),
    (*_SKIMAGE, "retina.jpg"),
    (*_MATPLOTLIB, "grace_hopper.jpg"),
    (*_MATPLOTLIB, "Minduka_Present_Blue_Pack.png"),
  ),
  "test": (
    *((*_SKIMAGE, name + ".png") for name in ("chelsea", "coffee", "moon", "page")),
    (*_SKIMAGE, "hubble_deep_field.jpg"),
    (*_SKIMAGE, "rocket.jpg"),
    (*_SKLEARN, "china.jpg"),
    (*_SKLEARN, "flower.jpg"),
  ),
}
"""Package and path of each picture, by part."""


def items(part: str, count: int, seed: int) -> Iterator[Item]:
  """Yields `count` sheets of a part: untouched pictures in test, changed ones in training."""
  rng = np.random.default_rng([seed, 10 + (part == "test")])
  pictures = load(part)
  for number in range(count):
    answer = number % len(ANSWERS)
    names, cells = _choose(pictures, part, rng)
    crop = _crop(cells[answer], rng)
    yield Item(
      task=TASK,
      sources=tuple(f"picture {name}" for name in names),
      question=QUESTION,
      answer=ANSWERS[answer],
      pixels=sheet(crop, cells),
    )


@functools.cache
def load(part: str) -> dict[str, np.ndarray]:
  """Returns name → uint8 [H, W, 3] of a part, the longer side at most 96 pixels."""
  pictures = {}
  for package, *place in FILES[part]:
    with Image.open(shipped(package, *place)) as image:
      picture = image.convert("RGB")
      picture.thumbnail((96, 96))
      pictures[place[-1].rsplit(".", 1)[0]] = np.asarray(picture)
  return pictures


def sheet(crop: np.ndarray, cells: list[np.ndarray]) -> np.ndarray:
  """Returns uint8 [SIDE, SIDE, 3]: the crop at the top left, cells in the order of ANSWERS."""
  out = np.full((SIDE, SIDE, 3), 128, np.uint8)
  inner = CELL - 2 * MARGIN
  for (top, left), picture in zip(
    itertools.product((0, CELL), (0, CELL)), (crop, *cells), strict=True
  ):
    y, x = top + MARGIN, left + MARGIN
    out[y : y + inner, x : x + inner] = fit(picture, inner)
  return out


def nearest_colour(pixels: np.ndarray) -> str:
  """Returns the answer a look at mean colours alone would give for a sheet [SIDE, SIDE, 3]."""
  quarters = pixels.astype(np.float64).reshape(2, CELL, 2, CELL, 3).mean((1, 3)).reshape(4, 3)
  return ANSWERS[int(np.argmin(np.square(quarters[1:] - quarters[0]).sum(-1)))]


def _choose(
  pictures: dict[str, np.ndarray], part: str, rng: np.random.Generator
) -> tuple[list[str], list[np.ndarray]]:
  """Draws three pictures whose mean colours lie APART, names and pixels."""
  while True:
    names = [str(name) for name in rng.choice(sorted(pictures), len(ANSWERS), replace=False)]
    cells = [pictures[name] for name in names]
    if part == "train":
      cells = [vary(cell, rng) for cell in cells]
    means = [cell.mean((0, 1)) / 255 for cell in cells]
    if all(np.linalg.norm(a - b) >= APART for a, b in itertools.combinations(means, 2)):
      return names, cells


def _crop(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Cuts a random window [h, w, 3] whose sides are a fraction CROP of the picture's."""
  size = np.array(picture.shape[:2])
  window = np.maximum(1, (size * rng.uniform(*CROP)).astype(int))
  top, left = rng.integers(0, size - window + 1)
  return picture[top : top + window[0], left : left + window[1]]


def vary(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Makes another picture of one: a region, turned, its colours exchanged and shifted.

  Thus a score of pictures teaches comparing rather than the look of those pictures.
  """
  window = _crop(picture, rng) if rng.random() < 0.7 else picture
  window = np.rot90(window, int(rng.integers(4)))
  window = window[:, :: int(rng.choice((-1, 1)))][..., rng.permutation(3)].astype(np.float32)
  if rng.random() < 0.3:
    window = 255 - window
  gain, shift = rng.uniform(0.5, 1.1, 3), rng.uniform(-70, 70, 3)
  return np.clip(window * gain + shift, 0, 255).astype(np.uint8)
