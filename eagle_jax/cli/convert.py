"""`eagle-jax convert`: foreign weights into a checkpoint that a stage can start from.

eagle-jax convert --from=Eagle-X5-7B --to=checkpoints/released
eagle-jax convert --config=eagle_x5_vicuna_7b --only=language --from=vicuna --to=checkpoints/llm
"""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping, Sequence

from eagle_jax.cli import config as cli_config
from eagle_jax.cli.parser import Parser, existing
from eagle_jax.errors import EagleError
from eagle_jax.registry import lookup

if typing.TYPE_CHECKING:
  from numpy.typing import DTypeLike

DTYPES: Mapping[str, DTypeLike | None] = {"keep": None, "bf16": "bfloat16", "fp32": "float32"}
"""Values of `--dtype`."""


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the verb; returns the exit code."""
  parser = Parser("convert", summary)
  cli_config.add_flag(parser, required=False)
  parser.add_argument(
    "--from",
    dest="source",
    required=True,
    metavar="PATH",
    help="a .safetensors, .bin, .pth, .gguf or .npz file, or a folder as Hugging Face lays it out",
  )
  parser.add_argument("--to", dest="target", required=True, metavar="DIR", help="a new folder")
  parser.add_argument(
    "--only",
    default="whole",
    metavar="PARTS",
    help="language, projector or an expert of the config, also several with commas between; "
    "by default the whole of a merged EAGLE checkpoint",
  )
  parser.add_argument(
    "--dtype", default="keep", help="dtype that parameters are stored in: keep, bf16 or fp32"
  )
  options, overrides = parser.read(arguments, overrides=True)
  existing(options.source, what="checkpoint")
  if os.path.exists(options.target):
    raise EagleError(f"--to={options.target} exists already; name a new folder")
  dtype = lookup(DTYPES, options.dtype, what="dtype")
  given = cli_config.optional(options.config, overrides)

  from eagle_jax.interchange import incoming
  from eagle_jax.train.progress import Progress

  conversion = incoming.plan(options.source, options.only, given)
  plan = conversion.plan
  print(
    f"{len(plan.moves)} tensors in the names of {conversion.scheme.name!r} "
    f"to {len(plan.leaves)} parameters, "
    f"{len(plan.carried)} carried along, {len(plan.dropped)} not needed",
    *(f"not in there, training draws it: {path}, {why}" for path, why in conversion.fresh.items()),
    sep="\n",
    flush=True,
  )
  bar = Progress("converting", len(plan.moves))
  incoming.save(conversion, options.target, dtype=dtype, on_done=lambda done, _: bar.show(done))
  print(f"saved to {options.target}")
  return 0
