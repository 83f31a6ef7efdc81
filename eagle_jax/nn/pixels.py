"""Pixel values: bytes to the normalised floats every expert takes, and back.

All experts of the released models see CLIP's mean and deviation, whatever statistics
they were pretrained with; Pix2Struct alone undoes them.
"""

from __future__ import annotations

import typing

import jax
import jax.numpy as jnp
import numpy as np

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Float, UInt8

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean of red, green, blue in [0, 1]. Source: CLIP, clip.py, _transform."""
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Deviation of red, green, blue. Source: CLIP, clip.py, _transform."""

# 1/255 in two parts: the first has 16 bits, so its product with a byte is exact in
# float32, and the sum of both products is rounded once, as if computed in float64.
_HIGH = np.float32(round(2.0**23 / 255) / 2.0**23)
_LOW = np.float32(1 / 255 - float(_HIGH))


def normalise(
  images: UInt8[Array, "*any H W 3"] | Float[Array, "*any H W 3"],
) -> Float[Array, "*any H W 3"]:
  """Returns (v/255 - mean) / deviation in float32 for bytes; floats pass unchanged.

  Args:
    images: uint8 in [0, 255], or floats that are already normalised.
  """
  if jnp.issubdtype(images.dtype, jnp.floating):
    return images
  levels = images.astype(jnp.float32)
  unit = levels * _HIGH + levels * _LOW  # [0, 1]
  return _divide(unit - _channels(CLIP_MEAN, unit), np.asarray(CLIP_STD, np.float32))


def denormalise(pixels: Float[Array, "*any H W 3"]) -> Float[Array, "*any H W 3"]:
  """Returns grey levels in [0, 255], neither rounded nor clipped, in the input's dtype."""
  return (pixels * _channels(CLIP_STD, pixels) + _channels(CLIP_MEAN, pixels)) * 255


def _divide(
  x: Float[Array, "*any 3"], divisor: np.ndarray[tuple[int], np.dtype[np.float32]]
) -> Float[Array, "*any 3"]:
  """Returns float32 x over a constant [3], rounded once.

  A plain division would do, but XLA turns one by a constant into a product with the
  rounded reciprocal, off by a last bit in every fourth value.
  """
  # Factors of 12 bits make the products of the remainder exact in float32.
  divisor_high = (divisor.view(np.uint32) & np.uint32(0xFFFFF000)).view(np.float32)
  inverse, high, low = (
    c.reshape((1,) * (x.ndim - 1) + (3,))
    for c in (1 / divisor, divisor_high, divisor - divisor_high)
  )
  quotient = x * inverse
  quotient_high = jax.lax.reduce_precision(quotient, exponent_bits=8, mantissa_bits=11)
  remainder = x - quotient_high * high - (quotient - quotient_high) * high - quotient * low
  return quotient + remainder * inverse


def _channels(values: tuple[float, ...], like: Float[Array, "*any 3"]) -> Float[Array, "*ones 3"]:
  """Returns one value per colour, in the dtype and rank of `like`."""
  return jnp.asarray(values, like.dtype).reshape((1,) * (like.ndim - 1) + (3,))
