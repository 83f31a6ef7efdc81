"""One step of training: loss, gradients, accumulation, update, as one pure function."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from eagle_jax import config
from eagle_jax.sharding import compiler
from eagle_jax.train import accumulate, measures, skipping, work
from eagle_jax.train.state import Abstract, TrainState, nested

if typing.TYPE_CHECKING:
  from jax.sharding import NamedSharding
  from jaxtyping import Array, Bool, Float, Int

  from eagle_jax.model.eagle import Eagle
  from eagle_jax.types import Batch

Metrics = dict[str, "Float[Array, '']"]
Step = Callable[[TrainState, "Batch"], tuple[TrainState, Metrics]]


def token_losses(
  logits: Float[Array, "B S V"], tokens: Int[Array, "B S"], counted: Bool[Array, "B S-1"]
) -> Float[Array, "B S-1"]:
  """Returns the cross-entropy of each next token in float32, 0 where it does not count."""
  targets = jnp.where(counted, tokens[:, 1:], 0)  # placeholders are no vocabulary ids
  losses = optax.softmax_cross_entropy_with_integer_labels(
    logits[:, :-1].astype(jnp.float32), targets
  )  # [B, S-1]
  return jnp.where(counted, losses, 0.0)


def summed_loss(
  logits: Float[Array, "B S V"], tokens: Int[Array, "B S"], counted: Bool[Array, "B S-1"]
) -> Float[Array, ""]:
  """Returns the cross-entropy of the next token, summed over the counted targets, float32."""
  return jnp.sum(token_losses(logits, tokens, counted))


def mean_loss(eagle: Eagle, params: dict[str, Array], batch: Batch) -> Float[Array, ""]:
  """Returns the mean loss over all counted targets of the batch, all devices together.

  Differs: upstream takes the mean of the per-device means (docs/numerics.md).
  """
  counted = batch.targets()
  total = jnp.sum(counted).astype(jnp.float32)
  return summed_loss(_logits(eagle, params, batch), batch.tokens, counted) / total


def _logits(eagle: Eagle, params: dict[str, Array], batch: Batch) -> Float[Array, "B S V"]:
  """Runs the model."""
  return typing.cast("Array", eagle.apply({"params": nested(params)}, batch))


def make(
  eagle: Eagle,
  tx: optax.GradientTransformation,
  settings: config.Optimizer | None = None,
  *,
  params: Abstract | None = None,
) -> Step:
  """Returns the step function, not yet compiled.

  Args:
    eagle: the model.
    tx: the optimizer of the trained parameters.
    settings: what `tx` was made from, by default a config's defaults. Read here: into how
      many micro-batches the rows are cut, and which updates are skipped.
    params: how all parameters lie; needed to gather weights once.
  """
  settings = settings or config.Optimizer()

  def share(
    trained: dict[str, Array], frozen: dict[str, Array], batch: Batch, *, total: Float[Array, ""]
  ) -> tuple[Float[Array, ""], measures.Sums]:
    """This micro-batch's part of the mean over all `total` targets, and its sums."""
    logits = _logits(eagle, {**trained, **frozen}, batch)
    losses = token_losses(logits, batch.tokens, batch.targets())
    return jnp.sum(losses) / total, measures.by_modality(losses, batch)

  # Differentiating the trained dict alone keeps the frozen part out of the backward pass.
  value_and_grad = jax.value_and_grad(share, has_aux=True)
  whole = accumulate.Whole(params, eagle.dtype) if params and settings.gather_once else None

  def update(
    grads: dict[str, Array], trained: dict[str, Array], opt_state: Any
  ) -> tuple[dict[str, Array], Any]:
    """Returns the parameters and the optimizer's state after an update."""
    updates, opt_state = tx.update(grads, opt_state, trained)
    return typing.cast("dict[str, Array]", optax.apply_updates(trained, updates)), opt_state

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """Returns the state after one update, and what was measured before it.

    Where the update would do harm the state is as before, but for `step`.
    """
    targets = jnp.sum(batch.targets()).astype(jnp.float32)
    function = functools.partial(value_and_grad, total=targets)
    (loss, sums), grads = accumulate.gradients(
      function, state.trained, state.frozen, batch=batch, count=settings.accumulate, whole=whole
    )
    norm = typing.cast("Array", optax.tree.norm(grads))
    made = skipping.harmless(loss, norm, state.opt_state, spike_factor=settings.spike_factor)
    # A branch, not a choice between two results: nothing is copied to be chosen from.
    old = state.trained, state.opt_state
    trained, opt_state = jax.lax.cond(made, update, lambda _, *kept: kept, grads, *old)
    metrics = {
      "loss": loss,
      "grad_norm": norm,
      "targets": targets,
      "skipped": 1.0 - made.astype(jnp.float32),
      **measures.means(sums),
      **measures.group_norms(grads),
      **work.counts(batch),
    }
    changed = {"step": state.step + 1, "trained": trained, "opt_state": opt_state}
    return dataclasses.replace(state, **changed), metrics

  return step


def lower_step(step: Step, state: TrainState, batch: Batch) -> jax.stages.Lowered:
  """Traces the step with the state donated and returned in the shardings it came in.

  Args:
    step: from `make`.
    state: placed arrays or ShapeDtypeStructs with shardings.
    batch: likewise.
  """
  placed = jax.tree.map(lambda x: x.sharding, state)
  mesh = _mesh(state)
  jitted = jax.jit(
    step,
    donate_argnums=0,
    out_shardings=(placed, None),
    compiler_options=compiler.options(mesh),
  )
  with jax.set_mesh(mesh):  # where the model finds it to hold activations in place
    return jitted.lower(state, batch)


def _mesh(state: TrainState) -> jax.sharding.Mesh:
  """Returns the devices that the state lies on."""
  return typing.cast("jax.sharding.Mesh", typing.cast("NamedSharding", state.rng.sharding).mesh)


def compile_step(step: Step, state: TrainState, batch: Batch) -> Step:
  """Compiles the step; arguments as `lower_step`."""
  return lower_step(step, state, batch).compile()
