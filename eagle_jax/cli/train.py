"""`eagle-jax train`: one stage, from start or from where it was interrupted.

eagle-jax train --config=eagle_x5_vicuna_7b:pretrain --workdir=runs/pretrain \
  --config.data.records=train.json --config.data.images=images --config.data.tokenizer=t.model
"""

from __future__ import annotations

from collections.abc import Sequence

from eagle_jax.cli import config as cli_config
from eagle_jax.cli import devices
from eagle_jax.cli.parser import Parser
from eagle_jax.errors import EagleError


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the verb; returns the exit code."""
  parser = Parser("train", summary)
  cli_config.add_flag(parser)
  parser.add_argument("--workdir", metavar="DIR", help="folder of the run; the same one resumes it")
  parser.add_argument(
    "--dry-run", action="store_true", help="print the complete config as JSON and stop"
  )
  parser.add_argument(
    "--distributed", action="store_true", help="this is one of the processes of a pod: join them"
  )
  devices.add_flag(parser)
  options, overrides = parser.read(arguments, overrides=True)

  loaded = cli_config.load(options.config, overrides)
  if options.dry_run:
    print(loaded.experiment.to_json())
    return 0
  if not options.workdir:
    raise EagleError("train needs --workdir=DIR, the folder that checkpoints and logs go to")
  if "://" in options.workdir:
    raise EagleError(
      f"--workdir must be a folder of a mounted file system, it is {options.workdir!r}: a "
      "checkpoint gets its name by one rename, which an object store does not have"
    )
  print(loaded.describe_changes(), flush=True)

  devices.start(options.devices)
  if options.distributed:
    devices.join()
  from eagle_jax.train import loop

  result = loop.run(loaded.experiment, options.workdir)
  print(
    f"{loaded.experiment.name}: {result.steps} steps, loss {result.loss:.4f}, "
    f"{result.seconds:.0f} s; checkpoints and logs in {options.workdir}"
  )
  return 0
