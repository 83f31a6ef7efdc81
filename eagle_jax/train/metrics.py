"""What a run tells while it goes: a line per logged step in a file, one line on the screen."""

from __future__ import annotations

import json
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import TextIO

FILE = "metrics.jsonl"


class Metrics:
  """Writes metrics.jsonl, one JSON object per step in order, each step once."""

  def __init__(self, workdir: str, *, start: int):
    """Opens the file and drops what a killed run wrote after step `start`.

    Args:
      workdir: folder of the run.
      start: updates that the restored state has done.
    """
    self._path = pathlib.Path(workdir) / FILE
    kept = [row for row in read(workdir) if row["step"] <= start]
    self._path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    self._file = self._path.open("a", buffering=1)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Appends the values of the update that made `step` updates done."""
    self._file.write(json.dumps({"step": step, **values}) + "\n")

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def read(workdir: str) -> list[dict[str, float]]:
  """Returns the rows of a run's metrics.jsonl, without a last line cut short by a kill."""
  path = pathlib.Path(workdir) / FILE
  if not path.exists():
    return []
  lines = path.read_text().splitlines(keepends=True)
  return [json.loads(line) for line in lines if line.endswith("\n")]


class Progress:
  """A status line with the share done and the time left, redrawn on a terminal.

  Where the output is no terminal, it writes a line at most every ten seconds.
  """

  WIDTH = 24  # characters of the bar
  QUIET_SECONDS = 10.0  # between two lines where nothing can be redrawn

  def __init__(self, what: str, total: int, *, done: int = 0, out: TextIO | None = None):
    """Starts the clock.

    Args:
      what: named at the start of the line.
      total: steps in all.
      done: steps done before.
      out: where to write, standard error by default.
    """
    self._what, self._total, self._first = what, total, done
    self._out = sys.stderr if out is None else out
    self._start = time.monotonic()
    self._last = self._start  # an estimate from one step would be wild

  def show(self, done: int, note: str = "") -> None:
    """Shows that `done` steps are done, with a short note such as the loss."""
    now = time.monotonic()
    finished = done >= self._total
    redraw = self._out.isatty()
    if not finished and now - self._last < (0.2 if redraw else self.QUIET_SECONDS):
      return
    self._last = now
    rate = (now - self._start) / max(1, done - self._first)
    left = _clock(now - self._start if finished else rate * (self._total - done))
    filled = self.WIDTH * done // max(1, self._total)
    bar = "█" * filled + "·" * (self.WIDTH - filled)
    end = "took" if finished else "left"
    line = f"{self._what} {bar} {done}/{self._total} {left} {end} {note}".rstrip()
    self._out.write(f"\r\x1b[K{line}" if redraw else line + "\n")
    if redraw and finished:
      self._out.write("\n")
    self._out.flush()


def _clock(seconds: float) -> str:
  """Seconds as m:ss."""
  return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
