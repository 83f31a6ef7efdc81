import dataclasses

import pytest

from configs import base
from eagle_jax.config import Experiment, from_mapping
from eagle_jax.errors import EagleError

STAGES = {
  "prealign": {"optimizer.peak_lr": 1.0},
  "pretrain": {"optimizer.peak_lr": 2.0, "data.aspect": "square"},
  "finetune": {"optimizer.peak_lr": 3.0},
}


def recipe(arg, **changes):
  return base.recipe(arg, name="r", experts=("clip", "sam"), stages=STAGES, **changes)


def test_defaults_are_those_of_the_dataclasses():
  assert from_mapping(base.defaults("x").to_dict()) == Experiment(name="x")


def test_every_field_is_there_to_be_overridden():
  values = base.defaults("x")
  for field in dataclasses.fields(Experiment):
    assert field.name in values


@pytest.mark.parametrize(
  ("arg", "parsed"),
  [
    ("pretrain", ("pretrain", {})),
    ("prealign,expert=sam", ("prealign", {"expert": "sam"})),
    ("finetune,a=1,b=x=y", ("finetune", {"a": "1", "b": "x=y"})),
  ],
)
def test_arguments_are_a_stage_and_options(arg, parsed):
  assert base.parse(arg) == parsed


@pytest.mark.parametrize("arg", ["", "fine", "prealign,sam", "prealign,expert="])
def test_arguments_of_another_form_are_refused(arg):
  with pytest.raises(EagleError):
    base.parse(arg)


def test_a_stage_sets_its_fields_over_the_defaults():
  config = recipe("pretrain")
  assert (config.optimizer.peak_lr, config.data.aspect, config.stage) == (2.0, "square", "pretrain")
  assert config.optimizer.b2 == Experiment(name="x").optimizer.b2
  assert config.name == "r-pretrain"


def test_prealign_trains_one_expert_against_vicuna_7b():
  config = recipe("prealign,expert=sam", language="vicuna_13b")
  assert config.model.experts == ("sam",)
  assert config.model.language == "vicuna_7b"
  assert config.name == "r-prealign-sam"


def test_the_other_stages_use_all_experts_and_the_language_model_named():
  config = recipe("finetune", language="vicuna_13b")
  assert config.model.experts == ("clip", "sam")
  assert config.model.language == "vicuna_13b"


@pytest.mark.parametrize("arg", ["prealign,expert=eva02", "prealign,side=3", "finetune,expert=sam"])
def test_an_option_that_means_nothing_is_refused(arg):
  with pytest.raises(EagleError):
    recipe(arg)
