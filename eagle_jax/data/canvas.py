"""Pictures for a device that resizes them itself: bytes as decoded, and Pillow's weights.

A decoded picture is mostly smaller than the square it becomes, and making it that costs a
host far more than decoding it. So the host can send the picture, on a canvas of one of a
few shapes, and for each axis the few integers that Pillow would weigh it with;
`eagle_jax.nn.pil_resize` does the rest and comes to the bytes of `image.preprocess`.

Source: Pillow, src/libImaging/Resample.c, for the filter, its support and its rounding.
"""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from eagle_jax import config
from eagle_jax.data import image, pixels

if typing.TYPE_CHECKING:
  from jaxtyping import Float64, Int32, UInt8

PRECISION = 22
"""Bits behind the point of a weight."""
SIDES = (512, 640, 1024, 1536, 2048)
"""Heights and widths of a canvas; a picture larger than the last is resized on the host."""
MAX_TAPS = 514
"""Products of a byte and an 8-bit digit of a weight that add up exactly in float32."""
_RADIUS = 2  # of the bicubic filter, in pixels of the coarser side


class Axis(NamedTuple):
  """How one axis of a picture is resampled; leading axes number pictures.

  Attributes:
    first: pixel that the first weight of a result is for; may lie outside the picture.
    taps: weights in units of 2**-PRECISION; 0 for pixels outside the picture.
    outside: sum of the weights of the padding's pixels, which are not sent.
  """

  first: Int32[np.ndarray, "*b side"]
  taps: Int32[np.ndarray, "*b side k"]
  outside: Int32[np.ndarray, "*b side"]


class Drawn(NamedTuple):
  """One picture, a byte of no meaning behind each pixel, and how its axes become `side`."""

  pixels: UInt8[np.ndarray, "h w 4"]
  rows: Axis
  columns: Axis


class Canvas(NamedTuple):
  """Pictures of a batch on canvases of one shape.

  What lies beside a picture, and behind each pixel, is any bytes and has no weight.
  """

  pixels: UInt8[np.ndarray, "B H W 4"]
  rows: Axis
  columns: Axis


def weights(
  length: int, side: int
) -> tuple[Int32[np.ndarray, " {side}"], Int32[np.ndarray, "{side} k"]]:
  """Returns the weights with which Pillow resamples `length` pixels to `side`, bicubic.

  Returns:
    the first pixel of each result and its k weights in units of 2**-PRECISION; weights of
    pixels that do not exist are 0.
  """
  scale = length / side
  stretch = max(scale, 1.0)
  centres = (np.arange(side) + 0.5) * scale
  # Truncation, not rounding down: a negative start counts as 0 anyway.
  first = np.maximum((centres - _RADIUS * stretch + 0.5).astype(np.int64), 0)
  end = np.minimum((centres + _RADIUS * stretch + 0.5).astype(np.int64), length)
  pixel = first[:, None] + np.arange(num_taps(length, side))[None]  # [side, k]
  values = _cubic((pixel - centres[:, None] + 0.5) * (1.0 / stretch))
  values = np.where(pixel < end[:, None], values, 0.0)
  values = values / _summed(values)[:, None]
  fixed = np.trunc(np.copysign(0.5, values) + values * (1 << PRECISION))
  return first.astype(np.int32), fixed.astype(np.int32)


def num_taps(length: int, side: int) -> int:
  """Returns how many weights a result has at most where `length` pixels become `side`."""
  return 2 * math.ceil(_RADIUS * max(length / side, 1.0)) + 1


def _summed(values: Float64[np.ndarray, "side k"]) -> Float64[np.ndarray, " side"]:
  """Returns the sums of rows added from left to right, as their last bit depends on it."""
  return np.cumsum(values, axis=1)[:, -1]


def _cubic(distance: Float64[np.ndarray, "side k"]) -> Float64[np.ndarray, "side k"]:
  """Keys' cubic convolution kernel with a = -1/2, in Pillow's order of operations."""
  x = np.abs(distance)
  near = (1.5 * x - 2.5) * x * x + 1.0
  far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
  return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def draw(picture: Image.Image, side: int, aspect: str) -> Drawn:
  """Takes a picture as it is, with what makes it `image.preprocess`'s square on a device.

  Args:
    picture: of any mode. One larger than every canvas, or than `side` a hundredfold, is
      made square here.
    side: pixels per side of the square.
    aspect: 'pad' or 'square', as there.

  Raises:
    BadRecordError: as there.
  """
  size = picture.size
  short, long = min(size), max(size)
  scaled = [side * n // short for n in size]
  too_thin = aspect != "pad" and math.prod(scaled) > image.MAX_PIXELS
  if long > SIDES[-1] or num_taps(long, side) > MAX_TAPS or too_thin:
    whole = _axis(side, side, side)
    made = Image.fromarray(image.preprocess(picture, side, aspect))
    return Drawn(pixels.view(made), whole, whole)
  if aspect == "pad":
    columns, rows = (_axis(n, long, side, shift=(long - n) // 2) for n in size)
  else:
    columns, rows = (
      _cut(_axis(n, n, whole), (whole - side) // 2, side)
      for n, whole in zip(size, scaled, strict=True)
    )
  return Drawn(pixels.view(image.to_rgb(picture)), rows, columns)


def load(
  images: Sequence[str | bytes], data: config.Data, side: int, *, folder: str
) -> tuple[Drawn, ...]:
  """Draws the pictures of a record; arguments and errors as `image.load`."""
  if data.blank_images:
    return (blank(side),) * len(images)
  return tuple(draw(picture, side, data.aspect) for picture in image.decoded(images, folder))


def blank(side: int) -> Drawn:
  """Returns what becomes `image.blank`."""
  return draw(Image.new("RGB", (1, 1), image.MEAN_COLOUR), side, "pad")


@functools.lru_cache(maxsize=256)  # data sets hold few different sizes
def _axis(present: int, length: int, side: int, *, shift: int = 0) -> Axis:
  """Returns an axis [side] of `length` pixels of which `present` are sent, from `shift` on."""
  first, taps = weights(length, side)
  pixel = first[:, None] + np.arange(taps.shape[1], dtype=np.int32)[None] - shift  # [side, k]
  sent = (pixel >= 0) & (pixel < present)
  outside = np.where(sent, 0, taps).sum(axis=1, dtype=np.int32)
  return Axis(first - shift, np.where(sent, taps, 0), outside)


def _cut(axis: Axis, begin: int, side: int) -> Axis:
  """Returns `side` results of an axis from `begin` on."""
  return Axis(*(values[begin : begin + side] for values in axis))


def stack(pictures: Sequence[Drawn]) -> Canvas:
  """Puts B pictures on canvases of the smallest shape that holds each; at least one picture.

  Shapes come from SIDES, so there are few of them and a device compiles for few.
  """
  side = len(pictures[0].rows.first)
  highest, widest = (max(p.pixels.shape[axis] for p in pictures) for axis in (0, 1))
  # Only what the host made square can be larger than every canvas.
  height, width = (next((n for n in SIDES if n >= most), side) for most in (highest, widest))
  # Clearing what has no weight would cost as much as copying the pictures.
  canvases = pixels.room((len(pictures), height, width, 4))
  for canvas, drawn in zip(canvases, pictures, strict=True):
    h, w, _ = drawn.pixels.shape
    canvas[:h, :w] = drawn.pixels
  taps = num_taps(max(height, width), side)
  rows = _stacked([drawn.rows for drawn in pictures], taps)
  return Canvas(canvases, rows, _stacked([drawn.columns for drawn in pictures], taps))


def _stacked(axes: Sequence[Axis], taps: int) -> Axis:
  """Returns axes [B, side] with as many taps each."""
  weighed = np.zeros((len(axes), len(axes[0].first), taps), np.int32)
  for all_taps, axis in zip(weighed, axes, strict=True):
    all_taps[:, : axis.taps.shape[1]] = axis.taps
  first, outside = (
    np.stack(each) for each in zip(*((a.first, a.outside) for a in axes), strict=True)
  )
  return Axis(first, weighed, outside)
