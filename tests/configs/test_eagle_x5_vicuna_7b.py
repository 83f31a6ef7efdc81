"""Every recipe of the package, held to the settings and the sizes of the original."""

import functools
import math

import pytest

from eagle_jax.cli import config as cli_config
from eagle_jax.config import STAGES
from eagle_jax.convert.engine import flatten
from eagle_jax.language import LANGUAGE_MODELS
from eagle_jax.model import eagle as eagle_lib
from eagle_jax.train import stages

X5 = ("clip", "convnext", "sam", "eva02", "pix2struct")
X4 = ("clip", "convnext", "eva02", "pix2struct")
LANGUAGES = {
  "vicuna_7b": 6.738e9,
  "vicuna_13b": 13.016e9,
  "llama3_8b": 8.030e9,
  "yi_34b": 34.389e9,
}
RELEASED = sorted(set(cli_config.recipes()) - {"debug"})

# Tensors that merged checkpoints hold and no output reads: CLIP's last norm, ConvNeXt's
# head of 1000 classes. They are carried beside the parameters, and the totals of the
# original count them.
CARRIED = {"clip": 2 * 1024, "convnext": 2 * 3072 + 1000 * (3072 + 1)}
EXPERT_TOTALS = {  # millions
  "clip": 303.507,
  "convnext": 846.471,
  "sam": 307.688,
  "eva02": 303.389,
  "pix2struct": 512.812,
}


@functools.cache
def sizes(recipe: str) -> dict[str, int]:
  """Parameters by path of a recipe's model at full size; no array is made."""
  model = cli_config.load(recipe).experiment.model
  leaves = flatten(eagle_lib.abstract_params(eagle_lib.build(model)))
  return {path: math.prod(leaf.shape) for path, leaf in leaves.items()}


def under(recipe: str, prefix: str) -> int:
  return sum(n for path, n in sizes(recipe).items() if path.startswith(prefix))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("recipe", sorted(cli_config.recipes()))
def test_every_stage_of_every_recipe_loads(recipe, stage):
  experiment = cli_config.load(f"{recipe}:{stage}").experiment
  assert experiment.stage == stage
  assert experiment.name.startswith(f"{recipe}-{stage}")


@pytest.mark.parametrize("recipe", sorted(cli_config.recipes()))
def test_every_recipe_builds_abstractly(recipe):
  assert {path.split("/")[0] for path in sizes(recipe)} == {"vision", "projector", "language"}
  experts = cli_config.load(recipe).experiment.model.experts
  names = {path.split("/")[1] for path in sizes(recipe) if path.startswith("vision/")}
  assert names == {expert.partition("@")[0] for expert in experts}


@pytest.mark.parametrize("recipe", RELEASED)
def test_settings_are_those_of_the_original(recipe):
  """Source: EAGLE's scripts, as tabled in the specification of the original."""
  yi = "yi" in recipe
  for stage, lr, batch in (
    ("pretrain", 2e-4 if yi else 1e-3, 1024 if yi else 256),
    ("finetune", 2e-5, 1024 if yi else 128),
  ):
    experiment = cli_config.load(f"{recipe}:{stage}").experiment
    o, d = experiment.optimizer, experiment.data
    assert (o.peak_lr, experiment.batch_size) == (lr, batch)
    assert (o.warmup_fraction, o.weight_decay, o.clip_norm) == (0.03, 0.0, 0.0)
    assert (o.b1, o.b2, o.eps, experiment.epochs) == (0.9, 0.999, 1e-8, 1.0)
    assert d.max_length == 2048
    assert d.aspect == ("square" if stage == "pretrain" else "pad")
    assert experiment.model.experts == (X4 if "_x4_" in recipe else X5)
    assert recipe.endswith(experiment.model.language)


@pytest.mark.parametrize(
  ("recipe", "template"),
  [
    ("eagle_x5_vicuna_7b", "v1"),
    ("eagle_x4_vicuna_13b", "v1"),
    ("eagle_x5_llama3_8b", "llama3"),
    ("eagle_x4_llama3_8b", "llama3"),
    ("eagle_x5_yi_34b", "yi_34b_chatml_direct"),
  ],
)
def test_templates(recipe, template):
  assert cli_config.load(f"{recipe}:finetune").experiment.data.template == template
  assert cli_config.load(f"{recipe}:pretrain").experiment.data.template == "plain"
  assert cli_config.load(f"{recipe}:prealign").experiment.data.template == "v1"


@pytest.mark.parametrize("expert", X5)
def test_each_expert_has_the_parameters_of_the_original(expert):
  total = under("eagle_x5_vicuna_7b", f"vision/{expert}/") + CARRIED.get(expert, 0)
  assert round(total / 1e6, 3) == EXPERT_TOTALS[expert]


@pytest.mark.parametrize(
  ("recipe", "millions"), [("eagle_x5_vicuna_7b", 2273.867), ("eagle_x4_vicuna_7b", 1966.179)]
)
def test_the_mixtures_have_the_parameters_of_the_original(recipe, millions):
  total = under(recipe, "vision/") + sum(CARRIED.values())
  assert round(total / 1e6, 3) == millions


@pytest.mark.parametrize("language", LANGUAGES)
def test_language_models_have_the_parameters_of_the_original(language):
  size = LANGUAGE_MODELS[language]
  total = under(f"eagle_x5_{language}", "language/")
  rows = 2 * size.width * (language == "llama3_8b")  # the padding token's, in and out
  assert (total - rows) / LANGUAGES[language] == pytest.approx(1, abs=1e-3)


def test_a_thirteen_billion_head_changes_nothing_in_vision():
  assert under("eagle_x5_vicuna_13b", "vision/") == under("eagle_x5_vicuna_7b", "vision/")


@pytest.mark.parametrize(
  ("recipe", "channels"), [("eagle_x5_vicuna_7b", 7680), ("eagle_x4_vicuna_7b", 6656)]
)
def test_the_projector_reads_all_channels(recipe, channels):
  assert sizes(recipe)["projector/layer_0/kernel"] == channels * 4096


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_treats_every_parameter_of_the_flagship(stage):
  experiment = cli_config.load(f"eagle_x5_vicuna_7b:{stage}").experiment
  paths = list(sizes("eagle_x5_vicuna_7b"))
  chosen = stages.treatments(experiment, paths)
  trained = {path.split("/")[0] for path, treatment in chosen.items() if treatment.trained}
  expected = {
    "prealign": {"vision", "projector"},
    "pretrain": {"projector"},
    "finetune": {"vision", "projector", "language"},
  }
  assert set(chosen) == set(paths)
  assert trained == expected[stage]
