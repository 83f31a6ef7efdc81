"""A stage made ready: what is trained and on what, from which state, written down in its folder."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import optax

from eagle_jax import checkpoint, config
from eagle_jax.data import pipeline, tokenize
from eagle_jax.errors import EagleError
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.train import metrics, optimizer, origins, stages, state

CONFIG_FILE, PARAMETERS_FILE = "config.json", "parameters.json"
STARTED_FILE, SOURCES_FILE = "started_from.json", "sources.jsonl"
MAY_CHANGE = (
  *("mesh", "checkpoints", "log_every", "watchdog_minutes", "optimizer.max_skipped"),
  *("data.workers", "data.prefetch", "data.bad_budget", "data.device_resize"),
  *("model.remat", "optimizer.gather_once"),
)
"""Fields that may differ when a run goes on; any other change would be another run."""
MIXTURE = ("data.records", "data.images", "data.sources")
"""Fields that may differ, too, where `steps` and not the number of records ends the run."""


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


def prepare(experiment: config.Experiment, workdir: str, *, num_records: int) -> Run:
  """Builds the model abstractly, decides what is trained and writes both down."""
  mesh = make_mesh(experiment.mesh)
  eagle = eagle_lib.build(experiment.model)
  paths = state.paths(eagle)
  chosen = stages.treatments(experiment, paths)
  abstract = state.abstract_params(eagle, experiment, chosen, mesh=mesh)
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
  _replace(path, ready.experiment.to_json())
  rows = stages.summary({p: leaf.shape for p, leaf in ready.abstract.items()}, ready.chosen)
  _replace(folder / PARAMETERS_FILE, json.dumps([dataclasses.asdict(r) for r in rows]))
  stage = stages.STAGES[ready.experiment.stage]
  print(f"{ready.experiment.name}: {ready.experiment.stage}, {stage.purpose}")
  print(stages.table(rows), flush=True)


def _replace(path: pathlib.Path, text: str) -> None:
  """Writes a file whole or, if the process is killed, not at all."""
  new = path.with_name(f"{path.name}.new")
  new.write_text(text)
  new.replace(path)


def _refuse_other_run(before: dict[str, Any], ready: Run) -> None:
  """Raises if the folder holds a run of another experiment."""
  # An older version wrote no field that came since: it had what is the default now.
  before = _leaves(json.loads(config.from_mapping(before).to_json()))
  now = _leaves(json.loads(ready.experiment.to_json()))
  may = (*MAY_CHANGE, *(MIXTURE if ready.experiment.steps else ()))
  changed = [
    field
    for field in now
    if now[field] != before.get(field) and not {field, field.split(".")[0]} & set(may)
  ]
  if changed:
    hint = " (where steps is given, the sources may change)" if set(changed) <= set(MIXTURE) else ""
    raise EagleError(
      f"{ready.workdir} holds a run that differs in {', '.join(changed)}; "
      f"give the new run a folder of its own{hint}"
    )


def _leaves(values: Mapping[str, Any], place: str = "") -> dict[str, Any]:
  """Returns dotted field → value of a config's JSON; a list is one value."""
  leaves: dict[str, Any] = {}
  for name, value in values.items():
    inner = _leaves(value, f"{place}{name}.") if isinstance(value, dict) else {place + name: value}
    leaves.update(inner)
  return leaves


def note_sources(ready: Run, done: int, sources: list[dict[str, Any]]) -> None:
  """Appends what is trained on, with its licences, from update `done` on, where that is new."""
  if jax.process_index() != 0:
    return
  noted: list[dict[str, Any]] = [*metrics.read(ready.workdir, SOURCES_FILE)]
  if not noted or noted[-1]["sources"] != sources:
    log = metrics.Metrics(ready.workdir, name=SOURCES_FILE)
    values: dict[str, Any] = {"sources": sources}
    log.write(done, values)
    log.close()


def start(
  ready: Run, checkpoints: checkpoint.Checkpoints, stream: pipeline.BatchIterator
) -> tuple[state.TrainState, int, list[dict[str, Any]]]:
  """Returns the state to go on from, the updates it has done, and what the run began with.

  The order of decision: the run's own last checkpoint that is as it was written, or else
  what the experiment starts from.
  """
  experiment = ready.experiment
  latest = checkpoints.newest_good()
  if latest is None:
    params, records = origins.parameters(experiment, ready.eagle, ready.abstract)
    told = [dataclasses.asdict(record) for record in records]
    if jax.process_index() == 0:
      _replace(pathlib.Path(ready.workdir) / STARTED_FILE, json.dumps(told, indent=1))
      for record in records:
        print(record, flush=True)
    fresh = state.create(params, ready.chosen, ready.tx, seed=experiment.seed, mesh=ready.mesh)
    return fresh, 0, told
  blank = state.abstract_state(ready.abstract, ready.chosen, ready.tx, mesh=ready.mesh)
  params, rest = checkpoints.restore(
    latest, params=ready.abstract, optimizer=state.beside_params(blank), data=stream
  )
  told = checkpoint.read_meta(ready.workdir).get("started_from", [])
  return state.from_parts(params, rest, blank), latest, told


def describe(ready: Run, begun_with: list[dict[str, Any]]) -> dict[str, Any]:
  """Returns what is saved beside the arrays so that they can be used again.

  Config, and the identity of tokenizer and template: answering with another one than
  the model was trained with would give nonsense without an error.
  """
  experiment = ready.experiment
  return {
    "kind": "training",
    "stage": experiment.stage,
    "config": json.loads(experiment.to_json()),
    "started_from": begun_with,
    "tokenizer": tokenize.load(experiment.data.tokenizer).digest,
    "template": experiment.data.template,
    "parameters": len(ready.abstract),
  }
