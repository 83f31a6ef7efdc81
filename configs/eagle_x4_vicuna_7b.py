"""EAGLE-X4 with Vicuna-7B: the flagship without SAM.

Reproduces Eagle-X4-7B; source: EAGLE, the scripts *-eagle-x4-vicuna-7b*.sh.

  eagle-jax train --config=eagle_x4_vicuna_7b:pretrain --workdir=runs/x4 …
"""

from ml_collections import ConfigDict

from configs import base, eagle_x5_vicuna_7b

EXPERTS = tuple(expert for expert in eagle_x5_vicuna_7b.EXPERTS if expert != "sam")


def get_config(arg: str = "finetune") -> ConfigDict:
  """The stage `arg`: prealign,expert=NAME or pretrain or finetune."""
  stages = eagle_x5_vicuna_7b.STAGES
  return base.recipe(arg, name="eagle_x4_vicuna_7b", experts=EXPERTS, stages=stages)
