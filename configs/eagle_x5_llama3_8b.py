"""EAGLE-X5 with Llama-3-8B-Instruct.

EAGLE released scripts for this language model and no checkpoint of it on its own data.

  eagle-jax train --config=eagle_x5_llama3_8b:pretrain --workdir=runs/pretrain …
"""

from ml_collections import ConfigDict

from configs import base
from configs.eagle_x5_vicuna_7b import EXPERTS
from configs.eagle_x5_vicuna_7b import STAGES as VICUNA

STAGES: dict[str, base.Fields] = VICUNA | {
  "finetune": {**VICUNA["finetune"], "data.template": "llama3"}
}


def get_config(arg: str = "finetune") -> ConfigDict:
  """The stage `arg`: prealign,expert=NAME or pretrain or finetune."""
  return base.recipe(
    arg, name="eagle_x5_llama3_8b", experts=EXPERTS, stages=STAGES, language="llama3_8b"
  )
