"""Cutting a grid into square windows and putting it together again."""

from __future__ import annotations

import typing

import einops
import jax.numpy as jnp

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Float


def partition(grid: Float[Array, "B H W C"], window: int) -> Float[Array, "M window window C"]:
  """Cuts a grid into windows, padding it with zeros below and to the right.

  The zeros are cells like any other to what follows: upstream does not mask them.

  Args:
    grid: features; sides need not be multiples of `window`.
    window: cells per side of a window.

  Returns:
    All windows of all rows, M = B · ⌈H/window⌉ · ⌈W/window⌉, row-major within each grid.
  """
  below, right = -grid.shape[1] % window, -grid.shape[2] % window
  if below or right:
    grid = jnp.pad(grid, ((0, 0), (0, below), (0, right), (0, 0)))
  return einops.rearrange(grid, "b (m y) (n x) c -> (b m n) y x c", y=window, x=window)


def unpartition(
  windows: Float[Array, "M window window C"], height: int, width: int
) -> Float[Array, "B H W C"]:
  """Puts the windows of `partition` together again and cuts the padding off.

  Args:
    windows: as `partition` gives them.
    height: cells H of the grid before padding.
    width: cells W of the grid before padding.
  """
  side = windows.shape[1]
  down, across = -(-height // side), -(-width // side)
  grid = einops.rearrange(windows, "(b m n) y x c -> b (m y) (n x) c", m=down, n=across)
  return grid[:, :height, :width]
