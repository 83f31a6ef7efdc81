"""The structures that packages hand to each other, and the letters of their shapes.

B batch rows · R groups of rows that share image slots · I image slots per group ·
S positions in a row · N image tokens per image ·
H W sides of an image or a grid · C channels · D language width · T query tokens ·
K key/value heads · G query heads per key/value head · d head width · V vocabulary ·
L layers
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Literal, Protocol

import numpy as np
from flax import struct

if typing.TYPE_CHECKING:
  import flax.linen as nn
  from jaxtyping import Array, Bool, Float, Int, UInt8

PLACEHOLDER = -200
"""Token id of a position that an image token will take. Source: EAGLE, constants.py."""


@struct.dataclass
class Batch:
  """What the model sees: one conversation per row, padded, or several, packed.

  A row with n images holds n·N placeholders; the k-th placeholder of a row takes
  the k-th image token of that row, images in order. Nothing changes its length on
  the device, so every array has a static shape.

  Usually each row has its own image slots: R = B. With R < B, B/R rows that follow each
  other share I slots: the k-th placeholder of the group, row after row, takes the
  group's k-th image token, so that slots need not be kept for rows without images.

  Attributes:
    images: uint8 in [0, 255], or float already normalised with CLIP's mean and
      deviation. Unused image slots hold anything finite. I may be 0.
    tokens: vocabulary ids, PLACEHOLDER at image positions, anything valid at padding.
    valid: True at content, False at padding, which may stand on either side.
    loss_mask: True where the token of this position is a target.
    positions: rotary position of each token, counted from 0 in each conversation.
    segments: of packed rows, the number from 1 of the conversation a position belongs
      to, 0 at padding. A token sees its own segment alone. None where no row holds more
      than one conversation, which spares the comparison.
  """

  images: UInt8[Array, "R I H W 3"] | Float[Array, "R I H W 3"]
  tokens: Int[Array, "B S"]
  valid: Bool[Array, "B S"]
  loss_mask: Bool[Array, "B S"]
  positions: Int[Array, "B S"]
  segments: Int[Array, "B S"] | None = None

  def targets(self) -> Bool[Array, "B S-1"]:
    """Returns where a prediction counts: a target predicted from a real token of its own segment.

    So the first token of a conversation never counts, wherever it stands.
    """
    counted = self.loss_mask[:, 1:] & self.valid[:, :-1]
    if self.segments is None:
      return counted
    return counted & (self.segments[:, 1:] == self.segments[:, :-1])


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a parameter lies on disk while it is written slice by slice.

  Attributes:
    shape: of the whole array.
    dtype: of its elements.
    depth: leading axes that number the slices, 0 for an array written whole.
    order: whether the last ('C') or the first ('F') axis of a slice runs fastest; a
      transposed matrix in order F has the bytes of the one it was made from.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  depth: int = 0
  order: Literal["C", "F"] = "C"


class ExpertSize(Protocol):
  """What the mixture must know of an expert's size; each expert adds its own fields."""

  @property
  def image_size(self) -> int:
    """Pixels per side of the square picture the expert takes."""

  @property
  def channels(self) -> int:
    """Channels C of the grid it gives."""


class VisionExpert(Protocol):
  """A Flax module that turns normalised pixels into a grid of features."""

  def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B h w C"]:
    """Encodes pixels normalised with CLIP's mean and deviation."""


ModuleType = type["nn.Module"]
