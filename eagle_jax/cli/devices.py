"""Which devices a verb runs on: the machine's own or emulated ones."""

from __future__ import annotations

import argparse
import os

from eagle_jax.cli.parser import positive

FLAG_HELP = "run on this many emulated CPU devices instead of the machine's own"


def add_flag(parser: argparse.ArgumentParser) -> None:
  """Adds `--devices` to a verb."""
  parser.add_argument("--devices", type=positive, metavar="N", help=FLAG_HELP)


EMULATION_FLAGS = (
  # Independent collectives of one device run one after the other: each that waits holds a
  # thread, and with as few threads as devices two orders wait for each other for ever.
  "--xla_cpu_enable_concurrency_optimized_scheduler=false",
  # XLA gives up after 40 s; devices that share a busy machine may need longer to meet.
  "--xla_cpu_collective_call_warn_stuck_timeout_seconds=120",
  "--xla_cpu_collective_call_terminate_timeout_seconds=600",
)
EMULATION_THREADS = 64
"""Threads of XLA's pool, against the same waiting; two cores alone give too few."""


def prepare_emulation() -> None:
  """Sets what XLA reads from the environment once, when it starts: before any computation."""
  os.environ.setdefault("NPROC", str(EMULATION_THREADS))
  given = os.environ.get("XLA_FLAGS", "")
  missing = [flag for flag in EMULATION_FLAGS if flag.split("=")[0] not in given]
  os.environ["XLA_FLAGS"] = " ".join([given, *missing]).strip()


def start(count: int | None) -> None:
  """Makes JAX see `count` CPU devices, or what is there if None. Before any computation."""
  if count is None:
    return
  prepare_emulation()
  import jax

  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", count)
