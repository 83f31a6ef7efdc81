"""`eagle-jax train`: one stage, from start or from where it was interrupted.

eagle-jax train --config=eagle_x5_vicuna_7b:pretrain --workdir=runs/pretrain \
  --config.data.records=train.json --config.data.images=images --config.data.tokenizer=t.model
"""

from __future__ import annotations

from collections.abc import Sequence

from eagle_jax.cli import config as cli_config
from eagle_jax.cli import devices, joining
from eagle_jax.cli.parser import Parser
from eagle_jax.errors import EagleError
from eagle_jax.train import stopping


def run(arguments: Sequence[str], summary: str) -> int:
  """Runs the verb; returns the exit code."""
  parser = Parser("train", summary)
  cli_config.add_flag(parser)
  parser.add_argument("--workdir", metavar="DIR", help="folder of the run; the same one resumes it")
  parser.add_argument(
    "--dry-run", action="store_true", help="print the complete config as JSON and stop"
  )
  joining.add_flags(parser)
  parser.add_argument(
    *("--profile-steps", "--profile_steps"),
    metavar="FROM:TO",
    help="trace updates for xprof, from FROM updates done to TO; see docs/running.md",
  )
  devices.add_flag(parser)
  options, overrides = parser.read(arguments, overrides=True)

  joining.place(options)  # a mistake in its flags is told first
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

  stop = stopping.Stop()
  stop.install()
  devices.start(options.devices)
  with joining.joined(options, loaded.experiment):
    from eagle_jax.train import loop, profiling

    profile = profiling.parse(options.profile_steps) if options.profile_steps else None
    result = loop.run(loaded.experiment, options.workdir, stop=stop, profile=profile)
  print(
    f"{loaded.experiment.name}: {result.steps} steps, loss {result.loss:.4f}, "
    f"{result.seconds:.0f} s; checkpoints and logs in {options.workdir}"
  )
  return 0
