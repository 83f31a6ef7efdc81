"""Updates that would do harm are not made: no number, or a gradient far beyond the usual ones."""

from __future__ import annotations

import typing
from typing import Any

import jax
import jax.numpy as jnp
import optax

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

WINDOW = 32
"""Good updates that the usual norm is the average of; before there were so many, none is judged."""


class UsualNorm(typing.NamedTuple):
  """Attributes:
  mean: running average of the norms of the gradients that were used.
  seen: how many there were.
  """

  mean: Float[Array, ""]
  seen: Int[Array, ""]


def usual_norm() -> optax.GradientTransformation:
  """Keeps the running average of the gradients' norm, and leaves the gradients as they are."""

  def init(params: optax.Params) -> UsualNorm:
    """Nothing seen yet."""
    del params
    return UsualNorm(jnp.float32(0), jnp.int32(0))

  def update(
    updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, optax.OptState]:
    """Takes one more norm into the average."""
    del params
    old = typing.cast(UsualNorm, state)
    seen = old.seen + 1
    share = 1.0 / jnp.minimum(seen, WINDOW).astype(jnp.float32)
    norm = typing.cast("Array", optax.tree.norm(updates)).astype(jnp.float32)
    return updates, UsualNorm(old.mean + (norm - old.mean) * share, seen)

  return optax.GradientTransformation(init, update)


def harmless(
  loss: Float[Array, ""], norm: Float[Array, ""], opt_state: Any, *, spike_factor: float
) -> Bool[Array, ""]:
  """Returns whether an update may be made.

  Args:
    loss: of its batch.
    norm: of its gradients.
    opt_state: before it; holds a `UsualNorm` if spikes are looked for.
    spike_factor: how many times the usual norm is a spike; 0 looks for none.
  """
  fine = jnp.isfinite(loss) & jnp.isfinite(norm)
  if not spike_factor:
    return fine
  leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, UsualNorm))
  usual = next(leaf for leaf in leaves if isinstance(leaf, UsualNorm))
  return fine & ((usual.seen < WINDOW) | (norm <= spike_factor * usual.mean))
