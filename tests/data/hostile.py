"""Records and pictures as nobody should have them, each with what is to become of it.

An outcome is "" for good, the reason it is counted under, or None where both may be.
"""

import functools
import io
import json
import os
import struct
import zlib

import numpy as np
from PIL import Image

PICTURE, LINK, PIPE = "good.png", "link.png", "pipe.png"
"""Names in the folder that `lay_out` makes: a picture, a link out of it, a pipe."""
LEAVES, MISSING, UNREADABLE = "path leaves the image folder", "missing file", "unreadable image"
LARGE = "image too large"


def lay_out(root):
  """Makes a folder of images in `root`, and a secret beside it; returns the folder."""
  folder = root / "images"
  folder.mkdir()
  Image.new("RGB", (6, 4), "red").save(folder / PICTURE)
  Image.new("RGB", (6, 4), "blue").save(root / "secret.png")
  (folder / LINK).symlink_to(root / "secret.png")
  (folder / "out").symlink_to(root)
  (folder / "loop").symlink_to(folder / "loop")
  os.mkfifo(folder / PIPE)
  return folder


NAMES = {
  PICTURE: "",
  f"./{PICTURE}": "",
  LINK: LEAVES,
  "out/secret.png": LEAVES,
  "../../etc/passwd": LEAVES,
  "../secret.png": LEAVES,
  "/etc/passwd": LEAVES,
  "..\\..\\secret.png": LEAVES,
  "": LEAVES,
  ".": LEAVES,
  "a\0.png": LEAVES,
  PIPE: MISSING,
  "loop": None,
  "loop/a.png": None,
  "http://localhost/a.png": MISSING,
  "file:///etc/passwd": MISSING,
  "data:image/png;base64,AAAA": MISSING,
  "a" * 5000: MISSING,
  "a/" * 3000 + "a": MISSING,
  "\ud800.png": MISSING,
  "~/.ssh/id_rsa": MISSING,
  "$HOME/a.png": MISSING,
  f"{PICTURE}/a": MISSING,
  "*.png": MISSING,
}
VALUES = (None, True, 3, -0.5, 10**400, float("nan"), float("inf"), "", "x", [], {}, [[]], [None])
TEXTS = ("\0", "\u202e", "</s><s>", "{}%s", "\x1b[31m", "é" * 1000, "🦅", "\ufeff", "<image", " ")


def record(**fields):
  """Returns a good record with other fields in place of its own."""
  turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}]
  return {"id": "1", "image": PICTURE, "conversations": turns, **fields}


def chat(turns):
  """Returns a record of so many turns."""
  said = [{"from": ("human", "gpt")[n % 2], "value": "x"} for n in range(turns)]
  return record(conversations=said)


def of_names(rng):
  name = list(NAMES)[rng.integers(len(NAMES))]
  return record(image=name), NAMES[name]


def of_types(rng):
  field = ("id", "image", "conversations", "messages")[rng.integers(4)]
  return record(**{field: VALUES[rng.integers(len(VALUES))]}), None


def of_turn_types(rng):
  made = record()
  turn = made["conversations"][rng.integers(2)]
  turn[("from", "value")[rng.integers(2)]] = VALUES[rng.integers(len(VALUES))]
  return made, None


def of_missing(rng):
  made = record()
  del made[("image", "conversations")[rng.integers(2)]]
  return made, None if "image" in made else "<image> count differs from images"


def of_roles(rng):
  role = ("humen", "system", "", "\0", "x" * 10000, "GPT")[rng.integers(6)]
  turns = [{"from": "human", "value": "<image>"}, {"from": role, "value": "x"}]
  return record(conversations=turns), "system message" if role == "system" else "unknown role"


def of_counts(rng):
  images, placeholders = rng.integers(0, 4), rng.integers(0, 4)
  turns = [{"from": "human", "value": "<image>" * placeholders}, {"from": "gpt", "value": "x"}]
  agree = images == placeholders or (images, placeholders) == (1, 0)
  reason = "" if agree else "<image> count differs from images"
  return record(image=[PICTURE] * images, conversations=turns), reason


def of_texts(rng):
  text = "".join(TEXTS[n] for n in rng.integers(len(TEXTS), size=4))
  turns = [{"from": "human", "value": f"<image>{text}"}, {"from": "gpt", "value": text}]
  return record(id=text, conversations=turns), ""


def of_turns(rng):
  count = int(2 * rng.integers(1, 500))
  return chat(count), ""


def of_order(rng):
  count = int(rng.integers(3, 8))
  turns = [{"from": ("human", "gpt")[n], "value": "x"} for n in rng.integers(2, size=count)]
  return record(image=None, conversations=turns), None


def of_messages(rng):
  parts = ({"type": "image"}, {"type": "text", "text": "x"}, {"type": "audio"}, None, "x", [])
  content = [parts[n] for n in rng.integers(len(parts), size=3)]
  images = ([], [PICTURE], [{"path": "/etc/passwd"}], [{"bytes": 3}], {"path": PICTURE})
  said = [{"role": "user", "content": content}, {"role": "assistant", "content": "x"}]
  return {"messages": said, "images": images[rng.integers(len(images))]}, None


def of_bytes(rng):
  """Bytes that are no JSON, or JSON no more."""
  whole = json.dumps(record()).encode()
  kind = rng.integers(5)
  if kind == 0:
    at = whole.index(b"What") + 1
    return whole[:at] + b"\xff\xfe\x80" + whole[at:], "not JSON"
  if kind == 1:
    return whole[: rng.integers(1, len(whole))], "not JSON"
  if kind == 2:
    return b"[" * 20000 + b"]" * 20000, "not JSON"
  if kind == 3:
    return b"{" + rng.integers(32, 256, 200, dtype=np.uint8).tobytes(), "not JSON"
  at, bit = rng.integers(len(whole)), 1 << rng.integers(8)
  mutated = bytearray(whole)
  mutated[at] ^= bit
  return (whole if 10 in mutated else bytes(mutated)), None


KINDS = (
  of_names,
  of_types,
  of_turn_types,
  of_missing,
  of_roles,
  of_counts,
  of_texts,
  of_turns,
  of_order,
  of_messages,
  of_bytes,
)


def records(count, seed=0):
  """Yields (line, outcome) of hostile records: every kind in turn, a few very large ones."""
  rng = np.random.default_rng(seed)
  huge = {
    1: (b'{"conversations": [' + b'{"from": "human", "value": ""}, ' * 10**6, "record too large"),
    2: (record(id="x" * (5 << 20)), "record too large"),
    3: (chat(10_000), ""),
    4: (record(id="x" * (3 << 20)), ""),
  }
  for number in range(count):
    made, outcome = huge.get(number) or KINDS[number % len(KINDS)](rng)
    yield (made if isinstance(made, bytes) else json.dumps(made).encode()), outcome


def noise(rng, mode="RGB", size=(31, 17)):
  """Returns a picture of noise of any mode with 8 bits."""
  layers = len(Image.new(mode, (1, 1)).getbands())
  shape = size[::-1] + ((layers,) if layers > 1 else ())
  levels = rng.integers(0, 256, shape, dtype=np.uint8)
  return Image.frombytes(mode, size, levels.tobytes())


def encoded(picture, form, **options):
  """Returns the bytes of a file of the picture."""
  file = io.BytesIO()
  picture.save(file, form, **options)
  return file.getvalue()


def chunk(kind, data):
  """Returns a chunk of a PNG file."""
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@functools.cache
def zeros(count):
  """Returns so many zeros, compressed."""
  return zlib.compress(bytes(count), 9)


def bomb(rng):
  """A file that claims far more pixels than are decoded; where any follow, they are zeros."""
  width, height = (int(n) for n in rng.integers(8001, 60000, 2))
  png = b"\x89PNG\r\n\x1a\n"
  grey = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
  pixels = chunk(b"IDAT", zeros((9000 // 8 + 1) * 9000))
  real = chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 1, 0, 0, 0, 0))
  start = b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", height, width)
  jpeg = start + b"\x03\x01\x11\0\x02\x11\0\x03\x11\0\xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\x3f\0"
  files = (
    png + grey + struct.pack(">I", 10) + b"IDAT",
    png + real + pixels + chunk(b"IEND", b""),
    b"GIF89a" + struct.pack("<HH", width, height) + encoded(noise(rng), "GIF")[10:],
    f"P6 {width} {height} 255\n".encode(),
    b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, width, height, 1, 24, *[0] * 6),
    jpeg,
  )
  return files[rng.integers(len(files))], LARGE


@functools.cache
def hungry_files():
  """Files within the pixel cap whose decoders would hold far more than pixels."""
  rng, wide = np.random.default_rng(0), struct.pack(">HH", 6000, 7000)
  progressive = bytearray(encoded(noise(rng), "JPEG", progressive=True))
  at = progressive.index(b"\xff\xc2") + 5
  progressive[at : at + 4] = wide
  # A scan for each colour: the decoder holds the coefficients of all.
  apart = bytearray(encoded(noise(rng), "JPEG", subsampling=0))
  at = apart.index(b"\xff\xc0") + 5
  apart[at : at + 4] = wide
  at = apart.index(b"\xff\xda")
  apart[at : at + 14] = b"\xff\xda\0\x08\1\1\0\0\x3f\0"
  webp = bytearray(encoded(noise(rng), "WEBP", quality=50))
  at = webp.index(b"\x9d\x01\x2a") + 3
  webp[at : at + 4] = struct.pack("<HH", 7000, 6000)
  strip = encoded(Image.new("L", (5000, 5000)), "TIFF", compression="tiff_deflate")
  turned = Image.Exif()
  turned[0x0112] = 6
  upside = encoded(Image.new("L", (6000, 6000)), "PNG", exif=turned)
  return bytes(progressive), bytes(apart), bytes(webp), strip, upside


def hungry(rng):
  files = hungry_files()
  return files[rng.integers(len(files))], LARGE


def of_modes(rng):
  mode, form = (
    ("CMYK", "JPEG"),
    ("L", "JPEG"),
    ("LA", "PNG"),
    ("RGBA", "PNG"),
    ("RGBA", "WEBP"),
    ("CMYK", "TIFF"),
    ("RGB", "BMP"),
    ("L", "PPM"),
    ("LAB", "TIFF"),
    ("YCbCr", "TIFF"),
  )[rng.integers(10)]
  return encoded(noise(rng, mode), form), "" if mode != "YCbCr" else None


def ycck(rng):
  """A CMYK JPEG whose Adobe marker says that it is YCCK."""
  data = bytearray(encoded(noise(rng, "CMYK"), "JPEG"))
  data[data.index(b"Adobe") + 11] = 2
  return bytes(data), ""


def palette(rng):
  transparency = (0, bytes([0, 128, 255]))[rng.integers(2)]
  picture = noise(rng).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
  return encoded(picture, "PNG", transparency=transparency), ""


def deep(rng):
  """More than 8 bits: greys of 16 are good, floats and what is beyond 16 bits are not."""
  kind = rng.integers(4)
  levels = rng.integers(0, 65536, (5, 7))
  if kind == 0:
    return encoded(Image.fromarray(levels.astype(np.uint16)), "PNG"), ""
  if kind == 1:
    return encoded(Image.fromarray(levels.astype(np.float32)), "TIFF"), UNREADABLE
  if kind == 2:
    wild = np.float32([[np.nan, np.inf], [-1e38, 0]])
    return encoded(Image.fromarray(wild), "TIFF"), UNREADABLE
  return encoded(Image.fromarray(np.int32(levels + 70000)), "TIFF"), UNREADABLE


def turned(rng):
  exif = Image.Exif()
  exif[0x0112] = int(rng.integers(0, 12))  # 1 to 8 mean something
  return encoded(noise(rng), ("JPEG", "PNG", "WEBP", "TIFF")[rng.integers(4)], exif=exif), ""


def animated(rng):
  form = ("GIF", "PNG", "WEBP", "TIFF", "MPO")[rng.integers(5)]
  frames = [noise(rng), noise(rng)]
  return encoded(noise(rng), form, save_all=True, append_images=frames), ""


def cut(rng):
  """A JPEG with so many percent of its bytes."""
  whole = encoded(noise(rng, size=(64, 48)), "JPEG", progressive=bool(rng.integers(2)))
  cut.percent = getattr(cut, "percent", 0) % 99 + 1
  return whole[: len(whole) * cut.percent // 100], UNREADABLE if cut.percent < 95 else None


def odd_sizes(rng):
  size = ((1, 1), (1, 20000), (20000, 1), (65500, 1), (3, 2))[rng.integers(5)]
  return encoded(noise(rng, size=size), ("PNG", "JPEG")[rng.integers(2)]), ""


def no_picture(rng):
  files = (
    b"",
    b"\0" * 1000,
    b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EOF\n",
    b"%PDF-1.4\n",
    b"<html></html>",
    encoded(noise(rng), "ICO"),
    encoded(noise(rng), "TGA"),
    encoded(noise(rng), "JPEG2000"),
    rng.integers(0, 256, 300, dtype=np.uint8).tobytes(),
  )
  return files[rng.integers(len(files))], UNREADABLE


def torn_notes(rng):
  """Good pixels behind damaged notes: a colour profile, EXIF, and text that grows a lot."""
  junk = rng.integers(0, 256, 200, dtype=np.uint8).tobytes()
  kind = rng.integers(3)
  if kind == 0:
    return encoded(noise(rng), ("JPEG", "PNG", "WEBP")[rng.integers(3)], icc_profile=junk), ""
  if kind == 1:
    return encoded(noise(rng), "JPEG", exif=b"Exif\0\0" + junk), None
  whole = encoded(noise(rng), "PNG")
  text = chunk(b"zTXt", b"x\0\0" + zeros(100 << 20))
  return whole[:33] + text + whole[33:], None


def flipped(rng):
  """A file of any format with some bytes changed."""
  form = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")[rng.integers(7)]
  data = bytearray(encoded(noise(rng), form))
  for at in rng.integers(len(data), size=rng.integers(1, 6)):
    data[at] = rng.integers(256)
  return bytes(data), None


PICTURES = (
  bomb,
  hungry,
  of_modes,
  ycck,
  palette,
  deep,
  turned,
  animated,
  cut,
  odd_sizes,
  no_picture,
  torn_notes,
  flipped,
  cut,
  flipped,
)


def pictures(count, seed=0):
  """Yields (name, bytes, outcome) of hostile pictures, their suffixes mostly wrong."""
  rng = np.random.default_rng(seed)
  for number in range(count):
    data, outcome = PICTURES[number % len(PICTURES)](rng)
    yield f"{number}.{('png', 'jpg', 'gif', 'webp', 'svg')[rng.integers(5)]}", data, outcome
