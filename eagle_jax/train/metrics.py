"""Numbers of a run in files of JSON lines, one object for each logged update."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping

from eagle_jax.train.appended import Appended

FILE = "metrics.jsonl"
"""What the updates measured: the same bytes however often the run was interrupted."""
SPEED_FILE = "speed.jsonl"
"""What the clock says: rows of all attempts, those whose updates were lost among them."""

Row = dict[str, float]


class Metrics:
  """Writes rows in order; a line is written whole or, on a full disk, not at all."""

  def __init__(self, workdir: str, *, start: float = math.inf, name: str = FILE):
    """Opens the file and drops what a killed run wrote after step `start`.

    Args:
      workdir: folder of the run.
      start: updates that the restored state has done; by default every whole row stays.
      name: of the file.
    """
    path = pathlib.Path(workdir) / name
    self._file = Appended(path, keep=_kept(path, start))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends the values of the update that made `step` updates done."""
    self._file.append((json.dumps({"step": step, **values}) + "\n").encode())

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def read(workdir: str, name: str = FILE) -> list[Row]:
  """Returns the rows of a run's file, without a last line cut short by a kill.

  What a bad disk has made unreadable is left out: a log is not worth a run.
  """
  try:
    lines = _whole_lines(pathlib.Path(workdir) / name)
  except OSError:
    return []
  return [row for row in map(_parse, lines) if row is not None]


def _kept(path: pathlib.Path, start: float) -> int | None:
  """Returns the bytes before the first row after step `start`, None where none can be read."""
  kept = 0
  try:
    for line in _whole_lines(path):
      row = _parse(line)
      if row is not None and row["step"] > start:
        break
      kept += len(line)
  except OSError:
    return None
  return kept


def _parse(line: bytes) -> Row | None:
  """Returns the row of a line, None if it is none."""
  try:
    row = json.loads(line)
  except ValueError:
    return None
  return row if isinstance(row, dict) and "step" in row else None


def _whole_lines(path: pathlib.Path) -> list[bytes]:
  """Returns the lines of a file that end; none where there is no file."""
  if not path.exists():
    return []
  return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
