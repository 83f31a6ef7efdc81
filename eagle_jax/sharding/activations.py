"""Where activations lie, as one table: which mesh axes each of their named dimensions goes over.

A compiler that sees parameters spread over `fsdp` may spread activations as they are, over
channels, and then sums every product over all devices. Told at the seams of the model where
rows and tokens lie, it gathers parameters instead, which is what they are spread for. Held in
front of where heads are cut, it gathers a parameter in one shape for both passes, so once
less where a block is computed again.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping

import jax
from jax.sharding import PartitionSpec

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Shaped

ACTIVATION_AXES: Mapping[str, tuple[str, ...]] = {
  "rows": ("data", "fsdp"),
  "pictures": ("data", "fsdp", "sequence"),
  "tokens": ("sequence",),
  "heads": ("tensor",),
  "vocab": ("tensor",),
}
"""A dimension goes over as many of its axes, from the first on, as divide it."""


def hold(x: Shaped[Array, ...], *names: str | None) -> Shaped[Array, ...]:
  """Holds the first dimensions of `x` to their mesh axes, and every other to be whole.

  Without a mesh in context (`jax.set_mesh`), as when answering, x is as it was.

  Args:
    x: activations, such as [B, S, D].
    names: of its first dimensions, keys of `ACTIVATION_AXES`; None for one that is whole.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return x
  axes = [_over(name, side, mesh.shape) for name, side in zip(names, x.shape, strict=False)]
  return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


def _over(name: str | None, side: int, mesh_shape: Mapping[str, int]) -> tuple[str, ...] | None:
  """The mesh axes that a dimension of `side` entries goes over, None where it is whole."""
  taken: list[str] = []
  for axis in ACTIVATION_AXES[name] if name else ():
    if side % mesh_shape[axis]:
      break
    side //= mesh_shape[axis]
    taken.append(axis)
  return tuple(taken) or None
