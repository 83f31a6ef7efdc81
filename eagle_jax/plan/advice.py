"""What to change where a stage does not fit a slice or is slow there, with the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from eagle_jax import config
from eagle_jax.plan import purpose
from eagle_jax.plan.cells import summed_whole
from eagle_jax.plan.collectives import per_axis
from eagle_jax.plan.compiled import Facts
from eagle_jax.plan.forecast import Forecast
from eagle_jax.plan.slices import GIB, Slice

STATE_SHARE = 0.6
"""Of the memory, that parameters and optimizer may take so that activations have room."""
SLACK = 1.05
"""Of what must be sent, beyond which something is sent needlessly."""
HIDDEN = 0.9
"""Of the bytes gathered in loops, that products should hide."""


def advice(
  experiment: config.Experiment, wanted: Slice, facts: Facts, *, found: Forecast | None
) -> Iterator[str]:
  """Yields what to change, the most helpful first; nothing where all is well."""
  if facts.refused or facts.memory["peak"] > wanted.chip.memory:
    yield from _to_fit(experiment, wanted, facts)
  if found is None:
    return
  axes = per_axis(facts.sent)
  share = purpose.hidden_share(facts.sent)
  if share is not None and share < HIDDEN:
    yield f"products hide {share:.0%} of the gathers in loops, less than {HIDDEN:.0%}"
  if found.sending > max(found.compute, found.memory):
    worst = next(iter(axes))
    yield (
      f"exchanges, most of them along {worst}, take {found.sending:.3g} s, products "
      f"{found.compute:.3g} s: {found.sending / max(found.compute, 1e-12):.1f} times the rows "
      "per device (a larger batch_size or a smaller slice) would hide them"
    )
  for axis, least in facts.ideal.items():
    sent = sum(axes.get(axis, {}).values())
    if sent > SLACK * least and sent * 20 > sum(one.total for one in facts.sent):
      yield (
        f"along {axis} {sent / 1e9:.3g} GB are sent where {least / 1e9:.3g} would do; "
        "the largest exchanges are listed above"
      )
  if summed_whole(experiment, wanted, fsdp=facts.mesh["fsdp"]) and not facts.refused:
    held, room = facts.memory["peak"] + _state(facts), wanted.chip.memory
    if held < room:
      yield (
        f"gradients are summed whole along fsdp={facts.mesh['fsdp']}: --config.mesh.data="
        f"{2 * wanted.count} lets the compiler scatter them, for {_gib(held)} of {_gib(room)}"
      )


def _to_fit(experiment: config.Experiment, wanted: Slice, facts: Facts) -> Iterator[str]:
  """Yields what makes a program smaller: less state first, then fewer activations."""
  room, mesh = wanted.chip.memory, facts.mesh
  state = _state(facts)
  saved, work = (facts.passing[part] for part in ("saved activations", "work of a block"))
  if mesh["data"] > wanted.count:
    apart = mesh["data"] // wanted.count
    yield (
      f"every one of mesh.data={mesh['data']} groups holds all parameters: --config.mesh.data="
      f"{wanted.count} --config.mesh.fsdp=-1 takes {_gib(state)} to {_gib(state / apart)} a device"
    )
  if state > STATE_SHARE * room:
    spread = mesh["fsdp"] * mesh["tensor"]
    enough = math.ceil(state * spread / (STATE_SHARE * room))
    yield (
      f"parameters and optimizer take {_gib(state)} of {_gib(room)} on "
      f"{spread} devices: spread them over {enough} or more"
    )
  frozen = facts.held["frozen parameters"]
  if frozen and experiment.model.frozen_dtype == "float32":
    yield (
      "--config.model.frozen_dtype=bfloat16 halves what is not trained: "
      f"{_gib(frozen)} to {_gib(frozen / 2)}"
    )
  if experiment.model.remat == "none":
    yield (
      "--config.model.remat=block keeps one activation per block and recomputes the others; "
      f"now {_gib(saved)} are kept"
    )
  yield from _fewer_rows(experiment, facts, saved + work)


def _fewer_rows(experiment: config.Experiment, facts: Facts, passing: int) -> Iterator[str]:
  """Yields how fewer rows, or less of each, are under way on a device at a time."""
  mesh, accumulate = facts.mesh, experiment.optimizer.accumulate
  rows = experiment.batch_size // (mesh["data"] * mesh["fsdp"])
  half = f"takes activations from about {_gib(passing)} to {_gib(passing / 2)}"
  if rows % (2 * accumulate) == 0:
    yield (
      f"--config.optimizer.accumulate={2 * accumulate} {half}: {rows // accumulate} rows a device "
      f"are under way, then {rows // (2 * accumulate)}"
    )
  else:
    yield (
      f"--config.mesh.tensor={2 * mesh['tensor']} divides what each device computes of a row, "
      f"{_gib(passing)}: it has {rows // accumulate} at a time"
    )


def _state(facts: Facts) -> int:
  """Bytes of parameters and optimizer on a device."""
  return sum(size for part, size in facts.held.items() if part != "batch")


def _gib(size: float) -> str:
  """Bytes as text."""
  return f"{size / GIB:.2f} GiB"
