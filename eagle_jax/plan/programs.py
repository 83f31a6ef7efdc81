"""Compiles a step, unless the very same one has been compiled before and was kept."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import time
import typing
from collections.abc import Mapping
from typing import Any

import jax

from eagle_jax.sharding import compiler

if typing.TYPE_CHECKING:
  from eagle_jax.plan.abstract import Stage

FULL = re.compile(r"Used [\d.]+\w? of [\d.]+\w? hbm[^\n]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """A compiled step, or why there is none.

  Attributes:
    digest: of the step as handed to the compiler, the compiler's version and the devices.
    text: of the compiled program; empty where it was refused.
    memory: what the compiler reserves: arguments, outputs, aliased, temporaries, peak.
    refused: what the compiler says where the program does not fit.
    seconds: that tracing and compiling took.
  """

  digest: str
  text: str
  memory: Mapping[str, int]
  refused: str
  seconds: float


def versions() -> dict[str, str]:
  """Returns the version of everything that decides what is compiled, "" of what is missing."""
  found = {}
  for name in ("jax", "jaxlib", "libtpu", "flax", "optax"):
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      found[name] = ""
  return found


def compiled(stage: Stage, kept: str = "") -> Program:
  """Returns the program of a stage.

  Args:
    stage: on a mesh.
    kept: file in which a program lies or is to lie, if any; used if it is of the same step.
  """
  from eagle_jax.train import step

  begun = time.monotonic()
  lowered = step.lower_step(stage.step, stage.state, stage.batch)
  digest = _digest(lowered.as_text(), stage)
  if kept and (found := _load(pathlib.Path(kept))) and found.digest == digest:
    return found
  text, memory, refused = _compile(lowered)
  program = Program(
    digest=digest, text=text, memory=memory, refused=refused, seconds=time.monotonic() - begun
  )
  if kept:
    _save(pathlib.Path(kept), program)
  return program


def _digest(text: str, stage: Stage) -> str:
  """Identifies a program before it is compiled."""
  devices = stage.mesh.devices.flat
  first, last = devices[0], devices[len(stage.mesh.devices.flat) - 1]
  options = compiler.options(stage.mesh)
  said = json.dumps([text, versions(), options, first.device_kind, str(first), str(last)])
  return hashlib.sha256(said.encode()).hexdigest()


def _compile(lowered: Any) -> tuple[str, dict[str, int], str]:
  """Returns the program's text and its memory, or why the compiler refused it."""
  try:
    made = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    message = str(error)
    lacking = "RESOURCE_EXHAUSTED" in message or "Ran out of memory" in message
    if not lacking or "memory space vmem" in message:  # a kernel too large is no lack of HBM
      raise
    found = FULL.search(message)
    return "", {}, found[0] if found else message.splitlines()[0]
  stats = made.memory_analysis()
  memory = {
    "arguments": stats.argument_size_in_bytes,
    "outputs": stats.output_size_in_bytes,
    "aliased": stats.alias_size_in_bytes,
    "temporaries": stats.temp_size_in_bytes,
    "program": stats.generated_code_size_in_bytes,
  }
  memory["peak"] = getattr(stats, "peak_memory_in_bytes", 0) or (
    memory["arguments"] + memory["outputs"] - memory["aliased"] + memory["temporaries"]
  )
  return made.as_text(), memory, ""


def _load(path: pathlib.Path) -> Program | None:
  """Reads what `_save` wrote; None where nothing readable is there."""
  try:
    return Program(**json.loads(gzip.decompress(path.read_bytes())))
  except (OSError, EOFError, ValueError, TypeError):
    return None


def _save(path: pathlib.Path, program: Program) -> None:
  """Writes a program so that either all of it is there or nothing."""
  path.parent.mkdir(parents=True, exist_ok=True)
  unfinished = path.with_suffix(".tmp")
  unfinished.write_bytes(gzip.compress(json.dumps(dataclasses.asdict(program)).encode(), 6))
  os.replace(unfinished, path)
