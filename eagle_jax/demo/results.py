"""What a run of the demonstration found, as plain data that goes to JSON and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eagle_jax.demo.records import Entry, answer_of
from eagle_jax.demo.score import Score
from eagle_jax.train import metrics, prepared
from eagle_jax.train.stages import Row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
  """One run of one stage.

  Attributes:
    stage: 'prealign', 'pretrain' or 'finetune', or another heading: one panel each.
    label: which of the stage's runs: the expert, or 'sighted' and 'blind'.
    losses: (step, loss) in order.
    parts: how much of each part of the model was trained, as the stage wrote it down.
    batch_size: rows per step.
    seconds: wall time.
  """

  stage: str
  label: str
  losses: tuple[tuple[int, float], ...]
  parts: tuple[Row, ...]
  batch_size: int
  seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
  """One question as it was put and answered.

  Attributes:
    task: its task.
    image: file name relative to the images' folder.
    question: without the image marker.
    truth: the right answer.
    sighted: what the model said.
    blind: what the model without pictures said.
  """

  task: str
  image: str
  question: str
  truth: str
  sighted: str
  blind: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alone:
  """The language model before any training here, on text alone.

  Attributes:
    difference: largest difference of a logit from the reference's, over one prompt.
    limit: what it must stay below.
    reference: what it was compared with, in words.
    exchanges: questions and what it answered.
  """

  difference: float
  limit: float
  reference: str
  exchanges: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
  """Everything the report tells.

  Attributes:
    title: of the report.
    origins: part of the model → where its weights come from before stage 1.
    alone: the language model on text alone, None where it was not asked.
    stages: in the order in which they ran.
    scores: per task.
    samples: questions of the test part.
    seconds: what else took time → wall seconds.
    facts: name → value, as text: seed, mesh, devices, versions, record counts.
  """

  title: str
  origins: Mapping[str, str]
  alone: Alone | None = None
  stages: tuple[Stage, ...]
  scores: tuple[Score, ...]
  samples: tuple[Sample, ...]
  seconds: Mapping[str, float]
  facts: Mapping[str, str]

  def to_json(self) -> str:
    """Returns the results as indented JSON."""
    return json.dumps(dataclasses.asdict(self), indent=1)


def read_stage(workdir: Path, *, label: str, seconds: float) -> Stage:
  """Returns what a finished run of `train.loop.run` left in its folder.

  Args:
    workdir: the run's folder.
    label: which of the stage's runs it was.
    seconds: its wall time.
  """
  experiment = json.loads((workdir / prepared.CONFIG_FILE).read_text(encoding="utf-8"))
  rows = json.loads((workdir / prepared.PARAMETERS_FILE).read_text(encoding="utf-8"))
  return Stage(
    stage=experiment["stage"],
    label=label,
    losses=tuple((int(row["step"]), row["loss"]) for row in metrics.read(str(workdir))),
    parts=tuple(Row(**row) for row in rows),
    batch_size=experiment["batch_size"],
    seconds=seconds,
  )


def samples(
  test: Sequence[Entry], *, sighted: Mapping[str, str], blind: Mapping[str, str], each: int = 4
) -> tuple[Sample, ...]:
  """Returns `each` questions of every task, evenly spaced: nobody chose them.

  Args:
    test: records of the test part.
    sighted: record id → answer of the model.
    blind: the same of the model without pictures.
    each: questions per task.
  """
  chosen = []
  for task in dict.fromkeys(record["task"] for record in test):
    asked = [record for record in test if record["task"] == task]
    chosen += [asked[len(asked) * n // each] for n in range(min(each, len(asked)))]
  return tuple(
    Sample(
      task=record["task"],
      image=record["image"],
      question=record["conversations"][0]["value"].removeprefix("<image>").strip(),
      truth=answer_of(record),
      sighted=sighted[record["id"]],
      blind=blind[record["id"]],
    )
    for record in chosen
  )


def from_json(text: str) -> Results:
  """Returns the results that `to_json` wrote."""
  found: dict[str, Any] = json.loads(text)
  alone = found["alone"]
  if alone is not None:
    alone = Alone(**alone | {"exchanges": tuple(map(tuple, alone["exchanges"]))})
  return Results(
    title=found["title"],
    origins=found["origins"],
    alone=alone,
    stages=tuple(_stage(stage) for stage in found["stages"]),
    scores=tuple(Score(**score) for score in found["scores"]),
    samples=tuple(Sample(**sample) for sample in found["samples"]),
    seconds=found["seconds"],
    facts=found["facts"],
  )


def _stage(found: dict[str, Any]) -> Stage:
  """Returns one stage, its lists as tuples again."""
  found["losses"] = tuple((int(step), float(loss)) for step, loss in found["losses"])
  found["parts"] = tuple(Row(**part) for part in found["parts"])
  return Stage(**found)
