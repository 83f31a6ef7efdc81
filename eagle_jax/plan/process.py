"""Starts the compiler for TPU in a process of its own, so that the caller's JAX stays as it is."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import typing
from collections.abc import Mapping

from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.plan import slices

if typing.TYPE_CHECKING:
  from eagle_jax.plan.compiled import Facts

ENVIRONMENT: Mapping[str, str] = {
  "JAX_PLATFORMS": "cpu",  # nothing is to run on a TPU, not even where there is one
  "TPU_SKIP_MDS_QUERY": "1",  # there is no metadata server to ask
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two plans at a time
}
LAST_LINES = 20
"""Of what a compiler that died has printed."""


def demand_libtpu() -> None:
  """Checks that the compiler for TPU is installed.

  Raises:
    EagleError: if not; says how to install it.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise EagleError(
      "a plan is made by the TPU's own compiler, libtpu, which needs no TPU but is not "
      "installed here: pip install 'eagle_jax[plan]'"
    )


def measure(
  experiment: config.Experiment,
  wanted: slices.Slice,
  *,
  program: str = "",
  kept: str = "",
  limit: float | None = None,
) -> Facts:
  """Returns what the step of an experiment is when compiled for a slice.

  Args:
    experiment: what is to be trained.
    wanted: the slice.
    program: file that the compiled program's text is written to, if any.
    kept: file where the compiled program lies or is to lie, if any.
    limit: seconds after which the process is ended.

  Raises:
    EagleError: if libtpu is missing, the rows cannot be dealt out, or the compiler fails.
    subprocess.TimeoutExpired: if the limit is reached.
  """
  demand_libtpu()
  from eagle_jax.plan.compiled import Facts

  with tempfile.TemporaryDirectory(prefix="eagle-jax-plan-") as folder:
    asked, result = pathlib.Path(folder, "request.json"), pathlib.Path(folder, "result.json")
    asked.write_text(request(experiment, wanted, program=program, kept=kept))
    done = subprocess.run(
      [sys.executable, "-m", "eagle_jax.plan.compiled", str(asked), str(result)],
      env={**os.environ, **ENVIRONMENT, "TPU_ACCELERATOR_TYPE": _accelerator(wanted)},
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
      errors="replace",
      check=False,
      timeout=limit,
    )
    if done.returncode == EagleError.exit_code:
      raise EagleError(result.read_text())
    if done.returncode:
      told = "\n".join(done.stderr.strip().splitlines()[-LAST_LINES:])
      raise EagleError(f"the compiler for {wanted} ended with {done.returncode}:\n{told}")
    return Facts.from_json(result.read_text())


def request(
  experiment: config.Experiment, wanted: slices.Slice, *, program: str = "", kept: str = ""
) -> str:
  """Returns as JSON what the process is asked; arguments as `measure`."""
  return json.dumps(
    {
      "experiment": json.loads(experiment.to_json()),
      "slice": wanted.name,
      "count": wanted.count,
      "program": os.path.abspath(program) if program else "",
      "kept": os.path.abspath(kept) if kept else "",
    }
  )


def _accelerator(wanted: slices.Slice) -> str:
  """The slice's name as Google Cloud's API spells it."""
  return wanted.name.replace("v5e", "v5litepod")
