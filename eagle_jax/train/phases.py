"""What a process of a run is doing, and how long it has done each thing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

RECORDS, RESTORE = "records", "restore"
DATA, COMPILE, STEP, SAVE = "data", "compile", "step", "save"


class Phases:
  """The phase of the thread that trains; other threads may read it.

  Attributes:
    name: of the current phase.
    entered: grows with every change of phase: what stands still is a run that hangs.
    step: updates done.
    seconds: spent in each phase that has ended, by name.
  """

  def __init__(self) -> None:
    """Starts before the first phase."""
    self.name, self.entered, self.step = "start", 0, 0
    self.seconds: dict[str, float] = {}

  @contextlib.contextmanager
  def __call__(self, name: str) -> Iterator[None]:
    """Is in a phase for the length of a block; phases do not nest."""
    begun = time.monotonic()
    self.name, self.entered = name, self.entered + 1
    try:
      yield
    finally:
      spent = time.monotonic() - begun
      self.seconds[name] = self.seconds.get(name, 0.0) + spent
      self.name, self.entered = f"behind {name}", self.entered + 1
