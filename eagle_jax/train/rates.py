"""How fast a run is: from the seconds of its phases and from what its batches held."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from eagle_jax.train import peaks, phases, work

ONCE = (phases.RECORDS, phases.RESTORE, phases.COMPILE)
"""Phases that a start takes and the rest of a run does not."""
LOG, PROFILE = "log", "profile"
"""The phases in which numbers are written down, and traces begun and ended."""
ASIDE = (*ONCE, phases.SAVE, PROFILE)
"""Phases whose time is told apart, and is no part of what an update takes."""


class Rates:
  """Makes a row of numbers from all that has happened since the row before.

  Attributes:
    overall: seconds per update since the start, saving included, starting not; None before any.
  """

  def __init__(self, current: phases.Phases, needed: work.Work, *, kind: str, devices: int):
    """Starts where the first of the phases began.

    Args:
      current: the run's phases.
      needed: operations of an update.
      kind: of device.
      devices: of all processes.
    """
    self._phases, self._work = current, needed
    best = peaks.peak(kind)
    self._peak = best and best * devices
    self._spent: dict[str, float] = {}
    self._last = time.monotonic() - sum(current.seconds.values())
    self.overall: float | None = None
    self._updates, self._seconds = 0, 0.0

  def row(self, held: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns seconds, seconds by phase, and what was done per second.

    `mfu` is the share of the devices' peak that the operations of the model make out; a kind
    of device whose peak is unknown has none.

    Args:
      held: of each update since the last row, what its batch held; see `work.counts`.
    """
    now, spent = time.monotonic(), dict(self._phases.seconds)
    by_phase = {name: spent[name] - self._spent.get(name, 0.0) for name in spent}
    whole = now - self._last
    self._last, self._spent = now, spent
    found = {
      "time": time.time(),
      "updates": float(len(held)),
      "seconds": whole,
      **{f"seconds/{name}": seconds for name, seconds in by_phase.items() if seconds > 0},
      "seconds/other": max(0.0, whole - sum(by_phase.values())),
    }
    self._updates += len(held)
    self._seconds += whole - sum(by_phase.get(name, 0.0) for name in ONCE)
    self.overall = self._seconds / self._updates if self._updates else None
    working = whole - sum(by_phase.get(name, 0.0) for name in ASIDE)
    if held and working > 0:
      found.update(self._per_second(held, working))
    return found

  def _per_second(self, held: Sequence[Mapping[str, float]], seconds: float) -> dict[str, float]:
    """What was done in each of so many seconds."""
    found = {"seconds_per_update": seconds / len(held)}
    if not all(work.TOKENS in one for one in held):
      return found
    tokens, positions, pictured = (
      sum(one[name] for one in held) / seconds
      for name in (work.TOKENS, work.POSITIONS, work.IMAGE_TOKENS)
    )
    flops = sum(self._work.of(one) for one in held) / seconds
    found |= {
      "tokens_per_second": tokens,
      "positions_per_second": positions,
      "images_per_second": pictured / self._work.image_tokens,
      "flops_per_second": flops,
    }
    if self._peak:
      found["mfu"] = flops / self._peak
    return found


def note(row: Mapping[str, float]) -> str:
  """Returns the pace in a few words, for a status line."""
  words = []
  if "seconds_per_update" in row:
    words.append(f"{row['seconds_per_update']:.3g} s/update")
  if "tokens_per_second" in row:
    words.append(f"{_short(row['tokens_per_second'])} tokens/s")
  if "mfu" in row:
    words.append(f"MFU {row['mfu']:.1%}")
  elif "flops_per_second" in row:
    words.append(f"{_short(row['flops_per_second'])}FLOP/s")
  return " · ".join(words)


def _short(number: float) -> str:
  """A number in three digits and a letter: 12.3k, 4.56M."""
  for letter in ("", "k", "M", "G", "T"):
    if number < 999.5:
      return f"{number:.3g}{letter}"
    number /= 1000
  return f"{number:.4g}P"
