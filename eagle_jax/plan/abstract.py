"""The real step of a stage with everything it takes as shapes: no array is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from eagle_jax import config
from eagle_jax.data import pack
from eagle_jax.errors import EagleError
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.sharding.mesh import batch_sharding, make_mesh
from eagle_jax.train import optimizer, stages, state, step, traced
from eagle_jax.types import Batch

SOME_STEPS = 1000
"""Length of the schedule where the records decide it: the program is the same for any."""


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stage on a mesh.

  Attributes:
    experiment: what is to be trained.
    mesh: of devices that may exist nowhere.
    eagle: the model.
    chosen: '/'-joined path → treatment.
    shapes: path → shape.
    state: shapes, dtypes and shardings of everything a step carries.
    batch: likewise.
    step: as the trainer calls it.
  """

  experiment: config.Experiment
  mesh: jax.sharding.Mesh
  eagle: eagle_lib.Eagle
  chosen: Mapping[str, stages.Treatment]
  shapes: Mapping[str, tuple[int, ...]]
  state: state.TrainState
  batch: Batch
  step: step.Step


def stage(experiment: config.Experiment, devices: Sequence[Any]) -> Stage:
  """Prepares a stage as `train.loop` does.

  Raises:
    EagleError: if the mesh or the rows cannot be dealt out to the devices.
  """
  mesh = make_mesh(experiment.mesh, devices)
  eagle = eagle_lib.build(experiment.model)
  chosen = stages.treatments(experiment, state.paths(eagle))
  params = state.abstract_params(eagle, experiment, chosen, mesh=mesh)
  trained = {path: treatment for path, treatment in chosen.items() if treatment.trained}
  tx = optimizer.make(experiment.optimizer, experiment.steps or SOME_STEPS, trained)
  return Stage(
    experiment=experiment,
    mesh=mesh,
    eagle=eagle,
    chosen=chosen,
    shapes={path: leaf.shape for path, leaf in params.items()},
    state=state.abstract_state(params, chosen, tx, mesh=mesh),
    batch=batch(experiment, mesh),
    step=step.make(eagle, tx, experiment.optimizer, params=params),
  )


def batch(experiment: config.Experiment, mesh: jax.sharding.Mesh) -> Batch:
  """Returns the largest batch of an experiment, tokens [B, S], images [R, I, H, W, 3].

  Raises:
    EagleError: if its rows cannot be dealt out over data and fsdp; names a mesh that could.
  """
  data, rows = experiment.data, experiment.batch_size
  groups = rows // data.share
  shards = mesh.shape["data"] * mesh.shape["fsdp"]
  if groups % (shards * experiment.optimizer.accumulate):
    raise EagleError(_dealing(experiment, groups, shards))
  lies = batch_sharding(mesh)
  length, slots = pack.row_shape(data)

  def leaf(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """One array [B, …] of the batch."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=lies)

  text, side = (rows, length), experiment.model.image_size
  arrays: dict[str, Any] = {
    "images": leaf((groups, slots, side, side, 3), jnp.uint8),
    "tokens": leaf(text, jnp.int32),
    "valid": leaf(text, jnp.bool_),
    "loss_mask": leaf(text, jnp.bool_),
    "positions": leaf(text, jnp.int32),
    "segments": leaf(text, jnp.int32) if data.pack else None,
  }
  return Batch(**arrays)


def _dealing(experiment: config.Experiment, groups: int, shards: int) -> str:
  """Says why rows cannot be dealt out, and along which other axis devices would have work."""
  count = experiment.optimizer.accumulate
  largest = math.gcd(groups // count if groups % count == 0 else groups, shards)
  times = experiment.mesh.tensor * shards // largest
  rows = f"{groups} rows" if experiment.data.share == 1 else f"{groups} groups of rows"
  micro = f" in {count} micro-batches" if count > 1 else ""
  return (
    f"the rows of a step must be dealt out evenly over the data and fsdp axes: {rows}{micro}, "
    f"{shards} shards; give the other devices to the axis 'tensor', with "
    f"--config.mesh.tensor={times}, or change batch_size or the slice"
  )


def held(stage: Stage) -> dict[str, int]:
  """Returns what each device holds between steps, part → bytes, and the batch's share."""
  one = stage.state
  parts = {
    "trained parameters": one.trained,
    "frozen parameters": one.frozen,
    "optimizer": one.opt_state,
    "batch": stage.batch,
  }
  return {name: sum(map(_bytes, jax.tree.leaves(part))) for name, part in parts.items()}


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
  """Bytes of one device's share of an array [...]."""
  shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape
  return math.prod(shape) * leaf.dtype.itemsize


def model_flops(stage: Stage) -> int:
  """Returns the operations of a step as the model is written, nothing done twice.

  Attention counts whole although it is causal, and so do padding and unlabelled tokens.
  """
  settings = dataclasses.replace(stage.experiment.model, remat="none")
  eagle = eagle_lib.build(settings)

  def loss(trained: dict[str, Any], frozen: dict[str, Any], batch: Batch) -> Any:
    """The loss [] of the whole batch at once."""
    return step.mean_loss(eagle, {**trained, **frozen}, batch)

  made = jax.make_jaxpr(jax.value_and_grad(loss))(
    stage.state.trained, stage.state.frozen, stage.batch
  )
  return traced.of_trace(made)
