"""EAGLE-X5 with Vicuna-7B: five vision experts, three stages.

Reproduces Eagle-X5-7B: pretrain and finetune have the settings of EAGLE's released
scripts. No script of prealign was released; arXiv 2408.15998 says that experts learn at
the rate of finetune and leaves batch size and epochs open. It runs once per expert:

  eagle-jax train --config=eagle_x5_vicuna_7b:prealign,expert=sam --workdir=runs/sam \
    --config.start_from=checkpoints/released --config.data.records=… --config.data.images=…
  eagle-jax train --config=eagle_x5_vicuna_7b:pretrain --workdir=runs/pretrain \
    --config.start_from='vision/sam/.*=runs/sam,checkpoints/released' …
  eagle-jax train --config=eagle_x5_vicuna_7b:finetune --workdir=runs/finetune \
    --config.start_from=runs/pretrain …
"""

from ml_collections import ConfigDict

from configs import base

EXPERTS = ("clip", "convnext", "sam", "eva02", "pix2struct")

STAGES: dict[str, base.Fields] = {
  "prealign": {"batch_size": 128, "optimizer.peak_lr": 2e-5, "checkpoints.keep": 1},
  "pretrain": {
    "batch_size": 256,
    "optimizer.peak_lr": 1e-3,
    "data.template": "plain",
    "data.aspect": "square",
    "checkpoints.every": 24000,
    "checkpoints.keep": 1,
  },
  "finetune": {"batch_size": 128, "optimizer.peak_lr": 2e-5, "checkpoints.keep": 1},
}


def get_config(arg: str = "finetune") -> ConfigDict:
  """The stage `arg`: prealign,expert=NAME or pretrain or finetune."""
  return base.recipe(arg, name="eagle_x5_vicuna_7b", experts=EXPERTS, stages=STAGES)
