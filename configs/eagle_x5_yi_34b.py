"""EAGLE-X5 with Nous-Hermes-2-Yi-34B.

Reproduces Eagle-X5-34B-Plus, trained on Cambrian's data: larger batches, a lower rate in
pretrain. Source: EAGLE, pretrain-eagle-x5-yi34b-cambrian.sh and its finetune counterpart.

  eagle-jax train --config=eagle_x5_yi_34b:pretrain --workdir=runs/pretrain …
"""

from ml_collections import ConfigDict

from configs import base
from configs.eagle_x5_vicuna_7b import EXPERTS
from configs.eagle_x5_vicuna_7b import STAGES as VICUNA

TEMPLATE = "yi_34b_chatml_direct"

STAGES: dict[str, base.Fields] = VICUNA | {
  "pretrain": {**VICUNA["pretrain"], "batch_size": 1024, "optimizer.peak_lr": 2e-4},
  "finetune": {**VICUNA["finetune"], "batch_size": 1024, "data.template": TEMPLATE},
}


def get_config(arg: str = "finetune") -> ConfigDict:
  """The stage `arg`: prealign,expert=NAME or pretrain or finetune."""
  return base.recipe(arg, name="eagle_x5_yi_34b", experts=EXPERTS, stages=STAGES, language="yi_34b")
