"""EAGLE-X4 with Llama-3-8B-Instruct.

The settings of Eagle-X4-8B-Plus where EAGLE's scripts give them; its data is Cambrian's.

  eagle-jax train --config=eagle_x4_llama3_8b:pretrain --workdir=runs/pretrain …
"""

from ml_collections import ConfigDict

from configs import base
from configs.eagle_x4_vicuna_7b import EXPERTS
from configs.eagle_x5_llama3_8b import STAGES


def get_config(arg: str = "finetune") -> ConfigDict:
  """The stage `arg`: prealign,expert=NAME or pretrain or finetune."""
  return base.recipe(
    arg, name="eagle_x4_llama3_8b", experts=EXPERTS, stages=STAGES, language="llama3_8b"
  )
