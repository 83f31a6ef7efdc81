"""Notices a run that hangs, shows where, and ends it so that a launcher starts it again."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pathlib
import threading
from collections.abc import Callable

from eagle_jax.errors import PreemptedError
from eagle_jax.train.phases import Phases

LOOKS = 20
"""Looks in the time without progress that is reported; after twice as many the process ends.
They are counted, not the time between them: a machine that was asleep is no run that hangs."""


class Watchdog:
  """A thread that looks whether the phases of the run change."""

  def __init__(
    self,
    phases: Phases,
    workdir: str,
    *,
    minutes: float,
    process: int,
    end: Callable[[int], object] = os._exit,
  ):
    """Starts looking.

    Args:
      phases: of the thread that trains.
      workdir: folder of the run, for the stacks.
      minutes: without progress until stacks are written; 0 never looks.
      process: index of this process, for the message and the file.
      end: what ends the process.
    """
    self._phases, self._minutes, self._process, self._end = phases, minutes, process, end
    self._path = pathlib.Path(workdir) / f"stacks-{process}.txt"
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
    if minutes:
      self._thread.start()

  def _watch(self) -> None:
    """Runs in the thread."""
    seen, still = -1, 0
    while not self._closed.wait(60 * self._minutes / LOOKS):
      still = still + 1 if self._phases.entered == seen else 0
      seen = self._phases.entered
      if still and still % LOOKS == 0:
        last = still == 2 * LOOKS
        self._tell(still // LOOKS, ": it ends, to be started again" if last else "")
        if last:
          self._end(PreemptedError.exit_code)
          return

  def _tell(self, times: int, more: str) -> None:
    """Writes what hangs and the stacks of all threads to standard error and a file."""
    at = f"phase '{self._phases.name}', {self._phases.step} updates done"
    told = (
      f"watchdog: process {self._process} has not moved for {times * self._minutes:g} minutes, "
      f"{at}{more}\n"
    )
    # The file first: standard error may be a pipe that nobody reads.
    for place in (self._path, pathlib.Path("/dev/stderr")):
      with contextlib.suppress(OSError), place.open("a") as file:
        file.write(told)
        file.flush()
        faulthandler.dump_traceback(file)

  def close(self) -> None:
    """Ends looking."""
    self._closed.set()
    if self._minutes:
      self._thread.join()
