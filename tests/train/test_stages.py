"""What each stage trains."""

import dataclasses

import pytest

from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.train import stages

PATHS = (
  "vision/clip/blocks/mlp/fc1/kernel",
  "vision/clip/blocks/norm1/scale",
  "vision/sam/neck_norm/scale",
  "vision/sam/neck_norm/bias",
  "projector/layer_0/kernel",
  "language/layers/mlp/gate/kernel",
)
SHAPES = dict.fromkeys(PATHS, (4, 2))


def experiment(stage, **changes):
  model = config.Model(experts=("clip",))
  return config.Experiment(name="t", stage=stage, model=model, **changes)


@pytest.mark.parametrize(
  ("stage", "trained"),
  [
    ("prealign", PATHS[:5]),
    ("pretrain", ("projector/layer_0/kernel",)),
    ("finetune", PATHS),
  ],
)
def test_each_stage_trains_its_parts(stage, trained):
  chosen = stages.treatments(experiment(stage), PATHS)
  assert tuple(path for path in PATHS if chosen[path].trained) == trained


def test_experts_can_be_unlocked_in_pretraining():
  chosen = stages.treatments(experiment("pretrain", unlock=(r"vision/sam/.*",)), PATHS)
  assert chosen["vision/sam/neck_norm/scale"].trained
  assert not chosen["vision/clip/blocks/norm1/scale"].trained


def test_decay_spares_norms_and_biases_but_not_the_neck_norm():
  chosen = stages.treatments(experiment("finetune"), PATHS)
  assert {path for path in PATHS if chosen[path].decay} == {PATHS[0], PATHS[2], PATHS[4], PATHS[5]}


def test_what_is_frozen_is_never_decayed():
  chosen = stages.treatments(experiment("pretrain"), PATHS)
  assert not chosen["language/layers/mlp/gate/kernel"].decay


def test_a_parameter_outside_every_part_is_an_error():
  with pytest.raises(EagleError, match=r"stage 'finetune': .* adapter/kernel"):
    stages.treatments(experiment("finetune"), ("adapter/kernel",))


def test_the_summary_counts_by_part():
  rows = stages.summary(SHAPES, stages.treatments(experiment("prealign"), PATHS))
  assert [dataclasses.astuple(row) for row in rows] == [
    ("vision/clip", 16, 16, 8, 1.0),
    ("vision/sam", 16, 16, 8, 1.0),
    ("projector", 8, 8, 8, 1.0),
    ("language", 8, 0, 0, 0.0),
  ]


def test_the_table_ends_with_the_totals():
  rows = stages.summary(SHAPES, stages.treatments(experiment("finetune"), PATHS))
  assert stages.table(rows).splitlines()[-1].split() == ["all", "48", "48", "32", "1"]
