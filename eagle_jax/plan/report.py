"""A plan as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from eagle_jax import config
from eagle_jax.plan import purpose
from eagle_jax.plan.collectives import per_axis
from eagle_jax.plan.compiled import Facts
from eagle_jax.plan.forecast import Forecast
from eagle_jax.plan.slices import GIB, Slice

LARGEST = 8
"""Exchanges that are listed one by one."""


def heading(experiment: config.Experiment, wanted: Slice) -> str:
  """The line that says what is planned."""
  return (
    f"{experiment.name}: {experiment.stage}, {experiment.batch_size} rows a step, on "
    f"{wanted} ({wanted.chips} chips, {wanted.topology})"
  )


def lines(wanted: Slice, facts: Facts, found: Forecast | None) -> Iterator[str]:
  """Yields the plan, a line at a time."""
  mesh = " ".join(f"{axis}={side}" for axis, side in facts.mesh.items())
  yield f"mesh {mesh}; compiled in {facts.seconds:.0f} s"
  yield from _memory(wanted, facts)
  if found is None:
    return
  yield from _work(wanted, facts)
  yield from _exchanges(facts)
  yield ""
  yield (
    f"step at the roofline    {found.step:.4g} s: products {found.compute:.4g}, "
    f"memory {found.memory:.4g}, exchanges {found.sending:.4g}"
  )
  yield f"                        {found.serial:.4g} s if products wait for exchanges"
  yield f"model FLOPs utilisation {found.mfu:.1%} at the roofline"
  yield f"stage                   {found.steps:,} steps, {found.hours:.3g} hours at the roofline"


def _memory(wanted: Slice, facts: Facts) -> Iterator[str]:
  """Yields the table of HBM."""
  room = wanted.chip.memory / GIB
  yield f"\n{'HBM per device':<24}{'GiB':>10}"
  for name, size in (*facts.held.items(), *facts.passing.items()):
    yield f"{name:<24}{size / GIB:>10.3f}"
  yield f"{'all of this':<24}{facts.analytic / GIB:>10.3f}"
  if facts.refused:
    yield f"does not fit: {facts.refused}"
    return
  yield f"{'temporaries':<24}{facts.memory['temporaries'] / GIB:>10.3f}"
  ratio = facts.memory["peak"] / facts.analytic
  yield f"{'peak':<24}{facts.memory['peak'] / GIB:>10.3f} of {room:.0f}, {ratio:.2f} × that"


def _work(wanted: Slice, facts: Facts) -> Iterator[str]:
  """Yields the table of operations."""
  done = facts.device_flops * wanted.chips
  more = done / facts.model_flops - 1
  yield f"\n{'TFLOP per step':<24}{'all':>12}{'per device':>12}"
  for name, flops in (("as the model is written", facts.model_flops), ("as compiled", done)):
    yield f"{name:<24}{flops / 1e12:>12.4g}{flops / 1e12 / wanted.chips:>12.4g}"
  yield f"recomputed, padded or done by several: {more:+.1%}"


def _exchanges(facts: Facts) -> Iterator[str]:
  """Yields what each device sends by axis, and the largest exchanges."""
  yield f"\n{'GB sent per device':<24}{'a step':>12}{'ideal':>12}{'ratio':>8}"
  for axis, kinds in per_axis(facts.sent).items():
    sent, least = sum(kinds.values()), facts.ideal.get(axis, 0)
    ratio = f"{sent / least:>8.2f}" if least else f"{'-':>8}"
    yield f"{axis:<24}{sent / 1e9:>12.4g}{least / 1e9:>12.4g}{ratio}"
    for kind, size in kinds.items():
      yield f"  {kind:<22}{size / 1e9:>12.4g}"
  share = purpose.hidden_share(facts.sent)
  if share is not None:
    yield f"gathers of parameters within loops that products hide: {share:.0%}"
  for name, one in purpose.needless(facts.sent, facts.mesh):
    yield f"{name}: {one.total / 1e9:.3g} GB, {one.shape} {one.place}"
  yield f"\n{'largest exchanges':<24}{'GB':>8} {'times':>6}  {'along':<14}what"
  for one in sorted(facts.sent, key=lambda one: -one.total)[:LARGEST]:
    along = "+".join(one.axes)
    yield (
      f"{one.kind:<24}{one.total / 1e9:>8.3g} {one.times:>6}  {along:<14}{one.shape} {one.place}"
    )
