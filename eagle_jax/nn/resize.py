"""Resampling of pictures, feature grids and position tables, to the last bit that matters.

Every resize is two products with small matrices, one per axis. The matrices are built
with numpy while tracing, in float32 like the original's own coordinates: exact ones move
the released models' inputs by 1e-4, far above float32 noise.

Source: PyTorch, UpSample.h and UpSampleKernel.cpp, for the coordinates and kernels.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from eagle_jax.errors import EagleError

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Float

  Weights = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def resize_align_corners(
  grid: Float[Array, "B H W C"], side: int
) -> Float[Array, "B {side} {side} C"]:
  """Resamples bilinearly to a square, holding the four corners in place.

  Output row i is read at input row i·(H-1)/(side-1); shrinking does not blur.

  Source: EAGLE, multi_backbone_channel_concatenation_encoder.py, forward.

  Args:
    grid: pictures or features; computed in float32, given back in their dtype.
    side: cells per output side, at least 2.

  Raises:
    EagleError: if `side` is under 2, for which a corner has no meaning.
  """
  if side < 2:
    raise EagleError(f"a grid with fixed corners needs at least 2 cells per side, not {side}")
  if grid.shape[1:3] == (side, side):
    return grid
  rows, columns = (_corner_matrix(length, side) for length in grid.shape[1:3])
  return _apply(rows, columns, grid)


def resize_antialias(
  images: Float[Array, "B H W C"], height: int, width: int
) -> Float[Array, "B {height} {width} C"]:
  """Resamples with a triangle that widens when shrinking, cell centres aligned.

  Source: PyTorch, interpolate(mode='bilinear', antialias=True), as Pix2Struct uses it.
  """
  rows = _kernel_matrix(images.shape[1], height, kernel=_triangle, radius=1)
  columns = _kernel_matrix(images.shape[2], width, kernel=_triangle, radius=1)
  return _apply(rows, columns, images)


def resize_cubic_antialias(
  grid: Float[Array, "B H W C"], side: int
) -> Float[Array, "B {side} {side} C"]:
  """Resamples with a cubic (a = -1/2) that widens when shrinking, cell centres aligned.

  Source: PyTorch, interpolate(mode='bicubic', antialias=True), as EAGLE's CLIP resizes
  its position table.
  """
  rows = _kernel_matrix(grid.shape[1], side, kernel=functools.partial(_cubic, a=-0.5), radius=2)
  columns = _kernel_matrix(grid.shape[2], side, kernel=functools.partial(_cubic, a=-0.5), radius=2)
  return _apply(rows, columns, grid)


def resize_cubic(grid: Float[Array, "B H W C"], side: int) -> Float[Array, "B {side} {side} C"]:
  """Resamples with a cubic (a = -3/4) of four cells, border cells repeated, no blur.

  Source: PyTorch, interpolate(mode='bicubic'), as EVA-02 resizes its position table.
  """
  return _apply(_cubic_matrix(grid.shape[1], side), _cubic_matrix(grid.shape[2], side), grid)


def pixel_unshuffle(
  grid: Float[Array, "B H W C"], factor: int
) -> Float[Array, "B h w C*factor*factor"]:
  """Folds squares of `factor` x `factor` cells into channels.

  Channel c of the cell at (dy, dx) in its square becomes c·factor² + dy·factor + dx.

  Raises:
    EagleError: if `factor` does not divide both sides.
  """
  batch, height, width, channels = grid.shape
  if height % factor or width % factor:
    raise EagleError(f"pixel_unshuffle: {factor} must divide both sides of {height}x{width}")
  h, w = height // factor, width // factor
  grid = grid.reshape(batch, h, factor, w, factor, channels)
  return grid.transpose(0, 1, 3, 5, 2, 4).reshape(batch, h, w, channels * factor * factor)


def _apply(
  rows: Weights, columns: Weights, grid: Float[Array, "B H W C"]
) -> Float[Array, "B h w C"]:
  """Multiplies both axes by their matrices [h, H] and [w, W], in float32."""
  out = jnp.einsum(
    "ih,bhwc,jw->bijc",
    rows,
    grid.astype(jnp.float32),
    columns,
    precision=jax.lax.Precision.HIGHEST,  # an accelerator's default would round to bfloat16
  )
  return out.astype(grid.dtype)


def _corner_matrix(length: int, side: int) -> Weights:
  """Weights [side, length] of linear interpolation with both ends held in place."""
  step = np.float32(length - 1) / np.float32(side - 1)
  source = step * np.arange(side, dtype=np.float32)
  low = np.minimum(source.astype(np.int64), length - 1)
  share = np.clip(source - low.astype(np.float32), 0, 1)  # of the upper neighbour
  matrix = np.zeros((side, length), np.float32)
  each = np.arange(side)
  np.add.at(matrix, (each, low), np.float32(1) - share)
  np.add.at(matrix, (each, np.minimum(low + 1, length - 1)), share)
  return matrix


def _kernel_matrix(
  length: int, side: int, *, kernel: Callable[[Weights], Weights], radius: int
) -> Weights:
  """Weights [side, length] of a kernel stretched by the scale when shrinking.

  Args:
    length: input cells.
    side: output cells.
    kernel: weight at a distance in input cells (output cells when shrinking).
    radius: distance beyond which the kernel is zero.
  """
  half = np.float32(0.5)
  scale = np.float32(length) / np.float32(side)
  stretch = max(scale, np.float32(1))
  support = np.float32(radius) * stretch
  centre = (scale * (np.arange(side, dtype=np.float32) + half))[:, None]  # [side, 1]
  first = np.maximum((centre - support + half).astype(np.int64), 0)
  last = np.minimum((centre + support + half).astype(np.int64), length)  # exclusive
  cell = np.arange(length)[None]  # [1, length]
  weights = kernel((cell.astype(np.float32) - centre + half) * (np.float32(1) / stretch))
  weights = np.where((cell >= first) & (cell < last), weights, np.float32(0))
  return weights / weights.sum(-1, keepdims=True)


def _cubic_matrix(length: int, side: int) -> Weights:
  """Weights [side, length] of four-cell cubic interpolation, indices held at the borders."""
  half = np.float32(0.5)
  source = np.float32(length) / np.float32(side) * (np.arange(side, dtype=np.float32) + half) - half
  low = np.floor(source)
  matrix = np.zeros((side, length), np.float32)
  for offset in range(-1, 3):
    cell = np.clip(low.astype(np.int64) + offset, 0, length - 1)
    weight = _cubic(source - low - np.float32(offset), a=-0.75)
    np.add.at(matrix, (np.arange(side), cell), weight)
  return matrix


def _triangle(distance: Weights) -> Weights:
  """1 - |x| where positive."""
  return np.maximum(np.float32(1) - np.abs(distance), np.float32(0))


def _cubic(distance: Weights, *, a: float) -> Weights:
  """Keys' cubic convolution kernel, of radius 2, with free parameter `a`."""
  x = np.abs(distance)
  slope = np.float32(a)
  near = ((slope + 2) * x - (slope + 3)) * x * x + 1
  far = ((x - 5) * x + 8) * x * slope - 4 * slope
  return np.where(x < 1, near, np.where(x < 2, far, 0)).astype(np.float32)
