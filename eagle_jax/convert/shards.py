"""Safetensors folders as upstream lays them out: shards, their index, one tensor in memory."""

from __future__ import annotations

import functools
import json
import math
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from eagle_jax.convert.engine import Outgoing
from eagle_jax.convert.source import DTYPES, INDEX, SINGLE

MAX_SHARD = 5_000_000_000
"""Bytes of tensors in one file. Source: transformers, save_pretrained."""

ALIGNMENT = 8  # the header is padded to it, so that arrays can be mapped

CODES = {dtype: code for code, dtype in DTYPES.items()}
"""Numpy dtype → its name in a header."""


def write(
  folder: Path,
  tensors: Sequence[Outgoing],
  *,
  max_shard: int = MAX_SHARD,
  on_done: Callable[[int], None] = lambda done: None,
) -> list[str]:
  """Writes tensors as one file, or as shards with an index.

  Args:
    folder: must exist.
    tensors: what to write, in this order.
    max_shard: most bytes of tensors in a file; a single larger tensor gets its own.
    on_done: called with the number of tensors written so far.

  Returns:
    The names of the files.
  """
  groups = split(tensors, max_shard)
  names = [f"model-{n:05}-of-{len(groups):05}.safetensors" for n in range(1, len(groups) + 1)]
  names = names if len(groups) > 1 else [SINGLE]
  done = 0
  for name, group in zip(names, groups, strict=True):
    _write_file(folder / name, group, on_done=functools.partial(_add, on_done, done))
    done += len(group)
  if len(groups) == 1:
    return names
  index = {
    "metadata": {"total_size": sum(size(tensor) for tensor in tensors)},
    "weight_map": {
      tensor.name: name for name, group in zip(names, groups, strict=True) for tensor in group
    },
  }
  (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
  return [*names, INDEX]


def _add(on_done: Callable[[int], None], before: int, count: int) -> None:
  """Reports the tensors of earlier files together with `count` of this one."""
  on_done(before + count)


def split(tensors: Sequence[Outgoing], max_shard: int) -> list[list[Outgoing]]:
  """Returns the tensors in groups of at most `max_shard` bytes, in order."""
  groups: list[list[Outgoing]] = [[]]
  room = max_shard
  for tensor in tensors:
    if groups[-1] and size(tensor) > room:
      groups.append([])
      room = max_shard
    groups[-1].append(tensor)
    room -= size(tensor)
  return groups


def size(tensor: Outgoing) -> int:
  """Returns the bytes of a tensor."""
  return math.prod(tensor.entry.shape) * tensor.entry.dtype.itemsize


def _write_file(path: Path, tensors: Sequence[Outgoing], *, on_done: Callable[[int], None]) -> None:
  """Writes one safetensors file, complete or not at all under its name."""
  header: dict[str, object] = {"__metadata__": {"format": "pt"}}
  end = 0
  for tensor in tensors:
    begin, end = end, end + size(tensor)
    header[tensor.name] = {
      "dtype": CODES[tensor.entry.dtype],
      "shape": list(tensor.entry.shape),
      "data_offsets": [begin, end],
    }
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % ALIGNMENT)
  partial = path.with_name(path.name + ".partial")
  with partial.open("wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for done, tensor in enumerate(tensors, 1):
      file.write(tensor.make().reshape(-1).view("u1").data)
      on_done(done)
    file.flush()
    os.fsync(file.fileno())
  partial.rename(path)
