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
import itertools
import math
import typing
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

from eagle_jax import config
from eagle_jax.data.records import BadRecordError, safe_join

if typing.TYPE_CHECKING:
  from jaxtyping import UInt8

MEAN_COLOUR = (122, 116, 104)
"""CLIP's mean colour in levels, rounded down. Source: EAGLE, mm_utils.py, expand2square."""
MAX_PIXELS = 64_000_000
"""Largest picture that is decoded, padded or resized, in pixels."""
MAX_HELD = 4 * MAX_PIXELS
"""Bytes that a picture and what decodes, turns or cuts it may hold at once."""
_WHOLE = 1 << 20  # pixels up to which a picture is converted and resized at once
_STRIP = 1 << 18  # pixels of what a larger one is cut into
_THIN_SIDE = 4096  # pixels that the long side of a very thin picture is shrunk to
# EPS, PDF and the like run other programs or touch other files when they are read.
_HELD = {"WEBP": 16, "TIFF": 16}  # bytes per pixel, a decoder's own included; others: 4
_SCAN = 16  # bytes of the header of a JPEG's scan, at most
_ORIENTATION = 0x0112  # EXIF's tag; 2 to 8 need a copy
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


def read(file: str | bytes) -> Image.Image:
  """Decodes a file, given by path or by what is in it, to an RGB picture.

  Raises:
    BadRecordError: if it is no readable picture of a known format, or holds more than
      MAX_PIXELS or would take more than MAX_HELD; the size is looked at before anything
      is decoded.
  """
  return to_rgb(_opened(file, decode=True))


def examine(file: bytes) -> tuple[int, int]:
  """Returns width and height of an encoded picture; nothing is decoded.

  Raises:
    BadRecordError: if it is of no known format, or as `read` too large to be decoded.
  """
  return _opened(file, decode=False).size


def _opened(file: str | bytes, *, decode: bool) -> Image.Image:
  """Opens a picture under every limit, and decodes it where asked, in its own mode."""
  name = repr(file) if isinstance(file, str) else f"a picture of {len(file)} bytes"
  try:
    with Image.open(
      io.BytesIO(file) if isinstance(file, bytes) else file, formats=_FORMATS
    ) as held:
      if held.width * held.height > MAX_PIXELS:
        raise BadRecordError("image too large", f"{name} has {held.width}x{held.height} pixels")
      _demand_memory(held, _decoder_holds(held), "decoded")
      if not decode:
        return held
      held.load()
      if held.getexif().get(_ORIENTATION, 1) in range(2, 9):
        _demand_memory(held, 8, "turned")
      ImageOps.exif_transpose(held, in_place=True)  # a copy would cost a third of the decoding
      _demand_range(held)
      _converted(held.crop((0, 0, 1, 1)))  # whether its mode and palette can be
      return held
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
    raise BadRecordError("image too large", f"{name}: {error}") from None
  except FileNotFoundError:
    raise BadRecordError("missing file", f"{name} is not there") from None
  except BadRecordError:
    raise
  except Exception as error:  # a damaged file may make a decoder raise anything
    raise BadRecordError("unreadable image", f"{name}: {error or type(error).__name__}") from None


def _demand_memory(image: Image.Image, held: float, done: str) -> None:
  """Checks that what is done to a picture, holding so many bytes per pixel, may take so much."""
  if (needed := image.width * image.height * held) > MAX_HELD:
    raise BadRecordError(
      "image too large",
      f"{image.width}x{image.height} pixels of {image.format} take {needed / 1e6:.0f} MB to be "
      f"{done}, {MAX_HELD / 1e6:.0f} are allowed",
    )


def _decoder_holds(image: Image.Image) -> float:
  """Returns the bytes per pixel that decoding takes at most, Pillow's own included.

  Source: libjpeg, jdmaster.c: coefficients of 16 bits are held for the whole picture where
  its first scan does not hold all that there is.
  """
  if isinstance(image, JpegImagePlugin.JpegImageFile) and image.fp is not None:
    # Pillow stops behind the scan's header, whose length goes by what the scan holds.
    image.fp.seek(max(0, image.fp.tell() - _SCAN))
    header = image.fp.read(_SCAN)
    parts = (b"\xff\xda\0" + bytes((6 + 2 * n, n)) for n in range(1, image.layers))
    apart = any(header[-2 - part[3] :].startswith(part) for part in parts)
    if image.info.get("progressive") or apart:
      sampled = [(across, down) for _, across, down, _ in image.layer]
      most = max(h for h, _ in sampled) * max(v for _, v in sampled)
      return 4 + 2 * sum(h * v for h, v in sampled) / max(most, 1)
  return _HELD.get(image.format or "", 4)


def to_rgb(image: Image.Image) -> Image.Image:
  """Converts any mode to RGB by the rules at the head of this module.

  Raises:
    BadRecordError: for pictures of floats, and of integers that do not fit 16 bits.
  """
  _demand_range(image)
  if image.mode == "RGB" and not image.has_transparency_data:
    return image
  rows = _strips(image.width, image.height)
  return _joined((_converted(_rows(image, *those)) for those in rows), image.size)


def _demand_range(image: Image.Image) -> None:
  """Checks that the levels of a picture have a meaning.

  Raises:
    BadRecordError: as `to_rgb`.
  """
  if image.mode == "F":
    raise BadRecordError("unreadable image", "a picture of floats has no agreed range")
  if image.mode == "I":
    darkest, brightest = typing.cast("tuple[float, float]", image.getextrema())
    if darkest < 0 or brightest > 65535:
      raise BadRecordError("unreadable image", f"grey levels reach {brightest}, 65535 is white")


def _converted(image: Image.Image) -> Image.Image:
  """Converts a picture, or a strip of one, whose levels have a meaning."""
  if image.mode.startswith("I"):
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
  if image.has_transparency_data:
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layer).convert("RGB")
  return image if image.mode == "RGB" else image.convert("RGB")


def preprocess(image: Image.Image, side: int, aspect: str) -> UInt8[np.ndarray, "{side} {side} 3"]:
  """Makes a picture square: bytes equal to those the released models were trained on.

  Source: EAGLE, mm_utils.py, expand2square; CLIPImageProcessor: shortest edge by
  Pillow's bicubic, then the centre, offsets rounded down.

  Whole, it is only held as it is given: strips of it are converted, padded and resized
  along their rows, which do not depend on each other, and then columns along theirs.

  Args:
    image: of any mode.
    side: pixels per side of the result.
    aspect: 'pad' to a square of the mean colour first, or 'square': cut the long sides.

  Raises:
    BadRecordError: if the cut would need more than MAX_PIXELS, or far more than
      MAX_HELD: a picture that is long and thin; or as `to_rgb`.
  """
  _demand_range(image)
  width, height = image.size
  if aspect == "pad":
    if max(image.size) ** 2 > MAX_PIXELS:
      image = _shrunk(image)
    width = height = max(image.size)
  short = min(width, height)
  size = (side * width // short, side * height // short)
  narrow = 4 * side * height  # bytes of the picture with its rows resized
  held = 4 * image.width * image.height + narrow
  too_much = narrow > MAX_HELD * 13 // 100 and held > MAX_HELD * 17 // 16
  if size[0] * size[1] > MAX_PIXELS or (aspect != "pad" and too_much):
    raise BadRecordError("image too thin", f"{width}x{height} pixels cannot be cut to a square")
  left, top = (size[0] - side) // 2, (size[1] - side) // 2
  # One axis at a time: Pillow 13 takes the other one first where a tall picture is cut.
  padded = (_padded(image, (width, height), rows) for rows in _strips(width, height))
  strips = (each.resize((size[0], each.height), Image.Resampling.BICUBIC) for each in padded)
  cut = (_part(each, (left, 0, left + side, each.height)) for each in strips)
  wide = _joined(cut, (side, height))
  made = np.empty((side, side, 3), np.uint8)
  for first, end in _strips(max(height, size[1]), side):
    columns = _part(wide, (first, 0, end, height))
    resized = columns.resize((end - first, size[1]), Image.Resampling.BICUBIC)
    made[:, first:end] = np.asarray(_part(resized, (0, top, end - first, top + side)))
  return made


def _padded(image: Image.Image, size: tuple[int, int], rows: tuple[int, int]) -> Image.Image:
  """Returns some rows, in RGB, of a picture in the middle of `size` pixels of the mean colour."""
  left, above = (size[0] - image.width) // 2, (size[1] - image.height) // 2
  top, bottom = (min(max(row - above, 0), image.height) for row in rows)
  strip_size = (size[0], rows[1] - rows[0])
  if (image.width, bottom - top) == strip_size:
    return _converted(_rows(image, top, bottom))
  strip = Image.new("RGB", strip_size, MEAN_COLOUR)
  if top < bottom:
    strip.paste(_converted(_rows(image, top, bottom)), (left, top + above - rows[0]))
  return strip


def _shrunk(image: Image.Image) -> Image.Image:
  """Returns a picture in RGB and smaller by a whole factor.

  A thin picture's square may be huge although the picture is not; it still has more pixels
  than any expert takes.
  """
  factor = math.ceil(max(image.size) / _THIN_SIDE)
  rows = _strips(image.width, image.height, factor)
  strips = (_converted(_rows(image, *those)).reduce(factor) for those in rows)
  return _joined(strips, (-(-image.width // factor), -(-image.height // factor)))


def _strips(width: int, height: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
  """Yields first row and end of strips that have a multiple of some rows, but for the last."""
  pixels = _WHOLE if width * height <= _WHOLE else _STRIP
  step = max(1, pixels // (width * multiple)) * multiple
  for top in range(0, height, step):
    yield top, min(top + step, height)


def _rows(image: Image.Image, top: int, bottom: int) -> Image.Image:
  """Returns rows of a picture, itself where they are all."""
  return _part(image, (0, top, image.width, bottom))


def _part(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
  """Returns a part of a picture, itself where that is all."""
  return image if box == (0, 0, *image.size) else image.crop(box)


def _joined(strips: Iterable[Image.Image], size: tuple[int, int]) -> Image.Image:
  """Puts strips below each other, as many as fill a picture in RGB."""
  strips = iter(strips)
  first = next(strips)
  if first.size == size:
    return first
  made, row = Image.new("RGB", size), 0
  for strip in itertools.chain((first,), strips):
    made.paste(strip, (0, row))
    row += strip.height
  return made


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
  pictures = [preprocess(picture, side, data.aspect) for picture in decoded(images, folder)]
  if len(pictures) == 1:  # the usual case, without another copy
    return pictures[0][None]
  return np.array(pictures, np.uint8).reshape(-1, side, side, 3)


def decoded(images: Sequence[str | bytes], folder: str) -> Iterator[Image.Image]:
  """Reads the pictures of a record one after the other, each in the mode it was saved in.

  Arguments and errors as `load`.
  """
  for given in images:
    file = safe_join(folder, given) if isinstance(given, str) else given
    yield _opened(file, decode=True)


def blank(side: int) -> UInt8[np.ndarray, "{side} {side} 3"]:
  """Returns a picture of the mean colour: what a model that sees nothing gets."""
  return np.full((side, side, 3), MEAN_COLOUR, np.uint8)
