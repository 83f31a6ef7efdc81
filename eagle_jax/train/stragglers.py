"""Which process the others wait for: their step times side by side."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from eagle_jax.train import phases

COLUMNS = (phases.DATA, phases.STEP, phases.SAVE)
OWN = (phases.DATA, phases.SAVE)
"""Time that a process takes of its own accord; in a step all wait for the slowest."""
FACTOR = 3.0  # times the median of the others
SHARE = 0.05  # of a whole step that a delay must make out


class Stragglers:
  """Compares the processes at every logged step; says so when one holds up the others."""

  def __init__(self, current: phases.Phases):
    """Compares nothing yet."""
    self._phases, self._before, self._step = current, dict(current.seconds), current.step
    self._named: list[str] = []

  def compare(self) -> None:
    """Takes what was spent since the last call. Every process must call it, at the same step."""
    if jax.process_count() == 1:
      return
    now, updates = self._phases.seconds, max(1, self._phases.step - self._step)
    mine = [(now.get(name, 0.0) - self._before.get(name, 0.0)) / updates for name in COLUMNS]
    self._before, self._step = dict(now), self._phases.step
    rows = multihost_utils.process_allgather(np.array(mine, np.float32))  # [processes, columns]
    seconds = [dict(zip(COLUMNS, map(float, row), strict=True)) for row in rows]
    named = slow(seconds)
    if named and named != self._named and jax.process_index() == 0:
      print(table(self._phases.step, seconds, named), flush=True)
    self._named = named


def slow(seconds: Sequence[Mapping[str, float]]) -> list[str]:
  """Returns who takes far longer than the others over what, as 'process 3: data'.

  Args:
    seconds: for each process, seconds per update by column.
  """
  named = []
  for column in OWN:
    values = [each[column] for each in seconds]
    for process, value in enumerate(values):
      others = statistics.median([*values[:process], *values[process + 1 :]])
      whole = sum(seconds[process].values())
      if value >= FACTOR * others and value - others >= SHARE * whole:
        named.append(f"process {process}: {column}")
  return named


def table(step: int, seconds: Sequence[Mapping[str, float]], named: list[str]) -> str:
  """Returns the seconds per update of all processes, and who is slow, as text."""
  lines = [f"step {step}: the others wait for {', '.join(named)}; seconds per update:"]
  lines.append("  process " + "".join(f"{name:>10}" for name in COLUMNS))
  for process, each in enumerate(seconds):
    lines.append(f"  {process:>7} " + "".join(f"{each[name]:>10.3f}" for name in COLUMNS))
  return "\n".join(lines)
