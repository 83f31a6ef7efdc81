"""The demonstration from beginning to end: data, three stages, answers, report."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import flax
import jax

from eagle_jax import __version__, config
from eagle_jax.data import questions, tokenize
from eagle_jax.demo import language, recipe, records, report, results, score
from eagle_jax.demo.progress import track
from eagle_jax.infer import load
from eagle_jax.infer.predictor import Predictor, Settings
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.sharding.axes import AXES
from eagle_jax.sharding.mesh import make_mesh
from eagle_jax.train import loop

ANSWER_TOKENS = 8  # of the longest answer, a word spelled by letters
ROWS = 64  # questions answered at once

Answers = dict[str, str]
"""Record id → what the model said."""


ORIGINS = {
  "language model": "trained on text alone by `eagle-jax demo --language-model`, shipped "
  "with the project",
  "experts": "drawn at random",
  "projectors": "drawn at random",
}
"""Part of the small model → where its weights come from."""


def run(
  out: Path,
  *,
  seed: int,
  tasks: Mapping[str, records.Task] = records.TASKS,
  chosen: recipe.Recipe | None = None,
  origins: Mapping[str, str] = ORIGINS,
  alone: results.Alone | None = None,
) -> Path:
  """Runs everything and returns the path of report.html.

  Interrupted and started again with the same arguments, it goes on with the stage it
  was in.

  Args:
    out: folder of data, runs and report.
    seed: of data, parameters and order.
    tasks: what the data set asks, and how often.
    chosen: the recipe; by default the small one.
    origins: what the report says of where the recipe's weights come from.
    alone: what the report says of the language model on text alone.

  Raises:
    EagleError: if a package of the extra `demo` is missing, or `out` holds another run.
  """
  folders = recipe.Folders(out)
  seconds: dict[str, float] = {}
  with _timed(seconds, "drawing the records"):
    found = records.build(folders.data, seed=seed, tasks=tasks)
    if not folders.language.exists():
      language.start(folders.language)
  followed = chosen or recipe.small(folders)
  plan = recipe.runs(followed, folders, found, seed=seed)
  stages = tuple(_train(experiment, folders) for experiment in plan)
  answers = {}
  for name in (recipe.SIGHTED, recipe.BLIND):
    with _timed(seconds, f"answering, {name}"):
      experiment = next(e for e in plan if e.name == name)
      answers[name] = _answer(experiment, str(folders.run(name)), found)
  train, test = (records.read(found.parts[part]) for part in ("train", "test"))
  sighted, blind = answers[recipe.SIGHTED], answers[recipe.BLIND]
  told = results.Results(
    title=followed.title,
    origins=origins,
    alone=alone,
    stages=stages,
    scores=score.table(train, test, sighted=sighted, blind=blind),
    samples=tuple(results.samples(test, sighted=sighted, blind=blind)),
    seconds=seconds,
    facts=_facts(seed, plan[0], train=len(train), test=len(test)),
  )
  path = out / "report.html"
  report.write(told, found.images, path)
  return path


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
  """Adds the wall time of its body under a name."""
  begun = time.monotonic()
  yield
  seconds[what] = time.monotonic() - begun


def _train(experiment: config.Experiment, folders: recipe.Folders) -> results.Stage:
  """Runs one stage and reads back what it wrote down."""
  workdir = folders.run(experiment.name)
  done = loop.run(experiment, str(workdir))
  return results.read_stage(workdir, label=experiment.name, seconds=done.seconds)


def _answer(experiment: config.Experiment, checkpoint: str, found: records.DataSet) -> Answers:
  """Puts every test question to a finished run, on one device."""
  eagle = eagle_lib.build(experiment.model)
  data = dataclasses.replace(experiment.data, records=str(found.parts["test"]))
  predictor = Predictor(
    eagle,
    load.params(checkpoint, eagle, make_mesh(config.Mesh(), jax.devices()[:1])),
    tokenize.load(data.tokenizer),
    data=data,
    settings=Settings(max_new_tokens=ANSWER_TOKENS, rows=ROWS),
  )
  asked, _ = questions.load(data)
  said = track(predictor.answers(asked), len(asked), f"answering, {experiment.name}")
  return {question.record.id: answer for question, answer in zip(asked, said, strict=True)}


def _facts(seed: int, first: config.Experiment, *, train: int, test: int) -> dict[str, str]:
  """Returns how the demonstration was run, as name → text."""
  mesh = ", ".join(f"{axis}={getattr(first.mesh, axis)}" for axis in AXES)
  return {
    "seed": str(seed),
    "mesh": mesh,
    "devices": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
    "training records": str(train),
    "test records": str(test),
    "eagle-jax": __version__,
    "jax": jax.__version__,
    "flax": flax.__version__,
    "Python": platform.python_version(),
    "machine": platform.machine(),
  }
