"""Traces of some updates for xprof: those that were asked for, or the next ones at any time."""

from __future__ import annotations

import pathlib
import sys
import time
from typing import Any

import jax

from eagle_jax.errors import EagleError

FOLDER, REQUEST_FILE = "profile", "profile_now"
AT_ONCE = 3  # updates of a trace that a file asks for
LOOK_SECONDS = 1.0  # between two looks for that file

Span = tuple[int, int]
"""Updates done when a trace begins, and when it ends."""


def parse(text: str) -> Span:
  """Returns the span of 'FROM:TO', which are updates done: 10:13 traces the 11th to the 13th.

  Raises:
    EagleError: if these are no rising whole numbers.
  """
  first, _, last = text.partition(":")
  if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
    raise EagleError(f"steps to profile are FROM:TO with FROM < TO, as 10:13: {text!r}")
  return int(first), int(last)


class Profiler:
  """Starts and stops traces of this process between two updates.

  A trace that cannot be made is told of, and the run goes on.
  """

  def __init__(self, workdir: str, *, done: int, wanted: Span | None = None):
    """Traces from the first update on where that is wanted.

    Args:
      workdir: folder of the run; traces go below its `profile/`. A file `profile_now` made
        there asks for a trace of the next three updates.
      done: updates that the restored state has done.
      wanted: updates to trace; what is already done of them is not.
    """
    self._workdir = pathlib.Path(workdir)
    self._span = wanted
    self._tracing, self._looked = False, 0.0
    self.step(done, None)

  def step(self, done: int, measured: Any) -> None:
    """Begins or ends a trace where one is due; only then are the devices waited for.

    Args:
      done: updates done.
      measured: of the last of them, arrays of any shape.
    """
    if self._span is None:
      self._look(done)
    if self._span is None:
      return
    first, last = self._span
    if done >= last:
      jax.block_until_ready(measured)
      self.close()
    elif done >= first and not self._tracing:
      jax.block_until_ready(measured)
      self._start(done)

  def close(self) -> None:
    """Ends the trace under way, if there is one."""
    self._span = None
    if not self._tracing:
      return
    self._tracing = False
    try:
      jax.profiler.stop_trace()
    except (OSError, RuntimeError) as error:
      self._say(f"a trace could not be written: {error}")
      return
    self._say(f"trace written to {self._workdir / FOLDER}, for xprof or TensorBoard")

  def _look(self, done: int) -> None:
    """Takes a request left in the folder."""
    now = time.monotonic()
    if now - self._looked < LOOK_SECONDS:
      return
    self._looked = now
    try:
      (self._workdir / REQUEST_FILE).unlink()
    except OSError:
      return
    self._span = done, done + AT_ONCE

  def _start(self, done: int) -> None:
    """Begins a trace, or gives it up."""
    try:
      jax.profiler.start_trace(self._workdir / FOLDER)
      self._tracing = True
    except (OSError, RuntimeError) as error:
      self._span = None
      self._say(f"no trace after update {done}: {error}")

  @staticmethod
  def _say(what: str) -> None:
    """Tells whoever watches the run."""
    print(what, file=sys.stderr, flush=True)
