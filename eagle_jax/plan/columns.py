"""The columns of the tables of plans."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from eagle_jax import config
from eagle_jax.plan import purpose, slices
from eagle_jax.plan.collectives import per_axis
from eagle_jax.plan.compiled import Facts
from eagle_jax.plan.forecast import Forecast, forecast
from eagle_jax.plan.slices import GIB, Slice

NONE = "–"


@dataclasses.dataclass(frozen=True)
class Planned:
  """A cell that the compiler has answered on."""

  wanted: Slice
  facts: Facts
  found: Forecast | None

  @classmethod
  def of(cls, name: str, experiment: config.Experiment, facts: Facts) -> Planned:
    """Adds the forecast; `name` is the slice's."""
    wanted = slices.parse(name)
    return cls(wanted, facts, forecast(experiment, wanted, facts))

  @property
  def fits(self) -> bool:
    """Whether the program fits the chip."""
    return fits(self.wanted, self.facts)


def fits(wanted: Slice, facts: Facts) -> bool:
  """Whether a program fits the chips of a slice."""
  return not facts.refused and facts.memory["peak"] <= wanted.chip.memory


Column = tuple[str, Callable[[Planned], str]]


def _gib(size: float) -> str:
  """Bytes in GiB."""
  return f"{size / GIB:.2f}"


def _mesh(one: Planned) -> str:
  """The axes that have more than one device."""
  return " × ".join(f"{axis} {side}" for axis, side in one.facts.mesh.items() if side > 1)


def _parameters(one: Planned) -> str:
  """Trained and frozen ones."""
  held = one.facts.held
  return _gib(held["trained parameters"] + held["frozen parameters"])


def _memory(name: str) -> Callable[[Planned], str]:
  """What the compiler reserves of one kind."""
  return lambda one: _gib(one.facts.memory[name]) if one.facts.memory else NONE


def _ratio(one: Planned) -> str:
  """Peak by what should be needed."""
  memory = one.facts.memory
  return f"{memory['peak'] / one.facts.analytic:.2f}" if memory else NONE


def _forecast(form: str, scale: float, name: str) -> Callable[[Planned], str]:
  """One field of the forecast."""

  def show(one: Planned) -> str:
    """The field, in the unit of the column."""
    value: Any = getattr(one.found, name, None)
    return NONE if value is None else format(value * scale, form)

  return show


def _done(one: Planned) -> str:
  """Operations of all devices: as written, and as compiled by that."""
  facts = one.facts
  more = facts.device_flops * one.wanted.chips / facts.model_flops
  return f"{facts.model_flops / 1e12:.0f}" + (f" × {more:.2f}" if facts.device_flops else "")


def _sent(one: Planned) -> str:
  """Sent by ideal, axis by axis."""
  sums = {axes: sum(kinds.values()) for axes, kinds in per_axis(one.facts.sent).items()}
  names = [*one.facts.ideal, *(axes for axes in sums if axes not in one.facts.ideal)]
  shown = [
    f"{axes} {sums.get(axes, 0) / 1e9:.3g} / {one.facts.ideal.get(axes, 0) / 1e9:.3g}"
    for axes in names
    if sums.get(axes, 0) >= 5e6 or one.facts.ideal.get(axes, 0)
  ]
  return "; ".join(shown) if one.facts.memory else NONE


def _hidden(one: Planned) -> str:
  """Share of the gathers in loops that products hide."""
  share = purpose.hidden_share(one.facts.sent)
  return NONE if share is None else f"{share:.0%}"


def _needless(one: Planned) -> str:
  """How often what should not be sent is sent."""
  if not one.facts.memory:
    return NONE
  found = [each.total for _, each in purpose.needless(one.facts.sent, one.facts.mesh)]
  return f"{len(found)}: {sum(found) / 1e9:.3g} GB" if found else "none"


MEMORY: tuple[Column, ...] = (
  ("Mesh", _mesh),
  ("Parameters", _parameters),
  ("Optimizer", lambda one: _gib(one.facts.held["optimizer"])),
  ("Temporaries", _memory("temporaries")),
  ("Peak", _memory("peak")),
  ("Analytic", lambda one: _gib(one.facts.analytic)),
  ("Peak / analytic", _ratio),
  ("Fits", lambda one: f"{'yes' if one.fits else '**no**'}, of {one.wanted.chip.memory / GIB:.0f}"),
)
"""GiB per device."""
WORK: tuple[Column, ...] = (
  ("TFLOP a step × compiled", _done),
  ("GB sent / ideal", _sent),
  ("Gathers hidden", _hidden),
  ("Needless", _needless),
  ("Step, s", _forecast(".3g", 1, "step")),
  ("MFU", _forecast(".0%", 1, "mfu")),
  ("Hours", _forecast(".3g", 1, "hours")),
  ("Compile, s", lambda one: f"{one.facts.seconds:.0f}"),
)
"""Operations, exchanges and times."""
