"""How long a step takes at best, and how long the stage does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from eagle_jax import config
from eagle_jax.plan.compiled import Facts
from eagle_jax.plan.slices import Slice

RECORDS: Mapping[str, int] = {"prealign": 1_809_000, "pretrain": 595_000, "finetune": 1_809_000}
"""Records of EAGLE's data by stage. Source: arXiv 2408.15998, section 3.1 and table 1."""
CAMBRIAN: Mapping[str, int] = {"pretrain": 2_500_000, "finetune": 7_000_000}
"""Records of Cambrian-1's data, in round numbers. Source: arXiv 2406.16860 and its files
alignment_2.5m.jsonl and Cambrian7M_withsystemprompt.jsonl."""
OF_CAMBRIAN = ("yi_34b",)
"""Language models that EAGLE's scripts train on Cambrian's data. Source: EAGLE,
pretrain-eagle-x5-yi34b-cambrian.sh and its finetune counterpart."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
  """Bounds, not promises: every part of the chip at its peak.

  Attributes:
    compute: seconds of a step's products.
    memory: seconds in which arguments are read, outputs written and temporaries both.
    sending: seconds of all exchanges over all links of a chip, or to other slices.
    step: the longest of them: everything else goes on meanwhile.
    serial: seconds if products wait for exchanges.
    mfu: share of the peak that the model's own operations reach in `step`.
    steps: of the stage.
    hours: of the stage.
  """

  compute: float
  memory: float
  sending: float
  step: float
  serial: float
  mfu: float
  steps: int
  hours: float


def num_records(experiment: config.Experiment) -> int:
  """Returns the records that the recipe's stage was published with."""
  data = CAMBRIAN if experiment.model.language in OF_CAMBRIAN else RECORDS
  return data.get(experiment.stage, RECORDS[experiment.stage])


def forecast(
  experiment: config.Experiment, wanted: Slice, facts: Facts, *, records: int | None = None
) -> Forecast | None:
  """Returns the forecast, None where the program does not fit.

  Args:
    experiment: what is to be trained.
    wanted: the slice.
    facts: the program's.
    records: that an epoch has; those of `num_records` by default.
  """
  if facts.refused:
    return None
  memory, chip = facts.memory, wanted.chip
  compute = facts.device_flops / chip.flops
  touched = memory["arguments"] + memory["outputs"] + 2 * memory["temporaries"]
  reading = touched / chip.memory_rate
  # Slices lie along `data`; what goes along it leaves the slice.
  leaving = sum(one.total for one in facts.sent if wanted.count > 1 and "data" in one.axes)
  inside = sum(one.total for one in facts.sent) - leaving
  sending = max(inside / chip.send_rate, leaving / chip.slice_rate)
  step = max(compute, reading, sending)
  records = num_records(experiment) if records is None else records
  steps = experiment.steps or math.ceil(experiment.epochs * records / experiment.batch_size)
  return Forecast(
    compute=compute,
    memory=reading,
    sending=sending,
    step=step,
    serial=compute + sending,
    mfu=facts.model_flops / (wanted.chips * chip.flops * step),
    steps=steps,
    hours=steps * step / 3600,
  )
