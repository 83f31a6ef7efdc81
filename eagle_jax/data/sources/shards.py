"""ArrayRecord shards, as `eagle-jax data build` writes them, and the layout of a record.

A record is, integers little-endian:

  4 bytes   b"EJR1"
  uint32    bytes of the conversation
  uint32    number of pictures, then for each of them
  uint32    its bytes
  …         the conversation: LLaVA's object in JSON, UTF-8
  …         the pictures' encoded files one after the other, as they were
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from typing import Any

from eagle_jax.data import records
from eagle_jax.data.records import BadRecordError, Limits, Record, Tally
from eagle_jax.data.sources import FORMATS, demand_there, files
from eagle_jax.errors import EagleError

MAGIC = b"EJR1"
MANIFEST = "manifest.json"
"""Beside the shards: their digests, counts, source and licence."""
_HEAD = struct.Struct("<4sII")


def pack(record: Record, images: Sequence[bytes]) -> bytes:
  """Returns a record as the bytes that a shard holds.

  Args:
    record: what it names its pictures is kept as a note of where they come from.
    images: their encoded files, in order.
  """
  names = [each if isinstance(each, str) else "" for each in record.images]
  told = {
    "id": record.id,
    "image": names,
    "conversations": records.conversations(record),
  }
  text = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
  sizes = struct.pack(f"<{len(images)}I", *map(len, images))
  return b"".join([_HEAD.pack(MAGIC, len(text), len(images)), sizes, text, *images])


def unpack(data: bytes, file: str, line: int) -> Record:
  """Returns the record that `pack` made bytes of; every length is checked first.

  Args:
    data: the bytes.
    file: where they stand, for messages.
    line: their number in it, from 1.

  Raises:
    BadRecordError: if they are cut, too long, or hold no usable record.
  """
  if len(data) < _HEAD.size or data[:4] != MAGIC:
    raise BadRecordError("not of data build", f"a record begins with {MAGIC!r}, not {data[:4]!r}")
  _, length, count = _HEAD.unpack_from(data)
  body = _HEAD.size + 4 * count
  sizes = struct.unpack_from(f"<{count}I", data, _HEAD.size) if body <= len(data) else ()
  whole = body + length + sum(sizes)
  if body > len(data) or whole != len(data):
    raise BadRecordError("lengths do not fit", f"{whole} bytes are told of, there are {len(data)}")
  record = records.parse(records.decode(data[body : body + length]), file, line)
  if len(record.images) != count:
    raise BadRecordError(
      "lengths do not fit", f"{len(record.images)} images are named, {count} are there"
    )
  images, at = [], body + length
  for size in sizes:
    images.append(data[at : at + size])
    at += size
  return record._replace(images=tuple(images))


class Shards:
  """The records of some ArrayRecord files, one file after the other."""

  def __init__(self, paths: Sequence[str], limits: Limits):
    """Counts the records; none is read.

    Raises:
      EagleError: if a file is no ArrayRecord.
    """
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    self._place, self._paths, self._limits = paths[0], paths, limits
    self.tally, self.licence = Tally(), _licence(os.path.dirname(paths[0]))
    try:
      self._data: Any = ArrayRecordDataSource(list(paths))
    except (RuntimeError, ValueError) as error:
      raise EagleError(f"data.records {paths[0]!r} is no ArrayRecord: {error}") from None

  def __len__(self) -> int:
    return len(self._data)

  def __getitem__(self, number: int) -> Record:
    try:
      data = self._data[number]
    except (RuntimeError, ValueError) as error:
      demand_there(self._paths)
      raise BadRecordError("unreadable record", str(error)) from None
    record = unpack(data, self._place, number + 1)
    records.demand(record, self._limits)
    return record

  def place(self, number: int) -> str:
    """Returns the first file and the record's number over all of them, from 1."""
    return f"{self._place}:{number + 1}"


def open_source(path: str, folder: str, limits: Limits) -> Shards:
  """Opens one shard or a folder of them; pictures lie in the records, `folder` is not needed."""
  del folder
  return Shards(files(path, FORMATS["array_record"].ending), limits)


def _licence(folder: str) -> str:
  """Returns the licence that the manifest of a folder names, if there is one."""
  try:
    with open(os.path.join(folder, MANIFEST), "rb") as file:
      return str(json.load(file)["licence"])
  except (OSError, ValueError, KeyError, TypeError):  # shards may come from elsewhere
    return ""
