"""Rotary positions: half-split for language models, interleaved pairs on a grid for EVA-02.

The two differ in which channels turn together. The language model pairs channel j
with channel j + d/2, EVA-02 pairs 2j with 2j + 1; their tables are laid out to match
and must not be exchanged. Tables are computed, never stored: upstream keeps EVA-02's
as buffers and casts them to bfloat16 in training, which moves its output by 8e-4
relative; here they stay float32 whatever the model's dtype.
"""

from __future__ import annotations

import typing

import jax.numpy as jnp
import numpy as np

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Float, Float32, Int

GRID_EXTENT = 16
"""Length that every grid side is squeezed to before it is turned into angles, in the
cells of the pre-training grid. Source: EVA-02, VisionRotaryEmbeddingFast, pt_seq_len."""

GRID_THETA = 10000.0


def rotary(
  positions: Int[Array, "B S"], head_dim: int, theta: float
) -> tuple[Float32[Array, "B S d"], Float32[Array, "B S d"]]:
  """Computes cosines and sines for `apply_rotary_half`.

  Channel j and channel j + d/2 share the angle position · theta^(−2j/d).

  Source: RoFormer, section 3.4.2, in the channel order of Hugging Face's Llama.

  Args:
    positions: position of each token in its conversation, counted from 0.
    head_dim: d, even.
    theta: base of the geometric row of wavelengths.
  """
  frequencies = _frequencies(head_dim, theta)  # [d/2]
  angles = positions.astype(jnp.float32)[:, :, None] * frequencies[None, None]  # [B, S, d/2]
  angles = jnp.concatenate([angles, angles], axis=-1)  # [B, S, d]
  return jnp.cos(angles), jnp.sin(angles)


def apply_rotary_half(
  x: Float[Array, "B S H d"],
  cos: Float32[Array, "B S d"],
  sin: Float32[Array, "B S d"],
) -> Float[Array, "B S H d"]:
  """Turns the plane of channels (j, j + d/2) of every head by the angle of its position.

  Args:
    x: queries or keys; turned in float32, given back in their own dtype.
    cos: first table of `rotary`.
    sin: second table of `rotary`.
  """
  wide = x.astype(jnp.float32)
  first, second = jnp.split(wide, 2, axis=-1)
  turned = jnp.concatenate([-second, first], axis=-1)
  return (wide * cos[:, :, None] + turned * sin[:, :, None]).astype(x.dtype)


def rotary_grid(side: int, head_dim: int) -> tuple[Float32[Array, "T d"], Float32[Array, "T d"]]:
  """Computes cosines and sines of a square grid for `apply_rotary_pairs`.

  The first half of the channels follows the row, the second the column; within a
  half, channels 2j and 2j + 1 share one frequency. Row i stands at i / side · 16
  whatever the side, so windows and the whole grid span the same angles.

  Source: EVA-02, section 2; rope.py, VisionRotaryEmbeddingFast.

  Args:
    side: cells per side, T = side²; row-major.
    head_dim: d, a multiple of 4.
  """
  frequencies = _frequencies(head_dim // 2, GRID_THETA)  # [d/4]
  places = jnp.arange(side, dtype=jnp.float32) / side * GRID_EXTENT
  angles = jnp.repeat(places[:, None] * frequencies[None], 2, axis=-1)  # [side, d/2]
  whole = (side, side, head_dim // 2)
  rows = jnp.broadcast_to(angles[:, None], whole)
  columns = jnp.broadcast_to(angles[None, :], whole)
  grid = jnp.concatenate([rows, columns], axis=-1).reshape(side * side, head_dim)  # [T, d]
  return jnp.cos(grid), jnp.sin(grid)


def apply_rotary_pairs(
  x: Float[Array, "B T H d"], cos: Float32[Array, "T d"], sin: Float32[Array, "T d"]
) -> Float[Array, "B T H d"]:
  """Turns the plane of channels (2j, 2j + 1) of every head by the angle of its cell.

  Args:
    x: queries or keys; turned in float32, given back in their own dtype.
    cos: first table of `rotary_grid`.
    sin: second table of `rotary_grid`.
  """
  wide = x.astype(jnp.float32)
  pairs = wide.reshape(*x.shape[:-1], x.shape[-1] // 2, 2)
  turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(x.shape)
  out = wide * cos[None, :, None] + turned * sin[None, :, None]  # [B, T, H, d]
  return out.astype(x.dtype)


def _frequencies(channels: int, theta: float) -> Float32[np.ndarray, " half"]:
  """Angles per position, theta^(−2j/channels); times positions they give [S, channels/2].

  On the host and in upstream's order of float32 operations: an error here is
  multiplied by the position, and accelerators take powers less exactly.
  """
  exponents = np.arange(0, channels, 2, dtype=np.float32) / np.float32(channels)
  return np.float32(1.0) / np.float32(theta) ** exponents
