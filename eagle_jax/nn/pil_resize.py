"""Pillow's bicubic resize on the device, to the last bit: two products per picture.

Pillow weighs bytes with integers of 22 bits behind the point and rounds to bytes between
the axes. A weight is split here into three digits of 8 bits: bfloat16 holds digits and
bytes exactly, float32 sums of their products likewise, and integers put them together. So
nothing is rounded but what Pillow rounds, for half the cost of true float32 products,
which would get some bytes wrong by one.

Source: Pillow, src/libImaging/Resample.c, for the order of the passes and the rounding.
"""

from __future__ import annotations

import functools
import typing

import jax
import jax.numpy as jnp

from eagle_jax.data.canvas import PRECISION
from eagle_jax.data.image import MEAN_COLOUR

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Int32, UInt8

  from eagle_jax.data.canvas import Axis, Canvas

_DIGIT = 8  # bits
_DIGITS = 3


def resize(canvas: Canvas) -> UInt8[Array, "B side side 3"]:
  """Makes the pictures of a canvas square: the bytes of `data.image.preprocess`; wants a jit.

  Args:
    canvas: pictures [B, H, W, 4] and their axes; what pads a picture has the mean colour.
  """

  def one(canvas: Canvas) -> UInt8[Array, "side side 3"]:
    """Resizes one picture [H, W, 4], first along its rows."""
    columns_first = jnp.asarray(canvas.pixels)[..., :3].transpose(1, 0, 2)  # [W, H, 3]
    wide = _weighed(columns_first, canvas.columns)  # [side, H, 3]
    return _weighed(wide.transpose(1, 0, 2), canvas.rows)

  # One after the other: the sums of a picture take 12 times the memory of its bytes.
  return typing.cast("Array", jax.lax.map(one, canvas))


def matrix(axis: Axis, length: int) -> Int32[Array, "side {length}"]:
  """Returns the weights of an axis, first [side], taps [side, k], as a matrix."""
  pixel = jnp.arange(length, dtype=jnp.int32)[None]  # [1, length]
  behind = pixel - jnp.asarray(axis.first)[:, None]  # [side, length]
  taps = jnp.asarray(axis.taps)
  terms = (jnp.where(behind == n, taps[:, n, None], 0) for n in range(taps.shape[1]))
  return functools.reduce(jnp.add, terms)


def _weighed(pixels: UInt8[Array, "n m 3"], axis: Axis) -> UInt8[Array, "side m 3"]:
  """Resamples the first axis and rounds to bytes."""
  levels = pixels.reshape(len(pixels), -1).astype(jnp.bfloat16)  # [n, m*3]
  colour = jnp.tile(jnp.asarray(MEAN_COLOUR, jnp.int32), pixels.shape[1])  # [m*3]
  total = jnp.asarray(axis.outside)[:, None] * colour[None] + (1 << PRECISION - 1)
  for place, digit in enumerate(_digits(matrix(axis, len(pixels)))):
    part = jnp.matmul(digit.astype(jnp.bfloat16), levels, preferred_element_type=jnp.float32)
    total = total + (part.astype(jnp.int32) << place * _DIGIT)
  sampled = jnp.clip(total >> PRECISION, 0, 255).astype(jnp.uint8)
  return sampled.reshape(-1, *pixels.shape[1:])


def _digits(weights: Int32[Array, "side n"]) -> list[Int32[Array, "side n"]]:
  """Splits integers into digits in [-128, 127], the lowest first; what is left is the last."""
  digits, half = [], 1 << _DIGIT - 1
  for _ in range(_DIGITS - 1):
    digits.append(((weights + half) & (2 * half - 1)) - half)
    weights = (weights - digits[-1]) >> _DIGIT
  return [*digits, weights]
