"""AdamW as upstream runs it, built from the config and the treatment of each parameter."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from eagle_jax import config
from eagle_jax.train.stages import Treatment

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Float

CLIP_EPSILON = 1e-6
"""Added to the norm before dividing. Source: PyTorch, clip_grad_norm_."""


def learning_rate(settings: config.Optimizer, total_steps: int) -> optax.Schedule:
  """Returns the schedule: linear from 0 to the peak, then half a cosine down to 0.

  The first update has rate 0 when there is any warm-up.

  Source: transformers, get_cosine_schedule_with_warmup.
  """
  warmup = math.ceil(total_steps * settings.warmup_fraction)

  def schedule(step: Array | float) -> Float[Array, ""]:
    """Rate of update number `step`, counted from 0."""
    step = jnp.asarray(step, jnp.float32)
    progress = (step - warmup) / max(1, total_steps - warmup)
    cosine = jnp.maximum(0.0, 0.5 * (1.0 + jnp.cos(math.pi * progress)))
    return settings.peak_lr * jnp.where(step < warmup, step / max(1, warmup), cosine)

  return schedule


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
  """Scales all gradients by min(1, limit / (norm + 1e-6)); optax leaves the 1e-6 out."""

  def update(
    updates: optax.Updates, state: optax.EmptyState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, optax.EmptyState]:
    """Scales the gradients, whatever their shapes."""
    del params
    factor = jnp.minimum(1.0, limit / (optax.tree.norm(updates) + CLIP_EPSILON))
    return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def scale_by_adam(*, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
  """Divides the running mean of the gradients by the root of the running mean square.

  Differs: optax forms 1 - b2^t in float32, which is 1.3e-5 off at the first update;
  over a few updates that alone moves a loss by more than float32 noise
  (docs/numerics.md). Here it is -expm1(t log b2).
  """

  def corrected(moments: optax.Updates, decay: float, count: Array) -> optax.Updates:
    """Moments without their bias towards the zeros they start from."""
    share = -jnp.expm1(count.astype(jnp.float32) * math.log(decay))
    return jax.tree.map(lambda moment: moment / share.astype(moment.dtype), moments)

  def init(params: optax.Params) -> optax.ScaleByAdamState:
    """Zero moments of each parameter's shape, dtype and sharding."""
    mu, nu = (jax.tree.map(jnp.zeros_like, params) for _ in range(2))
    return optax.ScaleByAdamState(count=jnp.int32(0), mu=mu, nu=nu)

  def update(
    updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, optax.OptState]:
    """One update of the moments, and the direction they give."""
    del params
    old = typing.cast(optax.ScaleByAdamState, state)
    count = old.count + 1
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, old.mu, updates)
    nu = jax.tree.map(lambda n, g: b2 * n + (1 - b2) * g * g, old.nu, updates)
    mean, square = corrected(mu, b1, count), corrected(nu, b2, count)
    direction = jax.tree.map(lambda m, n: m / (jnp.sqrt(n) + eps), mean, square)
    return direction, optax.ScaleByAdamState(count=count, mu=mu, nu=nu)

  return optax.GradientTransformation(init, update)


def make(
  settings: config.Optimizer, total_steps: int, chosen: Mapping[str, Treatment]
) -> optax.GradientTransformation:
  """Returns the optimizer of the trained parameters.

  Args:
    settings: rates, moments, decay and clipping.
    total_steps: updates of the whole stage.
    chosen: '/'-joined path → treatment, of the trained parameters only.
  """
  factors = {path: treatment.lr for path, treatment in chosen.items()}
  decayed = {path: treatment.decay for path, treatment in chosen.items()}
  parts = [
    scale_by_adam(b1=settings.b1, b2=settings.b2, eps=settings.eps),
    optax.add_decayed_weights(settings.weight_decay, mask=decayed),
    optax.stateless(lambda updates, params: {p: u * factors[p] for p, u in updates.items()}),
    optax.scale_by_learning_rate(learning_rate(settings, total_steps)),
  ]
  if settings.clip_norm > 0:
    parts.insert(0, clip_by_global_norm(settings.clip_norm))
  return optax.chain(*parts)
