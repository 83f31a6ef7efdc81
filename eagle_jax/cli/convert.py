"""`eagle-jax convert`: foreign safetensors into a checkpoint that a stage can start from.

eagle-jax convert --config=eagle_x5_vicuna_7b --from=Eagle-X5-7B --to=checkpoints/released
eagle-jax convert --config=eagle_x5_vicuna_7b --what=language --from=vicuna --to=checkpoints/llm
"""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from eagle_jax.cli import config as cli_config
from eagle_jax.cli.parser import Parser, existing
from eagle_jax.errors import EagleError
from eagle_jax.registry import lookup

if typing.TYPE_CHECKING:
  import numpy as np

  from eagle_jax.convert.rules import Table
  from eagle_jax.model.eagle import Eagle

CARRIED_FILE = "carried.safetensors"
"""Tensors without a parameter here, kept beside the checkpoint for the way back."""


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the verb; returns the exit code."""
  parser = Parser("convert", summary)
  cli_config.add_flag(parser)
  parser.add_argument(
    "--from",
    dest="source",
    required=True,
    metavar="PATH",
    help="a .safetensors file, or a folder with model.safetensors.index.json",
  )
  parser.add_argument("--to", dest="target", required=True, metavar="DIR", help="a new folder")
  parser.add_argument(
    "--what",
    default="whole",
    metavar="PART",
    help="whole: a merged EAGLE checkpoint; language; or one expert of the config by name",
  )
  parser.add_argument("--dtype", default="bfloat16", help="dtype that parameters are stored in")
  options, overrides = parser.read(arguments, overrides=True)

  loaded = cli_config.load(options.config, overrides)
  existing(options.source, what="checkpoint")
  if os.path.exists(options.target):
    raise EagleError(f"--to={options.target} exists already; name a new folder")
  meta = {"kind": "converted", "from": os.path.abspath(options.source), "what": options.what}

  from eagle_jax.convert import engine
  from eagle_jax.convert.source import SafetensorsSource
  from eagle_jax.model import eagle as eagle_lib

  dtype = lookup(eagle_lib.DTYPES, options.dtype, what="dtype")
  table, abstract = part(eagle_lib.build(loaded.experiment.model), options.what)
  source = SafetensorsSource(options.source)
  plan = engine.plan(source, table, abstract)
  print(
    f"{len(plan.moves)} tensors to {len(plan.leaves)} parameters, "
    f"{len(plan.carried)} carried along, {len(plan.dropped)} not needed",
    flush=True,
  )
  params, carried = engine.fill(plan, source, dtype)
  save(options.target, engine.flatten(params), carried, meta=meta)
  print(f"saved to {options.target}")
  return 0


def part(eagle: Eagle, what: str) -> tuple[Table, Mapping[str, Any]]:
  """Returns the weight table and the abstract parameters of a part of the model.

  Args:
    eagle: the whole model.
    what: 'whole', 'language', or the name of one of its experts.

  Raises:
    EagleError: if there is no such part; names the nearest.
  """
  from eagle_jax.language.weights import llama
  from eagle_jax.model import eagle as eagle_lib
  from eagle_jax.model import weights
  from eagle_jax.vision import EXPERTS

  abstract = eagle_lib.abstract_params(eagle)
  experts = dict(eagle.size.experts)
  lookup({"whole": 0, "language": 0} | dict.fromkeys(experts, 0), what, what="part")
  if what == "whole":
    return weights.table(eagle.size), abstract
  if what == "language":
    table = llama.table(eagle.size.language.tied)
    return table.prefixed("", "language/"), {"language": abstract["language"]}
  table = EXPERTS[what].table(experts[what])
  return table.prefixed("", f"vision/{what}/"), {"vision": {what: abstract["vision"][what]}}


def save(
  folder: str,
  params: Mapping[str, np.ndarray],
  carried: Mapping[str, np.ndarray],
  *,
  meta: Mapping[str, Any],
) -> None:
  """Writes the checkpoint, and beside it what is carried along.

  Args:
    folder: must not exist yet.
    params: '/'-joined path → array.
    carried: source name → array.
    meta: where they come from.
  """
  from safetensors.numpy import save_file

  from eagle_jax import checkpoint

  checkpoint.save_params(folder, params, meta)
  if carried:
    save_file(dict(carried), os.path.join(folder, CARRIED_FILE))
