"""AdamW as upstream runs it, built from the config and the treatment of each parameter."""

from __future__ import annotations

import functools
import math
import typing
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from eagle_jax import config
from eagle_jax.train import skipping
from eagle_jax.train.stages import Treatment

if typing.TYPE_CHECKING:
  from jax.typing import DTypeLike
  from jaxtyping import Array, Float, Int

GOLDEN = 40503
"""65536 over the golden ratio, made odd: its multiples come to all 16-bit numbers, evenly."""
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


def dithered(x: Float[Array, "*any"], count: Int[Array, ""], dtype: DTypeLike) -> Array:
  """Rounds float32 to bfloat16 so that the error is 0 on average over updates.

  Rounding to the nearest would freeze a mean square: each update changes it by a
  thousandth, and bfloat16 steps are eight times that. Here the threshold between down and
  up walks through all values, evenly, as `count` rises; the same `count` rounds the same.

  Source: Weyl's equidistribution, steps of the golden ratio.

  Args:
    x: finite.
    count: number of the update.
    dtype: float32 leaves x as it is.
  """
  if jnp.dtype(dtype) != jnp.bfloat16:
    return x.astype(dtype)
  dropped = 0xFFFF  # the bits that bfloat16 does not have
  offset = (count.astype(jnp.uint32) * jnp.uint32(GOLDEN)) & jnp.uint32(dropped)
  bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
  cut = (bits + offset) & jnp.uint32(~dropped & 0xFFFFFFFF)
  return jax.lax.bitcast_convert_type(cut, jnp.float32).astype(dtype)


def scale_by_adam(
  *, b1: float, b2: float, eps: float, dtype: DTypeLike = jnp.float32
) -> optax.GradientTransformation:
  """Divides the running mean of the gradients by the root of the running mean square.

  Both are computed in float32 and kept in `dtype`.

  Differs: optax forms 1 - b2^t in float32, which is 1.3e-5 off at the first update;
  over a few updates that alone moves a loss by more than float32 noise
  (docs/numerics.md). Here it is -expm1(t log b2).
  """

  def corrected(moments: optax.Updates, decay: float, count: Array) -> optax.Updates:
    """Moments without their bias towards the zeros they start from."""
    share = -jnp.expm1(count.astype(jnp.float32) * math.log(decay))
    return jax.tree.map(lambda moment: moment / share.astype(moment.dtype), moments)

  def wider(tree: Any) -> Any:
    """Arrays of any shapes in float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)

  def init(params: optax.Params) -> optax.ScaleByAdamState:
    """Zero moments of each parameter's shape and sharding."""
    like = functools.partial(jnp.zeros_like, dtype=dtype)
    mu, nu = (jax.tree.map(like, params) for _ in range(2))
    return optax.ScaleByAdamState(count=jnp.int32(0), mu=mu, nu=nu)

  def update(
    updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
  ) -> tuple[optax.Updates, optax.OptState]:
    """One update of the moments, and the direction they give."""
    del params
    old = typing.cast(optax.ScaleByAdamState, state)
    count = old.count + 1
    moments, wide = wider((old.mu, old.nu)), wider(updates)
    mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, moments[0], wide)
    nu = jax.tree.map(lambda n, g: b2 * n + (1 - b2) * g * g, moments[1], wide)
    mean, square = corrected(mu, b1, count), corrected(nu, b2, count)
    direction = jax.tree.map(
      lambda m, n, g: (m / (jnp.sqrt(n) + eps)).astype(g.dtype), mean, square, updates
    )
    mu, nu = (jax.tree.map(lambda x: dithered(x, count, dtype), tree) for tree in (mu, nu))
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
    scale_by_adam(
      b1=settings.b1, b2=settings.b2, eps=settings.eps, dtype=jnp.dtype(settings.moments_dtype)
    ),
    optax.add_decayed_weights(settings.weight_decay, mask=decayed),
    optax.stateless(lambda updates, params: {p: u * factors[p] for p, u in updates.items()}),
    optax.scale_by_learning_rate(learning_rate(settings, total_steps)),
  ]
  if settings.clip_norm > 0:
    parts.insert(0, clip_by_global_norm(settings.clip_norm))
  if settings.spike_factor > 0:
    parts.insert(0, skipping.usual_norm())
  return optax.chain(*parts)
