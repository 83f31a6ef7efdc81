"""Which share of a run's time went into updates that count, over all its attempts.

Read from speed.jsonl, which keeps the rows of updates that a kill lost. Each row tells the
attempt it belongs to and how many updates it is of; an attempt's first row has none, and
tells where it began.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from eagle_jax.train import phases, rates

NAMES: Mapping[str, str] = {
  phases.STEP: "updates that count",
  phases.DATA: "waiting for data",
  phases.COMPILE: "compiling",
  phases.SAVE: "saving",
  phases.RESTORE: "starting or restoring",
  phases.RECORDS: "reading records",
  rates.LOG: "logging",
  rates.PROFILE: "tracing",
  "lost": "updates done again",
  "stopped": "not running",
  "other": "else",
}
LEAST = 0.0005  # share below which nothing is told


@dataclasses.dataclass(frozen=True)
class Account:
  """Where a run's time went.

  Attributes:
    seconds: since its first start.
    shares: phase → share of them; 'lost' is all that went into updates which a later attempt
      did again, 'stopped' the time from an attempt's last row to the next one's start.
  """

  seconds: float
  shares: Mapping[str, float]

  def __str__(self) -> str:
    told = sorted(self.shares.items(), key=lambda item: -item[1])
    words = [
      f"{NAMES.get(name, name)} {share:.1%}"
      for name, share in told
      if share >= LEAST and name != phases.STEP
    ]
    good = self.shares.get(phases.STEP, 0.0)
    return (
      f"goodput: {good:.1%} of {self.seconds:.0f} s since the first start went into updates "
      f"that count; {', '.join(words)}"
    )


def account(rows: Sequence[Mapping[str, float]]) -> Account | None:
  """Adds up the rows of speed.jsonl; None where they span no time."""
  attempts: dict[float, list[Mapping[str, float]]] = {}
  for row in rows:
    attempts.setdefault(row["attempt"], []).append(row)
  order = list(attempts.values())
  if not order or order[-1][-1]["time"] <= order[0][0]["time"]:
    return None
  whole = order[-1][-1]["time"] - order[0][0]["time"]
  sums = {"stopped": 0.0, "lost": 0.0}
  for number, attempt in enumerate(order):
    later = order[number + 1 :]
    stays = min((other[0]["step"] for other in later), default=attempt[-1]["step"])
    if later:
      sums["stopped"] += max(0.0, later[0][0]["time"] - attempt[-1]["time"])
    for row in attempt:
      counts = _share(row, stays)
      sums["lost"] += (1 - counts) * row["seconds"]
      for name, value in row.items():
        if name.startswith("seconds/"):
          phase = name.removeprefix("seconds/")
          sums[phase] = sums.get(phase, 0.0) + counts * value
  return Account(whole, {name: seconds / whole for name, seconds in sums.items()})


def _share(row: Mapping[str, float], stays: float) -> float:
  """Share of a row's updates that no later attempt did again; of a row without any, all."""
  if not row["updates"]:
    return 1.0
  first = row["step"] - row["updates"]
  return min(1.0, max(0.0, (stays - first) / row["updates"]))
