"""Exact match per task, beside what one gets without looking."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from eagle_jax.demo.records import Entry, answer_of
from eagle_jax.errors import EagleError

MARGINS: Mapping[str, float] = {"digits": 0.60, "crops": 0.40, "charts": 0.15}
"""Task → by how much sighted must beat blind for the picture to be shown to matter."""


@dataclasses.dataclass(frozen=True)
class Score:
  """One task's share of exactly right answers, each in [0, 1].

  Attributes:
    task: its name.
    count: questions asked.
    sighted: of the model.
    blind: of the same model, trained and asked with the mean colour for a picture.
    majority: of always giving the commonest answer of the training part.
    commonest: that answer.
  """

  task: str
  count: int
  sighted: float
  blind: float
  majority: float
  commonest: str

  @property
  def margin(self) -> float:
    """What the picture is worth: sighted minus blind."""
    return self.sighted - self.blind


def normal(answer: str) -> str:
  """Returns an answer as it is compared: single spaces, none around it."""
  return " ".join(answer.split())


def matches(records: Iterable[Entry], answers: Mapping[str, str]) -> dict[str, bool]:
  """Returns record id → whether its answer is exactly right.

  Args:
    records: of the test part.
    answers: record id → what the model said.

  Raises:
    EagleError: if a record has no answer: a score over a part of the test means nothing.
  """
  records = list(records)
  unanswered = [record["id"] for record in records if record["id"] not in answers]
  if unanswered:
    raise EagleError(
      f"every test record needs an answer, {len(unanswered)} of {len(records)} have none, "
      f"the first is {unanswered[0]!r}"
    )
  return {r["id"]: normal(answers[r["id"]]) == normal(answer_of(r)) for r in records}


def commonest(train: Iterable[Entry]) -> dict[str, str]:
  """Returns task → its commonest answer in the training records, ties by the alphabet."""
  counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
  for record in train:
    counts[record["task"]][normal(answer_of(record))] += 1
  return {task: min(seen, key=lambda a: (-seen[a], a)) for task, seen in counts.items()}


def table(
  train: Sequence[Entry],
  test: Sequence[Entry],
  *,
  sighted: Mapping[str, str],
  blind: Mapping[str, str],
) -> tuple[Score, ...]:
  """Returns one score per task, in the order in which the test part names them.

  Args:
    train: training records, for the majority answer.
    test: test records.
    sighted: test record id → answer of the model.
    blind: the same for the model that never saw a picture.

  Raises:
    EagleError: if an answer is missing, or a task was never trained on.
  """
  majority = commonest(train)
  right = {"sighted": matches(test, sighted), "blind": matches(test, blind)}
  scores = []
  for task in dict.fromkeys(record["task"] for record in test):
    asked = [record for record in test if record["task"] == task]
    if task not in majority:
      raise EagleError(f"task {task!r} is tested and never trained on")
    shares = {who: sum(right[who][r["id"]] for r in asked) / len(asked) for who in right}
    guessed = sum(normal(answer_of(r)) == majority[task] for r in asked) / len(asked)
    scores.append(Score(task, len(asked), **shares, majority=guessed, commonest=majority[task]))
  return tuple(scores)


def shortfalls(scores: Iterable[Score], margins: Mapping[str, float] = MARGINS) -> tuple[str, ...]:
  """Returns a sentence for every task whose picture is not shown to matter enough."""
  found = {score.task: score for score in scores}
  sentences = []
  for task, least in margins.items():
    if task not in found:
      sentences.append(f"{task}: not tested, sighted must beat blind by {least:.0%}")
    elif found[task].margin < least:
      sentences.append(
        f"{task}: sighted {found[task].sighted:.1%} minus blind {found[task].blind:.1%} "
        f"is {found[task].margin:.1%}, it must be {least:.0%}"
      )
  return tuple(sentences)
