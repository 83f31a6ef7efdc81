"""Where foreign tensors come from: names, shapes and dtypes first, bytes one tensor at a time."""

import dataclasses
import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from eagle_jax.convert.rules import Shape
from eagle_jax.errors import EagleError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
"""Files of a safetensors folder: the index of its shards, or all of it in one."""

MAX_HEADER = 100_000_000
"""Bytes a header may have. Source: the safetensors format description."""

DTYPES: Mapping[str, np.dtype] = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "I64": np.dtype(np.int64),
  "I32": np.dtype(np.int32),
  "I16": np.dtype(np.int16),
  "I8": np.dtype(np.int8),
  "U8": np.dtype(np.uint8),
  "BOOL": np.dtype(np.bool_),
}
"""Names of dtypes in a safetensors header."""


@dataclasses.dataclass(frozen=True)
class Entry:
  """What is known of a tensor before it is read."""

  shape: Shape
  dtype: np.dtype


class Source(Protocol):
  """A set of named tensors that are read one at a time."""

  @property
  def description(self) -> str:
    """How messages call the source."""

  def entries(self) -> Mapping[str, Entry]:
    """Returns shape and dtype of every tensor, without reading one."""

  def read(self, name: str) -> np.ndarray:
    """Returns one tensor."""


@runtime_checkable
class Accompanied(Protocol):
  """A source whose one file also holds what others have in files beside it."""

  def companions(self) -> dict[str, bytes]:
    """Returns name → contents of these files, as they are called elsewhere."""


@dataclasses.dataclass(frozen=True)
class Lazy:
  """A tensor that is made when it is read."""

  shape: Shape
  dtype: np.dtype
  make: Callable[[], np.ndarray]


class ArraySource:
  """Tensors in memory, or made on demand."""

  def __init__(self, arrays: Mapping[str, np.ndarray | Lazy], description: str = "arrays"):
    self._arrays = arrays
    self.description = description

  def entries(self) -> Mapping[str, Entry]:
    """Returns shape and dtype of every tensor."""
    return {
      name: Entry(tuple(array.shape), np.dtype(array.dtype)) for name, array in self._arrays.items()
    }

  def read(self, name: str) -> np.ndarray:
    """Returns one tensor, made now if it is lazy."""
    array = self._arrays[name]
    return array.make() if isinstance(array, Lazy) else array


@dataclasses.dataclass(frozen=True)
class _Span:
  """Where a tensor lies: file, first byte, and what the bytes are."""

  file: Path
  start: int
  entry: Entry


class SafetensorsSource:
  """A safetensors file.

  Its header is checked in full before any tensor is read, so a damaged or hostile file is
  an error, never a wrong array.
  """

  def __init__(self, path: str | Path):
    """Reads the header.

    Raises:
      EagleError: if the file is missing or damaged.
    """
    self.description = str(path)
    if not Path(path).is_file():
      raise EagleError(f"no checkpoint at {path}: it must be a safetensors file")
    self._spans = read_header(Path(path))

  def entries(self) -> Mapping[str, Entry]:
    """Returns shape and dtype of every tensor."""
    return {name: span.entry for name, span in self._spans.items()}

  def read(self, name: str) -> np.ndarray:
    """Returns one tensor, mapped from its file and copied only when used."""
    span = self._spans[name]
    count = math.prod(span.entry.shape)
    if not count:
      return np.zeros(span.entry.shape, span.entry.dtype)
    raw = np.memmap(span.file, np.uint8, "r", span.start, (count * span.entry.dtype.itemsize,))
    return np.asarray(raw).view(span.entry.dtype).reshape(span.entry.shape)


class ShardedSource:
  """Files of one kind whose tensors an index lists.

  Only names that the index gives are opened, and only inside its folder.
  """

  def __init__(self, index: str | Path, suffix: str, open_file: Callable[[Path], Source]):
    """Opens every file of an index.

    Args:
      index: a JSON file that maps tensor names to files under 'weight_map'.
      suffix: what the names of the files must end in.
      open_file: opens one of them.

    Raises:
      EagleError: if the index is damaged, points outside its folder, or does not list
        what its files hold.
    """
    self.description = str(index)
    found = Path(index)
    weight_map = _json_object(found.read_bytes(), str(index)).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
      raise EagleError(f"{index} must map tensor names to files under 'weight_map'")
    held: dict[str, Mapping[str, Entry]] = {}
    self._files: dict[str, Source] = {}
    self._homes: dict[str, str] = weight_map
    for name in weight_map.values():
      path = _inside(found, name, suffix)
      if name not in held:
        self._files[name] = open_file(path)
        held[name] = self._files[name].entries()
    missing = [
      f"{tensor} in {name}" for tensor, name in weight_map.items() if tensor not in held[name]
    ]
    if missing:
      raise EagleError(f"{index} names tensors its files do not hold: {', '.join(missing)}")
    extra = sorted({tensor for entries in held.values() for tensor in entries} - set(weight_map))
    if extra:
      raise EagleError(f"{index} does not list tensors its files hold: {', '.join(extra)}")
    self._entries = {tensor: held[name][tensor] for tensor, name in weight_map.items()}

  def entries(self) -> Mapping[str, Entry]:
    """Returns shape and dtype of every tensor."""
    return self._entries

  def read(self, name: str) -> np.ndarray:
    """Returns one tensor, as the file it lies in gives it."""
    return self._files[self._homes[name]].read(name)


def read_header(path: Path) -> dict[str, _Span]:
  """Returns where each tensor of a safetensors file lies.

  Raises:
    EagleError: unless every tensor's bytes lie inside the file, are as many as its shape
      and dtype say, and all of them together cover the file without gap or overlap.
  """
  size = path.stat().st_size
  with path.open("rb") as file:
    first = file.read(8)
    length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER, size - 8):
      raise EagleError(f"{path} is no safetensors file: header of {length} bytes in {size}")
    header = _json_object(file.read(length), str(path))
  header.pop("__metadata__", None)
  base = 8 + length
  spans = {name: _span(path, base, name=name, facts=facts) for name, facts in header.items()}
  end = base
  for name, span in sorted(spans.items(), key=lambda item: (item[1].start, _stop(item[1]))):
    if span.start != end:
      raise EagleError(f"{path}: tensor {name!r} begins at byte {span.start}, it must at {end}")
    end = _stop(span)
  if end != size:
    raise EagleError(f"{path}: its tensors end at byte {end}, the file at {size}")
  return spans


def _stop(span: _Span) -> int:
  """Returns the byte after a tensor's last."""
  return span.start + math.prod(span.entry.shape) * span.entry.dtype.itemsize


def _span(path: Path, base: int, *, name: str, facts: Any) -> _Span:
  """Checks what the header says of one tensor; `base` is the first byte after the header."""
  where = f"{path}: tensor {name!r}"
  if not isinstance(facts, dict) or not {"dtype", "shape", "data_offsets"} <= facts.keys():
    raise EagleError(f"{where} must give dtype, shape and data_offsets")
  if facts["dtype"] not in DTYPES:
    raise EagleError(f"{where} has the dtype {facts['dtype']!r}, known are {', '.join(DTYPES)}")
  shape, offsets = facts["shape"], facts["data_offsets"]
  if not (_counts(shape) and _counts(offsets) and len(offsets) == 2):
    raise EagleError(f"{where} has shape {shape!r} and data_offsets {offsets!r}")
  span = _Span(path, base + offsets[0], Entry(tuple(shape), DTYPES[facts["dtype"]]))
  if _stop(span) != base + offsets[1]:
    raise EagleError(
      f"{where}: shape {shape} of {facts['dtype']} takes {_stop(span) - span.start} bytes, "
      f"data_offsets give {offsets[1] - offsets[0]}"
    )
  return span


def _counts(values: Any) -> bool:
  """Whether these are a list of whole numbers from 0; a JSON true is none."""
  return isinstance(values, list) and all(type(n) is int and n >= 0 for n in values)


def _inside(index: Path, name: Any, suffix: str) -> Path:
  """Returns the file an index names, which must be a plain name in its own folder."""
  if not isinstance(name, str) or Path(name).name != name or not name.endswith(suffix):
    raise EagleError(f"{index} may only name {suffix} files in its own folder, not {name!r}")
  path = index.parent / name
  if not path.is_file():
    raise EagleError(f"{index} names {name!r}, which is not in {index.parent}")
  return path


def _json_object(text: bytes, where: str) -> dict[str, Any]:
  """Parses a JSON object without repeated keys."""
  try:
    found = json.loads(text, object_pairs_hook=_unique)
  except (ValueError, RecursionError) as error:
    raise EagleError(f"{where}: not readable as JSON: {error}") from None
  if not isinstance(found, dict):
    raise EagleError(f"{where}: must hold a JSON object")
  return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Builds a dictionary, refusing a key that comes twice."""
  found = dict(pairs)
  if len(found) != len(pairs):
    raise ValueError("a name is given twice")
  return found
