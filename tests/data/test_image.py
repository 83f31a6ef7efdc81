import io
import os
import pathlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from eagle_jax import config
from eagle_jax.data import image
from eagle_jax.data.records import BadRecordError
from tests.data.hostile import chunk, hungry_files


def noise(height, width, channels=3, seed=0):
  shape = (height, width, channels) if channels > 1 else (height, width)
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(path, picture, **options):
  picture.save(path, **options)
  return str(path)


def test_rgb_is_read_as_it_is(tmp_path):
  want = noise(5, 7)
  got = image.read(saved(tmp_path / "a.png", Image.fromarray(want)))
  np.testing.assert_array_equal(np.asarray(got), want)


def test_grey_fills_three_channels(tmp_path):
  want = noise(5, 7, 1)
  got = np.asarray(image.read(saved(tmp_path / "a.png", Image.fromarray(want))))
  np.testing.assert_array_equal(got, np.repeat(want[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(tmp_path, mode):
  layers = len(mode)
  levels = np.zeros((2, 2, layers), np.uint8)  # black, seen or not
  levels[0, 0, -1], levels[0, 1, -1] = 255, 51
  got = np.asarray(image.read(saved(tmp_path / "a.png", Image.fromarray(levels, mode=None))))
  assert got[0, 0].tolist() == [0, 0, 0]
  assert got[0, 1].tolist() == [204, 204, 204]
  assert got[1, 1].tolist() == [255, 255, 255]


def test_a_transparent_palette_colour_is_white(tmp_path):
  picture = Image.new("P", (2, 1))
  picture.putpalette([0, 0, 0, 200, 10, 20])
  picture.putpixel((1, 0), 1)
  got = np.asarray(image.read(saved(tmp_path / "a.png", picture, transparency=0)))
  assert got[0].tolist() == [[255, 255, 255], [200, 10, 20]]


MODES = ("RGB", "RGBA", "LA", "P", "CMYK", "L", "1", "I", "I;16", "I;16B", "YCbCr")


def of_mode(mode):
  """Noise of 23 by 17 pixels."""
  if mode in ("I", "I;16", "I;16B"):
    levels = noise(17, 23).astype(np.uint16)[..., 0] * 251
    dtype = {"I": "<i4", "I;16": "<u2", "I;16B": ">u2"}[mode]
    return Image.frombytes(mode, (23, 17), levels.astype(dtype).tobytes())
  picture = Image.fromarray(noise(17, 23, 4)).convert(mode)
  if mode in ("P", "RGB"):
    picture.info["transparency"] = 5 if mode == "P" else tuple(noise(17, 23, 4)[3, 3, :3].tolist())
  return picture


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("most", [10**9, 300])  # the second is shrunk first where it is padded
def test_strips_make_the_bytes_that_all_at_once_would(monkeypatch, mode, most):
  picture = of_mode(mode)
  monkeypatch.setattr(image, "MAX_PIXELS", most)
  monkeypatch.setattr(image, "_THIN_SIDE", 9)
  ways = [
    lambda: np.asarray(image.to_rgb(picture)),
    lambda: image.preprocess(picture, 11, "pad"),
    lambda: image.preprocess(image.to_rgb(picture), 11, "pad"),
    lambda: image.preprocess(picture, 11, "square"),
  ]
  whole = [way() for way in ways]
  np.testing.assert_array_equal(whole[1], whole[2])
  monkeypatch.setattr(image, "_WHOLE", 0)
  for pixels in (1, 70):
    monkeypatch.setattr(image, "_STRIP", pixels)
    for way, want in zip(ways, whole, strict=True):
      np.testing.assert_array_equal(way(), want)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_pillows_own_composition(mode):
  picture = of_mode(mode)
  white = Image.new("RGBA", picture.size, "white")
  want = np.asarray(Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB"))
  np.testing.assert_array_equal(np.asarray(image.to_rgb(picture)), want)


GROWTH = """
import pathlib, sys
from eagle_jax.data import image
from tests.data import watched
small, large, side, aspect = *map(pathlib.Path, sys.argv[1:3]), int(sys.argv[3]), sys.argv[4]
for file in (small, large):
  data = file.read_bytes()
  before, _ = watched.memory()
  for picture in image.decoded([data], ""):
    image.preprocess(picture, side, aspect)
print(watched.memory()[1] - before)
"""


def blank_png(path, kind, side):
  """Writes a square PNG of zeros of a colour type, bytes per pixel and depth."""
  colour, size, depth = kind
  stream = zlib.compressobj(1)
  rows = [stream.compress(bytes(1 + side * size)) for _ in range(side)]
  header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
  pixels = chunk(b"IDAT", b"".join([*rows, stream.flush()]))
  path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))


def growth(tmp_path, kind, side, aspect):
  """Bytes by which a process grows that makes a picture of `side` squared square."""
  blank_png(tmp_path / "small.png", kind, 50)
  blank_png(tmp_path / "large.png", kind, side)
  return grown(tmp_path, aspect)


def grown(tmp_path, aspect):
  """Bytes by which a process grows that makes large.png square, after small.png."""
  files = [str(tmp_path / name) for name in ("small.png", "large.png")]
  told = subprocess.run(
    [sys.executable, "-c", GROWTH, *files, "1024", aspect],
    check=True,
    capture_output=True,
    text=True,
    cwd=pathlib.Path(__file__).parents[2],
  )
  return int(told.stdout)


DEEP = {"RGB": ((2, 3, 8), 4), "RGBA": ((6, 4, 8), 4), "16 bits": ((0, 2, 16), 2)}
"""PNG's kind, and Pillow's bytes for a pixel of it."""


@pytest.mark.parametrize("mode", ["RGBA", "16 bits"])
def test_a_large_picture_is_held_once(tmp_path, mode):
  kind, held = DEEP[mode]
  side = 3500
  assert growth(tmp_path, kind, side, "pad") < held * side**2 + 30e6  # of 98 or 49 MB


@pytest.mark.skipif(not os.environ.get("EAGLE_FULL"), reason="decodes 64 million pixels")
@pytest.mark.parametrize("aspect", ["pad", "square"])
@pytest.mark.parametrize("mode", DEEP)
def test_full_the_largest_pictures_stay_in_bounds(tmp_path, mode, aspect):
  assert growth(tmp_path, DEEP[mode][0], 8000, aspect) < 300e6


GREEDY = {
  "progressive": (("JPEG", {"progressive": True}), (6000, 6090)),
  "webp": (("WEBP", {"quality": 5, "method": 0}), (4000, 3990)),
  "tiff": (("TIFF", {"compression": "tiff_deflate"}), (4000, 3990)),
  "turned": (
    ("JPEG", {"exif": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6" + bytes(7)}),
    (5600, 5700),
  ),
  "strip": (("PNG", {"compress_level": 1}), (1100, 32000)),
}
"""What takes more than its pixels: how it is saved, and a size just below what is refused."""


@pytest.mark.skipif(not os.environ.get("EAGLE_FULL"), reason="decodes 16 to 36 million pixels")
@pytest.mark.parametrize("kind", GREEDY)
def test_full_what_holds_more_than_pixels_stays_in_bounds(tmp_path, kind):
  (form, options), size = GREEDY[kind]
  Image.new("RGB", (50, 50)).save(tmp_path / "small.png", form, **options)
  Image.new("RGB", size).save(tmp_path / "large.png", form, **options)
  assert grown(tmp_path, "square") < 300e6


def test_what_would_hold_too_much_is_refused_with_the_megabytes():
  said = [
    "294 MB to be decoded",
    "420 MB to be",
    "672 MB to be",
    "400 MB to be",
    "288 MB to be turned",
  ]
  for file, words in zip(hungry_files(), said, strict=True):
    with pytest.raises(BadRecordError, match=f"{words}.*256 are allowed") as caught:
      image.read(file)
    assert caught.value.reason == "image too large"


def test_a_strip_whose_cut_would_hold_too_much_is_too_thin():
  with pytest.raises(BadRecordError, match="image too thin"):
    image.preprocess(Image.new("L", (500, 9000)), 8000, "square")


def test_sixteen_bit_greys_keep_their_upper_byte(tmp_path):
  levels = np.array([[0, 255, 256, 0x7FFF, 0xFFFF]], np.uint16)
  got = np.asarray(image.read(saved(tmp_path / "a.png", Image.fromarray(levels))))
  assert got[0, :, 0].tolist() == [0, 0, 1, 0x7F, 0xFF]


def test_cmyk_becomes_rgb(tmp_path):
  picture = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
  got = np.asarray(image.read(saved(tmp_path / "a.jpg", picture, quality=95)))
  assert got.shape == (8, 8, 3)
  assert got[..., 0].min() > 240
  assert got[..., 1:].max() < 15


@pytest.mark.parametrize("levels", [np.float32(0.5), np.int32(70000)])
def test_what_has_no_agreed_range_is_refused(tmp_path, levels):
  picture = Image.fromarray(np.full((2, 2), levels))
  with pytest.raises(BadRecordError) as caught:
    image.read(saved(tmp_path / "a.tiff", picture))
  assert caught.value.reason == "unreadable image"


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_an_animation_gives_its_first_picture(form):
  first, second = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (16, 16), "blue")
  file = io.BytesIO()
  first.save(file, form, save_all=True, append_images=[second], duration=100)
  got = np.asarray(image.read(file.getvalue())).astype(int)
  assert np.abs(got - [255, 0, 0]).max() < 8


SEEN_UPRIGHT = {
  1: lambda held: held,
  2: lambda held: held[:, ::-1],
  3: lambda held: held[::-1, ::-1],
  4: lambda held: held[::-1],
  5: lambda held: held.swapaxes(0, 1),
  6: lambda held: np.rot90(held, -1),
  7: lambda held: held[::-1, ::-1].swapaxes(0, 1),
  8: lambda held: np.rot90(held),
}
"""EXIF orientation → what makes it upright, from the standard's "0th row, 0th column"."""


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", SEEN_UPRIGHT)
def test_exif_orientation_is_applied(form, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  held = np.kron(noise(2, 3), np.ones((16, 16, 1), np.uint8))
  file = io.BytesIO()
  lossless = {"lossless": True} if form == "WEBP" else {"quality": 100} if form == "JPEG" else {}
  Image.fromarray(held).save(file, form, exif=exif, **lossless)
  got = np.asarray(image.read(file.getvalue())).astype(int)
  want = SEEN_UPRIGHT[orientation](held)
  assert got.shape == want.shape
  # JPEG rounds, and blurs the colours where blocks meet.
  assert np.median(np.abs(got - want)) <= (4 if form == "JPEG" else 0)


def truncated(path):
  whole = saved(path, Image.fromarray(noise(64, 64)))
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])
  return whole


def test_damaged_files_are_unreadable(tmp_path):
  (tmp_path / "text.png").write_text("no picture")
  (tmp_path / "empty.png").write_bytes(b"")
  paths = [truncated(tmp_path / "cut.png"), truncated(tmp_path / "cut.jpg")]
  for path in [*paths, tmp_path / "text.png", tmp_path / "empty.png", tmp_path]:
    with pytest.raises(BadRecordError) as caught:
      image.read(str(path))
    assert caught.value.reason == "unreadable image"


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(BadRecordError, match=r"missing file: .*none\.png"):
    image.read(str(tmp_path / "none.png"))


def test_formats_that_run_programs_are_not_opened(tmp_path):
  (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n")
  with pytest.raises(BadRecordError, match="unreadable image"):
    image.read(str(tmp_path / "a.png"))


@pytest.mark.parametrize("side", [8001, 20000])
def test_a_bomb_is_refused_by_its_header(tmp_path, side):
  """The file claims 64 to 400 million pixels and holds none: decoding it would fail otherwise."""
  header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
  chunk = b"IHDR" + header
  path = tmp_path / "a.png"
  path.write_bytes(
    b"\x89PNG\r\n\x1a\n"
    + struct.pack(">I", len(header))
    + chunk
    + struct.pack(">I", zlib.crc32(chunk))
    + struct.pack(">I", 0)
    + b"IDAT"
  )
  with pytest.raises(BadRecordError) as caught:
    image.read(str(path))
  assert caught.value.reason == "image too large"


def test_pad_puts_the_smaller_half_left_and_on_top():
  wide = image.preprocess(Image.fromarray(noise(3, 8)), 8, "pad")
  np.testing.assert_array_equal(wide[2:5], noise(3, 8))
  assert (wide[:2] == image.MEAN_COLOUR).all()
  assert (wide[5:] == image.MEAN_COLOUR).all()
  tall = image.preprocess(Image.fromarray(noise(8, 3)), 8, "pad")
  np.testing.assert_array_equal(tall[:, 2:5], noise(8, 3))


def test_square_cuts_the_centre_after_scaling_the_short_edge():
  picture = Image.fromarray(noise(10, 37))
  scaled = picture.resize((16 * 37 // 10, 16), Image.Resampling.BICUBIC)  # 59 wide
  want = np.asarray(scaled)[:, (59 - 16) // 2 :][:, :16]
  np.testing.assert_array_equal(image.preprocess(picture, 16, "square"), want)


def test_a_fitting_picture_is_unchanged():
  for aspect in ("pad", "square"):
    got = image.preprocess(Image.fromarray(noise(16, 16)), 16, aspect)
    np.testing.assert_array_equal(got, noise(16, 16))


def test_a_very_thin_picture_is_padded_in_bounded_memory_and_never_cut():
  """Its square would hold ten thousand million pixels."""
  thin = Image.new("RGB", (100_000, 100), "red")
  got = image.preprocess(thin, 64, "pad")
  assert got.shape == (64, 64, 3)
  assert (got[0] == image.MEAN_COLOUR).all()
  assert (got[31:33, :, 0] > image.MEAN_COLOUR[0]).any()
  with pytest.raises(BadRecordError) as caught:
    image.preprocess(Image.new("RGB", (1_000_000, 1)), 64, "square")
  assert caught.value.reason == "image too thin"


def test_load_reads_in_order_and_blanks_on_request(tmp_path):
  for n in range(2):
    saved(tmp_path / f"{n}.png", Image.new("RGB", (4, 4), (n, n, n)))
  data = config.Data(images=str(tmp_path))
  got = image.load(["1.png", (tmp_path / "0.png").read_bytes()], data, 4, folder=str(tmp_path))
  assert got.shape == (2, 4, 4, 3)
  assert got[:, 0, 0, 0].tolist() == [1, 0]
  blind = config.Data(images=str(tmp_path), blank_images=True)
  np.testing.assert_array_equal(image.load(["1.png"], blind, 4, folder="")[0], image.blank(4))
  assert image.load([], data, 4, folder="").shape == (0, 4, 4, 3)


def test_load_never_leaves_the_folder(tmp_path):
  (tmp_path / "in").mkdir()
  saved(tmp_path / "a.png", Image.new("RGB", (4, 4)))
  with pytest.raises(BadRecordError, match="leaves the image folder"):
    image.load(["../a.png"], config.Data(), 4, folder=str(tmp_path / "in"))


def test_blank_is_the_mean_colour_rounded_down():
  from eagle_jax.nn import pixels

  assert tuple(int(255 * mean) for mean in pixels.CLIP_MEAN) == image.MEAN_COLOUR
  assert (image.blank(3) == image.MEAN_COLOUR).all()
