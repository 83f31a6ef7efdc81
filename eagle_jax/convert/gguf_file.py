"""GGUF, the file of llama.cpp: quantised tensors, read as float32.

The header is read here; what the bytes of a quantised block mean is left to the package
`gguf`, which comes with the extra of the same name.
"""

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from eagle_jax.convert import gguf_header, gguf_tokenizer
from eagle_jax.convert.gguf_header import Header, Info, aligned
from eagle_jax.convert.source import Entry
from eagle_jax.errors import EagleError


class GgufSource:
  """A GGUF file, its tensors under their own names and dequantised when they are read."""

  def __init__(self, path: str | Path):
    """Reads the header.

    Raises:
      EagleError: if the file is missing, damaged, or of element types that the package
        cannot turn into numbers; or if the package is missing.
    """
    self.description = str(path)
    if not Path(path).is_file():
      raise EagleError(f"no checkpoint at {path}: it must be a GGUF file")
    package = _package(self.description)
    header = gguf_header.read(Path(path))
    self.metadata: Mapping[str, Any] = header.metadata
    self._readers: dict[str, tuple[Entry, Callable[[], np.ndarray]]] = {}
    ends: dict[str, int] = {}
    for name, info in header.tensors.items():
      kind, count = _sized(package, self.description, name=name, info=info)
      ends[name] = info.start + count
      read = functools.partial(_read, package, Path(path), kind=kind, info=info, count=count)
      self._readers[name] = (Entry(info.shape, np.dtype(np.float32)), read)
    _demand_gapless(self.description, header, ends)

  def entries(self) -> Mapping[str, Entry]:
    """Returns the shape of every tensor, (out, in) as in PyTorch; all are float32."""
    return {name: entry for name, (entry, _) in self._readers.items()}

  def read(self, name: str) -> np.ndarray:
    """Returns one tensor [...] in float32."""
    return self._readers[name][1]()

  def companions(self) -> dict[str, bytes]:
    """Returns name → contents of the tokenizer's files, which the metadata hold.

    Raises:
      EagleError: if the file has a tokenizer of a kind that is not known here.
    """
    return gguf_tokenizer.files(self.metadata, place=self.description)


def _package(place: str) -> ModuleType:
  """Imports the optional package."""
  try:
    import gguf
  except ImportError:
    raise EagleError(
      f"{place} is GGUF; to read it, install the extra: pip install 'eagle-jax[gguf]'"
    ) from None
  package: ModuleType = gguf
  return package


def _sized(package: ModuleType, place: str, *, name: str, info: Info) -> tuple[Any, int]:
  """Returns the element type of a tensor and how many bytes it takes."""
  try:
    kind = package.GGMLQuantizationType(info.kind)
    block, block_bytes = package.GGML_QUANT_SIZES[kind]
  except (ValueError, KeyError):
    raise EagleError(f"{place}: {name!r} has elements of type {info.kind}, not known") from None
  if not _readable(package, kind):
    raise EagleError(f"{place}: {name!r} is {kind.name}, which cannot be read as float32")
  if info.shape[-1] % block:
    raise EagleError(
      f"{place}: rows of {name!r} must be whole {kind.name} blocks of {block} elements, "
      f"its shape is {list(info.shape)}"
    )
  return kind, math.prod(info.shape) // block * block_bytes


@functools.cache
def _readable(package: ModuleType, kind: Any) -> bool:
  """Whether the package can dequantise a type; tried on one block of zeros."""
  try:
    package.dequantize(np.zeros((1, package.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
  except NotImplementedError:
    return False
  return True


def _demand_gapless(place: str, header: Header, ends: Mapping[str, int]) -> None:
  """Demands that the tensors lie one after the other, with no more between than alignment."""
  end = header.base
  for name, info in sorted(header.tensors.items(), key=lambda item: item[1].start):
    expected = header.base + aligned(end - header.base, header.alignment)
    if info.start != expected:
      raise EagleError(
        f"{place}: tensor {name!r} begins at byte {info.start}, it must at {expected}"
      )
    end = ends[name]
  if not end <= header.size <= header.base + aligned(end - header.base, header.alignment):
    raise EagleError(f"{place}: its tensors end at byte {end}, the file at {header.size}")


def _read(package: ModuleType, path: Path, *, kind: Any, info: Info, count: int) -> np.ndarray:
  """Returns a tensor [...] in float32; damaged scales may make it infinite, never an error."""
  try:
    raw = np.asarray(np.memmap(path, np.uint8, "r", info.start, (count,)))
  except (OSError, ValueError) as error:
    raise EagleError(f"{path} has changed since it was opened: {error}") from None
  with np.errstate(all="ignore"):
    rows = package.dequantize(raw.reshape(*info.shape[:-1], -1), kind)
  array: np.ndarray = np.asarray(rows, np.float32).reshape(info.shape)
  return array
