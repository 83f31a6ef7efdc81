"""The flags by which one process of many finds the others."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from eagle_jax import config
from eagle_jax.cli.parser import positive
from eagle_jax.errors import FATAL, EagleError, PreemptedError
from eagle_jax.sharding import processes

EXPLICIT = ("--coordinator", "--processes", "--process")


def add_flags(parser: argparse.ArgumentParser) -> None:
  """Adds `--distributed`, what replaces its detection, and its limits to a verb."""
  add = parser.add_argument_group("one process of several").add_argument
  add(
    "--distributed",
    action="store_true",
    help="join the others that a TPU slice, GKE, Slurm or Open MPI tells of",
  )
  add("--coordinator", metavar="HOST:PORT", help="where process 0 listens, instead of detection")
  add("--processes", type=positive, metavar="N", help="how many there are")
  add("--process", type=int, metavar="I", help="which this is, from 0")
  limits = {
    "--join-timeout": (processes.JOIN_TIMEOUT, "wait so long for the others"),
    "--heartbeat-timeout": (processes.HEARTBEAT_TIMEOUT, "leave when one is silent for so long"),
  }
  for flag, (default, text) in limits.items():
    add(flag, type=positive, default=default, metavar="SECONDS", help=f"{text} ({default})")


def place(options: argparse.Namespace) -> processes.Place | None:
  """Returns what the flags say of this process's place; None where detection must find it.

  Raises:
    EagleError: if one of the three flags lacks the others, or they do not fit.
  """
  given = dict(
    zip(EXPLICIT, (options.coordinator, options.processes, options.process), strict=True)
  )
  missing = [flag for flag, value in given.items() if value is None]
  if len(missing) == len(EXPLICIT):
    return None
  if missing:
    raise EagleError(f"{', '.join(EXPLICIT)} go together; missing: {', '.join(missing)}")
  host, _, port = options.coordinator.rpartition(":")
  if not host or not (port.isdecimal() and 0 < int(port) < 1 << 16):
    raise EagleError(f"--coordinator must be HOST:PORT, it is {options.coordinator!r}")
  if not 0 <= options.process < options.processes:
    raise EagleError(
      f"--process must be one of 0 to {options.processes - 1}, as --processes is "
      f"{options.processes}; it is {options.process}"
    )
  return processes.Place(options.coordinator, options.processes, options.process)


@contextlib.contextmanager
def joined(options: argparse.Namespace, experiment: config.Experiment) -> Iterator[None]:
  """Joins the other processes if the flags say that there are any, for the length of a block.

  To be entered before any computation. An error inside ends the process at once: JAX would
  first wait for the others, who wait for this one, then abort, and the exit code be lost.

  Raises:
    EagleError: if flags do not fit, or processes are missing or not alike.
  """
  named = place(options)
  if named is None and not options.distributed:
    yield
    return
  found = named or processes.detect(options.join_timeout)
  processes.join(
    found,
    {"--workdir": str(options.workdir), **fields(dataclasses.asdict(experiment))},
    timeout=options.join_timeout,
    heartbeat=options.heartbeat_timeout,
  )
  import jax

  try:
    yield
  except PreemptedError:
    raise  # all leave together
  except EagleError as error:
    _leave(f"process {found.index} ends: {error}", error.exit_code)
  except Exception as error:  # whatever it is
    told = f"process {found.index} ends:\n{traceback.format_exc()}"
    if isinstance(error, jax.errors.JaxRuntimeError):
      # It may be that another one is gone: then JAX names it soon, and aborts.
      print(f"eagle-jax: {told}", file=sys.stderr, flush=True)
      time.sleep(2 * options.heartbeat_timeout)
      told = f"process {found.index} ends, and no other is missing"
    _leave(told, 1)


def _leave(told: str, code: int) -> NoReturn:
  """Ends the process without a word to the others."""
  print(f"eagle-jax: {told}", file=sys.stderr)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(FATAL if code == EagleError.exit_code else code)


def fields(values: Mapping[str, Any], place: str = "config.") -> dict[str, str]:
  """Returns dotted field → value as JSON; a list is one value."""
  found: dict[str, str] = {}
  for name, value in values.items():
    if isinstance(value, Mapping):
      found |= fields(value, f"{place}{name}.")
    else:
      found[place + name] = json.dumps(value, default=str)
  return found
