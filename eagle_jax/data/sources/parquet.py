"""Rows of Parquet files, in chat form or LLaVA's, pictures as bytes or names.

Rows are read by the group they were written in: in order this is fast, at random each row
costs its whole group. To train on a large set, make shards of it with `eagle-jax data build`.
"""

from __future__ import annotations

import bisect
import collections
import itertools
import threading
from collections.abc import Sequence
from typing import Any

from eagle_jax.data import messages, records
from eagle_jax.data.records import BadRecordError, Limits, Record, Tally
from eagle_jax.data.sources import FORMATS, files
from eagle_jax.errors import EagleError

COLUMNS = ("id", "messages", "conversations", "images", "image")
"""What is read of a file; other columns stay on the disk."""
KEPT = 2
"""Row groups kept decoded."""


class Parquet:
  """The rows of some files, one file after the other."""

  licence = ""

  def __init__(self, paths: Sequence[str], folder: str, limits: Limits):
    """Reads how many rows each group has, and no row.

    Raises:
      EagleError: if pyarrow is not installed, or a file is no Parquet of records.
    """
    self._paths, self._folder, self._limits = list(paths), folder, limits
    self.tally = Tally()
    self._groups: list[tuple[int, int]] = []  # file, group in it
    rows = []
    for number, path in enumerate(self._paths):
      file = _opened(path)
      for group in range(file.num_row_groups):
        self._groups.append((number, group))
        rows.append(file.metadata.row_group(group).num_rows)
    self._firsts = [0, *itertools.accumulate(rows)]
    self._start()

  def _start(self) -> None:
    """Begins with no group decoded."""
    self._lock = threading.Lock()
    self._kept: collections.OrderedDict[int, Any] = collections.OrderedDict()

  def __getstate__(self) -> dict[str, Any]:
    held = self.__dict__.copy()
    del held["_lock"], held["_kept"]
    return held

  def __setstate__(self, held: dict[str, Any]) -> None:
    self.__dict__.update(held)
    self._start()

  def __len__(self) -> int:
    return self._firsts[-1]

  def __getitem__(self, number: int) -> Record:
    group = bisect.bisect_right(self._firsts, number) - 1
    with self._lock:  # a reader of Parquet is used by one thread at a time
      table = self._table(group)
    try:
      (row,) = table.slice(number - self._firsts[group], 1).to_pylist()
    except UnicodeDecodeError as error:  # pyarrow does not look into texts when it reads them
      raise BadRecordError("unreadable record", str(error)) from None
    path = self._paths[self._groups[group][0]]
    record = messages.parse(_present(row), path, number + 1)._replace(folder=self._folder)
    records.demand(record, self._limits)
    return record

  def _table(self, group: int) -> Any:
    """Returns the rows of one group, decoded."""
    if group not in self._kept:
      file, inside = self._groups[group]
      opened = _opened(self._paths[file])
      try:
        columns = [name for name in COLUMNS if name in opened.schema_arrow.names]
        self._kept[group] = opened.read_row_group(inside, columns=columns)
      except (OSError, ValueError) as error:
        _pass_on(error)
        raise BadRecordError("unreadable record", str(error)) from None
      while len(self._kept) > KEPT:
        self._kept.popitem(last=False)
    self._kept.move_to_end(group)
    return self._kept[group]

  def place(self, number: int) -> str:
    """Returns the file and the row's number over all files, from 1."""
    group = bisect.bisect_right(self._firsts, number) - 1
    return f"{self._paths[self._groups[group][0]]}:{number + 1}"


def open_source(path: str, folder: str, limits: Limits) -> Parquet:
  """Opens one file or a folder of them."""
  return Parquet(files(path, FORMATS["parquet"].ending), folder, limits)


def _opened(path: str) -> Any:
  """Opens one file and sees that it holds records."""
  try:
    from pyarrow import parquet
  except ImportError:
    raise EagleError(
      "reading Parquet needs pyarrow: install eagle-jax with the extra 'parquet'"
    ) from None
  try:
    file = parquet.ParquetFile(path)
  except (OSError, ValueError) as error:
    _pass_on(error)
    raise EagleError(f"data.records {path!r} is no Parquet file: {error}") from None
  names = file.schema_arrow.names
  if not {"messages", "conversations"} & set(names):
    raise EagleError(
      f"data.records {path!r} has no column 'messages' or 'conversations', "
      f"its columns are {', '.join(names)}"
    )
  return file


def _pass_on(error: OSError | ValueError) -> None:
  """Raises an error of the system again; pyarrow's own, of the same kinds, have no number."""
  if getattr(error, "errno", None):
    raise error


def _present(row: dict[str, Any]) -> dict[str, Any]:
  """Returns a row without its empty fields: Parquet has every column in every row."""
  return {name: value for name, value in row.items() if value is not None}
