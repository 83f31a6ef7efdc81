"""`eagle-jax export`: a checkpoint back into the files that other programs read.

eagle-jax export --from=runs/finetune --to hf Eagle-mine
eagle-jax export --from=runs/pretrain --only=projector --to hf projector
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from eagle_jax.cli import config as cli_config
from eagle_jax.cli.parser import Parser, existing
from eagle_jax.errors import EagleError
from eagle_jax.registry import lookup

FORMATS = {"hf": "safetensors in shards of at most 5 GB and their index, as upstream saves them"}


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the verb; returns the exit code."""
  parser = Parser("export", summary)
  parser.add_argument(
    "--from", dest="source", required=True, metavar="DIR", help="a checkpoint or a run's folder"
  )
  parser.add_argument(
    "--to",
    dest="target",
    required=True,
    nargs=2,
    metavar=("FORMAT", "DIR"),
    help="; ".join(f"{name}: {what}" for name, what in FORMATS.items()) + "; and a new folder",
  )
  parser.add_argument(
    "--only",
    default="whole",
    metavar="PARTS",
    help="language, projector or an expert, also several with commas between; by default the whole",
  )
  cli_config.add_flag(parser, required=False)
  options, overrides = parser.read(arguments, overrides=True)
  form, target = options.target
  lookup(FORMATS, form, what="format")
  existing(options.source, what="checkpoint")
  if os.path.exists(target):
    raise EagleError(f"--to {form} {target} exists already; name a new folder")

  from eagle_jax import checkpoint
  from eagle_jax.interchange import outgoing
  from eagle_jax.train.progress import Progress

  meta = checkpoint.read_meta(options.source)
  experiment = cli_config.described(options.config, overrides, meta)
  bars: dict[int, Progress] = {}

  def show(done: int, total: int) -> None:
    """Draws the bar, which begins with the first tensor: only then their number is known."""
    bars.setdefault(total, Progress("exporting", total)).show(done)

  files = outgoing.export(
    options.source, target, what=options.only, experiment=experiment, on_done=show
  )
  print(f"saved {', '.join(files)} to {target}")
  return 0
