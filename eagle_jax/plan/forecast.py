"""How long a step takes at best, and what to change where a stage does not fit or is slow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

from eagle_jax import config
from eagle_jax.plan.collectives import per_axis
from eagle_jax.plan.compiled import Facts
from eagle_jax.plan.slices import GIB, Slice

RECORDS: Mapping[str, int] = {"prealign": 1_809_000, "pretrain": 595_000, "finetune": 1_809_000}
"""Records of EAGLE's data by stage. Source: arXiv 2408.15998, section 3.1 and table 1."""
STATE_SHARE = 0.6
"""Of the memory, that parameters and optimizer may take so that activations have room."""
SLACK = 1.05
"""Of what must be sent, beyond which something is sent needlessly."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
  """Bounds, not promises: every part of the chip at its peak.

  Attributes:
    compute: seconds of a step's products.
    memory: seconds in which arguments are read, outputs written and temporaries both.
    sending: seconds of all exchanges over all links of a chip.
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


def forecast(
  experiment: config.Experiment, wanted: Slice, facts: Facts, *, records: int | None = None
) -> Forecast | None:
  """Returns the forecast, None where the program does not fit.

  Args:
    experiment: what is to be trained.
    wanted: the slice.
    facts: the program's.
    records: that an epoch has; EAGLE's by default.
  """
  if facts.refused:
    return None
  memory, chip = facts.memory, wanted.chip
  compute = facts.device_flops / chip.flops
  touched = memory["arguments"] + memory["outputs"] + 2 * memory["temporaries"]
  reading = touched / chip.memory_rate
  sending = sum(one.total for one in facts.sent) / chip.send_rate
  step = max(compute, reading, sending)
  records = RECORDS[experiment.stage] if records is None else records
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


def advice(
  experiment: config.Experiment, wanted: Slice, facts: Facts, *, found: Forecast | None
) -> Iterator[str]:
  """Yields what to change, the most helpful first; nothing where all is well."""
  if facts.refused or facts.memory["peak"] > wanted.chip.memory:
    yield from _to_fit(experiment, wanted, facts)
  if found is None:
    return
  axes = per_axis(facts.sent)
  if found.sending > max(found.compute, found.memory):
    worst = next(iter(axes))
    yield (
      f"exchanges along {worst} take longer than the products: more rows per device "
      "(a larger batch_size or a smaller slice) hide them"
    )
  for axis, least in facts.ideal.items():
    sent = sum(axes.get(axis, {}).values())
    if sent > SLACK * least and sent * 20 > sum(one.total for one in facts.sent):
      yield (
        f"along {axis} {sent / 1e9:.3g} GB are sent where {least / 1e9:.3g} would do; "
        "the largest exchanges are listed above"
      )


def _to_fit(experiment: config.Experiment, wanted: Slice, facts: Facts) -> Iterator[str]:
  """Yields what makes a program smaller: less state first, then fewer activations."""
  room, mesh = wanted.chip.memory, facts.mesh
  state = sum(size for part, size in facts.held.items() if part != "batch")
  if mesh["data"] > 1:
    yield (
      f"every one of mesh.data={mesh['data']} groups holds all parameters: "
      "--config.mesh.data=1 --config.mesh.fsdp=-1 spreads them"
    )
  if state > STATE_SHARE * room:
    spread = mesh["fsdp"] * mesh["tensor"]
    enough = math.ceil(state * spread / (STATE_SHARE * room))
    yield (
      f"parameters and optimizer take {state / GIB:.1f} of {room / GIB:.0f} GiB on "
      f"{spread} devices: spread them over {enough} or more"
    )
  if facts.held["frozen parameters"] and experiment.model.frozen_dtype == "float32":
    yield "--config.model.frozen_dtype=bfloat16 halves what is not trained"
  if experiment.model.remat == "none":
    yield "--config.model.remat=block keeps one activation per block and recomputes the others"
  accumulate = experiment.optimizer.accumulate
  rows = experiment.batch_size // (mesh["data"] * mesh["fsdp"])
  if rows % (2 * accumulate) == 0:
    yield (
      f"--config.optimizer.accumulate={2 * accumulate} halves the rows that are under way "
      f"at a time, {rows // accumulate} per device"
    )
  else:
    yield (
      f"--config.mesh.tensor={2 * mesh['tensor']} halves what each device computes of a row: "
      f"it has {rows // accumulate} at a time"
    )
