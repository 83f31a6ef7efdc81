"""An experiment and facts to plan with."""

import dataclasses

from eagle_jax.cli import config as cli_config
from eagle_jax.plan.collectives import Collective
from eagle_jax.plan.compiled import Facts

SMALL = ("--config.data.max_length=32", "--config.model.experts=clip@demo")


def experiment(stage="finetune", *overrides):
  """One expert, its projector and the demo's language model, as small as they come."""
  return cli_config.load(f"debug:{stage}", (*SMALL, *overrides)).experiment


def exchange(**fields):
  """A gather of 60 bytes in a loop of ten."""
  known = {
    "kind": "all-gather",
    "axes": ("fsdp",),
    "size": 4,
    "sent": 60,
    "times": 10,
    "looped": True,
    "asynchronous": True,
    "shape": "bf16[4,8]",
    "place": "forward language/layers",
    "parameter": True,
  }
  return Collective(**{**known, **fields})


def facts(**fields):
  """Of a program for four chips that works for a second on a v5e chip and sends little."""
  known = Facts(
    mesh={"data": 1, "fsdp": 4, "tensor": 1, "sequence": 1},
    seconds=12.0,
    held={"trained parameters": 10**9, "frozen parameters": 0, "optimizer": 2 * 10**9, "batch": 1},
    passing={"gradients": 10**9, "saved activations": 10**9, "work of a block": 10**9},
    memory={"arguments": 10**9, "outputs": 10**9, "temporaries": 10**9, "peak": 5 * 10**9},
    refused="",
    model_flops=4 * 150 * 10**12,
    device_flops=197 * 10**12,
    sent=(exchange(),),
    ideal={"fsdp": 600, "data": 0, "tensor": 0},
  )
  return dataclasses.replace(known, **fields)
