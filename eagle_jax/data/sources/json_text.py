"""LLaVA records in a JSON list or one object per line, however long the file.

The file is gone through once in pieces; of the good records only place and length are
kept, 16 bytes each. A record is read again when it is asked for.
"""

from __future__ import annotations

import array
import codecs
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from eagle_jax.data import messages, records
from eagle_jax.data.records import BadRecordError, Fault, Limits, Record, Tally
from eagle_jax.errors import EagleError

PIECE = 1 << 20  # bytes read at a time
SECONDS = {True: 2.0, False: 30.0}
"""Whether standard error is a terminal → how long going through a file is not told of."""
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_OUTSIDE = re.compile(_STRING + rb'|["\[\]{},]', re.DOTALL)
_INSIDE = re.compile(rb'["\\]')
_SPACE = b" \t\r\n"


class Extent(NamedTuple):
  """Where a record's text lies: its line or item from 1, and its bytes in the file."""

  line: int
  start: int
  stop: int


class JsonText:
  """The good records of one file, in its order."""

  licence = ""

  def __init__(self, path: str, folder: str, limits: Limits):
    """Looks through the file.

    Raises:
      EagleError: if it is no file, or a broken list.
      OSError: if it cannot be read.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe may let one wait for ever
      raise EagleError(f"data.records {path!r} cannot be read: it is no file")
    self._path, self._folder, self._limits = path, folder, limits
    self.tally = Tally()
    told = _Told(path)
    # As plain arrays while they grow: lists would hold an object for each number.
    starts, lengths, lines = array.array("q"), array.array("I"), array.array("I")
    for extent, read in look_through(path, folder, limits):
      told.show(extent.stop)
      if isinstance(read, BadRecordError):
        self.tally.add(Fault(f"{path}:{extent.line}", read.reason, read.detail))
        continue
      starts.append(extent.start)
      lengths.append(extent.stop - extent.start)
      lines.append(extent.line)
    told.end()
    self._starts, self._lengths, self._lines = map(np.asarray, (starts, lengths, lines))

  def __len__(self) -> int:
    return len(self._starts)

  def __getitem__(self, number: int) -> Record:
    start = int(self._starts[number])
    extent = Extent(int(self._lines[number]), start, start + int(self._lengths[number]))
    with open(self._path, "rb", buffering=0) as file:
      return _read(file, self._path, self._folder, extent=extent)

  def place(self, number: int) -> str:
    """Returns file and line, or item of a list."""
    return f"{self._path}:{self._lines[number]}"


def open_source(path: str, folder: str, limits: Limits) -> JsonText:
  """Opens a file; the name and arguments are those of every format."""
  return JsonText(path, folder, limits)


def look_through(
  path: str, folder: str, limits: Limits
) -> Iterator[tuple[Extent, Record | BadRecordError]]:
  """Yields every record of a file in order, or what is wrong with it.

  Raises:
    EagleError: if the file is a broken list.
    OSError: if it cannot be read.
  """
  with open(path, "rb", buffering=0) as file:
    for extent in extents(file):
      yield extent, _checked(file, path, folder, extent=extent, limits=limits)


class _Told:
  """Tells on standard error how much of a file is gone through, where that takes its time."""

  def __init__(self, path: str):
    """Starts the clock."""
    self._path, self._terminal = path, sys.stderr.isatty()
    self._start = self._last = time.monotonic()

  def show(self, done: int) -> None:
    """Tells that `done` bytes are done, unless little time has gone since the last line."""
    now = time.monotonic()
    redrawn = self._terminal and self._last > self._start
    if now - self._last < (0.2 if redrawn else SECONDS[self._terminal]):
      return
    self._last = now
    share = done / max(1, os.path.getsize(self._path))
    left = (now - self._start) / max(share, 1e-9) * (1 - share)
    line = f"looking through {self._path}: {share:.0%}, {left:.0f} s left"
    print(
      f"\r\x1b[K{line}" if self._terminal else line,
      file=sys.stderr,
      flush=True,
      end="" if self._terminal else "\n",
    )

  def end(self) -> None:
    """Leaves the line of a terminal."""
    if self._terminal and self._last > self._start:
      print(file=sys.stderr, flush=True)


def _checked(
  file: BinaryIO, path: str, folder: str, *, extent: Extent, limits: Limits
) -> Record | BadRecordError:
  """Reads one record, and returns what is wrong with it if anything is."""
  try:
    record = _read(file, path, folder, extent=extent)
    records.demand(record, limits)
  except BadRecordError as bad:
    return bad
  return record


def _read(file: BinaryIO, path: str, folder: str, *, extent: Extent) -> Record:
  """Reads and parses one record, which need not be a good one."""
  length = extent.stop - extent.start
  if length > records.MAX_JSON:
    raise BadRecordError(
      "record too large", f"{length} bytes of JSON, {records.MAX_JSON} are allowed"
    )
  entry = records.decode(os.pread(file.fileno(), length, extent.start))
  return messages.parse(entry, path, extent.line)._replace(folder=folder)


def extents(file: BinaryIO) -> Iterator[Extent]:
  """Yields where the records of a JSON list or of JSON lines lie, in order.

  Args:
    file: unbuffered; its position is moved.

  Raises:
    EagleError: if a list does not end, or something follows it.
  """
  start = len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
  file.seek(start)
  first = next((piece.lstrip(_SPACE)[:1] for piece in _pieces(file) if piece.strip(_SPACE)), b"")
  file.seek(start)
  yield from _items(file, start) if first == b"[" else _lines(file, start)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
  """Yields the rest of a file, PIECE bytes at a time."""
  while piece := file.read(PIECE):
    yield piece


def _lines(file: BinaryIO, position: int) -> Iterator[Extent]:
  """Yields the lines that hold anything."""
  line, begun, blank = 1, position, True
  for piece in _pieces(file):
    at = 0
    while (end := piece.find(b"\n", at)) >= 0:
      if not blank or piece[at:end].strip(_SPACE):
        yield Extent(line, begun, position + end)
      line, at, blank = line + 1, end + 1, True
      begun = position + at
    blank = blank and not piece[at:].strip(_SPACE)
    position += len(piece)
  if not blank:
    yield Extent(line, begun, position)


def _items(file: BinaryIO, position: int) -> Iterator[Extent]:
  """Yields the items of a list; only brackets, commas and strings are looked at."""
  item, begun, depth, quoted, at = 1, position, 0, False, 0
  for piece in _pieces(file):
    while found := (_INSIDE if quoted else _OUTSIDE).search(piece, at):
      mark, at = found[0], found.end()
      if quoted:
        quoted = mark == b"\\"
        at += quoted  # what a backslash stands before is no mark
      elif mark[:1] == b'"':
        quoted = len(mark) == 1  # one that the piece does not end
      elif mark in b"[{":
        depth += 1
        if depth == 1:
          begun = position + at
      elif depth == 1:
        end = position + found.start()
        if mark == b"," or item > 1 or _filled(file, begun, end):
          yield Extent(item, begun, end)
        item, begun, depth = item + 1, position + at, depth - (mark != b",")
        if not depth:
          _demand_end(file, begun)
          return
      else:
        depth -= mark != b","
    at = max(0, at - len(piece))
    position += len(piece)
  raise EagleError(f"data.records {file.name!r} is no valid JSON list: it ends inside item {item}")


def _filled(file: BinaryIO, start: int, stop: int) -> bool:
  """Whether anything stands between the brackets of a list with at most one item."""
  return bool(os.pread(file.fileno(), min(stop - start, PIECE), start).strip(_SPACE))


def _demand_end(file: BinaryIO, position: int) -> None:
  """Raises EagleError unless the file ends with the list."""
  file.seek(position)
  if any(piece.strip(_SPACE) for piece in _pieces(file)):
    raise EagleError(
      f"data.records {file.name!r} is no valid JSON list: more follows its end at byte {position}"
    )
