"""NumPy's .npz archives, in which big_vision keeps its checkpoints.

Such a file is a zip archive of .npy files: a header that says what the array is, then its
bytes. Both are read here without NumPy's own reader, which evaluates the header as Python.
"""

import contextlib
import dataclasses
import math
import re
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import ml_dtypes
import numpy as np

from eagle_jax.convert.source import DTYPES, Entry
from eagle_jax.errors import EagleError

SUFFIX = ".npy"

MARK = b"\x93NUMPY"
LENGTHS: Mapping[bytes, struct.Struct] = {
  b"\x01\x00": struct.Struct("<H"),
  b"\x02\x00": struct.Struct("<I"),
}
"""Version of the format → how it writes the header's length. Version 3 is for field names,
which an array of numbers has none of. Source: NumPy, the NPY format."""

MAX_HEADER = 10_000
"""Bytes of a header that are looked at. Source: NumPy, which takes no more from strangers."""

HEADER = re.compile(
  rb"\{'descr': '(?P<code>[^']*)', 'fortran_order': (?P<turned>True|False), "
  rb"'shape': \((?P<shape>(?:\d{1,18}, ?)*(?:\d{1,18})?)\),? ?\} *\n"
)
"""What NumPy writes for an array that is no record."""

CODES: Mapping[str, np.dtype] = {
  **{dtype.str: dtype for dtype in DTYPES.values()},
  "|V2": np.dtype(ml_dtypes.bfloat16),  # NumPy alone has no name for it
}
"""Names of dtypes in a header. That of Python objects, which are pickles, is not among them."""

CHUNK = 2**20
"""Bytes that are decompressed at once."""

MAX_EXPANSION, FREE = 100, 2**26
"""How many times its compressed size an array may have, if it is larger than so many bytes.
Weights shrink by a few parts in a hundred; zeros, a thousand times."""

DAMAGES = (
  zipfile.BadZipFile,
  zlib.error,
  struct.error,
  EOFError,
  NotImplementedError,
  OSError,
  RuntimeError,
  ValueError,
)
"""What zipfile raises for archives that are damaged, encrypted or of unknown kinds."""


@dataclasses.dataclass(frozen=True)
class _Member:
  """An array of the archive: its zip entry, where its bytes begin there, and what they are."""

  info: zipfile.ZipInfo
  start: int
  turned: bool  # whether the first axis is the fastest
  entry: Entry


class NpzSource:
  """An .npz file, its arrays under their own names without '.npy'.

  All headers are checked before any array is read, so a damaged or hostile file is an
  error, never a wrong array. One array at a time is in memory.
  """

  def __init__(self, path: str | Path):
    """Reads the headers.

    Raises:
      EagleError: if the file is missing or damaged, or holds anything but numbers.
    """
    self.description = str(path)
    if not Path(path).is_file():
      raise EagleError(f"no checkpoint at {path}: it must be an .npz file")
    with _readable(self.description):
      self._archive = zipfile.ZipFile(path)
      size = Path(path).stat().st_size
    self._members: dict[str, _Member] = {}
    for info in self._archive.infolist():
      told = f"{self.description}: zip entry {info.orig_filename[:100]!r}"
      name = _checked_name(info, told)
      if name in self._members:
        raise EagleError(f"{told} is there twice")
      size -= info.compress_size
      if size < 0:
        raise EagleError(f"{told} overlaps others: together they are longer than the file")
      with _readable(told):
        self._members[name] = _member(self._archive, info, told)
    self._lock = threading.Lock()  # zipfile counts its readers without one

  def entries(self) -> Mapping[str, Entry]:
    """Returns shape and dtype of every array."""
    return {name: member.entry for name, member in self._members.items()}

  def read(self, name: str) -> np.ndarray:
    """Returns one array [...], its checksum verified.

    Raises:
      EagleError: if the bytes are damaged.
    """
    member = self._members[name]
    shape = member.entry.shape
    flat = np.empty(math.prod(shape), member.entry.dtype)
    place = f"{self.description}: {name!r}"
    with self._lock, _readable(place), self._archive.open(member.info) as file:
      file.read(member.start)
      _fill(file, flat.view(np.uint8).data)
    return flat.reshape(shape[::-1]).T if member.turned else flat.reshape(shape)


@contextlib.contextmanager
def _readable(told: str) -> Iterator[None]:
  """Turns what zipfile raises into the one error a user is meant to see."""
  try:
    yield
  except DAMAGES as error:
    raise EagleError(f"{told} is damaged or cut off: {error}") from None


def _checked_name(info: zipfile.ZipInfo, told: str) -> str:
  """Returns the name of an array; refuses entries that are none, or not to be unpacked.

  Raises:
    EagleError: for another suffix or compression, or an array that grows out of nothing.
  """
  name = info.orig_filename
  if not name.endswith(SUFFIX) or not name.isprintable():
    raise EagleError(f"{told} must be an array, with a printable name that ends in {SUFFIX}")
  if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise EagleError(
      f"{told} is compressed in way {info.compress_type}; "
      f"NumPy's are {zipfile.ZIP_STORED} (stored) and {zipfile.ZIP_DEFLATED} (deflated)"
    )
  if info.file_size > max(FREE, MAX_EXPANSION * info.compress_size):
    raise EagleError(
      f"{told} would grow from {info.compress_size} to {info.file_size} bytes; "
      f"weights are not over {MAX_EXPANSION} times their compressed size"
    )
  return name.removesuffix(SUFFIX)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, told: str) -> _Member:
  """Reads the header of an array.

  Raises:
    EagleError: if it is none, is not of numbers, or its size is not that of the entry.
  """
  with archive.open(info) as file:
    start = file.read(MAX_HEADER)
  form = LENGTHS.get(start[6:8])
  if not start.startswith(MARK) or form is None or len(start) < 8 + form.size:
    raise EagleError(
      f"{told} is no array: it must begin with {MARK!r} and a version of 1 or 2, "
      f"it begins with {start[:8]!r}"
    )
  base = 8 + form.size
  end = base + form.unpack_from(start, 8)[0]
  found = HEADER.fullmatch(start[base:end])
  if found is None or end > len(start):
    raise EagleError(
      f"{told} must have a header of at most {MAX_HEADER} bytes as NumPy writes it for an array "
      f"of numbers, it has {start[base:end][:100]!r}"
    )
  entry = _entry(found, told)
  count = math.prod(entry.shape) * entry.dtype.itemsize
  if end + count != info.file_size:
    raise EagleError(
      f"{told}: shape {list(entry.shape)} of {entry.dtype} takes {count} bytes, "
      f"{info.file_size - end} follow the header"
    )
  return _Member(info, end, found["turned"] == b"True", entry)


def _entry(found: re.Match[bytes], told: str) -> Entry:
  """Returns shape and dtype that a header tells."""
  code = found["code"].decode("latin-1")
  if code not in CODES:
    raise EagleError(f"{told} has the dtype {code!r}, known are {', '.join(CODES)}")
  shape = tuple(int(length) for length in found["shape"].split(b",") if length.strip())
  try:
    np.broadcast_to(np.zeros((), CODES[code]), shape)  # takes no memory
  except ValueError as error:
    raise EagleError(f"{told} has a shape of {len(shape)} axes, too large: {error}") from None
  return Entry(shape, CODES[code])


def _fill(file: IO[bytes], raw: memoryview) -> None:
  """Reads bytes until there is no room left, a chunk at a time."""
  done = 0
  while done < len(raw):
    part = file.read(min(CHUNK, len(raw) - done))
    if not part:
      raise EOFError(f"{len(raw) - done} bytes are missing")
    raw[done : done + len(part)] = part
    done += len(part)
