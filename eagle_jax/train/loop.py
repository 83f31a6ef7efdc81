"""One stage of training, in the order in which things happen."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any

import jax

from eagle_jax import checkpoint, config
from eagle_jax.data import ahead, pipeline
from eagle_jax.errors import PreemptedError
from eagle_jax.sharding import mesh as meshes
from eagle_jax.train import (
  bad_steps,
  phases,
  placing,
  prepared,
  profiling,
  saving,
  state,
  step,
  stopping,
  stragglers,
  telemetry,
  watchdog,
)
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


def run(
  experiment: config.Experiment,
  workdir: str,
  *,
  stop: stopping.Stop | None = None,
  profile: profiling.Span | None = None,
) -> Result:
  """Trains one stage to its end, going on from the run's last checkpoint if there is one.

  Args:
    experiment: what to do.
    workdir: folder of the run; the same folder and experiment resume it.
    stop: asks for an early end; by default nobody does.
    profile: updates to trace.

  Raises:
    EagleError: if the experiment, its data or what it starts from does not hold together,
      or too many updates in a row had to be skipped.
    PreemptedError: if it was asked to stop, and all that was done is saved.
  """
  begun = time.monotonic()
  stop = stop or stopping.Stop()
  stop.join()
  phase = phases.Phases()
  process = jax.process_index()
  index, count = meshes.readers(meshes.make_mesh(experiment.mesh))
  watching = watchdog.Watchdog(phase, workdir, minutes=experiment.watchdog_minutes, process=process)
  with contextlib.closing(watching):
    with phase(phases.RECORDS):
      stream = pipeline.make_iterator(
        experiment.data,
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        image_size=experiment.model.image_size,
        tokens_per_image=experiment.model.grid_side**2,
        process_index=index,
        process_count=count,
      )
    with contextlib.closing(stream):
      total, loss = _go_on(experiment, workdir, stream, phase=phase, stop=stop, profile=profile)
  return Result(total, loss, time.monotonic() - begun)


def _go_on(
  experiment: config.Experiment,
  workdir: str,
  stream: pipeline.BatchIterator,
  *,
  phase: phases.Phases,
  stop: stopping.Stop,
  profile: profiling.Span | None,
) -> tuple[int, float]:
  """Makes the stage ready and does what is left of it; returns all updates and the last loss."""
  kept = experiment.checkpoints
  checkpoints = checkpoint.Checkpoints(workdir, keep=kept.keep, verify=kept.verify)
  with contextlib.closing(checkpoints):
    with phase(phases.RESTORE):
      ready = prepared.prepare(experiment, workdir, num_records=stream.num_records)
      current, done, begun_with = prepared.start(ready, checkpoints, stream)
      prepared.note_sources(ready, done, stream.sources)
    limit = experiment.optimizer.max_skipped
    batches: ahead.Ahead[Batch] = ahead.Ahead(
      stream, placing.Placer(ready.mesh), depth=experiment.data.prefetch
    )
    with (
      contextlib.closing(bad_steps.BadSteps(workdir, stream, limit=limit, done=done)) as bad,
      contextlib.closing(batches),
    ):
      meta = prepared.describe(ready, begun_with)
      saver = saving.Saver(checkpoints, meta, phase, done=done)
      told = telemetry.Telemetry(ready, done, current=phase, profile=profile)
      try:
        with contextlib.closing(told):
          train(ready, current, saver, batches=batches, bad=bad, told=told, stop=stop)
      except PreemptedError as preempted:
        # What hangs must not be closed first.
        stop.leave(str(preempted), together=jax.process_count() > 1)
        raise
  return ready.total_steps, told.loss


def train(
  ready: prepared.Run,
  current: state.TrainState,
  saver: saving.Saver,
  *,
  batches: ahead.Ahead[Batch],
  bad: bad_steps.BadSteps,
  told: telemetry.Telemetry,
  stop: stopping.Stop,
) -> None:
  """Does the remaining updates, logging and saving.

  Raises:
    PreemptedError: if it was asked to stop, and all that was done is saved.
  """
  done, phase = saver.saved, saver.phase
  update = _Compiled(ready, phase)
  slow = stragglers.Stragglers(phase)
  position = batches.get_state()
  while done < ready.total_steps:
    try:
      with phase(phases.DATA), stop.waiting():
        batch = next(batches)
    except PreemptedError:
      bad.settle()
      saver.save_and_leave(current, done, position)
    compiled = update.compiled(current, batch)
    stop.working()
    with phase(phases.STEP):
      current, measured = compiled(current, batch)
    done += 1
    phase.step = done
    bad.note(done, measured, position)
    position = batches.get_state()
    logged = told.step(done, measured)
    asked, last = stop.reached(done), done == ready.total_steps
    due = last or done % ready.experiment.checkpoints.every == 0
    if logged or due or asked:
      bad.settle()
    if asked and not last:
      saver.save_and_leave(current, done, position)
    if due:
      saver.save(current, done, position, last=last)
    if logged:
      slow.compare()


class _Compiled:
  """The update, compiled once for each shape that batches have."""

  def __init__(self, ready: prepared.Run, phase: phases.Phases):
    """Compiles nothing yet."""
    settings = ready.experiment.optimizer
    self._function = step.make(ready.eagle, ready.tx, settings, params=ready.abstract)
    self._compiled: dict[Any, step.Step] = {}
    self._phase = phase

  def compiled(self, current: state.TrainState, batch: Batch) -> step.Step:
    """Returns the update for batches of this one's shapes."""
    shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
    if shapes not in self._compiled:
      with self._phase(phases.COMPILE):
        self._compiled[shapes] = step.compile_step(self._function, current, batch)
    return self._compiled[shapes]
