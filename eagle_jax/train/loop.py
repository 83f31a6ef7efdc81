"""One stage of training, in the order in which things happen."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from eagle_jax import checkpoint, config
from eagle_jax.data import ahead, pipeline
from eagle_jax.errors import EagleError
from eagle_jax.train import placing, prepared, state, step, telemetry
from eagle_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished stage reports.

  Attributes:
    steps: updates done in all.
    loss: of the last logged step.
    seconds: wall time of this call, from start to the last save.
  """

  steps: int
  loss: float
  seconds: float


def run(experiment: config.Experiment, workdir: str) -> Result:
  """Trains one stage to its end, going on from the run's last checkpoint if there is one.

  Args:
    experiment: what to do.
    workdir: folder of the run; the same folder and experiment resume it.

  Raises:
    EagleError: if the experiment, its data or what it starts from does not hold together.
  """
  begun = time.monotonic()
  stream = pipeline.make_iterator(
    experiment.data,
    batch_size=experiment.batch_size,
    seed=experiment.seed,
    image_size=experiment.model.image_size,
    tokens_per_image=experiment.model.grid_side**2,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  with contextlib.closing(stream):
    ready = prepared.prepare(experiment, workdir, num_records=stream.num_records)
    saving = experiment.checkpoints
    checkpoints = checkpoint.Checkpoints(workdir, keep=saving.keep, verify=saving.verify)
    with contextlib.closing(checkpoints):
      current, done, begun_with = prepared.start(ready, checkpoints, stream)
      prepared.note_sources(ready, done, stream.sources)
      meta = prepared.describe(ready, begun_with)
      batches: ahead.Ahead[Batch] = ahead.Ahead(
        stream, placing.Placer(ready.mesh), depth=experiment.data.prefetch
      )
      with contextlib.closing(batches):
        loss = train(ready, current, done, checkpoints=checkpoints, batches=batches, meta=meta)
  return Result(ready.total_steps, loss, time.monotonic() - begun)


def train(
  ready: prepared.Run,
  current: state.TrainState,
  done: int,
  *,
  checkpoints: checkpoint.Checkpoints,
  batches: ahead.Ahead[Batch],
  meta: Mapping[str, Any],
) -> float:
  """Does the remaining updates, logging and saving; returns the last logged loss."""
  every = ready.experiment.checkpoints.every
  update = _Compiled(ready)
  with contextlib.closing(telemetry.Telemetry(ready, done)) as told:
    while done < ready.total_steps:
      current, measured = update(current, next(batches))
      done += 1
      last = done == ready.total_steps
      if told.step(done, measured):
        _stop_on_nan(told.loss, done)
      if last or done % every == 0:
        checkpoints.save(
          done,
          params=current.params(),
          optimizer=state.beside_params(current),
          data=batches,
          meta=meta,
          last=last,
        )
  return told.loss


class _Compiled:
  """The update, compiled once for each shape that batches have."""

  def __init__(self, ready: prepared.Run):
    """Compiles nothing yet."""
    accumulate = ready.experiment.optimizer.accumulate
    self._function = step.make(ready.eagle, ready.tx, accumulate=accumulate)
    self._compiled: dict[Any, Any] = {}

  def __call__(self, current: state.TrainState, batch: Batch) -> Any:
    """Returns the next state and what the update measured."""
    shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
    if shapes not in self._compiled:
      self._compiled[shapes] = step.compile_step(self._function, current, batch)
    return self._compiled[shapes](current, batch)


def _stop_on_nan(loss: float, done: int) -> None:
  """Raises if the loss is no number: going on would only save garbage."""
  if not np.isfinite(loss):
    raise EagleError(f"the loss must be finite, it is {loss} at step {done}")
