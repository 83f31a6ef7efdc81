"""One step of training: loss, gradients, accumulation, update, as one pure function."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from eagle_jax.train.state import TrainState, nested

if typing.TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

  from eagle_jax.model.eagle import Eagle
  from eagle_jax.types import Batch

Metrics = dict[str, "Float[Array, '']"]
Step = Callable[[TrainState, "Batch"], tuple[TrainState, Metrics]]


def summed_loss(
  logits: Float[Array, "B S V"], tokens: Int[Array, "B S"], counted: Bool[Array, "B S-1"]
) -> Float[Array, ""]:
  """Returns the cross-entropy of the next token, summed over the counted targets, float32."""
  targets = jnp.where(counted, tokens[:, 1:], 0)  # placeholders are no vocabulary ids
  losses = optax.softmax_cross_entropy_with_integer_labels(
    logits[:, :-1].astype(jnp.float32), targets
  )  # [B, S-1]
  return jnp.sum(jnp.where(counted, losses, 0.0))


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


def make(eagle: Eagle, tx: optax.GradientTransformation, *, accumulate: int = 1) -> Step:
  """Returns the step function, not yet compiled.

  Args:
    eagle: the model.
    tx: the optimizer of the trained parameters.
    accumulate: micro-batches whose gradients are added up; divides the rows.
  """

  def share(
    trained: dict[str, Array], frozen: dict[str, Array], batch: Batch, *, total: Float[Array, ""]
  ) -> Float[Array, ""]:
    """This micro-batch's part of the mean over all `total` targets."""
    logits = _logits(eagle, {**trained, **frozen}, batch)
    return summed_loss(logits, batch.tokens, batch.targets()) / total

  def gradients(
    state: TrainState, batch: Batch, total: Float[Array, ""]
  ) -> tuple[Float[Array, ""], dict[str, Array]]:
    """Loss and gradients of the trained parameters over all micro-batches."""
    # Differentiating the trained dict alone keeps the frozen part out of the backward pass.
    value_and_grad = jax.value_and_grad(share)
    if accumulate == 1:
      return value_and_grad(state.trained, state.frozen, batch, total=total)
    micro = micro_batches(batch, accumulate)

    def add(
      carry: tuple[Float[Array, ""], dict[str, Array]], rows: Batch
    ) -> tuple[tuple[Float[Array, ""], dict[str, Array]], None]:
      """Adds one micro-batch."""
      found = value_and_grad(state.trained, state.frozen, rows, total=total)
      return jax.tree.map(jnp.add, carry, found), None

    zero = (jnp.float32(0), jax.tree.map(jnp.zeros_like, state.trained))
    return jax.lax.scan(add, zero, micro)[0]

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    """Returns the state after one update, and what was measured before it."""
    targets = jnp.sum(batch.targets())
    loss, grads = gradients(state, batch, targets.astype(jnp.float32))
    updates, opt_state = tx.update(grads, state.opt_state, state.trained)
    metrics = {
      "loss": loss,
      "grad_norm": optax.tree.norm(grads),
      "targets": targets.astype(jnp.float32),
    }
    trained = optax.apply_updates(state.trained, updates)
    changed = {"step": state.step + 1, "trained": trained, "opt_state": opt_state}
    return dataclasses.replace(state, **changed), metrics

  return step


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


def compile_step(step: Step, state: TrainState, batch: Batch) -> Step:
  """Compiles the step with the state donated and returned in the shardings it came in.

  Args:
    step: from `make`.
    state: placed arrays or ShapeDtypeStructs with shardings.
    batch: likewise.
  """
  placed = jax.tree.map(lambda x: x.sharding, state)
  return jax.jit(step, donate_argnums=0, out_shardings=(placed, None)).lower(state, batch).compile()
