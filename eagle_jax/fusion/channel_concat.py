"""Channel concatenation, the fusion that the EAGLE paper chooses.

Source: EAGLE (arXiv 2408.15998), section 3.3, and
multi_backbone_channel_concatenation_encoder.py, forward.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from eagle_jax.errors import EagleError

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Float


class ChannelConcat(nn.Module):
  """Lays the channels of all experts side by side in each cell; has no parameters."""

  def __call__(self, grids: Sequence[Float[Array, "B h w _"]]) -> Float[Array, "B N C"]:
    """Returns one token per cell, rows first, with the channels in the order of `grids`.

    Args:
      grids: one grid [B, h, w, C_i] per expert, all of one height and width.

    Returns:
      Tokens [B, h·w, C_1 + C_2 + …].

    Raises:
      EagleError: if two grids differ in height or width.
    """
    sides = [grid.shape[1:3] for grid in grids]
    if len(set(sides)) != 1:
      raise EagleError(
        f"channel_concat needs grids of one height and width, it got {sides} "
        "(model/mixture.py brings every grid to grid_side)"
      )
    fused = jnp.concatenate(grids, axis=-1)  # [B, h, w, C]
    return fused.reshape(fused.shape[0], -1, fused.shape[-1])  # [B, N, C]
