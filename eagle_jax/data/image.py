"""Pictures: decoded under limits, made square as EAGLE does, kept as bytes.

What decides about colours: transparency is laid over white, 16-bit greys keep their
upper byte, every other mode goes through Pillow's own conversion, an animation gives
its first picture, and the EXIF orientation is applied. Floats have no agreed range and
are refused. Normalisation is the device's work (`eagle_jax.nn.pixels`).

Differs: EAGLE drops the alpha channel, clips 16-bit greys to white, ignores the
orientation, and puts a black picture in place of what it cannot read.
"""

from __future__ import annotations

import io
import math
import typing
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from eagle_jax import config
from eagle_jax.data.records import BadRecordError, safe_join

if typing.TYPE_CHECKING:
  from jaxtyping import UInt8

MEAN_COLOUR = (122, 116, 104)
"""CLIP's mean colour in levels, rounded down. Source: EAGLE, mm_utils.py, expand2square."""
MAX_PIXELS = 64_000_000
"""Largest picture that is decoded, padded or resized, in pixels."""
_STRIP = 1 << 20  # pixels that are laid over white at once
_THIN_SIDE = 4096  # pixels that the long side of a very thin picture is shrunk to
# EPS, PDF and the like run other programs or touch other files when they are read.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


def read(file: str | bytes) -> Image.Image:
  """Decodes a file, given by path or by what is in it, to an RGB picture.

  Raises:
    BadRecordError: if it is no readable picture of a known format, or holds more than
      MAX_PIXELS; the size is looked at before anything is decoded.
  """
  return _opened(file, decode=True)


def examine(file: bytes) -> tuple[int, int]:
  """Returns width and height of an encoded picture; nothing is decoded.

  Raises:
    BadRecordError: if it is of no known format, or holds more than MAX_PIXELS.
  """
  return _opened(file, decode=False).size


def _opened(file: str | bytes, *, decode: bool) -> Image.Image:
  """Opens a picture under every limit, and decodes it to RGB where asked."""
  name = repr(file) if isinstance(file, str) else f"a picture of {len(file)} bytes"
  try:
    with Image.open(
      io.BytesIO(file) if isinstance(file, bytes) else file, formats=_FORMATS
    ) as held:
      if held.width * held.height > MAX_PIXELS:
        raise BadRecordError("image too large", f"{name} has {held.width}x{held.height} pixels")
      if not decode:
        return held
      held.load()
      ImageOps.exif_transpose(held, in_place=True)  # a copy would cost a third of the decoding
      return to_rgb(held)
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise BadRecordError("image too large", f"{name}: {error}") from None
  except FileNotFoundError:
    raise BadRecordError("missing file", f"{name} is not there") from None
  except BadRecordError:
    raise
  except Exception as error:  # a damaged file may make a decoder raise anything
    raise BadRecordError("unreadable image", f"{name}: {error or type(error).__name__}") from None


def to_rgb(image: Image.Image) -> Image.Image:
  """Converts any mode to RGB by the rules at the head of this module.

  Raises:
    BadRecordError: for pictures of floats, and of integers that do not fit 16 bits.
  """
  if image.mode == "F":
    raise BadRecordError("unreadable image", "a picture of floats has no agreed range")
  if image.mode.startswith("I"):
    levels = np.asarray(image)
    if levels.min() < 0 or levels.max() > 65535:
      raise BadRecordError("unreadable image", f"grey levels reach {levels.max()}, 65535 is white")
    return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")
  if image.has_transparency_data:
    return _over_white(image)
  return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
  """Lays a picture over white, strip by strip: whole, each of four layers would be held."""
  made = Image.new("RGB", image.size)
  rows = max(1, _STRIP // image.width)
  for top in range(0, image.height, rows):
    box = (0, top, image.width, min(top + rows, image.height))
    layer = image.crop(box).convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    made.paste(Image.alpha_composite(white, layer).convert("RGB"), box)
  return made


def preprocess(image: Image.Image, side: int, aspect: str) -> UInt8[np.ndarray, "{side} {side} 3"]:
  """Makes a picture square: bytes equal to those the released models were trained on.

  Source: EAGLE, mm_utils.py, expand2square; CLIPImageProcessor: shortest edge by
  Pillow's bicubic, then the centre, offsets rounded down.

  Args:
    image: RGB.
    side: pixels per side of the result.
    aspect: 'pad' to a square of the mean colour first, or 'square': cut the long sides.

  Raises:
    BadRecordError: if the cut would need more than MAX_PIXELS: a long and very thin picture.
  """
  if aspect == "pad":
    image = _pad(image)
  width, height = image.size
  short = min(width, height)
  size = (side * width // short, side * height // short)
  if size[0] * size[1] > MAX_PIXELS:
    raise BadRecordError("image too thin", f"{width}x{height} pixels cannot be cut to a square")
  # One axis at a time: Pillow 13 takes the other one first where a tall picture is cut.
  wide = image.resize((size[0], height), Image.Resampling.BICUBIC)
  resized = wide.resize(size, Image.Resampling.BICUBIC)
  left, top = (size[0] - side) // 2, (size[1] - side) // 2
  return np.array(resized.crop((left, top, left + side, top + side)), np.uint8)


def load(
  images: Sequence[str | bytes], data: config.Data, side: int, *, folder: str
) -> UInt8[np.ndarray, "i side side 3"]:
  """Reads the pictures of a record, or as many blank ones if the data asks for those.

  Args:
    images: each a name or the bytes of an encoded file.
    data: aspect and blanking.
    side: pixels per side of the results.
    folder: what names are relative to.

  Raises:
    BadRecordError: if a name leaves the folder or its file cannot be used.
  """
  if data.blank_images:
    return np.repeat(blank(side)[None], len(images), axis=0)
  files = (safe_join(folder, given) if isinstance(given, str) else given for given in images)
  pictures = [preprocess(read(file), side, data.aspect) for file in files]
  if len(pictures) == 1:  # the usual case, without another copy
    return pictures[0][None]
  return np.array(pictures, np.uint8).reshape(-1, side, side, 3)


def blank(side: int) -> UInt8[np.ndarray, "{side} {side} 3"]:
  """Returns a picture of the mean colour: what a model that sees nothing gets."""
  return np.full((side, side, 3), MEAN_COLOUR, np.uint8)


def _pad(image: Image.Image) -> Image.Image:
  """Puts a picture in the middle of a square of the mean colour."""
  # A thin picture's square may be huge although the picture is not; shrunk by a whole
  # factor first, it still has more pixels than any expert takes.
  if max(image.size) ** 2 > MAX_PIXELS:
    image = image.reduce(math.ceil(max(image.size) / _THIN_SIDE))
  width, height = image.size
  side = max(width, height)
  if width == height:
    return image
  square = Image.new("RGB", (side, side), MEAN_COLOUR)
  square.paste(image, ((side - width) // 2, (side - height) // 2))
  return square
