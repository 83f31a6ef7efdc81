"""Memory of a step from its trace alone: what the program should need if nothing is wasted.

The state by shapes and shardings; gradients like what is trained; activations as the trace
keeps them from the forward to the backward pass under the stage's own remat policies; and
the work of the largest block, whose activations are all there while it is differentiated.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Any

import jax

from eagle_jax import config
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.train import step, traced

if typing.TYPE_CHECKING:
  from jax.extend.core import Jaxpr, JaxprEqn

  from eagle_jax.plan.abstract import Stage
  from eagle_jax.types import Batch

PRODUCTS = ("dot_general", "conv_general_dilated")
"""Operations whose operands and results lie in memory whatever is fused."""

Pair = tuple[int, int]
"""Bytes at all rows of a micro-batch, and at twice as many."""


@dataclasses.dataclass(frozen=True)
class Kept:
  """What a trace keeps, in bytes over all devices.

  Attributes:
    saved: between the passes, but for what ends in the vocabulary.
    scores: between the passes, of arrays [..., V].
    work: of each scan, what one turn of it keeps; then of each product, all it touches.
  """

  saved: int
  scores: int
  work: tuple[int, ...]


def memory(stage: Stage, held: dict[str, int]) -> dict[str, int]:
  """Returns part → bytes per device of what comes on top of what is held between steps.

  What the axis `tensor` divides of saved activations counts whole, logits excepted.

  Args:
    stage: on a mesh.
    held: from `abstract.held`.
  """
  mesh, accumulate = dict(stage.mesh.shape), stage.experiment.optimizer.accumulate
  shards = mesh["data"] * mesh["fsdp"]
  model = stage.experiment.model
  kept = _per_rows(stage, model)
  whole = _per_rows(stage, dataclasses.replace(model, remat="none"))
  # Accumulated gradients lie beside those of the micro-batch.
  return {
    "gradients": held["trained parameters"] * (2 if accumulate > 1 else 1),
    "saved activations": (kept.saved + kept.scores // mesh["tensor"]) // shards,
    "work of a block": max(whole.work, default=0) // (shards * mesh["tensor"]),
  }


def _per_rows(stage: Stage, model: config.Model) -> Kept:
  """What grows with the rows of a micro-batch: weights cast or gathered cancel out."""
  vocab = stage.eagle.size.language.vocab
  once, twice = (_kept(stage, model, times=times, vocab=vocab) for times in (1, 2))
  return Kept(
    saved=twice.saved - once.saved,
    scores=twice.scores - once.scores,
    work=tuple(b - a for a, b in zip(once.work, twice.work, strict=True)),
  )


def _kept(stage: Stage, model: config.Model, *, times: int, vocab: int) -> Kept:
  """Traces loss and what its backward pass needs, for so many times the rows there are."""
  eagle = eagle_lib.build(model)
  accumulate = stage.experiment.optimizer.accumulate

  def rows(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """An array [B, ...] of the batch as [times·B/A, ...]."""
    count = leaf.shape[0] * times // accumulate
    return jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype)

  def forward(trained: dict[str, Any], frozen: dict[str, Any], batch: Batch) -> Any:
    """The loss [], and the function that takes its gradient back, as a tree of arrays."""
    return jax.vjp(lambda some: step.mean_loss(eagle, {**some, **frozen}, batch), trained)

  batch = jax.tree.map(rows, stage.batch)
  found = jax.make_jaxpr(forward)(stage.state.trained, stage.state.frozen, batch).jaxpr
  given = {id(variable) for variable in found.invars}
  kept = {id(one): one for one in found.outvars if id(one) not in given}
  scores = [one for one in kept.values() if _shape(one)[-1:] == (vocab,)]
  scans = [
    _bytes(*one.outvars[one.params["num_carry"] :]) // one.params["length"]
    for one in _equations(found, ("scan",))
    if not any(  # those are of whole units; loops within a block carry nothing
      inner.params["num_carry"] for inner in _equations(one.params["jaxpr"].jaxpr, ("scan",))
    )
  ]
  touched = [_bytes(*one.invars, *one.outvars) for one in _equations(found, PRODUCTS)]
  size = _bytes(*scores)
  return Kept(_bytes(*kept.values()) - size, size, (*scans, *touched))


def _equations(jaxpr: Jaxpr, names: tuple[str, ...]) -> Iterator[JaxprEqn]:
  """Yields the equations of some primitives, at any depth."""
  for equation in jaxpr.eqns:
    if equation.primitive.name in names:
      yield equation
    for inner in traced.inner(equation.params):
      yield from _equations(inner, names)


def _shape(variable: Any) -> tuple[int, ...]:
  """Sides of an array [...], () of anything else."""
  shape: tuple[int, ...] = getattr(variable.aval, "shape", ())
  return shape


def _bytes(*variables: Any) -> int:
  """Bytes of some arrays [...]."""
  return sum(math.prod(_shape(one)) * one.aval.dtype.itemsize for one in variables)
