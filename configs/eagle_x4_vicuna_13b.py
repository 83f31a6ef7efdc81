"""EAGLE-X4 with Vicuna-13B.

Reproduces Eagle-X4-13B; settings of EAGLE's released scripts for it.

  eagle-jax train --config=eagle_x4_vicuna_13b:pretrain --workdir=runs/pretrain …
"""

from ml_collections import ConfigDict

from configs import base
from configs.eagle_x4_vicuna_7b import EXPERTS
from configs.eagle_x5_vicuna_7b import STAGES


def get_config(arg: str = "finetune") -> ConfigDict:
  """The stage `arg`: prealign,expert=NAME or pretrain or finetune."""
  return base.recipe(
    arg, name="eagle_x4_vicuna_13b", experts=EXPERTS, stages=STAGES, language="vicuna_13b"
  )
