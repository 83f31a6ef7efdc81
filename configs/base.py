"""What every recipe starts from: the defaults of `eagle_jax.config`, field by field."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from eagle_jax.config import STAGES, Experiment
from eagle_jax.errors import EagleError
from eagle_jax.registry import lookup

Fields = Mapping[str, Any]
"""Dotted field → value, as in {"optimizer.peak_lr": 1e-3}."""


def defaults(name: str) -> ConfigDict:
  """Every field of an experiment at its default."""
  return ConfigDict(dataclasses.asdict(Experiment(name=name)))


def parse(arg: str) -> tuple[str, dict[str, str]]:
  """Splits a recipe's argument `STAGE[,key=value…]` into the stage and its options.

  Raises:
    EagleError: if the stage is unknown or an option is no `key=value`.
  """
  stage, *rest = arg.split(",")
  lookup({stage: stage for stage in STAGES}, stage, what="stage")
  options = {}
  for text in rest:
    key, separator, value = text.partition("=")
    if not separator or not value:
      raise EagleError(f"config argument {arg!r}: options are key=value, one is {text!r}")
    options[key] = value
  return stage, options


def recipe(
  arg: str,
  *,
  name: str,
  experts: tuple[str, ...],
  stages: Mapping[str, Fields],
  language: str = "vicuna_7b",
) -> ConfigDict:
  """The config of one stage.

  Pre-alignment takes the option `expert=NAME`: which of the experts it trains.

  Args:
    arg: `STAGE[,key=value…]`, what follows the colon of `--config=NAME:ARG`.
    name: of the recipe; the experiment is called NAME-STAGE.
    experts: in channel order.
    stages: for each stage, the fields it sets.
    language: of pretrain and finetune. Pre-alignment speaks to Vicuna-7B whatever it is,
      as its authors did: an expert is aligned once and serves every language model.

  Raises:
    EagleError: for an unknown stage, expert or option.
  """
  stage, options = parse(arg)
  label = f"{name}-{stage}"
  if stage == "prealign":
    chosen = options.pop("expert", experts[0])
    experts = (lookup({expert: expert for expert in experts}, chosen, what="expert"),)
    label = f"{label}-{chosen}"
  if options:
    known = "expert=NAME" if stage == "prealign" else "none"
    raise EagleError(f"{name}:{stage} has no option {', '.join(options)}; it takes {known}")
  config = defaults(label)
  config.stage = stage
  config.model.experts = experts
  config.update_from_flattened_dict(dict(stages[stage]))
  config.model.language = "vicuna_7b" if stage == "prealign" else language
  return config
