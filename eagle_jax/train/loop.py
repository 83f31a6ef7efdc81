"""One stage of training, in the order in which things happen."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from eagle_jax import checkpoint, config
from eagle_jax.data import pipeline, tokenize
from eagle_jax.errors import EagleError
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.sharding.mesh import make_mesh, place_batch
from eagle_jax.train import metrics, optimizer, stages, state, step

CONFIG_FILE, PARAMETERS_FILE = "config.json", "parameters.json"
MAY_CHANGE = ("mesh", "checkpoints", "log_every")
"""Fields that may differ when a run goes on; any other change would be another run."""


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


@dataclasses.dataclass(frozen=True)
class Run:
  """A stage made ready: everything the loop needs that does not change."""

  experiment: config.Experiment
  workdir: str
  mesh: jax.sharding.Mesh
  eagle: eagle_lib.Eagle
  chosen: Mapping[str, stages.Treatment]
  abstract: state.Abstract
  tx: optax.GradientTransformation
  total_steps: int


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
    ready = prepare(experiment, workdir, num_records=stream.num_records)
    checkpoints = checkpoint.Checkpoints(workdir, keep=experiment.checkpoints.keep)
    with contextlib.closing(checkpoints):
      current, done = start(ready, checkpoints, stream)
      loss = train(ready, current, done, checkpoints=checkpoints, stream=stream)
  return Result(ready.total_steps, loss, time.monotonic() - begun)


def prepare(experiment: config.Experiment, workdir: str, *, num_records: int) -> Run:
  """Builds the model abstractly, decides what is trained and writes both down."""
  mesh = make_mesh(experiment.mesh)
  eagle = eagle_lib.build(experiment.model)
  paths = state.paths(eagle)
  chosen = stages.treatments(experiment, paths)
  abstract = state.abstract_params(eagle, experiment.model, chosen, mesh=mesh)
  total = experiment.steps or math.ceil(experiment.epochs * num_records / experiment.batch_size)
  trained = {path: treatment for path, treatment in chosen.items() if treatment.trained}
  ready = Run(
    experiment,
    workdir,
    mesh,
    eagle,
    chosen,
    abstract,
    optimizer.make(experiment.optimizer, total, trained),
    total,
  )
  if jax.process_index() == 0:
    _write_down(ready)
  return ready


def _write_down(ready: Run) -> None:
  """Checks the folder against an earlier run in it, and writes config and parameter table."""
  folder = pathlib.Path(ready.workdir)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / CONFIG_FILE
  if path.exists():
    _refuse_other_run(json.loads(path.read_text()), ready)
  path.write_text(ready.experiment.to_json())
  rows = stages.summary({p: leaf.shape for p, leaf in ready.abstract.items()}, ready.chosen)
  (folder / PARAMETERS_FILE).write_text(json.dumps([dataclasses.asdict(r) for r in rows]))
  stage = stages.STAGES[ready.experiment.stage]
  print(f"{ready.experiment.name}: {ready.experiment.stage}, {stage.purpose}")
  print(stages.table(rows), flush=True)


def _refuse_other_run(before: dict[str, Any], ready: Run) -> None:
  """Raises if the folder holds a run of another experiment."""
  # An older version wrote no field that came since: it had what is the default now.
  before = json.loads(config.from_mapping(before).to_json())
  now = json.loads(ready.experiment.to_json())
  changed = [f for f in now if f not in MAY_CHANGE and now[f] != before.get(f)]
  if changed:
    raise EagleError(
      f"{ready.workdir} holds a run that differs in {', '.join(changed)}; "
      "give the new run a folder of its own"
    )


def start(
  ready: Run, checkpoints: checkpoint.Checkpoints, stream: pipeline.BatchIterator
) -> tuple[state.TrainState, int]:
  """Returns the state to go on from and the updates it has done.

  The order of decision: the run's own last checkpoint, or else what the experiment
  starts from.
  """
  experiment = ready.experiment
  latest = checkpoints.latest()
  if latest is None:
    params = state.starting_params(experiment, ready.eagle, ready.abstract)
    fresh = state.create(params, ready.chosen, ready.tx, seed=experiment.seed, mesh=ready.mesh)
    return fresh, 0
  blank = state.abstract_state(ready.abstract, ready.chosen, ready.tx, mesh=ready.mesh)
  params, rest = checkpoints.restore(
    latest, params=ready.abstract, optimizer=state.beside_params(blank), data=stream
  )
  return state.from_parts(params, rest, blank), latest


def train(
  ready: Run,
  current: state.TrainState,
  done: int,
  *,
  checkpoints: checkpoint.Checkpoints,
  stream: pipeline.BatchIterator,
) -> float:
  """Does the remaining updates, logging and saving; returns the last logged loss."""
  experiment = ready.experiment
  log = metrics.Metrics(ready.workdir, start=done)
  progress = metrics.Progress(experiment.name, ready.total_steps, done=done)
  meta = describe(ready)
  compiled, loss = None, math.nan
  rate = optimizer.learning_rate(experiment.optimizer, ready.total_steps)
  while done < ready.total_steps:
    batch = place_batch(next(stream), ready.mesh)
    if compiled is None:
      function = step.make(ready.eagle, ready.tx, accumulate=experiment.optimizer.accumulate)
      compiled = step.compile_step(function, current, batch)
    current, measured = compiled(current, batch)
    done += 1
    last = done == ready.total_steps
    if last or done % experiment.log_every == 0:
      values = {name: float(value) for name, value in jax.device_get(measured).items()}
      loss = values["loss"]
      log.write(done, {**values, "lr": float(rate(done - 1))})
      _stop_on_nan(loss, done)
      progress.show(done, f"loss {loss:.4f}")
    if last or done % experiment.checkpoints.every == 0:
      checkpoints.save(
        done,
        params=current.params(),
        optimizer=state.beside_params(current),
        data=stream,
        meta=meta,
      )
  log.close()
  return loss


def _stop_on_nan(loss: float, done: int) -> None:
  """Raises if the loss is no number: going on would only save garbage."""
  if not np.isfinite(loss):
    raise EagleError(f"the loss must be finite, it is {loss} at step {done}")


def describe(ready: Run) -> dict[str, Any]:
  """Returns what is saved beside the arrays so that they can be used again.

  Config, and the identity of tokenizer and template: answering with another one than
  the model was trained with would give nonsense without an error.
  """
  experiment = ready.experiment
  return {
    "kind": "training",
    "stage": experiment.stage,
    "config": json.loads(experiment.to_json()),
    "tokenizer": tokenize.load(experiment.data.tokenizer).digest,
    "template": experiment.data.template,
    "parameters": len(ready.abstract),
  }
