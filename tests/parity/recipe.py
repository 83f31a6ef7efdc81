"""Weights, pictures and token ids as functions of names, so that goldens need not carry them.

Every value is drawn from Philox keyed with the CRC of a name; the numbers are those of
the golden files, bit for bit (tests/parity/test_recipe.py).
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711])

DERIVED = re.compile(r".*(position_ids|freqs_cos|freqs_sin|inv_freq|num_batches_tracked)")
"""Tables that follow from a formula; no weights are drawn for them."""

TABLES = r".*(embed_tokens|position_embedding|row_embedder|column_embedder)\.weight"
VALUES: tuple[tuple[str, bool, float, float], ...] = (
  # pattern, one-dimensional tensors only, offset, factor; the first match wins
  (r".*stages\.\d+\.blocks\.\d+\.(weight|gamma)", True, 0.3, 0.03),
  (r".*bias", False, 0.0, 0.02),
  (rf"{TABLES}|.*(class_embedding|pos_embed)", False, 0.0, 0.2),
  (r".*rel_pos_[hw]", False, 0.0, 0.1),
  (r".*", True, 1.0, 0.1),
)


def generator(name: str, salt: str) -> np.random.Generator:
  """Returns the generator of a name."""
  return np.random.Generator(np.random.Philox(key=zlib.crc32((salt + name).encode())))


def scale(key: str, shape: Sequence[int]) -> tuple[float, float]:
  """Returns offset and factor of the normals of a tensor."""
  for pattern, vector, offset, factor in VALUES:
    if re.fullmatch(pattern, key) and (len(shape) <= 1 or not vector):
      return offset, factor
  return 0.0, 0.7 / float(np.sqrt(np.float64(np.prod(shape[1:]))))


def weight(key: str, shape: Sequence[int], salt: str = "") -> np.ndarray:
  """Returns the float32 tensor of a PyTorch key, in PyTorch's layout.

  Raises:
    KeyError: for a derived table, which is never drawn.
  """
  if DERIVED.fullmatch(key):
    raise KeyError(f"{key} is a derived table")
  offset, factor = scale(key, shape)
  drawn = generator(key, salt).standard_normal(tuple(shape), dtype=np.float32)
  drawn = drawn * np.float32(factor)
  return drawn + np.float32(offset) if offset else drawn


def image(name: str, height: int, width: int, salt: str = "") -> np.ndarray:
  """Returns a uint8 picture [H, W, 3] of shading, six discs, eight bars and grain."""
  random = generator("image:" + name, salt)
  u = random.random(64)
  rows = (np.arange(height) / height)[:, None]
  columns = (np.arange(width) / width)[None, :]
  waves = [
    (1.0 + 3.0 * u[3 * c]) * columns + (1.0 + 3.0 * u[3 * c + 1]) * rows + u[3 * c + 2]
    for c in range(3)
  ]
  picture = 60.0 + 120.0 * np.abs(2.0 * (np.stack(waves, axis=-1) % 1.0) - 1.0)
  for y, x, size, colour in u[16:40].reshape(6, 4):
    radius = 0.05 + 0.15 * size
    inside = (rows - y) ** 2 + (columns - x) ** 2 < radius * radius
    colours = (colour * np.array([1.0, 3.0, 7.0])) % 1.0 * 255.0
    picture[inside] = 0.25 * picture[inside] + 0.75 * colours
  thick, step = max(1, height // 128), max(2, width // 96)
  for bar in range(8):
    top = int((0.08 + 0.11 * bar) * height)
    left = int(u[44 + bar] * 0.5 * width)
    right = left + int((0.1 + 0.35 * u[52 + bar]) * width)
    for x in range(left, min(right, width), step):
      picture[top : top + thick, x : x + max(1, step // 2)] = 20.0
  # Rounded to 1/64 of a level first, so that no platform's last bit reaches the bytes.
  levels = np.floor(np.floor(picture * 64.0 + 0.5) / 64.0).astype(np.int64)
  grain = random.integers(-12, 13, size=picture.shape)
  return np.clip(levels + grain, 0, 255).astype(np.uint8)


def pixels(picture: np.ndarray) -> np.ndarray:
  """Returns uint8 [H, W, 3] as normalised float32 [H, W, 3], rounded once from float64."""
  return ((picture.astype(np.float64) / 255.0 - MEAN) / DEVIATION).astype(np.float32)


def token_ids(name: str, length: int, vocab: int, low: int = 3, salt: str = "") -> np.ndarray:
  """Returns int64 [length] ids in [low, vocab)."""
  return generator("ids:" + name, salt).integers(low, vocab, size=(length,), dtype=np.int64)


def stats(values: np.ndarray) -> np.ndarray:
  """Returns float64 [mean, deviation, l2 norm, max |x|]."""
  v = np.asarray(values, dtype=np.float64)
  return np.array([v.mean(), v.std(), np.sqrt((v * v).sum()), np.abs(v).max()])
