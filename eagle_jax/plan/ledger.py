"""A folder of plans, one JSON file per cell: what is done stays done until its program changes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Mapping
from typing import Any

import eagle_jax
from eagle_jax import config
from eagle_jax.errors import EagleError
from eagle_jax.plan import process, slices
from eagle_jax.plan.cells import Cell
from eagle_jax.plan.columns import fits
from eagle_jax.plan.compiled import Facts
from eagle_jax.plan.programs import versions

FITS, TOO_LARGE, FAILED, TIMEOUT = "fits", "does not fit", "failed", "timeout"
PROGRAMS = "programs"
"""Folder, within that of the plans, of the compiled programs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """What is known of a cell.

  Attributes:
    name: of the cell.
    key: of config, slice, versions and source: the plan is of the program these make.
    experiment: the config, its mesh included.
    versions: of what compiled it.
    outcome: FITS, TOO_LARGE, FAILED or TIMEOUT.
    reason: why it failed, or what the compiler said.
    seconds: the cell took, of this machine's clock.
    facts: of the program; None where it failed.
  """

  name: str
  key: str
  experiment: Mapping[str, Any]
  versions: Mapping[str, str]
  outcome: str
  reason: str
  seconds: float
  facts: Facts | None

  @property
  def answered(self) -> bool:
    """Whether the compiler has answered."""
    return self.outcome in (FITS, TOO_LARGE)


def source_digest() -> str:
  """Returns a digest of this package's source, which decides what is compiled and how read."""
  root = pathlib.Path(eagle_jax.__file__).parent
  found = hashlib.sha256()
  for path in sorted(root.rglob("*.py")):
    if path.relative_to(root).parts[0] not in ("cli", "demo", "interchange", "infer", "convert"):
      found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
  return found.hexdigest()


def key(experiment: config.Experiment, wanted: slices.Slice, source: str) -> str:
  """Returns what tells whether a plan is still of the program that would be compiled now."""
  said = [experiment.to_json(), str(wanted), versions(), source]
  return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def read(folder: pathlib.Path, cell: Cell) -> Entry | None:
  """Returns what is known of a cell; None where there is no file, or one of another version."""
  try:
    values = json.loads((folder / f"{cell.file}.json").read_text())
    facts = values.pop("facts")
    config.from_mapping(values["experiment"])
    return Entry(facts=Facts.from_json(json.dumps(facts)) if facts else None, **values)
  except (OSError, ValueError, TypeError, KeyError, EagleError):
    return None


def write(folder: pathlib.Path, cell: Cell, entry: Entry) -> None:
  """Writes what is known of a cell, all of it or nothing."""
  folder.mkdir(parents=True, exist_ok=True)
  unfinished = folder / f"{cell.file}.tmp"
  unfinished.write_text(json.dumps(dataclasses.asdict(entry), indent=1) + "\n")
  os.replace(unfinished, folder / f"{cell.file}.json")


def due(entry: Entry | None, wanted: str, *, retry: bool) -> bool:
  """Whether a cell is to be compiled: unknown, of another program, or failed and asked for.

  Args:
    entry: what is known.
    wanted: its key now.
    retry: whether failures are to be tried again.
  """
  if entry is None or entry.key != wanted:
    return True
  return retry and not entry.answered


def compute(
  folder: pathlib.Path,
  cell: Cell,
  experiment: config.Experiment,
  *,
  key: str,
  limit: float,
) -> Entry:
  """Compiles a cell in a process of its own and writes down what came of it.

  A step that is the same as the one compiled before is only read again.

  Args:
    folder: of the plans.
    cell: which.
    experiment: its config, mesh included.
    key: of it.
    limit: seconds after which it is given up.
  """
  begun = time.monotonic()
  facts, outcome, reason = None, FAILED, ""
  kept = folder / PROGRAMS / f"{cell.file}.gz"
  try:
    wanted = slices.parse(cell.slice)
    facts = process.measure(experiment, wanted, kept=str(kept), limit=limit)
    outcome, reason = (FITS if fits(wanted, facts) else TOO_LARGE), facts.refused
  except subprocess.TimeoutExpired:
    outcome, reason = TIMEOUT, f"not done after {limit:g} s"
  except EagleError as error:
    reason = str(error)
  entry = Entry(
    name=cell.name,
    key=key,
    experiment=json.loads(experiment.to_json()),
    versions=versions(),
    outcome=outcome,
    reason=reason,
    seconds=time.monotonic() - begun,
    facts=facts,
  )
  write(folder, cell, entry)
  return entry
