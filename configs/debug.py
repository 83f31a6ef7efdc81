"""Tiny everything, random weights, a few steps on a CPU: what tests and first tries use.

Reproduces nothing. The records are whatever you have:

  eagle-jax train --config=debug:finetune --workdir=/tmp/debug --devices=8 \
    --config.data.records=records.json --config.data.images=images --config.data.tokenizer=…
"""

from ml_collections import ConfigDict

from configs import base
from configs.eagle_x5_vicuna_7b import EXPERTS

TINY: base.Fields = {
  "steps": 4,
  "batch_size": 8,
  "log_every": 1,
  "init_missing": True,
  "model.image_size": 64,
  "model.grid_side": 2,
  "model.dtype": "float32",
  "model.frozen_dtype": "float32",
  "data.max_length": 128,
  "checkpoints.every": 2,
}

STAGES: dict[str, base.Fields] = {
  "prealign": TINY,
  "pretrain": {**TINY, "data.template": "plain", "data.aspect": "square"},
  "finetune": TINY,
}


def get_config(arg: str = "finetune") -> ConfigDict:
  """The stage `arg`: prealign,expert=NAME or pretrain or finetune."""
  config = base.recipe(arg, name="debug", experts=EXPERTS, stages=STAGES)
  config.model.experts = tuple(f"{expert}@demo" for expert in config.model.experts)
  config.model.language = "demo"
  return config
