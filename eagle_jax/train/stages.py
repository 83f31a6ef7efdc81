"""The three stages as data: what each trains, and what each draws afresh.

Source: EAGLE, arXiv 2408.15998, section 3.3 and table 7; the scripts pretrain-*.sh
and finetune-*.sh for the second and third stage. The first was never released.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from eagle_jax import config, patterns
from eagle_jax.registry import lookup


@dataclasses.dataclass(frozen=True)
class Treatment:
  """What happens to one parameter during a stage.

  Attributes:
    trained: False freezes it: no gradient, no optimizer state, stored in `frozen_dtype`.
    lr: factor on the learning rate.
    decay: whether weight decay applies.
  """

  trained: bool
  lr: float = 1.0
  decay: bool = True


TRAINED = Treatment(trained=True)
FROZEN = Treatment(trained=False, decay=False)


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage of training.

  Attributes:
    rules: ordered (path pattern, treatment); the first match wins, all must match.
    fresh: path patterns drawn at random even where an earlier checkpoint holds them.
    purpose: one line for the table printed at the start.
  """

  rules: tuple[tuple[str, Treatment], ...]
  fresh: tuple[str, ...]
  purpose: str


STAGES: Mapping[str, Stage] = {
  "prealign": Stage(
    rules=((r"language/.*", FROZEN), (r"(vision|projector)/.*", TRAINED)),
    fresh=(r"projector/.*",),
    purpose="one expert and its own projector learn to speak to a frozen language model",
  ),
  "pretrain": Stage(
    rules=((r"projector/.*", TRAINED), (r"(vision|language)/.*", FROZEN)),
    fresh=(r"projector/.*",),
    purpose="one projector over all experts; experts may be unlocked by config",
  ),
  "finetune": Stage(
    rules=((r"(vision|projector|language)/.*", TRAINED),),
    fresh=(),
    purpose="everything",
  ),
}

DECAY: tuple[tuple[str, bool], ...] = (
  (r"vision/sam/neck_norm/scale", True),  # upstream's neck norm is no LayerNorm class
  (r".*bias", False),
  (r".*/scale", False),
  (r".*", True),
)
"""Where weight decay applies, if there is any. Source: EAGLE, eagle_trainer.py,
create_optimizer; checked against optimizer_groups.json of the golden data."""


def treatments(experiment: config.Experiment, paths: Iterable[str]) -> dict[str, Treatment]:
  """Returns what happens to every parameter in the experiment's stage.

  Args:
    experiment: its `stage` and `unlock` are read.
    paths: '/'-joined paths of all parameters.

  Raises:
    EagleError: if a parameter is matched by no rule of the stage.
  """
  stage = lookup(STAGES, experiment.stage, what="stage")
  unlocked = tuple((pattern, TRAINED) for pattern in experiment.unlock)
  paths = list(paths)
  chosen = patterns.assign((*unlocked, *stage.rules), paths, what=f"stage {experiment.stage!r}")
  decay = patterns.assign(DECAY, paths, what="weight decay")
  return {
    path: dataclasses.replace(t, decay=decay[path]) if t.trained else t
    for path, t in chosen.items()
  }


def part(path: str) -> str:
  """Returns the part of the model a parameter belongs to: 'vision/clip', 'projector', …."""
  names = path.split("/")
  return "/".join(names[:2]) if names[0] == "vision" else names[0]


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of the table of parts: how much of it is trained in a stage."""

  part: str
  parameters: int
  trained: int
  decayed: int
  lr: float  # factor of what is trained, 0 where nothing is


def summary(
  shapes: Mapping[str, tuple[int, ...]], chosen: Mapping[str, Treatment]
) -> tuple[Row, ...]:
  """Returns one row per part: each expert, the projector, the language model.

  Args:
    shapes: '/'-joined path → shape.
    chosen: path → treatment, of the same paths.
  """
  rows: dict[str, Row] = {}
  for path, shape in shapes.items():
    name = part(path)
    old = rows.get(name, Row(name, 0, 0, 0, 0.0))
    size, treatment = math.prod(shape), chosen[path]
    rows[name] = Row(
      name,
      old.parameters + size,
      old.trained + size * treatment.trained,
      old.decayed + size * treatment.decay,
      max(old.lr, treatment.lr if treatment.trained else 0.0),
    )
  return tuple(rows.values())


def table(rows: Iterable[Row]) -> str:
  """Renders `summary` as aligned text with a line of totals."""
  rows = list(rows)
  total = Row(
    "all",
    sum(r.parameters for r in rows),
    sum(r.trained for r in rows),
    sum(r.decayed for r in rows),
    max((r.lr for r in rows), default=0.0),
  )
  lines = [f"{'part':<20}{'parameters':>16}{'trained':>16}{'decayed':>16}{'lr ×':>8}"]
  for row in (*rows, total):
    lines.append(
      f"{row.part:<20}{row.parameters:>16,}{row.trained:>16,}{row.decayed:>16,}{row.lr:>8g}"
    )
  return "\n".join(lines)
