"""Gradients of a batch that is too large for its activations: micro-batch after micro-batch."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array

  from eagle_jax.types import Batch

Params = Mapping[str, "Array"]
Function = Callable[[Params, Params, "Batch"], tuple[Any, dict[str, "Array"]]]
"""What was measured, and gradients by path, from trained and frozen parameters and rows."""
AXIS = "fsdp"
"""The mesh axis over which parameters are only stored, not computed."""


@dataclasses.dataclass(frozen=True)
class Whole:
  """Weights gathered before the first micro-batch instead of by each, forwards and backwards.

  Takes the memory of all weights in the computation's dtype, beside their shares.

  Attributes:
    params: '/'-joined path → how a parameter lies between steps.
    dtype: of computation, which the modules cast all weights to that are spread out.
  """

  params: Mapping[str, jax.ShapeDtypeStruct]
  dtype: DTypeLike

  def gather(self, params: Params) -> dict[str, Array]:
    """Returns parameters by path, those that are spread over `AXIS` whole along it."""

    def gathered(path: str, x: Array) -> Array:
      """Gathers one array, of whatever shape."""
      held = self._held(path)
      if AXIS not in held.spec:
        return x
      spec = PartitionSpec(*(None if axis == AXIS else axis for axis in held.spec))
      lies = NamedSharding(held.mesh, spec)
      return jax.lax.with_sharding_constraint(x.astype(self.dtype), lies)

    return {path: gathered(path, x) for path, x in params.items()}

  def scatter(self, grads: Params) -> dict[str, Array]:
    """Returns gradients by path, each spread as its parameter is stored."""
    constrain = jax.lax.with_sharding_constraint
    return {path: constrain(x, self._held(path)) for path, x in grads.items()}

  def _held(self, path: str) -> NamedSharding:
    """Returns where a parameter lies between steps."""
    return typing.cast("NamedSharding", self.params[path].sharding)


def gradients(
  function: Function,
  trained: Params,
  frozen: Params,
  *,
  batch: Batch,
  count: int,
  whole: Whole | None = None,
) -> tuple[Any, dict[str, Array]]:
  """Returns what `function` measures and its gradients, both summed over micro-batches.

  Args:
    function: to be summed.
    trained: '/'-joined path → parameter; gradients are summed in their dtypes.
    frozen: path → parameter.
    batch: rows [B, ...].
    count: micro-batches.
    whole: how to gather the weights once; None leaves that to each micro-batch.
  """
  if count == 1:
    return function(trained, frozen, batch)
  micro = micro_batches(batch, count)
  used = (whole.gather(trained), whole.gather(frozen)) if whole else (trained, frozen)

  def one(rows: Batch) -> tuple[Any, dict[str, Array]]:
    """The part of one micro-batch."""
    measured, grads = function(*used, rows)
    grads = whole.scatter(grads) if whole else grads
    return measured, {path: x.astype(trained[path].dtype) for path, x in grads.items()}

  def add(carry: Any, rows: Batch) -> tuple[Any, None]:
    """Adds one micro-batch."""
    return jax.tree.map(jnp.add, carry, one(rows)), None

  measured, _ = jax.eval_shape(one, jax.tree.map(lambda x: x[0], micro))
  zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), measured)
  start = (zero, dict(jax.tree.map(jnp.zeros_like, trained)))
  found, _ = jax.lax.scan(add, start, micro)
  return typing.cast("tuple[Any, dict[str, Array]]", found)


def micro_batches(batch: Batch, count: int) -> Batch:
  """Cuts every array [B, ...] in [A, B/A, ...], A = `count`.

  Group r of rows, usually one row, goes to micro-batch r mod A, so each device keeps its
  own rows and rows stay beside the image slots they share.
  """
  groups = batch.images.shape[0]

  def cut(x: Array) -> Array:
    """Cuts one array."""
    dealt = x.reshape(groups // count, count, -1, *x.shape[1:]).swapaxes(0, 1)
    return dealt.reshape(count, -1, *x.shape[1:])

  return jax.tree.map(cut, batch)
