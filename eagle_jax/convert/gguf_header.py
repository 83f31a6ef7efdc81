"""The header of a GGUF file: metadata, and where each tensor lies.

Everything is counted against the bytes there are before it is believed, so a damaged or
hostile file is an error and never a long wait.

Source: ggml, docs/gguf.md, versions 2 and 3.
"""

import dataclasses
import mmap
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eagle_jax.convert.rules import Shape
from eagle_jax.errors import EagleError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_AXES = 4
MAX_HEADER = 100_000_000
"""Bytes a header may have; a vocabulary of 250,000 tokens takes a tenth of it."""

DEFAULT_ALIGNMENT = 32
"""Bytes that tensors are aligned to where `general.alignment` gives no other number."""

MIN_FILE = 24
"""Bytes of magic, version and the two counts."""

_SCALARS: Mapping[int, np.dtype] = {
  0: np.dtype("<u1"),
  1: np.dtype("<i1"),
  2: np.dtype("<u2"),
  3: np.dtype("<i2"),
  4: np.dtype("<u4"),
  5: np.dtype("<i4"),
  6: np.dtype("<f4"),
  7: np.dtype("?"),
  10: np.dtype("<u8"),
  11: np.dtype("<i8"),
  12: np.dtype("<f8"),
}
_STRING, _ARRAY = 8, 9
"""Numbers of the metadata's types; the others are scalars."""


@dataclasses.dataclass(frozen=True)
class Info:
  """What a header says of one tensor.

  Attributes:
    shape: in PyTorch's order, (out, in); files have it the other way round.
    kind: ggml's number of the element type.
    start: first byte in the file.
  """

  shape: Shape
  kind: int
  start: int


@dataclasses.dataclass(frozen=True)
class Header:
  """What a file says before its first tensor.

  Attributes:
    metadata: key → number, truth value, text, or list of one of these.
    tensors: name → what is known of it.
    base: first byte of the tensors' part of the file.
    alignment: of every tensor, in bytes from `base`.
    size: of the file, in bytes.
  """

  metadata: Mapping[str, Any]
  tensors: Mapping[str, Info]
  base: int
  alignment: int
  size: int


def aligned(offset: int, alignment: int) -> int:
  """Returns the first multiple of `alignment` from `offset` on."""
  return -(-offset // alignment) * alignment


def read(path: Path) -> Header:
  """Reads the header of a file.

  Raises:
    EagleError: if it is none, of another version, damaged or cut off.
  """
  size = path.stat().st_size
  if size < MIN_FILE:
    raise EagleError(f"{path} is no GGUF file: it has {size} bytes, the least is {MIN_FILE}")
  with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
    cursor = _Cursor(path, data, min(size, MAX_HEADER))
    magic = cursor.take(4)
    if magic != MAGIC:
      raise EagleError(f"{path} is no GGUF file: it begins with {magic!r}, it must with {MAGIC!r}")
    version = cursor.number("<I")
    if version not in VERSIONS:
      raise EagleError(f"{path} must be GGUF of version 2 or 3, little-endian; it is {version:#x}")
    tensors, pairs = cursor.number("<Q"), cursor.number("<Q")
    metadata = cursor.unique(pairs, cursor.pair)
    infos = cursor.unique(tensors, cursor.info)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
      raise EagleError(f"{path}: general.alignment must be a power of two, it is {alignment!r}")
    base = aligned(cursor.at, alignment)
  moved = {name: dataclasses.replace(i, start=base + i.start) for name, i in infos.items()}
  return Header(metadata, moved, base, alignment, size)


class _Cursor:
  """Reads a header from front to back, never beyond `end`."""

  def __init__(self, path: Path, data: mmap.mmap, end: int):
    self._path = path
    self._data = data
    self._end = end
    self.at = 0

  def take(self, count: int) -> bytes:
    """Returns the next bytes."""
    if count > self._end - self.at:
      raise EagleError(
        f"{self._path} is cut off or damaged: its header asks for {count} bytes at byte "
        f"{self.at}, the last is {self._end}"
      )
    self.at += count
    return self._data[self.at - count : self.at]

  def number(self, form: str) -> int:
    """Returns the next whole number, in the format of `struct`."""
    value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
    return value

  def text(self) -> str:
    """Returns the next string."""
    start = self.at
    raw = self.take(self.number("<Q"))
    try:
      return raw.decode()
    except UnicodeDecodeError:
      raise EagleError(f"{self._path}: the string at byte {start} is not UTF-8") from None

  def unique(self, count: int, item: Callable[[], tuple[str, Any]]) -> dict[str, Any]:
    """Returns the next `count` items by name; none may come twice."""
    found: dict[str, Any] = {}
    for _ in range(count):
      name, value = item()
      if name in found:
        raise EagleError(f"{self._path}: the name {name!r} is given twice")
      found[name] = value
    return found

  def pair(self) -> tuple[str, Any]:
    """Returns the next key and value of the metadata."""
    name = self.text()
    kind = self.number("<I")
    if kind != _ARRAY:
      return name, self._values(name, kind, count=1)[0]
    return name, self._values(name, self.number("<I"), count=self.number("<Q"))

  def _values(self, name: str, kind: int, *, count: int) -> list[Any]:
    """Returns the next values of one type."""
    if kind == _STRING:
      return [self.text() for _ in range(count)]
    if kind not in _SCALARS:
      raise EagleError(f"{self._path}: {name!r} has values of type {kind}, which is not known")
    dtype = _SCALARS[kind]
    values: list[Any] = np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()
    return values

  def info(self) -> tuple[str, Info]:
    """Returns name and description of the next tensor, its start still relative."""
    name = self.text()
    axes = self.number("<I")
    if not 1 <= axes <= MAX_AXES:
      raise EagleError(f"{self._path}: {name!r} must have 1 to {MAX_AXES} axes, it has {axes}")
    shape = tuple(self.number("<Q") for _ in range(axes))[::-1]
    kind, start = self.number("<I"), self.number("<Q")
    if 0 in shape:
      raise EagleError(f"{self._path}: {name!r} has no elements, its shape is {list(shape)}")
    return name, Info(shape, kind, start)
