"""One question about one small picture, and what it was made from."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

SIDE = 64
"""Pixels per side of every picture of the demonstration."""

PARTS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Item:
  """A question whose answer can be read off the picture, and only there.

  Attributes:
    task: which of the tasks it belongs to.
    sources: ids of all real things it shows; none may occur in both parts.
    question: what the user asks, without the image marker.
    answer: what the assistant should say.
    pixels: uint8 [SIDE, SIDE, 3].
  """

  task: str
  sources: tuple[str, ...]
  question: str
  answer: str
  pixels: np.ndarray


def fit(picture: np.ndarray, side: int) -> np.ndarray:
  """Returns uint8 [side, side, 3]: the picture [H, W, 3] or [H, W], stretched, antialiased."""
  image = Image.fromarray(picture).convert("RGB")
  return np.asarray(image.resize((side, side), Image.Resampling.BOX, reducing_gap=None))
