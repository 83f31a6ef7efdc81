"""Which devices a verb runs on: this process's, emulated ones, or those of many processes."""

from __future__ import annotations

import argparse

from eagle_jax.cli.parser import positive
from eagle_jax.errors import EagleError

FLAG_HELP = "run on this many emulated CPU devices instead of the machine's own"


def add_flag(parser: argparse.ArgumentParser) -> None:
  """Adds `--devices` to a verb."""
  parser.add_argument("--devices", type=positive, metavar="N", help=FLAG_HELP)


def start(count: int | None) -> None:
  """Makes JAX see `count` CPU devices, or what is there if None. Before any computation."""
  if count is None:
    return
  import jax

  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", count)


def join() -> None:
  """Joins the processes of a pod, Slurm or Kubernetes job as JAX finds them.

  To be called before any computation.

  Raises:
    EagleError: if there is nothing to join.
  """
  import jax

  try:
    jax.distributed.initialize()
  except (ValueError, RuntimeError) as error:
    raise EagleError(f"--distributed finds no other processes: {error}") from None
