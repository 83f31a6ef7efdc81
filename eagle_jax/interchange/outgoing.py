"""A checkpoint back into the files that other programs read."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.numpy

from eagle_jax import checkpoint, config
from eagle_jax.convert import engine, shards
from eagle_jax.convert.rules import Carry, Table
from eagle_jax.errors import EagleError
from eagle_jax.interchange import parts, upstream
from eagle_jax.interchange.incoming import CARRIED_FILE, COMPANIONS_FOLDER, CONFIG_FILE
from eagle_jax.model import eagle as eagle_lib


def export(
  source: str,
  target: str,
  *,
  what: str,
  experiment: config.Experiment,
  on_done: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
  """Writes a part of a checkpoint as upstream would: safetensors, index, config, tokenizer.

  Args:
    source: a checkpoint or a run's folder.
    target: folder to make.
    what: 'whole', 'language', 'projector' or the name of an expert.
    experiment: around the model that the checkpoint is of.
    on_done: called after each tensor with how many are done, and of how many.

  Returns:
    The names of the files.

  Raises:
    EagleError: if the folder exists, or the checkpoint lacks a parameter of the part.
  """
  folder = pathlib.Path(target)
  if folder.exists():
    raise EagleError(f"{target} exists already; nothing is overwritten, name a new folder")
  outgoing = tensors(source, what, experiment, to_export=True)
  partial = folder.with_name(folder.name + ".partial")
  shutil.rmtree(partial, ignore_errors=True)
  partial.mkdir(parents=True)
  files = shards.write(partial, outgoing, on_done=lambda done: on_done(done, len(outgoing)))
  if what in (parts.WHOLE, parts.LANGUAGE):
    size, dtype = eagle_lib.build(experiment.model).size, outgoing[0].entry.dtype.name
    config_json = (
      upstream.write(experiment.model, size, dtype=dtype)
      if what == parts.WHOLE
      else upstream.write_language(size.language, dtype=dtype)
    )
    origins = list(lineage(source))
    files += _companions(origins, partial, config_json, tokenizer=experiment.data.tokenizer)
  partial.rename(folder)
  return files


def tensors(
  source: str, what: str, experiment: config.Experiment, *, to_export: bool = False
) -> list[engine.Outgoing]:
  """Returns the foreign tensors that a part of a checkpoint stands for, none of them read.

  They have the names they came in, upstream's if they were trained here.

  Args:
    source: a checkpoint or a run's folder.
    what: 'whole', 'language', 'projector' or the name of an expert.
    experiment: around the model that the checkpoint is of.
    to_export: whether the names must be such that exports have.

  Raises:
    EagleError: if the checkpoint lacks a parameter of the part.
  """
  part = parts.part(eagle_lib.build(experiment.model), what)
  came_in = checkpoint.read_meta(source).get("scheme")
  known = [s for s in part.schemes if s.exported or not to_export]
  scheme = next((s for s in known if s.name == came_in), part.schemes[0])
  table = part.table(scheme)
  params = part.select(scheme, checkpoint.open_params(source), place=source)
  return engine.outgoing(table, params, carried=_carried(list(lineage(source)), table))


def lineage(folder: str) -> Iterator[pathlib.Path]:
  """Yields the folder of a checkpoint, then those it was trained from, as far as they are there."""
  yield pathlib.Path(checkpoint.resolve(folder))
  for entry in checkpoint.read_meta(folder).get("config", {}).get("start_from", ()):
    origin = str(entry).rpartition("=")[2]
    if os.path.isdir(origin):
      yield from lineage(origin)


def _carried(origins: Sequence[pathlib.Path], table: Table) -> dict[str, np.ndarray]:
  """Returns name → array [...] of what imports carried along and the table knows."""
  files = [home / CARRIED_FILE for home in origins if (home / CARRIED_FILE).is_file()]
  found: dict[str, np.ndarray] = {}
  for file in reversed(files):  # the nearest wins
    found |= safetensors.numpy.load_file(file)
  kinds = {name: (table.match(name) or (None,))[0] for name in found}
  return {name: array for name, array in found.items() if isinstance(kinds[name], Carry)}


def _companions(
  origins: Sequence[pathlib.Path],
  target: pathlib.Path,
  config_json: Mapping[str, Any],
  *,
  tokenizer: str,
) -> list[str]:
  """Puts config.json and tokenizer beside the weights, those of the import if there was one.

  Returns:
    The names of the files.
  """
  homes = [home / COMPANIONS_FOLDER for home in origins if (home / COMPANIONS_FOLDER).is_dir()]
  if homes:
    files = sorted(homes[0].iterdir())
    return [pathlib.Path(shutil.copyfile(file, target / file.name)).name for file in files]
  (target / CONFIG_FILE).write_text(json.dumps(config_json, indent=2) + "\n")
  if not os.path.isfile(tokenizer):
    return [CONFIG_FILE]
  name = "tokenizer.json" if tokenizer.endswith(".json") else "tokenizer.model"
  shutil.copyfile(tokenizer, target / name)
  return [CONFIG_FILE, name]
