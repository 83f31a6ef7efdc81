"""All vision experts on the same pictures, each at its own size, all grids at one side.

Source: EAGLE, multi_backbone_channel_concatenation_encoder.py, forward.
"""

from __future__ import annotations

import typing

import flax.linen as nn
import jax.numpy as jnp

from eagle_jax.nn import remat
from eagle_jax.nn.pixels import normalise
from eagle_jax.nn.resize import resize_align_corners
from eagle_jax.registry import lookup
from eagle_jax.types import ExpertSize
from eagle_jax.vision import EXPERTS

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float, UInt8

NamedSize = tuple[str, ExpertSize]
"""An expert's name in `vision.EXPERTS` and the size it is built at."""


class Mixture(nn.Module):
  """Runs every expert and brings its grid to the common side.

  The parameters of an expert stand under its name.

  Attributes:
    experts: name and size of each expert, in channel order; any non-empty selection.
    grid_side: cells per side of every grid returned.
    dtype: of the computation; pixels and all resizing stay float32.
    remat: of the experts' blocks: one policy, or rules as `nn.remat.assign` takes them.
  """

  experts: tuple[NamedSize, ...]
  grid_side: int
  dtype: DTypeLike = jnp.float32
  remat: str = "none"

  @nn.compact
  def __call__(
    self, images: UInt8[Array, "M H W 3"] | Float[Array, "M H W 3"]
  ) -> tuple[Float[Array, "M s s _"], ...]:
    """Encodes M pictures.

    Args:
      images: uint8 in [0, 255], or float already normalised with CLIP's mean and deviation.

    Returns:
      One grid [M, s, s, C_i] per expert, s = grid_side, in the order of `experts`.
    """
    pixels = normalise(images)  # [M, H, W, 3] float32
    grids = []
    policies = remat.assign(self.remat, [f"vision/{name}" for name, _ in self.experts])
    for name, size in self.experts:
      module = lookup(EXPERTS, name, what="vision expert").module
      # Upstream shrinks without a filter (1024 to 336 pixels for CLIP), and the released
      # projector has learnt from what that gives.
      grid = module(size=size, dtype=self.dtype, remat=policies[f"vision/{name}"], name=name)(
        resize_align_corners(pixels, size.image_size)
      )
      grids.append(resize_align_corners(grid, self.grid_side).astype(self.dtype))
    return tuple(grids)
