"""What an update measures beside its loss: rows with and without pictures, gradients by part."""

from __future__ import annotations

import typing
from collections.abc import Mapping

import jax.numpy as jnp
import optax

from eagle_jax.train import stages
from eagle_jax.types import PLACEHOLDER

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

  from eagle_jax.types import Batch

Sums = dict[str, "Float[Array, '']"]
"""'loss/image', 'targets/image', 'loss/text', 'targets/text', the losses not yet divided."""


def pictured(batch: Batch) -> Bool[Array, "B S"]:
  """Returns which tokens belong to a conversation with a picture."""
  placed = batch.tokens == PLACEHOLDER
  if batch.segments is None:
    return jnp.broadcast_to(placed.any(1, keepdims=True), placed.shape)
  same = batch.segments[:, :, None] == batch.segments[:, None, :]  # [B, S, S], never stored
  return jnp.any(same & placed[:, None, :], axis=2)


def by_modality(losses: Float[Array, "B S-1"], batch: Batch) -> Sums:
  """Adds up losses and targets of conversations with pictures and of those without.

  Args:
    losses: of each target, 0 where none counts.
    batch: what they are of.
  """
  seen, counted = pictured(batch)[:, 1:], batch.targets()
  sums = {}
  for name, chosen in (("image", seen), ("text", ~seen)):
    sums[f"loss/{name}"] = jnp.sum(jnp.where(chosen, losses, 0.0))
    sums[f"targets/{name}"] = jnp.sum(counted & chosen).astype(jnp.float32)
  return sums


def means(sums: Sums) -> Sums:
  """Divides the losses by their targets; 0 where there are none."""
  counts = {name: value for name, value in sums.items() if name.startswith("targets/")}
  losses = {
    name.replace("targets", "loss"): sums[name.replace("targets", "loss")] / jnp.maximum(count, 1)
    for name, count in counts.items()
  }
  return losses | counts


def group_norms(grads: Mapping[str, Array]) -> dict[str, Float[Array, ""]]:
  """Returns 'grad_norm/PART' → norm, for each expert, the projector and the language model.

  Args:
    grads: '/'-joined path → gradient.
  """
  groups: dict[str, list[Array]] = {}
  for path, grad in grads.items():
    groups.setdefault(stages.part(path), []).append(grad)
  return {f"grad_norm/{part}": optax.tree.norm(found) for part, found in groups.items()}
