"""The border between what users write and what the code takes."""

import dataclasses
import json

import pytest

from eagle_jax import config
from eagle_jax.errors import EagleError


def test_a_complete_experiment_survives_json():
  experiment = config.Experiment(name="x", model=config.Model(experts=("clip", "sam@demo")))
  assert config.from_mapping(json.loads(experiment.to_json())) == experiment


def test_defaults_fill_what_is_not_said():
  experiment = config.from_mapping({"name": "x", "model": {"experts": ["clip"]}})
  assert experiment.model.experts == ("clip",)
  assert experiment.optimizer == config.Optimizer()


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"name": "x", "optimizer": {"peek_lr": 1.0}}, r"'optimizer.peek_lr', did you mean 'peak_lr'"),
    ({"name": "x", "modle": {}}, r"'modle', did you mean 'model'"),
    ({"name": "x", "batch_size": "many"}, r"'batch_size' must be of type int, it is 'many'"),
    ({"name": "x", "batch_size": True}, r"'batch_size' must be of type int"),
    ({"name": "x", "model": 3}, r"'model' must hold fields, it is 3"),
    ({"stage": "finetune"}, r"name"),
  ],
)
def test_what_is_unknown_or_mistyped_is_named(values, message):
  with pytest.raises(EagleError, match=message):
    config.from_mapping(values)


def test_sources_are_read_from_what_a_recipe_or_the_command_line_says():
  given = {"sources": [{"records": "a.json", "weight": 2}], "lengths": (512, 2048)}
  data = config.from_mapping({"name": "x", "data": given}).data
  assert data.sources == (config.Source(records="a.json", weight=2.0),)
  with pytest.raises(EagleError, match=r"data\.sources.* must hold fields, it is 'a\.json'"):
    config.from_mapping({"name": "x", "data": {"sources": ["a.json"]}})


def test_an_integer_is_a_float_where_a_float_is_due():
  assert config.from_mapping({"name": "x", "epochs": 2}).epochs == 2.0


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"stage": "pretrian"}, "did you mean 'pretrain'"),
    ({"stage": "prealign"}, "prealign trains one expert"),
    ({"model": {"experts": []}}, "at least one expert"),
    ({"model": {"experts": ["clip", "clip"]}}, "must differ"),
    ({"batch_size": 6, "optimizer": {"accumulate": 4}}, "must divide batch_size, they are 4 and 6"),
    ({"optimizer": {"warmup_fraction": 2.0}}, r"warmup_fraction must lie in \[0, 1\]: 2.0"),
    ({"optimizer": {"moments_dtype": "float16"}}, "float32 or bfloat16, it is 'float16'"),
    ({"optimizer": {"gather_once": True}}, "needs micro-batches, optimizer.accumulate is 1"),
    ({"optimizer": {"spike_factor": 0.5}}, "0 or more than 1: 0.5"),
    ({"data": {"bad_budget": -1.0}}, "bad_budget"),
    ({"data": {"aspect": "stretch"}}, "pad or square"),
    ({"mesh": {"data": -1, "fsdp": -1}}, "at most one -1"),
    ({"model": {"grid_side": 1}}, "at least 2"),
    ({"checkpoints": {"every": 0}}, "must be positive"),
    ({"epochs": 0.0}, "epochs > 0"),
    ({"data": {"records": "a", "sources": [{"records": "b"}]}}, "give one or the other"),
    ({"data": {"sources": [{"records": ""}]}}, "each of data.sources needs records"),
    (
      {"data": {"sources": [{"records": "a", "weight": 1.0}, {"records": "b"}]}},
      r"all of them or none; they are \[1.0, 0.0\]",
    ),
    ({"data": {"sources": [{"records": "a", "weight": 1.0, "cap": 3}]}}, "weights or caps"),
    ({"data": {"sources": [{"records": "a", "weight": 1.0}], "group": "modality"}}, "have none"),
    ({"data": {"compat": "upstrem"}}, "did you mean 'upstream'"),
    ({"data": {"group": "length"}}, "must be '' or modality"),
    ({"data": {"lengths": [512, 1024]}}, r"must rise to data.max_length: \(512, 1024\), 2048"),
    ({"data": {"max_length": 0}}, "must be positive"),
    ({"data": {"prefetch": -1}}, "must not be negative: 0, -1"),
    ({"data": {"pack": True, "lengths": [2048]}, "steps": 1}, "no data.lengths, no data.group"),
    ({"data": {"pack": True}}, "data.pack needs steps"),
    ({"data": {"pack_length": 4096}}, "need data.pack: 4096, 0"),
    ({"data": {"pack": True, "pack_length": 99}, "steps": 1}, "pack_length 99 and max_length 2048"),
    ({"data": {"share": 2}}, "with data.pack: 2"),
  ],
)
def test_broken_rules_between_fields_are_told(change, message):
  with pytest.raises(EagleError, match=message):
    config.from_mapping({"name": "x", **change})


def test_all_broken_rules_are_told_at_once():
  with pytest.raises(EagleError, match=r"at least one expert.*epochs"):
    config.from_mapping({"name": "x", "model": {"experts": []}, "epochs": -1.0})


def test_fields_are_few():
  parts = (config.Experiment, config.Model, config.Data, config.Optimizer, config.Mesh)
  assert sum(len(dataclasses.fields(part)) for part in (*parts, config.Checkpoints)) <= 80
