"""One line on the screen: how far a run is, how it goes, how long it will take."""

from __future__ import annotations

import sys
import time
from typing import TextIO


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
    self._what, self._total = what, total
    self._out = sys.stderr if out is None else out
    self._start = time.monotonic()
    self._last = self._start  # an estimate from one step would be wild
    self._first = done

  def show(self, done: int, note: str = "", *, pace: float | None = None) -> None:
    """Shows how far things are.

    Args:
      done: steps done.
      note: a few words, such as the loss.
      pace: seconds that a step will take, by default what one has taken since the start.
    """
    now = time.monotonic()
    finished = done >= self._total
    rate = (now - self._start) / max(1, done - self._first) if pace is None else pace
    redraw = self._out.isatty()
    if not finished and now - self._last < (0.2 if redraw else self.QUIET_SECONDS):
      return
    self._last = now
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
  """Seconds as m:ss, h:mm:ss or days and h:mm."""
  minutes, rest = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  days, hours = divmod(hours, 24)
  if days:
    return f"{days}d {hours}:{minutes:02d}"
  return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
